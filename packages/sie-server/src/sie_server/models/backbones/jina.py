"""Jina's BERTs, second version: no positions, but less attention the farther two tokens are apart, and gated layers.

Their code is in no library. Written from the paper (Günther and others, 2023, "Jina Embeddings 2"), from that of linear
biases (Press and others, 2022), whose powers for numbers of heads that are none of two are theirs, and from how
text-embeddings-inference names and reads the tensors (`models/jina.rs`, `models/jina_code.rs`): there are two forms, of
which the second norms queries and keys and adds a layer's input twice.

A head's number for every pair of positions is held while a batch runs: for 8,192 tokens and 12 heads that is 3.2 GB.
"""

import math
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from sie_server.models.backbones import bert, post_norm
from sie_server.models.backbones.bert import BertConfig
from sie_server.models.backbones.post_norm import Sizes
from sie_server.models.calls import LoadError
from sie_server.models.config import read_json, refuse_uneven_heads
from sie_server.models.ops.plan import IDS, TYPES, Feed
from sie_server.models.ops.protocol import Activation, Ops

X = TypeVar("X")

_ALIBI: Final = "alibi"
_GATES: Final[dict[str, Activation]] = {"geglu": "gelu", "reglu": "relu"}
"""By `feed_forward_type`, what becomes of the half that gates."""

GAPS: Final = Feed("gaps", (-1, -1), np.float32, lambda plan: _gaps(plan.grid))
"""(G, G): how far two positions are apart."""


@dataclass(frozen=True)
class JinaConfig:
    """What the graph needs of `config.json`."""

    sizes: Sizes
    vocabulary: int
    types: int


class _Jina(bert.BertFile, frozen=True):
    feed_forward_type: str = "original"


def read_bert(data: bytes) -> BertConfig | JinaConfig:
    """`config.json` of a BERT, or of one of Jina's, which call themselves so.

    Raises:
        LoadError: it says something that neither backbone does.
    """
    config = read_json(data, _Jina, "a BERT")
    if config.position_embedding_type != _ALIBI:
        return bert.read_bert(data)
    if config.feed_forward_type not in _GATES:
        known = ", ".join(f"`{kind}`" for kind in _GATES)
        raise LoadError(f"`feed_forward_type` is `{config.feed_forward_type}`: supported are {known}")
    refuse_uneven_heads(config.hidden_size, config.num_attention_heads)
    sizes = Sizes(
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        heads=config.num_attention_heads,
        layers=config.num_hidden_layers,
        epsilon=config.layer_norm_eps,
        activation=_GATES[config.feed_forward_type],
    )
    return JinaConfig(sizes, vocabulary=config.vocab_size, types=config.type_vocab_size)


def bert_or_jina(ops: Ops[X], config: BertConfig | JinaConfig, prefix: str = "") -> X:
    """The last hidden state, (T, hidden); for the arguments see `bert.bert`."""
    return bert.bert(ops, config, prefix) if isinstance(config, BertConfig) else _jina(ops, config, prefix)


def pair_bytes(config: BertConfig | JinaConfig) -> int:
    """Measured 4.9 a head, for 4,096 tokens: the bias itself, and what is made of it."""
    return 6 * config.sizes.heads if isinstance(config, JinaConfig) else 0


def slopes(heads: int) -> NDArray[np.float32]:
    """(heads,): what a step farther costs in each head: 2^(-8/n), its square and so on; of n that is no power of two,
    those of the one below it, and then every other one of the one above."""
    below = 2 ** math.floor(math.log2(heads))
    first = [2.0 ** (-8 * (step + 1) / below) for step in range(below)]
    between = [2.0 ** (-4 * (step + 1) / below) for step in range(0, 2 * below, 2)]
    return np.array([*first, *between][:heads], np.float32)


def _gaps(grid: int) -> NDArray[np.float32]:
    at = np.arange(grid, dtype=np.float32)
    gaps: NDArray[np.float32] = np.abs(at[:, None] - at)
    return gaps


def _jina(ops: Ops[X], config: JinaConfig, prefix: str) -> X:
    sizes, width = config.sizes, config.sizes.hidden
    hidden = _embedded(ops, config, prefix + "embeddings.")
    bias = ops.multiply(ops.feed(GAPS), ops.constant(-slopes(sizes.heads)[:, None, None]))
    for layer in range(sizes.layers):
        at = f"{prefix}encoder.layer.{layer}."
        seen = _attended(ops, sizes, hidden, bias, at + "attention.")
        if ops.has(at + "mlp.up_gated_layer.weight"):
            seen = post_norm.norm(ops, ops.add(seen, hidden), at + "layer_norm_1", width, sizes.epsilon)
            gated = _gated(ops, sizes, seen, at + "mlp.up_gated_layer.weight", gate_first=False)
            narrow, norm = at + "mlp.down_layer", at + "layer_norm_2"
        else:
            gated = _gated(ops, sizes, seen, at + "mlp.gated_layers.weight", gate_first=True)
            narrow, norm = at + "mlp.wo", at + "mlp.layernorm"
        made = post_norm.linear(ops, gated, narrow, sizes.inner, width)
        hidden = post_norm.norm(ops, ops.add(made, seen), norm, width, sizes.epsilon)
    return hidden


def _embedded(ops: Ops[X], config: JinaConfig, at: str) -> X:
    width = config.sizes.hidden
    embedded = ops.gather(ops.weight(at + "word_embeddings.weight", (config.vocabulary, width)), ops.feed(IDS))
    if config.types:
        types = ops.weight(at + "token_type_embeddings.weight", (config.types, width))
        types_of = ops.feed(TYPES) if config.types > 1 else ops.constant(np.zeros(1, np.int32))
        embedded = ops.add(embedded, ops.gather(types, types_of))
    return post_norm.norm(ops, embedded, at + "LayerNorm", width, config.sizes.epsilon)


def _attended(ops: Ops[X], sizes: Sizes, hidden: X, bias: X, at: str) -> X:
    width = sizes.hidden
    query, key, value = (
        post_norm.linear(ops, hidden, f"{at}self.{name}", width, width) for name in ("query", "key", "value")
    )
    if ops.has(at + "self.layer_norm_q.weight"):
        query = post_norm.norm(ops, query, at + "self.layer_norm_q", width, sizes.epsilon)
        key = post_norm.norm(ops, key, at + "self.layer_norm_k", width, sizes.epsilon)
    seen = ops.attention(query, key, value, heads=sizes.heads, bias=bias)
    made = post_norm.linear(ops, seen, at + "output.dense", width, width)
    return post_norm.norm(ops, ops.add(made, hidden), at + "output.LayerNorm", width, sizes.epsilon)


def _gated(ops: Ops[X], sizes: Sizes, x: X, name: str, *, gate_first: bool) -> X:
    inner, shape = sizes.inner, (2 * sizes.inner, sizes.hidden)
    halves = [(0, inner), (inner, 2 * inner)]
    gate, plain = halves if gate_first else halves[::-1]
    return ops.multiply(
        ops.linear(x, ops.weight(name, shape, rows=gate), activation=sizes.activation),
        ops.linear(x, ops.weight(name, shape, rows=plain)),
    )
