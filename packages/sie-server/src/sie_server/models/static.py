"""Models of static embeddings: a text's vector is the mean of its tokens' rows in a table. No graph, no engine.

Follows model2vec 0.10 `model.py`, whose tables are called `embeddings`: unknown tokens do not count, and a text is cut
by its characters before its tokens are; and sentence-transformers 6.2
`sentence_transformer/modules/static_embedding.py`, whose tables are called `embedding.weight`: they do, and it is not.
Rows are added up in float64, which costs nothing beside finding them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sie_core.catalog.derive import Derived
from sie_server.models.calls import LoadError, Precision
from sie_server.models.checkpoint import Checkpoint, Weight, open_checkpoint
from sie_server.models.choosing import prompts_of
from sie_server.models.cutting import AT_ONCE, parts, slices
from sie_server.models.heads.features import FEATURES, Features
from sie_server.models.model import LoadedModel, OneNetwork
from sie_server.models.ops.plan import Plan
from sie_server.models.tasks.encode import EncodeTexts
from sie_server.models.tokenizing import FILE, Tokenized

Ids = NDArray[np.int32]

_MODEL2VEC: Final = "embeddings"
_SENTENCE_TRANSFORMERS: Final = "embedding.weight"
_GATHERED_BYTES: Final = 16 * 2**20
"""Of rows that are in memory at once: a text of 64 MB has 16 GB of them."""

_NO_TOKEN: Final = -1
"""Stands in a text that has none: every sequence has a token."""


class StaticTokenizer:
    """Texts to rows of the table; any number of threads may call it at once.

    Args:
        max_tokens: of a text.
        as_model2vec: whether unknown tokens are left out, and characters cut off first.
    """

    def __init__(self, tokenizer: Any, *, max_tokens: int, as_model2vec: bool) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        self._unknown = _unknown(tokenizer) if as_model2vec else None
        characters = int(np.median([len(token) for token in tokenizer.get_vocab()])) * max_tokens
        self._characters = characters if as_model2vec else None

    @property
    def vocabulary(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def __call__(self, texts: Sequence[str]) -> list[Tokenized]:
        """Without special tokens; `_NO_TOKEN` for a text that has none."""
        cut = [text[: self._characters] for text in texts]
        short = [text for text in cut if len(text) <= AT_ONCE]
        encoded = (
            (np.array(encoding.ids, np.int32), bool(encoding.overflowing))
            for some in slices(short, characters=AT_ONCE, size=len)
            for encoding in self._tokenizer.encode_batch_fast(some, add_special_tokens=False)
        )
        found = [next(encoded) if len(text) <= AT_ONCE else self._in_parts(text) for text in cut]
        return [
            self._tokenized(ids, truncated=over or len(kept) < len(text))
            for (ids, over), kept, text in zip(found, cut, texts, strict=True)
        ]

    def _in_parts(self, text: str) -> tuple[Ids, bool]:
        """A long text's ids, and whether it has more."""
        found: list[Ids] = []
        left = self._max_tokens
        for part in parts(text, characters=AT_ONCE):
            (encoding,) = self._tokenizer.encode_batch_fast([part], add_special_tokens=False)
            found.append(np.array(encoding.ids[:left], np.int32))
            if encoding.overflowing or len(encoding.ids) > left:
                return np.concatenate(found), True
            left -= len(encoding.ids)
        return np.concatenate(found), False

    def _tokenized(self, ids: Ids, *, truncated: bool) -> Tokenized:
        if self._unknown is not None:
            ids = ids[ids != self._unknown]
        if not len(ids):
            ids = np.array([_NO_TOKEN], np.int32)
        return Tokenized(ids, truncated)


class StaticTable:
    """See `model.Network`: the rows' means, computed where they lie in the mapped file.

    Args:
        rows: (rows, dim), or of one row for each token where there is no `mapping`.
        mapping: (tokens,), which row a token has; None: its own.
        weights: (tokens,) float32, what its row is multiplied with; None: nothing.
    """

    def __init__(
        self, rows: Weight, mapping: NDArray[np.integer[Any]] | None, weights: NDArray[np.float32] | None
    ) -> None:
        self._rows, self._mapping, self._weights = rows, mapping, weights

    @property
    def precision(self) -> Precision:
        return "f32"

    @property
    def memory_bytes(self) -> int:
        return 0

    def run(self, plan: Plan, *, stream: int) -> Mapping[str, NDArray[np.float32]]:
        """`FEATURES`, (S, dim): nothing but zeros of a text without tokens."""
        ids, starts = plan.tokens.ids, plan.tokens.starts
        dim = self._rows.array.shape[1]
        sums = np.zeros((len(starts) - 1, dim), np.float64)
        step = max(1, _GATHERED_BYTES // (4 * dim))
        for first in range(0, len(ids), step):
            some = ids[first : first + step]
            # The items that have tokens among these.
            low = int(np.searchsorted(starts, first, side="right")) - 1
            high = int(np.searchsorted(starts, first + len(some), side="left"))
            begins = np.maximum(starts[low:high] - first, 0)
            sums[low:high] += np.add.reduceat(self._gathered(some), begins, axis=0, dtype=np.float64)
        return {FEATURES: (sums / plan.tokens.lengths[:, None]).astype(np.float32)}

    def _gathered(self, ids: Ids) -> NDArray[np.float32]:
        is_token = ids != _NO_TOKEN
        ids = np.where(is_token, ids, 0)
        rows = _as_float32(self._rows, ids if self._mapping is None else self._mapping[ids])
        if self._weights is not None:
            rows = rows * self._weights[ids][:, None]
        return rows if is_token.all() else rows * is_token[:, None]

    def settle(self) -> None:
        """It is as fast as it will be."""

    def close(self) -> None:
        """The map goes with the last view of it."""


def load_static(derived: Derived, folder: Path) -> LoadedModel:
    """The model.

    Args:
        folder: where the table and the tokenizer are.

    Raises:
        LoadError: there is no such table, or it does not fit the tokenizer or the spec.
    """
    spec, checkpoint = derived.given, open_checkpoint(folder)
    name = next((one for one in (_MODEL2VEC, _SENTENCE_TRANSFORMERS) if one in checkpoint), _MODEL2VEC)
    shape = checkpoint.shape(name)
    if len(shape) != 2:
        raise LoadError(f"`{name}` in `{folder}` is {list(shape)}: want one vector for each token")
    dim = min(shape[1], derived.truncate_dim or shape[1])
    if spec.dense is not None and spec.dense.dim not in (None, dim):
        raise LoadError(f"`dense.dim` is {spec.dense.dim}, `{name}` in `{folder}` makes vectors of {dim}")
    tokenizer = StaticTokenizer(_tokenizer(folder), max_tokens=derived.max_tokens, as_model2vec=name == _MODEL2VEC)
    table = _table(checkpoint, name, shape, tokenizer.vocabulary)
    normalize = derived.dense is not None and bool(derived.dense.normalize)
    return LoadedModel(
        name=spec.id,
        dims={"dense": dim},
        max_tokens=derived.max_tokens,
        text=OneNetwork(table, {"dense": Features(derived.truncate_dim, derived.rescaled)}),
        tasks={"encode": EncodeTexts(spec.id, {"dense": dim}, tokenizer, prompts_of(derived), normalize)},
    )


def _table(checkpoint: Checkpoint, name: str, shape: tuple[int, ...], vocabulary: int) -> StaticTable:
    mapping, weights = None, None
    if "mapping" in checkpoint:
        mapping = checkpoint.integers("mapping", (vocabulary,))
        if not 0 <= mapping.min() <= mapping.max() < shape[0]:
            raise LoadError(f"`mapping` names the rows {mapping.min()} to {mapping.max()}, `{name}` has {shape[0]}")
    elif shape[0] < vocabulary:
        raise LoadError(f"`{name}` has {shape[0]} vectors, and the tokenizer {vocabulary} tokens")
    if "weights" in checkpoint:
        weights = _as_float32(checkpoint.weight("weights", (vocabulary,)), slice(None))
    return StaticTable(checkpoint.weight(name, shape), mapping, weights)


def _tokenizer(folder: Path) -> Any:
    path = folder / FILE
    if not path.is_file():
        raise LoadError(f"no `{FILE}` in `{folder}`")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for whatever it cannot read
        raise LoadError(f"`{path}` cannot be read: {error}") from error


def _unknown(tokenizer: Any) -> int | None:
    """The id of the token that stands for what is not in the vocabulary."""
    model = msgspec.json.decode(tokenizer.to_str())["model"]
    if model.get("type") == "Unigram":
        return model.get("unk_id")  # type: ignore[no-any-return]
    token = model.get("unk_token")
    return None if token is None else tokenizer.token_to_id(token)


def _as_float32(weight: Weight, rows: Any) -> NDArray[np.float32]:
    found = weight.array[rows]
    widened: NDArray[np.float32] = found.astype(np.float32)
    if weight.dtype == "BF16":
        widened = (found.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return widened
