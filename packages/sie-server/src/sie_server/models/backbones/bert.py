"""BERT and its kin: learned positions, full attention, post-norm.

Follows transformers 5.23 `modeling_bert.py`, `modeling_roberta.py` (and XLM-RoBERTa's and CamemBERT's, which are
the same), `modeling_distilbert.py` and `modeling_electra.py`; without the poolers, which are heads' business.
"""

import functools
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from sie_server.models.backbones import post_norm
from sie_server.models.backbones.post_norm import Names, Sizes
from sie_server.models.calls import LoadError
from sie_server.models.config import activation_of, read_json, refuse_decoder, refuse_uneven_heads
from sie_server.models.ops.plan import IDS, POSITIONS, TYPES, Feed, Plan
from sie_server.models.ops.protocol import Ops

X = TypeVar("X")

_DISTILBERT: Final = Names(
    layer="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attended="attention.out_lin",
    attended_norm="sa_layer_norm",
    wide="ffn.lin1",
    narrow="ffn.lin2",
    norm="output_layer_norm",
)


@dataclass(frozen=True)
class BertConfig:
    """What the graph needs of `config.json`.

    Attributes:
        embedding: width of the embeddings; where it is not the hidden states', a linear layer makes it so.
        types: of tokens; 0 where there are none.
        second_type: whether the second text of a pair has a type of its own.
        padding: the id after which positions begin to be counted; None where they are counted from 0.
    """

    sizes: Sizes
    names: Names
    vocabulary: int
    embedding: int
    positions: int
    types: int
    second_type: bool
    padding: int | None


class BertFile(msgspec.Struct, frozen=True):
    """The keys as they are called there; absent ones as transformers has them."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    position_embedding_type: str = "absolute"
    is_decoder: bool = False


class _XlmRoberta(BertFile, frozen=True):
    pad_token_id: int = 1


class _Roberta(_XlmRoberta, frozen=True):
    vocab_size: int = 50265


class _Electra(BertFile, frozen=True):
    embedding_size: int = 128
    hidden_size: int = 256
    num_attention_heads: int = 4
    intermediate_size: int = 1024


class _DistilBert(msgspec.Struct, frozen=True):
    vocab_size: int = 30522
    dim: int = 768
    n_layers: int = 6
    n_heads: int = 12
    hidden_dim: int = 4 * 768
    activation: str = "gelu"
    max_position_embeddings: int = 512


def read_bert(data: bytes) -> BertConfig:
    """`config.json` of a BERT.

    Raises:
        LoadError: it says something this backbone does not do; `read_roberta` and the others likewise.
    """
    return _config(read_json(data, BertFile, "a BERT"))


def read_roberta(data: bytes) -> BertConfig:
    """`config.json` of a RoBERTa."""
    return _roberta(read_json(data, _Roberta, "a RoBERTa"))


def read_xlm_roberta(data: bytes) -> BertConfig:
    """`config.json` of an XLM-RoBERTa or a CamemBERT."""
    return _roberta(read_json(data, _XlmRoberta, "an XLM-RoBERTa"))


def read_electra(data: bytes) -> BertConfig:
    """`config.json` of an ELECTRA's discriminator."""
    config = read_json(data, _Electra, "an ELECTRA")
    return _config(config, embedding=config.embedding_size)


def read_distilbert(data: bytes) -> BertConfig:
    """`config.json` of a DistilBERT."""
    config = read_json(data, _DistilBert, "a DistilBERT")
    refuse_uneven_heads(config.dim, config.n_heads, ("dim", "n_heads"))
    sizes = Sizes(
        hidden=config.dim,
        inner=config.hidden_dim,
        heads=config.n_heads,
        layers=config.n_layers,
        epsilon=1e-12,
        activation=activation_of(config.activation, "activation"),
    )
    return BertConfig(
        sizes,
        _DISTILBERT,
        vocabulary=config.vocab_size,
        embedding=config.dim,
        positions=config.max_position_embeddings,
        types=0,
        second_type=False,
        padding=None,
    )


def bert(ops: Ops[X], config: BertConfig, prefix: str = "") -> X:
    """The last hidden state, (T, hidden).

    Args:
        prefix: what stands before every tensor's name: checkpoints of models with a task's head have `bert.`.
    """
    sizes = config.sizes

    def attend(layer: int, query: X, key: X, value: X) -> X:
        return ops.attention(query, key, value, heads=sizes.heads)

    return post_norm.layers(ops, sizes, config.names, _embedded(ops, config, prefix), prefix, attend)


@functools.cache
def positions_after(padding: int) -> Feed:
    """(T,) int32: positions counted from `padding` + 1 over an item's tokens, but for those that are the padding's id.

    Follows `create_position_ids_from_input_ids` of transformers: a text may have the padding token written in it.
    """
    return Feed(f"positions_after_{padding}", (-1,), np.int32, lambda plan: _positions(plan, padding))


def _positions(plan: Plan, padding: int) -> NDArray[np.int32]:
    tokens, starts = len(plan.tokens.ids), plan.tokens.starts
    counts = plan.tokens.ids != padding
    running = np.concatenate(([0], np.cumsum(counts)))
    before = np.repeat(running[starts[:-1]], np.diff(starts))
    positions = np.full(len(plan.ids), padding, np.int32)
    positions[:tokens] += ((running[1:] - before) * counts).astype(np.int32)
    return positions


def _config(config: BertFile, *, embedding: int | None = None, second_type: bool = True) -> BertConfig:
    if config.position_embedding_type != "absolute":
        raise LoadError(f"`position_embedding_type` is `{config.position_embedding_type}`: supported is `absolute`")
    refuse_decoder(config.is_decoder)
    refuse_uneven_heads(config.hidden_size, config.num_attention_heads)
    sizes = Sizes(
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        heads=config.num_attention_heads,
        layers=config.num_hidden_layers,
        epsilon=config.layer_norm_eps,
        activation=activation_of(config.hidden_act),
    )
    return BertConfig(
        sizes,
        post_norm.BERT,
        vocabulary=config.vocab_size,
        embedding=config.hidden_size if embedding is None else embedding,
        positions=config.max_position_embeddings,
        types=config.type_vocab_size,
        second_type=second_type and config.type_vocab_size > 1,
        padding=config.pad_token_id if isinstance(config, _XlmRoberta) else None,
    )


def _roberta(config: _XlmRoberta) -> BertConfig:
    # Their tokenizers name no types: transformers passes none, whatever the pair's template says.
    return _config(config, second_type=False)


def _embedded(ops: Ops[X], config: BertConfig, prefix: str) -> X:
    at, width = prefix + "embeddings.", config.embedding
    words = ops.weight(at + "word_embeddings.weight", (config.vocabulary, width))
    embedded = ops.gather(words, ops.feed(IDS))
    if config.types:
        types = ops.weight(at + "token_type_embeddings.weight", (config.types, width))
        type_ids = ops.feed(TYPES) if config.second_type else ops.constant(np.zeros(1, np.int32))
        embedded = ops.add(embedded, ops.gather(types, type_ids))
    positions = ops.weight(at + "position_embeddings.weight", (config.positions, width))
    places = ops.feed(POSITIONS if config.padding is None else positions_after(config.padding))
    embedded = ops.add(embedded, ops.gather(positions, places))
    normed = post_norm.norm(ops, embedded, at + "LayerNorm", width, config.sizes.epsilon)
    hidden = config.sizes.hidden
    return normed if width == hidden else post_norm.linear(ops, normed, prefix + "embeddings_project", width, hidden)
