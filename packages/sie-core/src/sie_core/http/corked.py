"""One write for one answer: what is written within one turn of the loop leaves in one system call.

uvicorn writes the head and the body of an answer apart, which is two calls into the kernel and two packets; in
a virtual machine each costs as much as all of our own work on a small call. Collecting them until the turn ends
loses no time, since nothing else is done before.
"""

import asyncio
from typing import Any

from sie_core.http.guarded import GuardedProtocol

AT_ONCE_BYTES = 64 << 10
"""Above this, joining would copy more than a system call costs."""


class CorkedProtocol(GuardedProtocol):
    """The HTTP protocol, on a transport that collects writes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        super().connection_made(CorkedTransport(transport, self.loop))


class CorkedTransport(asyncio.Transport):
    """A transport that writes what it has collected once a turn of the loop; everything else is the inner one's."""

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._collected: list[bytes | bytearray | memoryview] = []
        self._collected_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._collected:
            self._loop.call_soon(self._flush)
        self._collected.append(data)
        self._collected_bytes += len(data)
        if self._collected_bytes > AT_ONCE_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._collected:
            return
        collected, self._collected = self._collected, []
        if len(collected) == 1:
            self._inner.write(collected[0])
        elif self._collected_bytes > AT_ONCE_BYTES:
            self._inner.writelines(collected)
        else:
            self._inner.write(b"".join(collected))
        self._collected_bytes = 0

    def close(self) -> None:
        self._flush()
        self._inner.close()

    def abort(self) -> None:
        self._inner.abort()

    def is_closing(self) -> bool:
        return self._inner.is_closing()

    def pause_reading(self) -> None:
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        self._inner.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._inner.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._inner.set_protocol(protocol)
