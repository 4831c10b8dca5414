"""MPNet: BERT's layers, and a number for each distance between two tokens that is added to what they are to each other.

Follows transformers 5.23 `models/mpnet/modeling_mpnet.py`, without its pooler.
"""

from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from sie_server.models.backbones import post_norm
from sie_server.models.backbones.bert import positions_after
from sie_server.models.backbones.post_norm import Names, Sizes
from sie_server.models.calls import LoadError
from sie_server.models.config import activation_of, read_json, refuse_uneven_heads
from sie_server.models.ops.plan import IDS, Feed, distances
from sie_server.models.ops.protocol import Ops

X = TypeVar("X")

_NAMES: Final = Names(
    layer="encoder.layer",
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    attended="attention.attn.o",
    attended_norm="attention.LayerNorm",
    wide="intermediate.dense",
    narrow="output.dense",
    norm="output.LayerNorm",
)

PADDING: Final = 1
"""Positions are counted from the one after it, whatever `pad_token_id` says."""

_BUCKETS: Final = 32
_FARTHEST: Final = 128
"""Distances from here on are one bucket."""


@dataclass(frozen=True)
class MPNetConfig:
    """What the graph needs of `config.json`."""

    sizes: Sizes
    vocabulary: int
    positions: int


class _MPNet(msgspec.Struct, frozen=True):
    vocab_size: int = 30527
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-12
    relative_attention_num_buckets: int = _BUCKETS


def read_mpnet(data: bytes) -> MPNetConfig:
    """`config.json` of an MPNet.

    Raises:
        LoadError: it says something this backbone does not do.
    """
    config = read_json(data, _MPNet, "an MPNet")
    refuse_uneven_heads(config.hidden_size, config.num_attention_heads)
    if config.relative_attention_num_buckets != _BUCKETS:
        # transformers sorts into this many, however long the table is.
        found = config.relative_attention_num_buckets
        raise LoadError(f"`relative_attention_num_buckets` is {found}: supported is {_BUCKETS}")
    sizes = Sizes(
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        heads=config.num_attention_heads,
        layers=config.num_hidden_layers,
        epsilon=config.layer_norm_eps,
        activation=activation_of(config.hidden_act),
    )
    return MPNetConfig(sizes, vocabulary=config.vocab_size, positions=config.max_position_embeddings)


def pair_bytes(config: MPNetConfig) -> int:
    """Measured 8.8 a head, for 4,096 tokens: the bias, and that with the mask."""
    return 10 * config.sizes.heads


def mpnet(ops: Ops[X], config: MPNetConfig, prefix: str = "") -> X:
    """The last hidden state, (T, hidden); for the arguments see `bert.bert`."""
    sizes, at = config.sizes, prefix + "embeddings."
    words = ops.weight(at + "word_embeddings.weight", (config.vocabulary, sizes.hidden))
    positions = ops.weight(at + "position_embeddings.weight", (config.positions, sizes.hidden))
    placed = ops.add(ops.gather(words, ops.feed(IDS)), ops.gather(positions, ops.feed(positions_after(PADDING))))
    hidden = post_norm.norm(ops, placed, at + "LayerNorm", sizes.hidden, sizes.epsilon)
    table = ops.weight(prefix + "encoder.relative_attention_bias.weight", (_BUCKETS, sizes.heads))
    bias = ops.distance_bias(table, BUCKETS)

    def attend(layer: int, query: X, key: X, value: X) -> X:
        return ops.attention(query, key, value, heads=sizes.heads, bias=bias)

    return post_norm.layers(ops, sizes, _NAMES, hidden, prefix, attend)


def bucket(distance: NDArray[np.int32]) -> NDArray[np.int32]:
    """Which number stands for a distance, a query's position less a key's: of each sign half of them.

    The near ones have each their own, the far ones are grouped by their logarithm, in float32 as torch has it.
    """
    half = _BUCKETS // 2
    exact = half // 2
    size = np.abs(distance)
    scale = np.float32(np.log(_FARTHEST / exact))
    apart = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact)) / scale * np.float32(half - exact)
    far = np.minimum(exact + apart.astype(np.int32), half - 1)
    found: NDArray[np.int32] = np.where(size < exact, size, far) + np.where(distance < 0, half, 0).astype(np.int32)
    return found


BUCKETS: Final = Feed("mpnet_buckets", (-1,), np.int32, lambda plan: bucket(distances(plan.grid)))
"""(2 G,): the bucket of every distance, as `plan.distances` has them."""
