"""HTTP/1.1 for the stand-ins: a function from `Request` to `Answer`, served by threads of this process.

The hub and the registry are such functions. What only a socket can do is here: keep-alive, chunked
request bodies, files sent by the kernel, bodies cut short or slowed down on purpose. One `Serving` is one origin.
"""

import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Request:
    """One call as it came.

    Attributes:
        path: percent-decoded, without the query.
        pairs: the query's names and values, in order.
        headers: looked up without regard to case.
        body: ends with the body, whether it was sent by length or in chunks.
        length: the declared length; None for a chunked body.
    """

    method: str
    path: str
    pairs: tuple[tuple[str, str], ...]
    headers: Message
    body: BinaryIO
    length: int | None

    @property
    def query(self) -> dict[str, str]:
        """The last value of each name."""
        return dict(self.pairs)

    @property
    def host(self) -> str:
        """The name under which the caller knows this server, without the port."""
        return self.headers.get("Host", "127.0.0.1").rpartition(":")[0] or "127.0.0.1"


@dataclass(frozen=True)
class FileSlice:
    """`length` bytes of a file from `start`."""

    path: Path
    start: int
    length: int


@dataclass(frozen=True)
class Answer:
    """What is sent back.

    Attributes:
        cut_after_bytes: the declared length stays true to the body, and the connection is closed after this much of it.
        bytes_per_s: the body is sent no faster.
        stall_after_bytes: after this much of the body nothing comes, until the caller hangs up.
        flip_at: the place, in the file, of a byte that is sent with one bit another.
        close: the connection is closed after the answer, for a body that was not read to its end.
        sent: told of each piece of the body that goes out.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FileSlice = b""
    cut_after_bytes: int | None = None
    stall_after_bytes: int | None = None
    bytes_per_s: int | None = None
    flip_at: int | None = None
    close: bool = False
    sent: Callable[[int], None] | None = None

    @property
    def length(self) -> int:
        return self.body.length if isinstance(self.body, FileSlice) else len(self.body)


def json_answer(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, msgspec.json.encode(value))


def requested_range(request: Request, *, size_bytes: int, etag: str) -> tuple[int, int] | None:
    """The (start, length) that `Range` asks for; None for the whole.

    Only one range is understood; another form, or an `If-Range` that names another ETag, gets the whole,
    as the standard allows. Raises `ValueError` when nothing of the range exists (416).
    """
    text = request.headers.get("Range", "")
    if not text.startswith("bytes=") or "," in text or request.headers.get("If-Range", etag) != etag:
        return None
    first, dash, last = text.removeprefix("bytes=").strip().partition("-")
    if not dash or not (first + last).isdigit():
        return None
    if not first:
        start, end = max(0, size_bytes - int(last)), size_bytes - 1
    else:
        start, end = int(first), min(int(last) if last else size_bytes - 1, size_bytes - 1)
    if start > end:
        raise ValueError(f"`{text}` of {size_bytes} bytes")
    return start, end - start + 1


def file_answer(request: Request, path: Path, *, etag: str, headers: Mapping[str, str] | None = None) -> Answer:
    """A file, or the part of it that was asked for, under `etag` (with its quotes)."""
    size_bytes = path.stat().st_size
    known = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **(headers or {})}
    try:
        part = requested_range(request, size_bytes=size_bytes, etag=etag)
    except ValueError:
        return Answer(416, {"Content-Range": f"bytes */{size_bytes}"})
    if part is None:
        return Answer(200, known, FileSlice(path, 0, size_bytes))
    start, length = part
    known["Content-Range"] = f"bytes {start}-{start + length - 1}/{size_bytes}"
    return Answer(206, known, FileSlice(path, start, length))


class _Counted:
    """A request body sent by length."""

    def __init__(self, stream: BinaryIO, length: int) -> None:
        self._stream, self._left = stream, length

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(data)
        return data

    @property
    def finished(self) -> bool:
        return self._left == 0


class _Chunked:
    """A request body sent in chunks."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._left, self.finished = stream, 0, False

    def _next_chunk(self) -> None:
        size_line = self._stream.readline(1024).split(b";")[0].strip()
        self._left = int(size_line, 16) if size_line else 0
        if self._left == 0:
            self.finished = True
            while self._stream.readline(1024).strip():
                pass

    def _some(self, size: int) -> bytes:
        if self._left == 0 and not self.finished:
            self._next_chunk()
        data = self._stream.read(min(size, self._left))
        self._left -= len(data)
        if self._left == 0 and data:
            self._stream.readline(2)
        return data

    def read(self, size: int = -1) -> bytes:
        if size >= 0:
            return self._some(size)
        return b"".join(iter(lambda: self._some(CHUNK_BYTES), b""))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    answer: Callable[[Request], Answer]

    def _serve(self) -> None:
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        length = None if chunked else int(self.headers.get("Content-Length", "0"))
        body = _Chunked(self.rfile) if length is None else _Counted(self.rfile, length)  # type: ignore[arg-type]
        parts = urlsplit(self.path)
        pairs = tuple(parse_qsl(parts.query, keep_blank_values=True))
        request = Request(self.command, unquote(parts.path), pairs, self.headers, body, length)  # type: ignore[arg-type]
        try:
            answer = type(self).answer(request)
            self._send(answer, unread=not body.finished)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _send(self, answer: Answer, *, unread: bool) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status not in (204, 304) and "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(answer.length))
        if unread or answer.close:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(answer)

    def _send_body(self, answer: Answer) -> None:
        for piece in _pieces(answer):
            if answer.sent is not None:
                answer.sent(len(piece))
            self.wfile.write(piece)
            if answer.bytes_per_s is not None:
                time.sleep(len(piece) / answer.bytes_per_s)
        if answer.stall_after_bytes is not None and answer.stall_after_bytes < answer.length:
            self.close_connection = True
            self.connection.recv(1)  # until the caller has had enough
        if answer.cut_after_bytes is not None and answer.cut_after_bytes < answer.length:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: callers read `Hub.seen` and the like."""

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _serve


def _pieces(answer: Answer) -> Iterator[bytes]:
    limits = (answer.length, answer.cut_after_bytes, answer.stall_after_bytes)
    left = min(limit for limit in limits if limit is not None)
    step = CHUNK_BYTES if answer.bytes_per_s is None else max(1, answer.bytes_per_s // 20)
    if isinstance(answer.body, bytes):
        yield from (_flipped(answer.body[at : min(at + step, left)], at, answer.flip_at) for at in range(0, left, step))
        return
    with answer.body.path.open("rb") as stream:
        stream.seek(answer.body.start)
        while left > 0 and (piece := stream.read(min(step, left))):
            left -= len(piece)
            yield _flipped(piece, stream.tell() - len(piece), answer.flip_at)


def _flipped(piece: bytes, start: int, flip_at: int | None) -> bytes:
    if flip_at is None or not start <= flip_at < start + len(piece):
        return piece
    altered = bytearray(piece)
    altered[flip_at - start] ^= 1
    return bytes(altered)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[_Handler]) -> None:
        super().__init__(address, handler)
        self._open: set[socket.socket] = set()

    def server_bind(self) -> None:
        """Without the base class's look-up of our own address's name, which asks a resolver."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Ends kept connections too: a server that is gone must not go on answering on them."""
        for connection in tuple(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up, or that does not trust us, is no news; a bug in `answer` is."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError, ssl.SSLError)):
            super().handle_error(request, client_address)


@contextmanager
def serving(
    answer: Callable[[Request], Answer],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> Iterator[str]:
    """Serves `answer` until the block ends; yields the origin, `http://host:port`. Port 0 takes a free one."""
    handler = type("Handler", (_Handler,), {"answer": staticmethod(answer)})
    listener = _Listener((host, port), handler)
    if tls is not None:  # the handshake is made by the thread of the connection, when it first reads
        listener.socket = tls.wrap_socket(listener.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,), name="stand-in", daemon=True)
    thread.start()
    try:
        yield f"{'http' if tls is None else 'https'}://{host}:{listener.server_address[1]}"
    finally:
        listener.shutdown()
        listener.hang_up()
        listener.server_close()
        thread.join()


def wait_for_signal() -> None:
    """Returns at SIGTERM or SIGINT. Only for the main thread of a process that serves and does nothing else."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
