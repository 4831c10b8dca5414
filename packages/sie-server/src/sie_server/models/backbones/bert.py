"""BERT: learned positions, post-norm, full attention.

Follows transformers 5.23 `models/bert/modeling_bert.py` (`BertModel`, without its pooler, which
sentence vectors do not use).
"""

from typing import TypeVar

import msgspec

from sie_server.models.calls import LoadError
from sie_server.models.ops.plan import IDS, POSITIONS, TYPES
from sie_server.models.ops.protocol import Activation, Ops

X = TypeVar("X")


class BertConfig(msgspec.Struct, frozen=True):
    """What the graph needs of `config.json`, under the names it has there."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_hidden_layers: int
    vocab_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    hidden_act: Activation
    position_embedding_type: str = "absolute"
    is_decoder: bool = False


def read_config(data: bytes) -> BertConfig:
    """`config.json` of a BERT.

    Raises:
        LoadError: a key is missing, or says something this backbone does not do.
    """
    try:
        config = msgspec.json.decode(data, type=BertConfig)
    except msgspec.MsgspecError as error:
        raise LoadError(f"`config.json` is not that of a BERT: {error}") from error
    if config.position_embedding_type != "absolute":
        raise LoadError(f"`position_embedding_type` is `{config.position_embedding_type}`: supported is `absolute`")
    if config.is_decoder:
        raise LoadError("`is_decoder` is true: supported are encoders")
    width, heads = config.hidden_size, config.num_attention_heads
    if heads < 1 or width % heads:
        raise LoadError(f"`hidden_size` is {width}, which is not a multiple of `num_attention_heads`, {heads}")
    return config


def bert(ops: Ops[X], config: BertConfig, prefix: str = "") -> X:
    """The last hidden state, (T, hidden).

    Args:
        prefix: what stands before every tensor's name: checkpoints of models with a task's head have `bert.`.
    """
    hidden = _embeddings(ops, config, prefix + "embeddings.")
    for layer in range(config.num_hidden_layers):
        hidden = _layer(ops, config, hidden, f"{prefix}encoder.layer.{layer}.")
    return hidden


def _embeddings(ops: Ops[X], config: BertConfig, at: str) -> X:
    width = config.hidden_size
    words = ops.weight(at + "word_embeddings.weight", (config.vocab_size, width))
    positions = ops.weight(at + "position_embeddings.weight", (config.max_position_embeddings, width))
    types = ops.weight(at + "token_type_embeddings.weight", (config.type_vocab_size, width))
    typed = ops.add(ops.gather(words, ops.feed(IDS)), ops.gather(types, ops.feed(TYPES)))
    placed = ops.add(typed, ops.gather(positions, ops.feed(POSITIONS)))
    return _norm(ops, config, placed, at + "LayerNorm")


def _layer(ops: Ops[X], config: BertConfig, hidden: X, at: str) -> X:
    width, inner = config.hidden_size, config.intermediate_size
    query, key, value = (
        _linear(ops, hidden, f"{at}attention.self.{name}", width, width) for name in ("query", "key", "value")
    )
    seen = ops.attention(query, key, value, heads=config.num_attention_heads)
    seen = _linear(ops, seen, at + "attention.output.dense", width, width)
    hidden = _norm(ops, config, ops.add(seen, hidden), at + "attention.output.LayerNorm")
    wide = _linear(ops, hidden, at + "intermediate.dense", width, inner, activation=config.hidden_act)
    narrow = _linear(ops, wide, at + "output.dense", inner, width)
    return _norm(ops, config, ops.add(narrow, hidden), at + "output.LayerNorm")


def _linear(ops: Ops[X], x: X, at: str, inputs: int, outputs: int, *, activation: Activation | None = None) -> X:
    weight, bias = ops.weight(at + ".weight", (outputs, inputs)), ops.weight(at + ".bias", (outputs,))
    return ops.linear(x, weight, bias, activation=activation)


def _norm(ops: Ops[X], config: BertConfig, x: X, at: str) -> X:
    width = (config.hidden_size,)
    weight, bias = ops.weight(at + ".weight", width), ops.weight(at + ".bias", width)
    return ops.layer_norm(x, weight, bias, epsilon=config.layer_norm_eps)
