"""An HTTP proxy as companies have them: `CONNECT` for https, absolute URLs for http, a login where one is set.

`asked` is every place somebody was let through to, or refused: `host:port` with the method.
"""

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer
from urllib.parse import urlsplit

_PIECE_BYTES = 1 << 16


class Proxy:
    """Attributes:
    asked: (method, `host:port`) of each request.
    refused: hosts with ports that nobody is let through to.
    """

    def __init__(self, *, login: str | None = None) -> None:
        """Args:
        login: `user:password` that is asked for.
        """
        self.asked: list[tuple[str, str]] = []
        self.refused: set[str] = set()
        self._wanted = None if login is None else "Basic " + base64.b64encode(login.encode()).decode()

    def status(self, place: str, login: str | None) -> str | None:
        """The refusal, or None."""
        if self._wanted is not None and login != self._wanted:
            return "407 Proxy Authentication Required"
        return "403 Forbidden" if place in self.refused else None


class _Handler(StreamRequestHandler):
    timeout = 60
    proxy: Proxy

    def handle(self) -> None:
        method, target, _ = self.rfile.readline().decode("ascii").split(" ", 2)
        lines = list(iter(lambda: self.rfile.readline(), b"\r\n"))
        headers = {line.split(b":")[0].lower(): line.split(b":", 1)[1].strip().decode() for line in lines}
        parts = urlsplit(target if "://" in target else f"//{target}")
        self.proxy.asked.append((method, parts.netloc))
        refusal = self.proxy.status(parts.netloc, headers.get(b"proxy-authorization"))
        if refusal is not None:
            self.wfile.write(f"HTTP/1.1 {refusal}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            return
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=self.timeout) as far:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = parts._replace(scheme="", netloc="").geturl() or "/"
                kept = [line for line in lines if not line.lower().startswith(b"proxy-")]
                far.sendall(b"".join([f"{method} {path} HTTP/1.1\r\n".encode(), *kept, b"\r\n"]))
            back = threading.Thread(target=_relay, args=(far, self.connection), daemon=True)
            back.start()
            _relay(self.connection, far)
            back.join()


def _relay(here: socket.socket, there: socket.socket) -> None:
    with suppress(OSError):
        while piece := here.recv(_PIECE_BYTES):
            there.sendall(piece)
    with suppress(OSError):
        there.shutdown(socket.SHUT_WR)


class _Listener(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def serving_proxy(proxy: Proxy) -> Iterator[str]:
    """Serves on 127.0.0.1 until the block ends; yields `host:port`."""
    with _Listener(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy})) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.server_address[1]}"
        finally:
            listener.shutdown()
            thread.join()
