"""Results as plain Python lists and dicts, as vector databases take them."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class SparseVector(TypedDict):
    """Token ids and their weights, in the same order."""

    indices: list[int]
    values: list[float]


def dense_embedding(result: Any, *, strict: bool = True) -> list[float]:
    """The dense vector of an encode result.

    Args:
        result: what `encode` returned for one item, or an object with a `dense` attribute.
        strict: with False, a result without one gives an empty list.

    Raises:
        ValueError: the result has no dense vector, and `strict`.
    """
    dense = _part(result, "dense")
    if dense is not None:
        return _plain(dense)
    if strict:
        raise ValueError(f"the result has no `dense`; it has {_named(result)}")
    return []


def sparse_embedding(result: Any) -> SparseVector:
    """The sparse vector of an encode result; empty lists where it has none."""
    return normalize_sparse_vector(_part(result, "sparse"))


def sparse_embedding_dict(result: Any) -> dict[int, float]:
    """The sparse vector of an encode result as token id to weight; empty where it has none."""
    sparse = sparse_embedding(result)
    return dict(zip(sparse["indices"], sparse["values"], strict=True))


def normalize_sparse_vector(sparse: Any) -> SparseVector:
    """`result["sparse"]` as plain lists; empty ones where a half of it is missing."""
    indices, values = _part(sparse, "indices"), _part(sparse, "values")
    if indices is None or values is None:
        return {"indices": [], "values": []}
    return {"indices": _plain(indices), "values": _plain(values)}


def multivector_embedding(raw: Any) -> list[list[float]]:
    """`result["multivector"]`, or any sequence of vectors, as a list of lists."""
    return [_plain(vector) for vector in raw]


def _part(whole: Any, name: str) -> Any:
    return whole.get(name) if isinstance(whole, Mapping) else getattr(whole, name, None)


def _plain(vector: Any) -> list[Any]:
    plain: list[Any] = vector.tolist() if hasattr(vector, "tolist") else list(vector)
    return plain


def _named(result: Any) -> str:
    keys: Sequence[str] = sorted(result) if isinstance(result, Mapping) else [type(result).__name__]
    return ", ".join(f"`{key}`" for key in keys) or "nothing"


__all__ = [
    "SparseVector",
    "dense_embedding",
    "multivector_embedding",
    "normalize_sparse_vector",
    "sparse_embedding",
    "sparse_embedding_dict",
]
