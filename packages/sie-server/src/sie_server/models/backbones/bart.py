"""BART: an encoder, and a decoder that sees the same tokens one place later, and through them the encoder's.

Follows transformers 5.23 `models/bart/modeling_bart.py`, of which the decoder reads what the encoder does
(`shift_tokens_right`): both have as many tokens, so that the one attends the other as itself.
"""

import functools
import math
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from sie_server.models.backbones import post_norm
from sie_server.models.backbones.post_norm import Names, Sizes
from sie_server.models.config import activation_of, read_json, refuse_uneven_heads
from sie_server.models.ops.plan import IDS, POSITIONS, Feed, Plan
from sie_server.models.ops.protocol import Ops

X = TypeVar("X")

_UNUSED: Final = 2
"""Rows of a table of positions before the first."""

_EPSILON: Final = 1e-5

_NAMES: Final = Names(
    layer="encoder.layers",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attended="self_attn.out_proj",
    attended_norm="self_attn_layer_norm",
    wide="fc1",
    narrow="fc2",
    norm="final_layer_norm",
)


@dataclass(frozen=True)
class BartConfig:
    """What the graph needs of `config.json`.

    Attributes:
        start: the token that the decoder sees first.
        scale: of the words' table.
    """

    encoder: Sizes
    decoder: Sizes
    vocabulary: int
    positions: int
    start: int
    scale: float


class _Bart(msgspec.Struct, frozen=True):
    """The keys as they are called there; absent ones as transformers has them."""

    vocab_size: int = 50265
    d_model: int = 1024
    max_position_embeddings: int = 1024
    encoder_layers: int = 12
    encoder_attention_heads: int = 16
    encoder_ffn_dim: int = 4096
    decoder_layers: int = 12
    decoder_attention_heads: int = 16
    decoder_ffn_dim: int = 4096
    activation_function: str = "gelu"
    scale_embedding: bool = False
    decoder_start_token_id: int = 2


def read_bart(data: bytes) -> BartConfig:
    """`config.json` of a BART.

    Raises:
        LoadError: it says something this backbone does not do.
    """
    config = read_json(data, _Bart, "a BART")
    activation = activation_of(config.activation_function, "activation_function")
    refuse_uneven_heads(config.d_model, config.encoder_attention_heads, ("d_model", "encoder_attention_heads"))
    refuse_uneven_heads(config.d_model, config.decoder_attention_heads, ("d_model", "decoder_attention_heads"))

    def sizes(inner: int, heads: int, layers: int) -> Sizes:
        return Sizes(config.d_model, inner, heads, layers, _EPSILON, activation)

    return BartConfig(
        encoder=sizes(config.encoder_ffn_dim, config.encoder_attention_heads, config.encoder_layers),
        decoder=sizes(config.decoder_ffn_dim, config.decoder_attention_heads, config.decoder_layers),
        vocabulary=config.vocab_size,
        positions=config.max_position_embeddings,
        start=config.decoder_start_token_id,
        scale=math.sqrt(config.d_model) if config.scale_embedding else 1.0,
    )


def bart(ops: Ops[X], config: BartConfig, prefix: str = "") -> X:
    """The decoder's last hidden state, (T, hidden); for the arguments see `bert.bert`."""
    sizes = config.encoder

    def attend(layer: int, query: X, key: X, value: X) -> X:
        return ops.attention(query, key, value, heads=sizes.heads)

    read = _embedded(ops, config, IDS, prefix, "encoder.")
    seen = post_norm.layers(ops, sizes, _NAMES, read, prefix, attend)
    hidden = _embedded(ops, config, shifted_after(config.start), prefix, "decoder.")
    for layer in range(config.decoder.layers):
        hidden = _decoded(ops, config.decoder, hidden, seen, f"{prefix}decoder.layers.{layer}.")
    return hidden


@functools.cache
def shifted_after(start: int) -> Feed:
    """(T,) int32: of each token the one before it in its item, and `start` for the first."""
    return Feed(f"shifted_after_{start}", (-1,), np.int32, lambda plan: _shifted(plan, start))


def _shifted(plan: Plan, start: int) -> NDArray[np.int32]:
    shifted = np.roll(plan.ids, 1)
    shifted[plan.tokens.starts[:-1]] = start
    return shifted


def _embedded(ops: Ops[X], config: BartConfig, ids: Feed, prefix: str, part: str) -> X:
    at, width = prefix + part, config.encoder.hidden
    shared = prefix + "shared.weight"
    table = ops.weight(shared if ops.has(shared) else at + "embed_tokens.weight", (config.vocabulary, width))
    words = ops.gather(table, ops.feed(ids))
    if config.scale != 1:
        words = ops.multiply(words, ops.constant(np.array([config.scale], np.float32)))
    rows = (_UNUSED, _UNUSED + config.positions)
    places = ops.weight(at + "embed_positions.weight", (_UNUSED + config.positions, width), rows=rows)
    embedded = ops.add(words, ops.gather(places, ops.feed(POSITIONS)))
    return post_norm.norm(ops, embedded, at + "layernorm_embedding", width, _EPSILON)


def _decoded(ops: Ops[X], sizes: Sizes, hidden: X, seen: X, at: str) -> X:
    width = sizes.hidden
    for name, others, causal in (("self_attn", hidden, True), ("encoder_attn", seen, False)):
        query = post_norm.linear(ops, hidden, f"{at}{name}.q_proj", width, width)
        key, value = (post_norm.linear(ops, others, f"{at}{name}.{one}", width, width) for one in ("k_proj", "v_proj"))
        attended = ops.attention(query, key, value, heads=sizes.heads, causal=causal)
        made = post_norm.linear(ops, attended, f"{at}{name}.out_proj", width, width)
        hidden = post_norm.norm(ops, ops.add(made, hidden), f"{at}{name}_layer_norm", width, _EPSILON)
    wide = post_norm.linear(ops, hidden, at + "fc1", width, sizes.inner, activation=sizes.activation)
    narrow = post_norm.linear(ops, wide, at + "fc2", sizes.inner, width)
    return post_norm.norm(ops, ops.add(narrow, hidden), at + "final_layer_norm", width, _EPSILON)
