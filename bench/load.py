"""The load: a process of its own that calls a server over kept connections, each its next call after an answer.

Reads a `Load` as MessagePack from stdin and writes a `Measured` to stdout. It speaks just enough HTTP/1.1 to
cost little: what is measured is the server.
"""

import asyncio
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import uvloop

ROOT = Path(__file__).resolve().parent.parent


class Load(msgspec.Struct):
    """`warm_s` come first and do not count."""

    host: str
    port: int
    path: str
    bodies: list[bytes]
    connections: int
    warm_s: float
    seconds: float


class Measured(msgspec.Struct):
    """`seconds` end with the last answer: calls that were on their way at the deadline are waited for and counted."""

    calls: int
    failed: int
    seconds: float
    p50_ms: float
    p95_ms: float


def measure(load: Load) -> Measured:
    """Runs the load in a process of its own.

    Raises:
        RuntimeError: no call succeeded, or some failed: such a round says nothing.
    """
    command = [sys.executable, "-m", "bench.load"]
    done = subprocess.run(command, input=msgspec.msgpack.encode(load), capture_output=True, cwd=ROOT, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the load on {load.host}:{load.port}{load.path} ended badly\n{done.stderr.decode()}")
    measured = msgspec.msgpack.decode(done.stdout, type=Measured)
    if measured.failed or not measured.calls:
        raise RuntimeError(f"{measured.failed} calls failed and {measured.calls} succeeded on port {load.port}")
    return measured


class Connection(asyncio.Protocol):
    """Sends the next request as soon as the last was answered, until the deadline."""

    def __init__(self, requests: Iterator[bytes], clock: "Stopwatch") -> None:
        self._requests, self._clock = requests, clock
        self._received = bytearray()
        self._want_bytes = -1
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but ancestry
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._want_bytes < 0:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._want_bytes = end + 4 + _content_length(self._received[:end])
        if len(self._received) >= self._want_bytes:
            self._clock.note(self._sent_s, ok=self._received.startswith(b"HTTP/1.1 200"))
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._clock.failed += 1
            self.done.set_result(None)

    def _send(self) -> None:
        if self._clock.over():
            self.done.set_result(None)
            self._transport.close()
            return
        self._received.clear()
        self._want_bytes = -1
        self._sent_s = time.perf_counter()
        self._transport.write(next(self._requests))


class Stopwatch:
    """Counts what is answered after the warm-up; after the deadline nothing more is sent."""

    def __init__(self, load: Load) -> None:
        self.from_s = time.perf_counter() + load.warm_s
        self.until_s = self.last_s = self.from_s + load.seconds
        self.took_s: list[float] = []
        self.failed = 0

    def over(self) -> bool:
        return time.perf_counter() >= self.until_s

    def note(self, sent_s: float, *, ok: bool) -> None:
        now_s = time.perf_counter()
        if not ok:
            self.failed += 1
        elif now_s >= self.from_s:
            self.took_s.append(now_s - sent_s)
            self.last_s = max(self.last_s, now_s)


def _content_length(head: bytes | bytearray) -> int:
    for line in bytes(head).lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise ValueError(f"an answer without a content-length: {bytes(head[:200])!r}")


def request(load: Load, body: bytes) -> bytes:
    head = (
        f"POST {load.path} HTTP/1.1\r\nHost: {load.host}:{load.port}\r\n"
        f"Content-Type: application/msgpack\r\nAccept: application/msgpack\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def run(load: Load) -> Measured:
    loop = asyncio.get_running_loop()
    requests = itertools.cycle([request(load, body) for body in load.bodies])
    clock = Stopwatch(load)
    opened = [
        await loop.create_connection(lambda: Connection(requests, clock), load.host, load.port)
        for _ in range(load.connections)
    ]
    limit_s = load.warm_s + load.seconds + 120
    await asyncio.wait_for(asyncio.gather(*(connection.done for _, connection in opened)), limit_s)
    took_ms = sorted(1000 * took_s for took_s in clock.took_s) or [0.0]
    p95_ms = took_ms[min(len(took_ms) - 1, int(0.95 * len(took_ms)))]
    return Measured(len(clock.took_s), clock.failed, clock.last_s - clock.from_s, statistics.median(took_ms), p95_ms)


if __name__ == "__main__":
    given = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Load)
    sys.stdout.buffer.write(msgspec.msgpack.encode(uvloop.run(run(given))))
