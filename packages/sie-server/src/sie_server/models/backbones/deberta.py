"""DeBERTa, second and third version: attention to what a token is and, apart from it, to where it stands.

Follows transformers 5.23 `models/deberta_v2/modeling_deberta_v2.py`, without its pooler. A query is compared
with the distance to a key (c2p), and a key with the distance from a query (p2c); distances are rows of one
table, the far ones grouped by their logarithm.
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
from sie_server.models.config import activation_of, read_json, refuse_uneven_heads
from sie_server.models.ops.plan import IDS, POSITIONS, TYPES, Feed, distances
from sie_server.models.ops.protocol import Ops, Relative

X = TypeVar("X")

_NAMES: Final = Names(
    layer="encoder.layer",
    query="attention.self.query_proj",
    key="attention.self.key_proj",
    value="attention.self.value_proj",
    attended="attention.output.dense",
    attended_norm="attention.output.LayerNorm",
    wide="intermediate.dense",
    narrow="output.dense",
    norm="output.LayerNorm",
)
_KINDS: Final = ("c2p", "p2c")


@dataclass(frozen=True)
class DebertaConfig:
    """What the graph needs of `config.json`.

    Attributes:
        embedding: width of the embeddings; where it is not the hidden states', a linear layer makes it so.
        positions: rows of the table of positions that are added to the embeddings; 0: there is none.
        types: of tokens; 0 where there are none.
        relative: `c2p`, `p2c`, both or neither.
        parts: into how many the scale divides: what a token is, and each of `pos_att_type`.
        span: distances to either side that have a row.
        farthest: the distance that would have the last row, if it had one to itself; 0: rows are not grouped.
        shared: whether distances go through the layers that tokens do.
        normed: whether the table of distances is normed.
    """

    sizes: Sizes
    vocabulary: int
    embedding: int
    positions: int
    types: int
    relative: tuple[str, ...]
    parts: int
    span: int
    farthest: int
    shared: bool
    normed: bool


class _Deberta(msgspec.Struct, frozen=True):
    """The keys as they are called there; absent ones as transformers has them."""

    vocab_size: int = 128100
    hidden_size: int = 1536
    num_hidden_layers: int = 24
    num_attention_heads: int = 24
    intermediate_size: int = 6144
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 0
    layer_norm_eps: float = 1e-7
    relative_attention: bool = False
    max_relative_positions: int = -1
    position_biased_input: bool = True
    pos_att_type: str | list[str] | None = None
    position_buckets: int = -1
    share_att_key: bool = False
    norm_rel_ebd: str = "none"
    conv_kernel_size: int = 0
    embedding_size: int | None = None
    attention_head_size: int | None = None


def read_deberta(data: bytes) -> DebertaConfig:
    """`config.json` of a DeBERTa-v2 or v3.

    Raises:
        LoadError: it says something this backbone does not do.
    """
    config = read_json(data, _Deberta, "a DeBERTa-v2")
    kinds = _kinds(config)
    _refuse(config)
    farthest = config.max_relative_positions if config.max_relative_positions > 0 else config.max_position_embeddings
    grouped = config.position_buckets > 0
    sizes = Sizes(
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        heads=config.num_attention_heads,
        layers=config.num_hidden_layers,
        epsilon=config.layer_norm_eps,
        activation=activation_of(config.hidden_act),
    )
    return DebertaConfig(
        sizes,
        vocabulary=config.vocab_size,
        embedding=config.hidden_size if config.embedding_size is None else config.embedding_size,
        positions=config.max_position_embeddings if config.position_biased_input else 0,
        types=config.type_vocab_size,
        relative=kinds if config.relative_attention else (),
        parts=1 + len(kinds),
        span=config.position_buckets if grouped else farthest,
        farthest=farthest if grouped else 0,
        shared=config.share_att_key,
        normed="layer_norm" in [part.strip() for part in config.norm_rel_ebd.lower().split("|")],
    )


def deberta(ops: Ops[X], config: DebertaConfig, prefix: str = "") -> X:
    """The last hidden state, (T, hidden); for the arguments see `bert.bert`."""
    sizes = config.sizes
    scale = (sizes.hidden // sizes.heads * config.parts) ** -0.5
    relative = _relative(ops, config, prefix, scale) if config.relative else [None] * sizes.layers

    def attend(layer: int, query: X, key: X, value: X) -> X:
        return ops.attention(query, key, value, heads=sizes.heads, scale=scale, relative=relative[layer])

    return post_norm.layers(ops, sizes, _NAMES, _embedded(ops, config, prefix), prefix, attend)


@functools.cache
def rows_of(span: int, farthest: int) -> Feed:
    """(2 G,) int32: the row of every distance, as `plan.distances` has them."""

    def make(grid: int) -> NDArray[np.int32]:
        apart = bucket(distances(grid), span, farthest) if farthest else distances(grid)
        return np.clip(apart + span, 0, 2 * span - 1).astype(np.int32)

    return Feed(f"deberta_rows_{span}_{farthest}", (-1,), np.int32, lambda plan: make(plan.grid))


def bucket(distance: NDArray[np.int32], buckets: int, farthest: int) -> NDArray[np.int32]:
    """Distances to one side up to half of `buckets` as they are, farther ones by their logarithm.

    In float32, as torch has it: elsewhere a distance at a limit may be sorted into the next.
    """
    middle = buckets // 2
    size = np.maximum(np.abs(distance), max(middle - 1, 1)).astype(np.float32)
    whole = np.log(np.float32((farthest - 1) / middle))
    far = np.ceil(np.log(size / np.float32(middle)) / whole * np.float32(middle - 1)) + np.float32(middle)
    near = np.abs(distance) <= middle
    found: NDArray[np.int32] = np.where(near, distance, far * np.sign(distance)).astype(np.int32)
    return found


def made_bytes(config: DebertaConfig) -> int:
    """Of the tables of distances, in float32: one a layer and kind."""
    sizes = config.sizes
    return 4 * sizes.layers * len(config.relative) * 2 * config.span * sizes.hidden


def pair_bytes(config: DebertaConfig) -> int:
    """Measured 24.4 a head: twice as many distances as positions, of each kind, and their sum."""
    return 28 * config.sizes.heads if config.relative else 0


def _embedded(ops: Ops[X], config: DebertaConfig, prefix: str) -> X:
    at, width, sizes = prefix + "embeddings.", config.embedding, config.sizes
    embedded = ops.gather(ops.weight(at + "word_embeddings.weight", (config.vocabulary, width)), ops.feed(IDS))
    if config.positions:
        positions = ops.weight(at + "position_embeddings.weight", (config.positions, width))
        embedded = ops.add(embedded, ops.gather(positions, ops.feed(POSITIONS)))
    if config.types:
        types = ops.weight(at + "token_type_embeddings.weight", (config.types, width))
        types_of = ops.feed(TYPES) if config.types > 1 else ops.constant(np.zeros(1, np.int32))
        embedded = ops.add(embedded, ops.gather(types, types_of))
    if width != sizes.hidden:
        embedded = ops.linear(embedded, ops.weight(at + "embed_proj.weight", (sizes.hidden, width)))
    return post_norm.norm(ops, embedded, at + "LayerNorm", sizes.hidden, sizes.epsilon)


def _relative(ops: Ops[X], config: DebertaConfig, prefix: str, scale: float) -> list[Relative[X] | None]:
    """Every layer's; what the distances are as keys and queries does not depend on a batch."""
    sizes = config.sizes
    table = ops.weight(prefix + "encoder.rel_embeddings.weight", (2 * config.span, sizes.hidden))
    names = {"c2p": "key_proj", "p2c": "query_proj"}

    def project(table: X) -> list[X]:
        if config.normed:
            table = post_norm.norm(ops, table, prefix + "encoder.LayerNorm", sizes.hidden, sizes.epsilon)
        factor = ops.constant(np.array([scale], np.float32))
        made = []
        for layer in range(sizes.layers):
            for kind in config.relative:
                name = names[kind] if config.shared else "pos_" + names[kind]
                at = f"{prefix}encoder.layer.{layer}.attention.self.{name}"
                made.append(ops.multiply(post_norm.linear(ops, table, at, sizes.hidden, sizes.hidden), factor))
        return made

    made = iter(ops.once(table, project))
    rows = rows_of(config.span, config.farthest)
    of_layers: list[Relative[X] | None] = []
    for _ in range(sizes.layers):
        found = {kind: next(made) for kind in config.relative}
        of_layers.append(Relative(rows, keys=found.get("c2p"), queries=found.get("p2c")))
    return of_layers


def _kinds(config: _Deberta) -> tuple[str, ...]:
    said = config.pos_att_type
    kinds = [part.strip() for part in said.lower().split("|")] if isinstance(said, str) else said or []
    unknown = [kind for kind in kinds if kind not in _KINDS]
    if unknown:
        raise LoadError(f"`pos_att_type` has `{unknown[0]}`: supported are `c2p` and `p2c`")
    return tuple(kind for kind in _KINDS if kind in kinds)


def _refuse(config: _Deberta) -> None:
    refuse_uneven_heads(config.hidden_size, config.num_attention_heads)
    if config.conv_kernel_size > 0:
        raise LoadError(f"`conv_kernel_size` is {config.conv_kernel_size}: supported are models without a convolution")
    size = config.hidden_size // config.num_attention_heads
    if config.attention_head_size not in (None, size):
        raise LoadError(f"`attention_head_size` is {config.attention_head_size}: supported is {size}, a head's share")
