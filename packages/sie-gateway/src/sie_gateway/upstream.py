"""A raw HTTP/1.1 client for worker connections: one call at a time on each, kept open between calls.

It knows nothing of calls' meaning: bytes of a request head and body go out, an `Answer` comes back whose body
is taken part by part as it arrives. What is read ahead of the caller is bounded; a worker's socket is not read
while more than that waits.
"""

import asyncio
from collections import deque
from typing import Final, cast

import httptools

from sie_core.http.asgi import Header
from sie_gateway.workers import Address

HEAD_LIMIT_BYTES: Final = 64 << 10
"""What may come without the end of a head or a byte of a body: headers, trailers, the headers of chunks. Ours take less
than one KiB."""

HOLD_BYTES: Final = 256 << 10
"""An answer is passed on once it is whole or has grown so far: a worker that dies before that costs the caller a
503 and not an answer cut short. Larger than the vectors of 128 items."""

READ_AHEAD_BYTES: Final = 1 << 20
JOIN_BYTES: Final = 64 << 10
"""Up to this size copying a body behind its head is cheaper than a second system call."""

CONNECT_S: Final = 2.0
IDLE_S: Final = 30.0
"""Less than a worker keeps an idle connection open, so that a call is hardly ever sent into one that closes."""

IDLE_LIMIT: Final = 256


class Unanswered(Exception):
    """Not one byte of an answer came: the connection was refused, reset or closed."""


class CutOff(Exception):
    """The worker went away in the middle of its answer."""


class BadAnswer(Exception):
    """What came is not HTTP, or has more headers than any answer of ours."""


class Connection(asyncio.Protocol):
    """One connection to a worker. `ask`, then `take` until it says None; then it may be asked again."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.idle_since_s = 0.0
        self._transport: asyncio.Transport | None = None
        self._ended: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._asking = False
        self._parser = httptools.HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self._parts: deque[bytes] = deque()
        self._waiting_bytes = self._quiet_bytes = 0
        self._has_head = self._is_whole = self._keeps = self._is_paused = self._has_surplus = False

    @property
    def usable(self) -> bool:
        """Open, and free for a call."""
        return self._ended is None and not self._asking and self._transport is not None

    async def ask(self, head: bytes, body: bytes) -> None:
        """Send a request; returns when its answer is whole, or has `HOLD_BYTES` of body.

        Raises `Unanswered`, `CutOff`, `BadAnswer`, or what `abort` was given.
        """
        if self._ended is not None:
            raise Unanswered(str(self._ended))
        self._asking = True
        assert self._transport is not None
        if len(body) <= JOIN_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        while not (self._has_head and (self._is_whole or self._waiting_bytes >= HOLD_BYTES)):
            await self._change()

    async def take(self) -> bytes | None:
        """The next bytes of the body; None at its end. Raises as `ask` does."""
        while not self._parts:
            if self._is_whole:
                return None
            await self._change()
        data = self._parts.popleft() if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._waiting_bytes = 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    @property
    def is_whole(self) -> bool:
        """Whether the last byte of the answer has come."""
        return self._is_whole

    def release(self) -> bool:
        """The call is over; whether the connection can be asked again."""
        if not (self._is_whole and self._keeps and self._ended is None) or self._has_surplus:
            self.close()
            return False
        self._asking = False
        self._reset()
        return True

    def abort(self, reason: Exception) -> None:
        """End the call from our side: whoever waits gets `reason`."""
        self._end(reason)
        self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _change(self) -> None:
        """Returns once something has come or the connection has ended; raises why it ended when asked after that."""
        if self._ended is not None:
            raise self._ended
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self, reason: Exception) -> None:
        if self._ended is None:
            self._ended = reason
            self._wake()

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._asking or self._is_whole:
            self.abort(BadAnswer(f"{self.address.authority} sent bytes that nobody asked for"))
            return
        self._quiet_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.abort(BadAnswer(f"{self.address.authority} did not answer in HTTP: {error or type(error).__name__}"))
            return
        if self._quiet_bytes > HEAD_LIMIT_BYTES and not self._is_whole:
            self.abort(BadAnswer(f"{self.address.authority} sent more than {HEAD_LIMIT_BYTES} bytes of headers"))
            return
        if self._waiting_bytes > READ_AHEAD_BYTES and not self._is_whole and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asking and self._has_head and not self._is_whole and exc is None and self._ends_with_connection():
            self._is_whole = True
        came = self._has_head or self._quiet_bytes > 0
        said = f"{self.address.authority} closed the connection" + (f": {exc}" if exc else "")
        self._end(CutOff(said) if came else Unanswered(said))
        self._transport = None

    def _ends_with_connection(self) -> bool:
        framed = (b"content-length", b"transfer-encoding")
        return not any(name in framed for name, _ in self.headers)

    # What the parser says. Bytes after a whole answer belong to no call: they are left out, and the connection closed.

    def on_message_begin(self) -> None:
        if self._is_whole:
            self._has_surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_surplus or self._has_head:  # after the head come trailers, which nobody may take for headers
            return
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._has_surplus:
            return
        self.status = self._parser.get_status_code()
        self._has_head = self.status >= 200
        self._quiet_bytes = 0

    def on_body(self, body: bytes) -> None:
        if self._has_surplus:
            return
        self._parts.append(body)
        self._waiting_bytes += len(body)
        self._quiet_bytes = 0

    def on_message_complete(self) -> None:
        if self._has_surplus:
            return
        if self.status < 200:  # 100 Continue and the like come before the answer
            self.headers = []
            return
        self._is_whole = True
        self._keeps = self._parser.should_keep_alive()


class Connections:
    """Connections to every worker; kept ones are used first, the one used last in front."""

    def __init__(self) -> None:
        self._idle: dict[Address, deque[Connection]] = {}
        self._busy: dict[Address, set[Connection]] = {}

    def kept(self, address: Address, *, now_s: float) -> Connection | None:
        """A connection that an earlier call has left open. The worker may be closing it just now."""
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if connection.usable and now_s - connection.idle_since_s < IDLE_S:
                self._busy.setdefault(address, set()).add(connection)
                return connection
            connection.close()
        return None

    async def dial(self, address: Address) -> Connection:
        """A new connection. Raises `Unanswered` when nobody takes it within `CONNECT_S`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await loop.create_connection(lambda: Connection(address), address.host, address.port)
        except TimeoutError:
            raise Unanswered(f"{address.authority} did not take a connection within {CONNECT_S:g} s") from None
        except OSError as error:
            raise Unanswered(f"{address.authority}: {error.strerror or error}") from error
        self._busy.setdefault(address, set()).add(connection)
        return connection

    def give(self, connection: Connection, *, now_s: float) -> None:
        """Back after a call, whatever became of it. Of an address that is not called any more nothing is kept."""
        address = connection.address
        if (busy := self._busy.get(address)) is None:  # dropped meanwhile
            connection.close()
            return
        busy.discard(connection)
        idle = self._idle.setdefault(address, deque())
        if connection.release() and len(idle) < IDLE_LIMIT:
            connection.idle_since_s = now_s
            idle.append(connection)
        else:
            connection.close()

    def drop(self, address: Address, reason: Exception) -> None:
        """End every call to a worker that is gone, and forget its connections."""
        for connection in list(self._busy.pop(address, ())):
            connection.abort(reason)
        for connection in self._idle.pop(address, ()):
            connection.close()

    def close(self) -> None:
        for address in {*self._idle, *self._busy}:
            self.drop(address, CutOff("the gateway is stopping"))
