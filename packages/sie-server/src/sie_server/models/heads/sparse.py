"""A weight for each id of the vocabulary: of a masked language model's logits, or of a layer of its own.

Follows transformers 5.23 (the language model heads of BERT, DistilBERT, RoBERTa, MPNet, ModernBERT and GTE),
sentence-transformers 6.2 `sparse_encoder/modules/splade_pooling.py`, and FlagEmbedding 1.4
`inference/embedder/encoder_only/m3.py` (bge-m3's lexical weights).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import LoadError, SparseVector
from sie_server.models.heads.head import Pass, X
from sie_server.models.ops.protocol import Activation, Ops

LOGITS: Final = "vocabulary"
"""(items, vocabulary): the largest of each item's tokens, or the mean of what became of them."""

WEIGHTS: Final = "token_weights"
"""(T, 1)."""

LOGITS_BYTES: Final = 128 * 2**20
"""Most that a batch's logits may take; the graph holds about three such arrays at once."""

Floats = NDArray[np.float32]


def batch_tokens(vocabulary: int) -> int:
    """Most tokens in a batch: each has a float32 of every id, 122 KB of BERT's 30,522."""
    return max(LOGITS_BYTES // (4 * vocabulary), 1)


class _Config(msgspec.Struct, frozen=True):
    vocab_size: int
    hidden_size: int | None = None
    dim: int | None = None
    hidden_act: Activation = "gelu"
    activation: Activation = "gelu"
    classifier_activation: Activation = "gelu"
    layer_norm_eps: float = 1e-12
    norm_eps: float = 1e-5


@dataclass(frozen=True)
class _Names:
    """Of one family's head: what stands before its tensors' names, and the words' table it may share."""

    dense: str
    norm: str
    decoder: str
    bias: str
    words: str
    activation: str | None
    epsilon: str | None


_FAMILIES: Final = (
    _Names(
        "cls.predictions.transform.dense.",
        "cls.predictions.transform.LayerNorm.",
        "cls.predictions.decoder.",
        "cls.predictions.bias",
        "bert.embeddings.word_embeddings.weight",
        "hidden_act",
        "layer_norm_eps",
    ),
    _Names(
        "vocab_transform.",
        "vocab_layer_norm.",
        "vocab_projector.",
        "vocab_projector.bias",
        "distilbert.embeddings.word_embeddings.weight",
        "activation",
        None,
    ),
    *(
        _Names(
            "lm_head.dense.",
            "lm_head.layer_norm.",
            "lm_head.decoder.",
            "lm_head.bias",
            f"{name}.embeddings.word_embeddings.weight",
            None,
            "layer_norm_eps",
        )
        for name in ("roberta", "mpnet")
    ),
    *(
        _Names(
            "lm_head.dense.",
            "lm_head.norm.",
            "lm_head.decoder.",
            "lm_head.decoder.bias",
            f"{name}.embeddings.word_embeddings.weight",
            None,
            "layer_norm_eps",
        )
        for name in ("new", "gte")
    ),
    _Names(
        "head.dense.",
        "head.norm.",
        "decoder.",
        "decoder.bias",
        "model.embeddings.tok_embeddings.weight",
        "classifier_activation",
        "norm_eps",
    ),
)


@dataclass(frozen=True)
class Splade:
    """See `head.Head`; gives `Output.sparse`.

    Attributes:
        config: the transformer's `config.json`.
        twice: whether the logarithm is taken twice.
        summed: whether the tokens' are added up; else the largest counts.
    """

    config: _Config
    twice: bool
    summed: bool

    def build(self, ops: Ops[X], hidden: X) -> None:
        logits = _logits(ops, hidden, self.config)
        if not self.summed:
            ops.output(LOGITS, ops.item_max(logits))
            return
        weights = ops.activation(logits, "relu")
        for _ in range(1 + self.twice):
            weights = ops.log1p(weights)
        ops.output(LOGITS, ops.item_mean(weights))

    def read(self, done: Pass) -> Sequence[SparseVector]:
        """The largest first and the logarithm after it, which keeps the order: only positive ones need one."""
        rows = done.arrays[LOGITS][: len(done.items)]
        return [self._vector(row, tokens) for row, tokens in zip(rows, np.diff(done.starts), strict=True)]

    def _vector(self, row: Floats, tokens: int) -> SparseVector:
        indices = np.flatnonzero(row > 0).astype(np.int32)
        values = row[indices]
        if self.summed:
            return SparseVector(indices, values * np.float32(tokens), len(row))
        values = np.log1p(values)
        return SparseVector(indices, np.log1p(values) if self.twice else values, len(row))


@dataclass(frozen=True)
class Lexical:
    """See `head.Head`; gives `Output.sparse`.

    Attributes:
        source: what stands before `weight` and `bias` of its layer.
        width: of a hidden state.
        dims: size of the vocabulary.
        dropped: (n,) int32, ids that never have a weight.
    """

    source: str
    width: int
    dims: int
    dropped: NDArray[np.int32]

    def build(self, ops: Ops[X], hidden: X) -> None:
        weight, bias = ops.weight(self.source + "weight", (1, self.width)), ops.weight(self.source + "bias", (1,))
        ops.output(WEIGHTS, ops.linear(hidden, weight, bias, activation="relu"))

    def read(self, done: Pass) -> Sequence[SparseVector]:
        weights = done.per_token(WEIGHTS)[:, 0]
        return [
            self._vector(item.ids, weights[done.starts[index] : done.starts[index + 1]])
            for index, item in enumerate(done.items)
        ]

    def _vector(self, ids: NDArray[np.int32], weights: Floats) -> SparseVector:
        kept = (weights > 0) & ~np.isin(ids, self.dropped)
        indices, places = np.unique(ids[kept], return_inverse=True)
        values = np.zeros(len(indices), np.float32)
        np.maximum.at(values, places, weights[kept])
        return SparseVector(indices.astype(np.int32), values, self.dims)


def read_lexical(config: bytes, source: str, dropped: NDArray[np.int32]) -> Lexical:
    """Raises `LoadError` for a `config.json` without the sizes."""
    found = _read(config)
    return Lexical(source, found.hidden_size or 0, found.vocab_size, dropped)


def read_splade(config: bytes, *, twice: bool, pooling: Literal["max", "sum"]) -> Splade:
    """Raises `LoadError` for a `config.json` that is no language model's."""
    return Splade(_read(config), twice, summed=pooling == "sum")


def _read(config: bytes) -> _Config:
    try:
        return msgspec.json.decode(config, type=_Config)
    except msgspec.MsgspecError as error:
        raise LoadError(f"`config.json` has no sizes of a vocabulary: {error}") from error


def _logits(ops: Ops[X], hidden: X, config: _Config) -> X:
    """(T, hidden) → (T, vocabulary)."""
    names = next((one for one in _FAMILIES if _is_here(ops, one)), None)
    if names is None:
        raise LoadError("the checkpoint has no masked language model's head: `cls.predictions`, `lm_head` or the like")
    width, words = config.hidden_size or config.dim or 0, config.vocab_size
    activation: Activation = getattr(config, names.activation) if names.activation else "gelu"
    epsilon: float = getattr(config, names.epsilon) if names.epsilon else 1e-12

    def bias(name: str, size: int) -> X | None:
        return ops.weight(name, (size,)) if ops.has(name) else None

    dense = ops.weight(names.dense + "weight", (width, width))
    x = ops.linear(hidden, dense, bias(names.dense + "bias", width), activation=activation)
    x = ops.layer_norm(
        x, ops.weight(names.norm + "weight", (width,)), bias(names.norm + "bias", width), epsilon=epsilon
    )
    own = names.decoder + "weight"
    table = ops.weight(own if ops.has(own) else names.words, (words, width))
    # Where both are stored and differ, the one that is added is the decoder's.
    added = names.decoder + "bias" if ops.has(names.decoder + "bias") else names.bias
    return ops.linear(x, table, bias(added, words))


def _is_here(ops: Ops[X], names: _Names) -> bool:
    decodes = ops.has(names.decoder + "weight") or ops.has(names.words)
    return decodes and ops.has(names.dense + "weight") and ops.has(names.norm + "weight")
