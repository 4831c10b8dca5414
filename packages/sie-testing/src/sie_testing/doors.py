"""The ways into SIE, behind one interface, so that one suite can ask the same of each.

A door is a base URL (a worker's, or a gateway's) and a way of asking: raw MessagePack, raw JSON, the blocking
client, the awaiting client. What comes back is compared down to the bits. The clients are told not to wait, so
that a call that only succeeds when it is tried again fails here.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx2
import numpy as np
from numpy.typing import NDArray

from sie_core.wire.codec import CONTENT_TYPES, Format, arrays_decoded, body_format, decode_as, encode
from sie_sdk import RequestError, ServerError, SIEAsyncClient, SIEClient


@dataclass(frozen=True)
class Array:
    """An array as something that `==` compares bit for bit."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: NDArray[Any]) -> "Array":
        return cls(array.dtype.name, array.shape, array.tobytes())

    def numpy(self) -> NDArray[Any]:
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Encoded:
    """One item's result, whatever door it came through."""

    id: str | None
    outputs: Mapping[str, Array | tuple[Array, Array]]


@dataclass(frozen=True)
class Scored:
    """A call of score: its entries in their order, as the wire has them."""

    model: str
    query_id: str | None
    entries: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Refused:
    """An error: what a program reads of it, and the words a person reads."""

    status: int
    code: str | None
    text: str = field(compare=False)


class Door(Protocol):
    """`params` are the request's: output_types, output_dtype, instruction, options."""

    def encode(self, model: str, items: Sequence[Any], **params: Any) -> list[Encoded] | Refused: ...

    def score(self, model: str, query: Any, items: Sequence[Any], **params: Any) -> Scored | Refused:
        """`params`: instruction, options."""
        ...

    def extract(self, model: str, items: Sequence[Any], **params: Any) -> list[dict[str, Any]] | Refused:
        """Each item's keys, but for the timing and for data where there are none.

        `params`: labels, output_schema, instruction, options.
        """
        ...

    def models(self) -> list[dict[str, Any]]: ...

    def model(self, name: str) -> dict[str, Any] | Refused: ...

    def close(self) -> None: ...


class RawDoor:
    """Plain HTTP with bodies in one of the two formats, as any language would send them."""

    def __init__(self, url: str, fmt: Format) -> None:
        self._http = httpx2.Client(base_url=url, timeout=60, trust_env=False)
        self._fmt = fmt

    def encode(self, model: str, items: Sequence[Any], **params: Any) -> list[Encoded] | Refused:
        reply = self.post(model, {"items": items, "params": params} if params else {"items": items})
        if reply.status_code != 200:
            return _refused(reply)
        return [_encoded(item) for item in _decoded(reply)["items"]]

    def score(self, model: str, query: Any, items: Sequence[Any], **params: Any) -> Scored | Refused:
        reply = self.send(f"/v1/score/{model}", {"query": query, "items": items} | params)
        return _scored(_decoded(reply)) if reply.status_code == 200 else _refused(reply)

    def extract(self, model: str, items: Sequence[Any], **params: Any) -> list[dict[str, Any]] | Refused:
        reply = self.send(f"/v1/extract/{model}", {"items": items} | ({"params": params} if params else {}))
        if reply.status_code != 200:
            return _refused(reply)
        return [_extracted(item) for item in _decoded(reply)["items"]]

    def post(self, model: str, body: object, **headers: str) -> httpx2.Response:
        """As `encode`, with the whole reply."""
        return self.send(f"/v1/encode/{model}", body, **headers)

    def send(self, path: str, body: object, **headers: str) -> httpx2.Response:
        """Any call; a body that is bytes is sent as it is."""
        said = {"content-type": CONTENT_TYPES[self._fmt], "accept": CONTENT_TYPES[self._fmt]} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        content = body if isinstance(body, bytes) else encode(body, self._fmt)
        return self._http.post(path, content=content, headers=said)

    def models(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._http.get("/v1/models").json()["models"]
        return found

    def model(self, name: str) -> dict[str, Any] | Refused:
        reply = self._http.get(f"/v1/models/{name}")
        if reply.status_code != 200:
            return _refused(reply)
        found: dict[str, Any] = reply.json()
        return found

    def close(self) -> None:
        self._http.close()


class BlockingDoor:
    def __init__(self, url: str) -> None:
        self._client = SIEClient(url, timeout_s=60)

    def encode(self, model: str, items: Sequence[Any], **params: Any) -> list[Encoded] | Refused:
        try:
            return [
                _from_sdk(result) for result in self._client.encode(model, items, wait_for_capacity=False, **params)
            ]
        except (RequestError, ServerError) as error:
            return _from_error(error)

    def score(self, model: str, query: Any, items: Sequence[Any], **params: Any) -> Scored | Refused:
        try:
            return _scored(self._client.score(model, query, items, wait_for_capacity=False, **params))
        except (RequestError, ServerError) as error:
            return _from_error(error)

    def extract(self, model: str, items: Sequence[Any], **params: Any) -> list[dict[str, Any]] | Refused:
        try:
            found = self._client.extract(model, items, wait_for_capacity=False, **params)
        except (RequestError, ServerError) as error:
            return _from_error(error)
        return [_extracted(item) for item in found]

    def models(self) -> list[dict[str, Any]]:
        return [dict(entry) for entry in self._client.list_models()]

    def model(self, name: str) -> dict[str, Any] | Refused:
        try:
            return dict(self._client.get_model(name))
        except RequestError as error:
            return _from_error(error)

    def close(self) -> None:
        self._client.close()


class AwaitingDoor:
    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._client = SIEAsyncClient(url, timeout_s=60)

    def encode(self, model: str, items: Sequence[Any], **params: Any) -> list[Encoded] | Refused:
        try:
            results = self._runner.run(self._client.encode(model, items, wait_for_capacity=False, **params))
        except (RequestError, ServerError) as error:
            return _from_error(error)
        return [_from_sdk(result) for result in results]

    def score(self, model: str, query: Any, items: Sequence[Any], **params: Any) -> Scored | Refused:
        try:
            return _scored(self._runner.run(self._client.score(model, query, items, wait_for_capacity=False, **params)))
        except (RequestError, ServerError) as error:
            return _from_error(error)

    def extract(self, model: str, items: Sequence[Any], **params: Any) -> list[dict[str, Any]] | Refused:
        try:
            found = self._runner.run(self._client.extract(model, items, wait_for_capacity=False, **params))
        except (RequestError, ServerError) as error:
            return _from_error(error)
        return [_extracted(item) for item in found]

    def models(self) -> list[dict[str, Any]]:
        return [dict(entry) for entry in self._runner.run(self._client.list_models())]

    def model(self, name: str) -> dict[str, Any] | Refused:
        try:
            return dict(self._runner.run(self._client.get_model(name)))
        except RequestError as error:
            return _from_error(error)

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


WAYS = ("msgpack", "json", "blocking", "awaiting")


def open_door(way: str, url: str) -> Door:
    """Raises `KeyError` for a way that is not in `WAYS`."""
    match way:
        case "msgpack" | "json":
            return RawDoor(url, Format(way))
        case "blocking":
            return BlockingDoor(url)
        case "awaiting":
            return AwaitingDoor(url)
    raise KeyError(f"no door is named `{way}`; there are {', '.join(WAYS)}")


def _decoded(reply: httpx2.Response) -> Any:
    body = decode_as(reply.content, body_format(reply.headers.get("content-type")), dict[Any, Any])
    return arrays_decoded(body)


def _encoded(item: Mapping[str, Any]) -> Encoded:
    outputs: dict[str, Array | tuple[Array, Array]] = {}
    for name in ("dense", "multivector"):
        if item.get(name) is not None:
            outputs[name] = _array(item[name]["values"], item[name]["dtype"])
    if item.get("sparse") is not None:
        sparse = item["sparse"]
        outputs["sparse"] = (_array(sparse["indices"], "int32"), _array(sparse["values"], sparse["dtype"]))
    return Encoded(item.get("id"), outputs)


def _array(values: Any, dtype: str) -> Array:
    if isinstance(values, np.ndarray):
        return Array.of(values)
    return Array.of(np.asarray(values, "uint8" if dtype in ("binary", "ubinary") else dtype))


def _from_sdk(result: Mapping[str, Any]) -> Encoded:
    outputs: dict[str, Array | tuple[Array, Array]] = {
        name: Array.of(result[name]) for name in ("dense", "multivector") if name in result
    }
    if "sparse" in result:
        outputs["sparse"] = (Array.of(result["sparse"]["indices"]), Array.of(result["sparse"]["values"]))
    return Encoded(result.get("id"), outputs)


def _scored(body: Mapping[str, Any]) -> Scored:
    assert set(body["timing"]) > {"total_ms", "inference_ms"}
    return Scored(body["model"], body.get("query_id"), body["scores"])


def _extracted(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != "timing" and (key != "data" or value)}


def _refused(reply: httpx2.Response) -> Refused:
    detail = _decoded(reply)["detail"]
    assert reply.headers["x-sie-error-code"] == detail["code"]
    return Refused(reply.status_code, detail["code"], f"{detail['message']}\n\nhint: {detail.get('hint')}")


def _from_error(error: RequestError | ServerError) -> Refused:
    return Refused(error.status_code or 0, error.code, str(error))


__all__ = [
    "WAYS",
    "Array",
    "AwaitingDoor",
    "BlockingDoor",
    "Door",
    "Encoded",
    "RawDoor",
    "Refused",
    "Scored",
    "open_door",
]
