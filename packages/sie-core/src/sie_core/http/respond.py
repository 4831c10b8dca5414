"""Answers: bytes, text, JSON and errors as ASGI messages, and a request's body read up to a limit.

Every error of every server leaves through `send_error`, so that all have one shape: the body of
`ApiError.body`, the code in `X-SIE-Error-Code`, whole seconds in `Retry-After`, and `X-Request-ID`.
"""

import math
import random
import time
from collections.abc import Sequence

import msgspec

from sie_core.errors import ApiError
from sie_core.http.asgi import Header, Receive, Scope, Send, header

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
HTML = b"text/html; charset=utf-8"

_random = random.Random()  # noqa: S311 - ids must differ, not be secret; the system's source costs a call each
_json = msgspec.json.Encoder()


class CallerGone(Exception):
    """The caller hung up before the whole body had come: nobody waits for an answer."""


async def send_bytes(
    send: Send, status: int, body: bytes, *, content_type: bytes, headers: Sequence[Header] = ()
) -> None:
    """One whole answer, with its `Content-Length`."""
    start = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def to_json(value: object) -> bytes:
    """`value` is anything that msgspec encodes: structs, dataclasses, dicts, lists."""
    return _json.encode(value)


async def send_json(send: Send, status: int, value: object, *, headers: Sequence[Header] = ()) -> None:
    await send_bytes(send, status, to_json(value), content_type=JSON, headers=headers)


async def send_text(send: Send, status: int, text: str, *, headers: Sequence[Header] = ()) -> None:
    await send_bytes(send, status, text.encode(), content_type=TEXT, headers=headers)


async def send_error(
    send: Send, error: ApiError, *, request_id: str | None = None, headers: Sequence[Header] = ()
) -> None:
    """An error as every client of ours reads it."""
    extra = [*error_headers(error, request_id=request_id), *headers]
    await send_json(send, error.kind.status, error.body(), headers=extra)


def error_headers(error: ApiError, *, request_id: str | None = None) -> list[Header]:
    """The headers that an error adds.

    `Connection: close` goes with a body that was refused unread: what is still coming on that
    connection would otherwise have to be read and thrown away before the next call.
    """
    headers: list[Header] = [(b"x-sie-error-code", error.code.encode())]
    if error.delay_s is not None:
        headers.append((b"retry-after", retry_after(error.delay_s)))
    if request_id is not None:
        headers.append((b"x-request-id", request_id.encode("latin-1", "replace")))
    if error.code == "BODY_TOO_LARGE":
        headers.append((b"connection", b"close"))
    if error.code == "UNAUTHORIZED":
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def retry_after(delay_s: float) -> bytes:
    """Whole seconds, rounded up: a caller that comes a fraction early would be told to wait once more."""
    return b"%d" % max(0, math.ceil(delay_s))


async def read_body(scope: Scope, receive: Receive, *, limit_bytes: int) -> bytes:
    """The whole body.

    Raises:
        ApiError: `BODY_TOO_LARGE`, by the announced length before a byte is read, and for a body sent in
            chunks as soon as it grows over the limit; `INVALID_INPUT` for a length that is no number, and for a
            body that was compressed for the way here (`Transfer-Encoding: gzip, chunked`).
        CallerGone: the caller hung up first.
    """
    announced = announced_length(scope)
    if announced is not None and announced > limit_bytes:
        raise too_large(announced, limit_bytes)
    message = await _request_part(receive)
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and len(body) <= limit_bytes:
        return body
    parts, size_bytes = [body], len(body)
    while message.get("more_body", False) and size_bytes <= limit_bytes:
        message = await _request_part(receive)
        parts.append(message.get("body", b""))
        size_bytes += len(parts[-1])
    if size_bytes > limit_bytes:
        raise too_large(size_bytes, limit_bytes)
    return b"".join(parts)


async def _request_part(receive: Receive) -> dict[str, bytes]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise CallerGone
    return message  # type: ignore[return-value]  # the server's own dict


def announced_length(scope: Scope) -> int | None:
    """`Content-Length` in bytes; None for a body in chunks, or no body."""
    text = header(scope["headers"], b"content-length")
    if text is None:
        coding = header(scope["headers"], b"transfer-encoding")
        if coding is not None and coding.strip().lower() != "chunked":
            raise ApiError("INVALID_INPUT", f"`Transfer-Encoding` is `{coding}`, want `chunked`")
        return None
    if not (text.isascii() and text.isdigit()):
        raise ApiError("INVALID_INPUT", f"`Content-Length` is `{text}`, want a number of bytes")
    return int(text)


def too_large(size_bytes: int, limit_bytes: int) -> ApiError:
    return ApiError(
        "BODY_TOO_LARGE",
        f"the body has at least {size_bytes} bytes, the limit is {limit_bytes}",
        hint="send fewer items a call, or have the operator raise `SIE_MAX_BODY_BYTES`",
        extra={"size_bytes": size_bytes, "limit_bytes": limit_bytes},
    )


def request_id(scope: Scope) -> str:
    """The caller's own `X-Request-ID` where it is fit for a header and a log line, else a new one."""
    given = header(scope["headers"], b"x-request-id")
    if given is not None and 0 < len(given) <= 128 and given.isascii() and given.isprintable():
        return given
    return new_request_id()


def new_request_id() -> str:
    """A UUID of version 7: it sorts by time, so logs of several processes merge in order."""
    value = (time.time_ns() // 1_000_000) << 80 | _random.getrandbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
