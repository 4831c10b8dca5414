"""What a caller may send beside a body, byte by byte: what has an end, what is dropped, what is refused and how."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from sie_core.errors import ApiError
from sie_core.http import guarded, respond
from sie_core.http.asgi import Receive, Scope, Send
from sie_core.http.guarded import HEAD_LIMIT_BYTES
from sie_core.http.serve import Drain, bind, serve

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]
POST = b"POST /echo HTTP/1.1\r\nHost: x\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Says which headers it got, once it has the body; `/early` answers before."""
    if scope["path"] == "/metrics":
        raise ZeroDivisionError
    try:
        body = b"" if scope["path"] == "/early" else await respond.read_body(scope, receive, limit_bytes=1 << 20)
    except ApiError as error:
        await respond.send_error(send, error)
        return
    except respond.CallerGone:
        return
    names = [name.decode() for name, _ in scope["headers"]]
    await respond.send_json(send, 200, {"headers": names, "body": body.decode()})


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    drain, listener = Drain(), bind("127.0.0.1", 0)
    serving = asyncio.create_task(serve(app, listener=listener, drain=drain, drain_s=5, linger_s=0))
    try:
        yield listener.getsockname()[1]
    finally:
        drain.begin()
        await serving


def talking(talk: Talk) -> Any:
    """What `talk` returns of a connection to a server; half a minute is for ever here."""

    async def main() -> Any:
        async with asyncio.timeout(30), served() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                return await talk(reader, writer)
            finally:
                writer.close()

    return asyncio.run(main())


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, msgspec.json.decode(body)


def said(*pieces: bytes) -> tuple[int, dict[str, str], Any]:
    """The answer to what is sent piece by piece."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, dict[str, str], Any]:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await answer(reader)

    told: tuple[int, dict[str, str], Any] = talking(talk)
    return told


LONG = 1 << 20
"""One read may bring this much, and a limit is looked at between reads."""

ENDLESS = {
    "a header": POST + b"X-Long: " + b"y" * (HEAD_LIMIT_BYTES + 1),
    "a header that ends": POST + b"X-Long: " + b"y" * HEAD_LIMIT_BYTES + b"\r\nContent-Length: 0\r\n\r\n",
    "many headers": POST + b"X-Many: 1\r\n" * (HEAD_LIMIT_BYTES // 11 + 1),
    "a path": b"POST /" + b"y" * (HEAD_LIMIT_BYTES + 1),
    "a trailer": POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: " + b"y" * LONG,
    "trailers": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X-Many: 1\r\n" * (LONG // 11),
    "a chunk extension": POST + b"Transfer-Encoding: chunked\r\n\r\n3;x=" + b"y" * LONG,
}


@pytest.mark.parametrize("sent", ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("pieces", [1, 5])
def test_what_has_no_end_is_431_and_not_kept_in_memory(sent: bytes, pieces: int) -> None:
    size = len(sent) // pieces + 1
    status, headers, body = said(*(sent[start : start + size] for start in range(0, len(sent), size)))

    assert (status, headers["x-sie-error-code"], headers["connection"]) == (431, "HEADERS_TOO_LARGE", "close")
    assert body["detail"]["limit_bytes"] == HEAD_LIMIT_BYTES


def test_head_under_the_limit_and_a_long_body_in_one_go_are_taken() -> None:
    head = POST + b"X-Long: " + b"y" * (HEAD_LIMIT_BYTES - 200) + b"\r\nContent-Length: 300000\r\n\r\n"

    status, _, body = said(head + b"z" * 300_000)

    assert (status, len(body["body"])) == (200, 300_000)


def test_trailers_do_not_become_headers() -> None:
    head = POST + b"Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n"

    status, _, body = said(head, b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\n\r\n")

    assert (status, body) == (200, {"headers": ["host", "transfer-encoding", "trailer"], "body": "abc"})


REFUSED = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "a length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks not last": b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"X-Fold: a\r\n b\r\n\r\n",
    "a lone CR": b"X-A: a\rX-B: b\r\n\r\n",
    "a NUL": b"X-A: a\x00b\r\n\r\n",
    "a signed length": b"Content-Length: +5\r\n\r\nabcde",
    "compressed on the way": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "an upgrade with a body": b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
}


@pytest.mark.parametrize("rest", REFUSED.values(), ids=REFUSED)
def test_what_could_be_two_requests_is_400_in_the_form_of_every_error(rest: bytes) -> None:
    status, headers, body = said(POST + rest)

    assert (status, headers["x-sie-error-code"], body["error"]["code"]) == (400, "INVALID_INPUT", "INVALID_INPUT")


def test_upgrade_without_a_body_is_answered_as_if_not_asked_for() -> None:
    status, headers, _ = said(b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")

    assert (status, headers["connection"]) == (200, "close")


@pytest.mark.parametrize("begun", [b"", POST, POST + b"X-Half: "])
def test_caller_that_goes_quiet_within_a_head_is_hung_up_on(monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr("sie_core.http.serve.KEEP_ALIVE_S", 0.05)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(begun)
        return await reader.read()

    assert talking(talk) == b""


def test_caller_told_no_before_its_body_does_not_have_the_next_request_taken_for_it() -> None:
    status, headers, _ = said(b"POST /early HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 40\r\n\r\n")

    assert (status, headers["connection"]) == (200, "close")


def test_caller_told_to_continue_is_kept() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, dict[str, str]]:
        writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        going_on = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"ab")
        return going_on, (await answer(reader))[1]

    going_on, headers = talking(talk)

    assert going_on.startswith(b"HTTP/1.1 100 ")
    assert "connection" not in headers


def test_413_of_a_body_that_was_read_is_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a gateway passes on a worker's: there is nothing left to throw away."""
    for module in ("serve", "guarded"):
        monkeypatch.setattr(f"sie_core.http.{module}.READ_OUT_S", 3600)

    async def passing_on(scope: Scope, receive: Receive, send: Send) -> None:
        await respond.read_body(scope, receive, limit_bytes=100)
        await respond.send_text(send, 413, "too large there")

    monkeypatch.setitem(globals(), "app", passing_on)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[bytes]:
        statuses = []
        for _ in range(2):
            writer.write(POST + b"Content-Length: 2\r\n\r\nab")
            statuses.append((await reader.readuntil(b"too large there"))[:12])
        return statuses

    assert talking(talk) == [b"HTTP/1.1 413"] * 2


def test_bug_in_an_operational_route_is_told_as_every_bug() -> None:
    status, headers, _ = said(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")

    assert (status, headers["x-sie-error-code"]) == (500, "INTERNAL_ERROR")


def test_server_that_cannot_start_says_so_instead_of_waiting() -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unfit:
            unfit.bind(("127.0.0.1", 0))
            async with asyncio.timeout(30):
                await serve(app, listener=unfit, drain=Drain())

    with pytest.raises((ValueError, OSError)):
        asyncio.run(main())


def test_port_that_is_none_is_an_error_with_a_message() -> None:
    with pytest.raises(OSError, match="a port is a number from 0 to 65535"):
        bind("127.0.0.1", 99_999)


def test_limit_holds_for_what_is_measured() -> None:
    assert guarded._length(b"/x", [(b"a", b"b")]) == len(b"/x" + b"a: b\r\n")
