"""A server that answers by a script: a real HTTP server on loopback, for testing clients.

    with Script([Answer(503, {"retry-after": "2"}), HangUp(), Answer(200, body=b"{}")]) as script:
        ...call script.url...
    script.heard    what was asked, in order

Each request takes the next line of the script. A request after the last line is answered 500, so that a
client that asks too often fails its test.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Answer:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class HangUp:
    """Closes the connection instead of answering."""


@dataclass(frozen=True)
class Heard:
    """One request as it came. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Script:
    """Serves from `with` on; `url` is where."""

    def __init__(self, lines: Iterable[Answer | HangUp]) -> None:
        self.heard: list[Heard] = []
        self._lines = iter(list(lines))
        self._lock = Lock()
        self._server = _Server(self)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, heard: Heard) -> Answer | HangUp:
        """The next line; called by the server's threads."""
        with self._lock:
            self.heard.append(heard)
            return next(self._lines, Answer(500, {"content-type": "text/plain"}, b"the script is over"))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, script: Script) -> None:
        self.script = script
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes; together with delayed ACKs each answer took 40 ms
    server: _Server

    def do_GET(self) -> None:
        self._perform()

    def do_POST(self) -> None:
        self._perform()

    def log_message(self, format: str, *args: object) -> None:
        """Silent: what was asked is in `heard`."""

    def _perform(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        line = self.server.script.take(Heard(self.command, self.path, headers, body))
        if isinstance(line, HangUp):
            self.close_connection = True
            return
        self.send_response(line.status)
        for name, value in line.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(line.body)))
        self.end_headers()
        self.wfile.write(line.body)


__all__ = ["Answer", "HangUp", "Heard", "Script"]
