"""Replies as the typed dicts that callers get."""

from typing import Any, TypeVar, cast

import msgspec

from sie_core.errors import KINDS, ApiError
from sie_core.wire.codec import arrays_decoded, decode
from sie_core.wire.messages import (
    EncodedItem,
    EncodeResponse,
    ExtractedItem,
    ExtractResponse,
    ScoreResponse,
    Sparse,
    Timing,
)
from sie_sdk._steps import Reply
from sie_sdk.exceptions import RequestError, ServerError
from sie_sdk.types import EncodeResult, ExtractResult, ModelInfo, ScoreResult

_PACKED = ("binary", "ubinary")


class _Models(msgspec.Struct):
    models: list[dict[str, Any]]


def encoded(reply: Reply, *, want: int) -> list[EncodeResult]:
    """One result for each item, in the items' order.

    Raises:
        ServerError: a body that is not an answer to encode, or one of another number of results.
    """
    response = _decoded(reply, EncodeResponse)
    _check_count(len(response.items), want, reply)
    timing = _timing(response.timing)
    try:
        return [_result(item, timing) for item in response.items]
    except ValueError as error:
        raise ServerError(f"a result cannot be read: {error}", None, reply.status) from error


def scored(reply: Reply, *, want: int) -> ScoreResult:
    """Raises `ServerError` as `encoded`."""
    response = _decoded(reply, ScoreResponse)
    _check_count(len(response.scores), want, reply)
    result: dict[str, Any] = {"model": response.model, "scores": msgspec.to_builtins(response.scores)}
    if response.query_id is not None:
        result["query_id"] = response.query_id
    if response.timing is not None:
        result["timing"] = _timing(response.timing)
    return cast(ScoreResult, result)


def extracted(reply: Reply, *, want: int) -> list[ExtractResult]:
    """Raises `ServerError` as `encoded`."""
    response = _decoded(reply, ExtractResponse)
    _check_count(len(response.items), want, reply)
    timing = _timing(response.timing)
    return [_extracted(item, timing) for item in response.items]


def model_list(reply: Reply) -> list[ModelInfo]:
    """Raises `ServerError` for a body that is not a list of models."""
    return [cast(ModelInfo, entry) for entry in _decoded(reply, _Models).models]


def model(reply: Reply) -> ModelInfo:
    """Raises `ServerError` for a body that is not a model."""
    return cast(ModelInfo, _decoded(reply, dict[str, Any]))


def _check_count(have: int, want: int, reply: Reply) -> None:
    if have != want:
        raise ServerError(f"{want} items were sent and {have} results came", None, reply.status)


def _timing(timing: Timing | None) -> dict[str, float] | None:
    return msgspec.to_builtins(timing) if timing is not None else None


def _decoded(reply: Reply, kind: type[Any]) -> Any:
    try:
        return decode(reply.body, reply.headers.get("content-type"), kind)
    except ApiError as error:
        raise ServerError(
            f"the answer cannot be read: {error.message}\n\nhint: is there a proxy in between that answers by itself?",
            None,
            reply.status,
        ) from error


def _result(item: EncodedItem, timing: dict[str, float] | None) -> EncodeResult:
    result: dict[str, Any] = {"id": item.id} if item.id is not None else {}
    if item.dense is not None:
        result["dense"] = _array(item.dense.values, item.dense.dtype)
    if item.sparse is not None:
        result["sparse"] = _sparse(item.sparse)
    if item.multivector is not None:
        result["multivector"] = _array(item.multivector.values, item.multivector.dtype)
    if item.error is not None:
        result["error"] = msgspec.to_builtins(item.error)
    if timing is not None:
        result["timing"] = timing
    return cast(EncodeResult, result)


def _extracted(item: ExtractedItem, timing: dict[str, float] | None) -> ExtractResult:
    """`data` only where there are some, as the clients of v0.3.1 had it."""
    result: dict[str, Any] = msgspec.to_builtins(item)
    if not item.data:
        del result["data"]
    if timing is not None:
        result["timing"] = timing
    return cast(ExtractResult, result)


def _sparse(sparse: Sparse) -> dict[str, Any]:
    return {"indices": _array(sparse.indices, "int32"), "values": _array(sparse.values, sparse.dtype)}


def _array(values: Any, dtype: str) -> Any:
    """An array of the caller's own: writable, and not keeping the whole message in memory.

    A peer that answers in JSON sends nested lists; `dtype` says what they were.
    """
    import numpy as np

    decoded = arrays_decoded(values)
    if isinstance(decoded, np.ndarray):
        return decoded.copy()
    return np.asarray(decoded, dtype="uint8" if dtype in _PACKED else dtype)


Alone = TypeVar("Alone", EncodeResult, ExtractResult)


def alone(result: Alone) -> Alone:
    """The result of a call with one item.

    Raises:
        RequestError, ServerError: the item failed; by the code, as a call that fails as a whole would raise.
    """
    said = result.get("error")
    if said is None:
        return result
    code, message = said.get("code"), said.get("message", "the item failed")
    known = KINDS.get(code or "")
    text = f"{message}\n\nhint: {said['hint']}" if said.get("hint") else message
    if known is not None and known.status < 500:
        raise RequestError(text, code, known.status)
    raise ServerError(text, code, known.status if known is not None else None)
