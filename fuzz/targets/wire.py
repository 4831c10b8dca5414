"""What callers send: bodies in both forms, arrays in them, paths and headers."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import msgspec
import numpy as np

from fuzz.target import Target, bare, checked
from sie_core.errors import ApiError
from sie_core.wire import envelope
from sie_core.wire.arrays import from_wire, is_wire_array, to_wire
from sie_core.wire.codec import Format, arrays_decoded, decode_as, encode, unknown_keys
from sie_core.wire.messages import EmbeddingsRequest, EncodeRequest, ExtractRequest, RerankRequest, ScoreRequest

_REQUESTS = (EncodeRequest, ScoreRequest, ExtractRequest, EmbeddingsRequest, RerankRequest)
_BODIES: tuple[dict[str, Any], ...] = (
    {"items": [{"id": "a", "text": "x"}, {"images": [{"data": b"12", "format": "png"}]}], "also": 1},
    {"items": [{"text": "x", "metadata": {"a": 1}}], "params": {"output_types": ["dense"], "options": {"a": [1]}}},
    {"query": {"text": "q"}, "items": [{"text": "x"}]},
    {"items": [{"text": "x"}], "params": {"labels": ["a"]}},
    {"input": ["a", "b"], "model": "org/name"},
    {"query": "q", "documents": ["a", {"text": "b"}], "model": "org/name", "top_n": 1},
)


def _packed() -> Iterator[bytes]:
    for body in _BODIES:
        yield msgspec.msgpack.encode(body)


def _unpacked(data: bytes) -> Any:
    """As JSON; bytes become base64, which the struct refuses for itself."""
    return json.loads(msgspec.json.encode(msgspec.msgpack.decode(data)))


def _packed_again(text: str) -> bytes:
    try:
        return msgspec.msgpack.encode(json.loads(text))
    except (ValueError, OverflowError, RecursionError):
        return bare(text)


def _json() -> Iterator[bytes]:
    for body in _BODIES:
        yield msgspec.json.encode(body)


def _read_json(data: bytes) -> None:
    _read(data, Format.JSON)


def _read_msgpack(data: bytes) -> None:
    _read(data, Format.MSGPACK)


def _read(data: bytes, fmt: Format) -> None:
    """As any request that takes it; refused where none does."""
    taken = 0
    for struct in _REQUESTS:
        try:
            request = decode_as(data, fmt, struct)
        except ApiError as error:
            assert error.message
            continue
        taken += 1
        unknown_keys(data, fmt, struct)
        assert decode_as(encode(request, fmt), fmt, struct) == request
    if not taken:
        raise ApiError("INVALID_INPUT", "no request is so")


def _arrays() -> Iterator[bytes]:
    yield msgspec.msgpack.encode(to_wire(np.ones((2, 3), np.float32)))
    yield msgspec.msgpack.encode({"a": [to_wire(np.ones(4, np.int8))]})


def _read_array(data: bytes) -> None:
    try:
        value = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    arrays_decoded(value)
    if is_wire_array(value) and from_wire(value).nbytes > len(data):
        raise AssertionError("an array that is longer than what it came in")


def _calls() -> Iterator[bytes]:
    yield b"/v1/encode/org/name\nx-sie-machine-profile: pool/l4\nx-sie-timeout-ms: 50\nx-sie-pool: p"
    yield b"/v1/score/default:/org%2Fname\naccept: application/msgpack\nx-request-id: 1"


def _read_call(data: bytes) -> None:
    path, *lines = data.split(b"\n")
    headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    if envelope.read(path.decode("latin-1"), headers) is None:
        raise ApiError("INVALID_INPUT", "no call")
    envelope.named(
        "/v1/rerank", unquote(path.decode("latin-1")).removeprefix("/v1/encode/").removeprefix("/v1/score/"), headers
    )


TARGETS = (
    Target("request-json", _json, checked(_read_json, ApiError), json.loads, bare),
    Target("request-msgpack", _packed, checked(_read_msgpack, ApiError), _unpacked, _packed_again),
    Target("array", _arrays, checked(_read_array, ValueError)),
    Target("call", _calls, checked(_read_call, ApiError)),
)
