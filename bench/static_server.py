"""A static server that does ranges, for the download bench: what a client can take, not what a server can give.

Files of a folder under their paths, sent by the kernel, in a process of its own.

    python -m bench.static_server FOLDER PORT
"""

import os
import re
import socket
import sys
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from urllib.parse import unquote, urlsplit

_RANGE = re.compile(rb"bytes=(\d+)-(\d*)")


class _Handler(StreamRequestHandler):
    disable_nagle_algorithm = True
    root: Path

    def handle(self) -> None:
        while line := self.rfile.readline():
            method, target, _ = line.split(b" ", 2)
            headers = {}
            while (header := self.rfile.readline().strip()) != b"":
                name, _, value = header.partition(b":")
                headers[name.lower()] = value.strip()
            self._send(method, target.decode("ascii"), _RANGE.match(headers.get(b"range", b"")))

    def _send(self, method: bytes, target: str, asked: re.Match[bytes] | None) -> None:
        with (self.root / unquote(urlsplit(target).path).lstrip("/")).open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            start = int(asked[1]) if asked else 0
            end = min(int(asked[2]) + 1, size_bytes) if asked and asked[2] else size_bytes
            status = "206 Partial Content" if asked else "200 OK"
            lines = [f"HTTP/1.1 {status}", f"Content-Length: {end - start}", 'ETag: "x"', "Accept-Ranges: bytes"]
            lines += [f"Content-Range: bytes {start}-{end - 1}/{size_bytes}"] if asked else []
            self.connection.sendall("\r\n".join([*lines, "", ""]).encode())
            while method == b"GET" and start < end:
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, end - start)


class _Listener(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    address_family = socket.AF_INET


def main(folder: str, port: str) -> None:
    with _Listener(("127.0.0.1", int(port)), type("Handler", (_Handler,), {"root": Path(folder)})) as listener:
        listener.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
