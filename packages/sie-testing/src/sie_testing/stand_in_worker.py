"""A worker on a real socket that says and does what a test tells it, down to single bytes.

It answers `GET /heartbeat` from `status` and hands every other request to `answer`, which writes to the
socket itself: only so can it cut an answer short, reset a connection, or say what is no HTTP. One thread a
connection; connections are kept, as a real worker keeps them.
"""

import contextlib
import http.client
import os
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from io import BufferedReader

import msgspec

from sie_core.wire.messages import WorkerStatus


@dataclass(frozen=True)
class Received:
    """One request as the worker got it."""

    method: str
    target: str
    headers: Message
    body: bytes


class Line:
    """The worker's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reset(self) -> None:
        """Close so that the other end sees `connection reset`, as when a process is killed with data unread."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self._socket.detach())  # `close` would wait for the reader that shares the socket

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def wait_for_hang_up(self) -> None:
        """Returns once the other end has closed."""
        with contextlib.suppress(OSError):
            while self._socket.recv(65536):
                pass


Answer = Callable[[Received, Line], None]


def reply(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    """The same whole answer to everything."""

    def answer(request: Received, line: Line) -> None:
        said = {"Content-Length": str(len(body)), **(headers or {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in said.items())
        line.send(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body)

    return answer


def echo(request: Received, line: Line) -> None:
    """The body back, with the type and encoding that it came with."""
    names = ("Content-Type", "Content-Encoding")
    kept = {name: request.headers[name] for name in names if name in request.headers}
    reply(200, request.body, {"X-Worker-Says": "yes", **kept})(request, line)


def raw(data: bytes, *, then: Callable[[Line], None] = Line.close) -> Answer:
    """These bytes, and then the end of the connection."""

    def answer(request: Received, line: Line) -> None:
        line.send(data)
        then(line)

    return answer


class StandInWorker:
    """Listens on a free port of the loopback until `close`.

    Attributes:
        status: what the next heartbeat says; a test may replace it.
        answer: what happens to the next call; likewise.
        heartbeat: what answers `GET /heartbeat`; `status`, unless a test puts something else here.
        calls: every call so far, heartbeats aside.
    """

    def __init__(self, status: WorkerStatus, *, answer: Answer = echo, port: int = 0) -> None:
        self.status = status
        self.answer = answer
        self.heartbeat: Answer = self._say_status
        self.calls: list[Received] = []
        self.heartbeats: list[Received] = []
        self._lines: set[Line] = set()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._closed = False
        threading.Thread(target=self._accept, name=f"stand-in-{status.name}", daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """As a killed process: nobody listens, and every connection is reset."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.close_lines()

    def close_lines(self) -> None:
        """Ends every connection; new ones are taken."""
        for line in list(self._lines):
            line.close()

    def _say_status(self, request: Received, line: Line) -> None:
        reply(200, msgspec.json.encode(self.status))(request, line)

    def _accept(self) -> None:
        while not self._closed:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        line = Line(sock)
        self._lines.add(line)
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError), sock.makefile("rb") as reader:
            while (request := _read(reader)) is not None:
                if request.target == "/heartbeat":
                    self.heartbeats.append(request)
                    self.heartbeat(request, line)
                else:
                    self.calls.append(request)
                    self.answer(request, line)
        self._lines.discard(line)
        line.close()


def _read(reader: BufferedReader) -> Received | None:
    """The next request; None once the other end has closed."""
    first = reader.readline().decode("latin-1").split()
    if len(first) != 3:
        return None
    headers = http.client.parse_headers(reader)
    body = reader.read(int(headers.get("Content-Length", "0")))
    return Received(method=first[0], target=first[1], headers=headers, body=body)
