"""Queries without a network: each distinct token of one weighs what the snapshot says. Reads the weights and uses them.

Follows sentence-transformers 6.2 `sparse_encoder/modules/sparse_static_embedding.py` (a folder with a vector of
weights, or `idf.json`); and the models that OpenSearch publishes, whose `query_token_weights.txt` has a token, a tab
and its weight on every line. A query's tokens are those of its text alone, without what the tokenizer puts around it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import LoadError, SparseVector
from sie_server.models.checkpoint import Weight, open_checkpoint
from sie_server.models.cutting import beginnings
from sie_server.models.tokenizing import FILE, TextTokenizer, Tokenized, load_tokenizer

_WEIGHT: Final = "weight"


@dataclass(frozen=True)
class QueryWeights:
    """What a query's tokens weigh.

    Attributes:
        tokenizer: texts to ids.
        weights: (vocabulary,) float32.
        max_tokens: of a query.
    """

    tokenizer: TextTokenizer
    weights: NDArray[np.float32]
    max_tokens: int

    @property
    def vocabulary(self) -> int:
        return self.tokenizer.vocabulary

    def __call__(self, texts: Sequence[str]) -> list[Tokenized]:
        """Each text's tokens, without special tokens."""
        begun = beginnings(texts, self.tokenizer.counts, max_tokens=self.max_tokens)
        return [Tokenized(ids[: self.max_tokens], len(ids) > self.max_tokens) for ids in self.tokenizer.plain(begun)]

    def vector(self, ids: NDArray[np.int32]) -> SparseVector:
        """Of a query with these tokens; those that weigh nothing are left out."""
        distinct = np.unique(ids)
        values = self.weights[distinct]
        return SparseVector(distinct[values != 0].astype(np.int32), values[values != 0], len(self.weights))


def read_query_weights(path: Path, tokenizer: TextTokenizer, *, dims: int, max_tokens: int) -> QueryWeights:
    """What is in a file, or in a folder of sentence-transformers.

    Args:
        tokenizer: the documents', which is the queries' too unless the folder has one.
        dims: size of the documents' vectors.
        max_tokens: of a query.

    Raises:
        LoadError: it holds no weights, or of another vocabulary than the documents'.
    """
    if path.is_dir():
        if (path / FILE).is_file():
            tokenizer = load_tokenizer(path, max_tokens=max_tokens, lower_case=False)
        checkpoint = open_checkpoint(path)
        shape = checkpoint.shape(_WEIGHT)
        if shape != (dims,):
            raise LoadError(f"`{_WEIGHT}` in `{path}` is {list(shape)}: want [{dims}], one for each id of a document's")
        weights = _as_float32(checkpoint.weight(_WEIGHT, shape))
    else:
        weights = _of_tokens(_listed(path), tokenizer, dims, path)
    if tokenizer.vocabulary > dims:
        raise LoadError(f"the queries' tokenizer has {tokenizer.vocabulary:,} tokens, and a document's vector {dims:,}")
    return QueryWeights(tokenizer, weights, max_tokens)


def _of_tokens(listed: Mapping[str, float], tokenizer: TextTokenizer, dims: int, path: Path) -> NDArray[np.float32]:
    """By id; a token that the vocabulary does not have is in no query."""
    weights = np.zeros(dims, np.float64)
    known = 0
    for token, weight in listed.items():
        found = tokenizer.find(token)
        if found is not None and found < dims:
            weights[found] = weight
            known += 1
    if not known:
        raise LoadError(f"none of the {len(listed):,} tokens in `{path}` is in the tokenizer's vocabulary")
    wrong = np.flatnonzero(~(np.abs(weights) <= np.finfo(np.float32).max))
    if len(wrong):
        raise LoadError(f"`{path}` gives the token with the id {wrong[0]} the weight {weights[wrong[0]]}")
    return weights.astype(np.float32)


def _listed(path: Path) -> Mapping[str, float]:
    try:
        data = path.read_bytes()
        if path.suffix == ".json":
            return msgspec.json.decode(data, type=dict[str, float])
        lines = [line for line in data.decode().split("\n") if line.strip()]
        return {token: float(weight) for token, _, weight in (line.rpartition("\t") for line in lines)}
    except FileNotFoundError as error:
        raise LoadError(f"the snapshot has no `{path.name}`, which `sparse.weights` names") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise LoadError(f"`{path}` is no list of tokens and their weights: {error}") from error


def _as_float32(weight: Weight) -> NDArray[np.float32]:
    found = weight.array
    if weight.dtype == "BF16":
        return (found.astype(np.uint32) << np.uint32(16)).view(np.float32)
    widened: NDArray[np.float32] = found.astype(np.float32)
    return widened
