"""A TCP proxy in front of a real server, which spoils on demand what comes back.

It knows nothing of the protocol but that a client speaks first. Bytes are counted in both directions, so that
a test can say how much was sent again.
"""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Literal, Protocol

_CHUNK_BYTES = 1 << 16

Kind = Literal["cut", "reset", "status", "flip", "dribble"]


@dataclass(frozen=True)
class TcpFault:
    """What happens to the answers from now on.

    Attributes:
        kind: `cut` ends the connection after `after_bytes` more answered bytes, `reset` ends it with a RST,
            `flip` changes one bit of the byte there, `status` answers the next request with that HTTP status
            in place of the server, `dribble` passes answers on in pieces of `after_bytes`.
        times: how often, before all is well again.
    """

    kind: Kind
    after_bytes: int = 0
    status: int = 503
    times: int = 1


class FaultyProxy:
    """Listens on 127.0.0.1; `endpoint` is what to give a client in place of the server's own."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._fault: TcpFault | None = None
        self._left_bytes = 0
        self._due: tuple[int, Callable[[], object]] | None = None
        self.answered_bytes = 0
        self.asked_bytes = 0
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def arm(self, fault: TcpFault) -> None:
        with self._lock:
            self._fault = fault
            self._left_bytes = fault.after_bytes

    def when_asked(self, total_bytes: int, action: Callable[[], object]) -> None:
        """Do this once, when so many bytes have come from clients in all; they are not passed on any more then."""
        with self._lock:
            self._due = (total_bytes, action)

    def close(self) -> None:
        """Refuse new connections and end those that are open."""
        with suppress(OSError):  # closed before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        with self._lock:
            for one in self._open:
                _end(one)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            connection = threading.Thread(target=self._connect, args=(client,))
            self._threads.append(connection)
            connection.start()

    def _connect(self, client: socket.socket) -> None:
        """One connection: two pumps; when one ends, so does the other."""
        with client, suppress(OSError), socket.create_connection(self._upstream) as server:
            with self._lock:
                self._open |= {client, server}
            back = threading.Thread(target=self._pump, args=(server, client, self._answer))
            back.start()
            self._pump(client, server, self._ask)
            back.join()
            with self._lock:
                self._open -= {client, server}

    def _pump(self, source: socket.socket, sink: socket.socket, pass_on: "PassOn") -> None:
        with suppress(OSError):
            while (chunk := source.recv(_CHUNK_BYTES)) and pass_on(chunk, source, sink):
                pass
        _end(source)
        _end(sink)

    def _ask(self, chunk: bytes, client: socket.socket, server: socket.socket) -> bool:
        """Client to server; False ends the connection."""
        with self._lock:
            self.asked_bytes += len(chunk)
            due = self._due if self._due is not None and self.asked_bytes >= self._due[0] else None
            self._due = None if due is not None else self._due
            status = self._fault.status if self._fault and self._fault.kind == "status" else None
            if status is not None:
                self._spend()
        if due is not None:
            due[1]()
            return False
        if status is None:
            server.sendall(chunk)
            return True
        client.sendall(b"HTTP/1.1 %d Spoilt\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
        return False

    def _answer(self, chunk: bytes, server: socket.socket, client: socket.socket) -> bool:
        """Server to client; False ends the connection."""
        with self._lock:
            fault = self._fault
            self.answered_bytes += len(chunk)
            if fault is None or fault.kind == "status":
                reached = None
            else:
                reached = self._left_bytes if self._left_bytes < len(chunk) else None
                self._left_bytes = max(0, self._left_bytes - len(chunk))
            if reached is not None and fault is not None and fault.kind != "dribble":
                self._spend()
        if fault is not None and fault.kind == "dribble":
            for start in range(0, len(chunk), fault.after_bytes):
                client.sendall(chunk[start : start + fault.after_bytes])
            return True
        if reached is None or fault is None:
            client.sendall(chunk)
            return True
        return _spoil(fault.kind, chunk, reached, client)

    def _spend(self) -> None:
        """One time less; with the lock held."""
        if self._fault is not None:
            left = self._fault.times - 1
            self._fault = replace(self._fault, times=left) if left else None
            self._left_bytes = self._fault.after_bytes if self._fault else 0


class PassOn(Protocol):
    """Sends a chunk on; says whether the connection goes on."""

    def __call__(self, chunk: bytes, source: socket.socket, sink: socket.socket, /) -> bool: ...


def _end(one: socket.socket) -> None:
    """Wake whoever reads from it. The last word, FIN or RST, is said when it is closed."""
    with suppress(OSError):
        one.shutdown(socket.SHUT_RD)


def _spoil(kind: Kind, chunk: bytes, at: int, client: socket.socket) -> bool:
    if kind == "flip":
        client.sendall(chunk[:at] + bytes([chunk[at] ^ 0x10]) + chunk[at + 1 :])
        return True
    client.sendall(chunk[:at])
    if kind == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


@contextmanager
def proxy(endpoint: str) -> Iterator[FaultyProxy]:
    """In front of `http://HOST:PORT` for the time of the block."""
    host, _, port = endpoint.removeprefix("http://").rpartition(":")
    between = FaultyProxy((host, int(port)))
    try:
        yield between
    finally:
        between.close()
