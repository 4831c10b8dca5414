"""Carry a call to a worker and its answer back: bytes in, the same bytes out.

`routing.py` has decided where to; here is how. The body is whole in memory and never looked into. A second
worker is tried only while the body is small and the first has not answered a byte, or has said that it is
stopping and took no call. What ends a call from the caller's side (hanging up, its deadline) closes the
worker's connection, which tells the worker that nobody waits.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sie_core.errors import ApiError
from sie_core.http.asgi import Header, Receive, Scope, Send
from sie_core.http.respond import CallerGone
from sie_core.wire.envelope import Envelope
from sie_gateway.routing import Forward
from sie_gateway.upstream import BadAnswer, Connection, Connections, CutOff, Unanswered
from sie_gateway.workers import Worker, WorkerTable

SECOND_TRY_BYTES = 1 << 20
"""Bodies up to this size are sent to a second worker; a larger one costs more to repeat than the caller's own retry."""

BYTES_PER_TOKEN = 4
"""Of a body, to guess what a call adds to a worker's queue until it says so itself."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_NOT_HANDED_ON = HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"x-sie-machine-profile",
    b"x-sie-pool",
    b"x-sie-timeout-ms",
    b"x-request-id",
}
_NOT_HANDED_BACK = HOP_BY_HOP | {b"date", b"server", b"x-request-id", b"x-sie-request-id", b"x-sie-worker"}


@dataclass(frozen=True)
class Call:
    """One call, whole.

    Attributes:
        started_s: when its first byte was read, on the loop's clock; its deadline counts from there.
        token: sent to the worker where the caller sent none; None sends none.
    """

    scope: Scope
    envelope: Envelope
    body: bytes
    request_id: str
    started_s: float
    token: str | None


class Patience:
    """How long the caller waits: until its deadline, or until it hangs up. Either ends the connection attached."""

    def __init__(self, receive: Receive, deadline_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._over: Exception | None = None
        self._connection: Connection | None = None
        self._dialling: asyncio.Task[Connection] | None = None
        self._watching = loop.create_task(self._watch(receive))
        self._timer = loop.call_at(deadline_s, self._expire) if deadline_s is not None else None

    async def dialled(self, dial: Callable[[], Coroutine[Any, Any, Connection]]) -> Connection:
        """The connection that `dial` makes. Raises what ended the wait before there was one."""
        self.check()
        self._dialling = asyncio.get_running_loop().create_task(dial())
        try:
            return await self._dialling
        except asyncio.CancelledError:
            self.check()
            raise
        finally:
            self._dialling = None

    def attach(self, connection: Connection) -> None:
        """Raises what ended the wait, if it is over already."""
        self.check()
        self._connection = connection

    def check(self) -> None:
        if self._over is not None:
            raise self._over

    def close(self) -> None:
        self._watching.cancel()
        if self._timer is not None:
            self._timer.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._end(CallerGone())

    def _expire(self) -> None:
        self._end(ApiError("DEADLINE_EXCEEDED", "the caller's deadline passed before the worker had answered"))

    def _end(self, reason: Exception) -> None:
        self._over = reason
        if self._dialling is not None:
            self._dialling.cancel()
        if self._connection is not None:
            self._connection.abort(reason)


class Forwarder:
    """Forwards calls over kept connections, and tells the table which workers did not take them."""

    def __init__(self, table: WorkerTable, connections: Connections, *, clock: Callable[[], float]) -> None:
        self._table = table
        self._connections = connections
        self._clock = clock

    async def forward(
        self, call: Call, decision: Forward, receive: Receive, send: Send, *, headers: Sequence[Header]
    ) -> int:
        """Answer the caller with what a worker answers; returns the status sent.

        Args:
            headers: added to the worker's own; `x-sie-worker` is added here.

        Raises:
            ApiError: nothing was sent yet: `WORKER_LOST`, `DEADLINE_EXCEEDED`, or `INTERNAL_ERROR` for an
                answer that is not HTTP.
            CallerGone: the caller hung up.
            CutOff: the answer was being passed on when the worker went away; the connection must be closed.
        """
        timeout_ms = call.envelope.timeout_ms
        patience = Patience(receive, None if timeout_ms is None else call.started_s + timeout_ms / 1000)
        try:
            connection, worker = await self._asked(call, decision, patience)
            try:
                name = worker.name.encode("latin-1", "replace")
                await _hand_back(connection, send, headers=[*headers, (b"x-sie-worker", name)])
                return connection.status
            finally:
                self._connections.give(connection, now_s=self._clock())
        finally:
            patience.close()

    async def _asked(self, call: Call, decision: Forward, patience: Patience) -> tuple[Connection, Worker]:
        """The connection on which an answer has come, from the first worker that gave one."""
        targets = [decision.worker]
        if decision.second is not None and len(call.body) <= SECOND_TRY_BYTES:
            targets.append(decision.second)
        reasons: list[str] = []
        for worker in targets:
            try:
                connection = await self._ask(call, worker, patience)
            except Unanswered as error:
                self._table.lose(worker.address, self._clock())
                reasons.append(f"`{worker.name}`: {error}")
                continue
            except CutOff as error:
                raise _lost(f"worker `{worker.name}` went away in the middle of its answer: {error}") from error
            except BadAnswer as error:
                raise ApiError("INTERNAL_ERROR", f"worker `{worker.name}`: {error}") from error
            if worker is targets[-1] or not _is_stopping(connection):
                return connection, worker
            self._table.lose(worker.address, self._clock())
            self._connections.give(connection, now_s=self._clock())
        raise _lost("no worker took the call: " + "; ".join(reasons))

    async def _ask(self, call: Call, worker: Worker, patience: Patience) -> Connection:
        """One worker. A kept connection that turns out to be closed is replaced once: that is no sign of a lost one."""
        self._table.send(worker.address, len(call.body) // BYTES_PER_TOKEN)
        kept = self._connections.kept(worker.address, now_s=self._clock())
        if kept is not None:
            with contextlib.suppress(Unanswered):
                return await self._ask_on(kept, call, worker, patience)
        dialled = await patience.dialled(lambda: self._connections.dial(worker.address))
        return await self._ask_on(dialled, call, worker, patience)

    async def _ask_on(self, connection: Connection, call: Call, worker: Worker, patience: Patience) -> Connection:
        try:
            patience.attach(connection)
            await connection.ask(request_head(call, worker, now_s=self._clock()), call.body)
        except BaseException:
            connection.close()
            self._connections.give(connection, now_s=self._clock())
            raise
        return connection


async def _hand_back(connection: Connection, send: Send, *, headers: Sequence[Header]) -> None:
    """The worker's answer as it comes. A slow caller slows the reading; nothing is copied twice."""
    back = [*_kept_headers(connection.headers, _NOT_HANDED_BACK), *headers]
    body = await connection.take()
    await send({"type": "http.response.start", "status": connection.status, "headers": back})
    try:
        while body is not None and not connection.is_whole:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            body = await connection.take()
    except (ApiError, BadAnswer) as error:  # too late to tell the caller
        raise CutOff(str(error)) from error
    await send({"type": "http.response.body", "body": body or b"", "more_body": False})


def request_head(call: Call, worker: Worker, *, now_s: float) -> bytes:
    """The head of the request as the worker gets it.

    The caller's headers, but those between two hops, and those that the gateway answers for: the machine
    profile is the worker's own (`l4` was asked and `l4-spot` found), the timeout is what is left of it.
    """
    scope, envelope = call.scope, call.envelope
    query = scope["query_string"]
    target = scope["raw_path"] + (b"?" + query if query else b"")
    headers = _kept_headers(scope["headers"], _NOT_HANDED_ON)
    headers += [
        (b"host", worker.address.authority.encode()),
        (b"content-length", b"%d" % len(call.body)),
        (b"x-request-id", call.request_id.encode()),
    ]
    if envelope.machine_profile is not None:
        profile = (worker.status.machine_profile if worker.status else "") or envelope.machine_profile
        headers.append((b"x-sie-machine-profile", profile.encode()))
    if envelope.timeout_ms is not None:
        left_ms = envelope.timeout_ms - int((now_s - call.started_s) * 1000)
        headers.append((b"x-sie-timeout-ms", b"%d" % max(1, left_ms)))
    if call.token is not None and not any(name == b"authorization" for name, _ in headers):
        headers.append((b"authorization", b"Bearer " + call.token.encode()))
    lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (scope["method"].encode(), target, lines)


def _kept_headers(headers: Iterable[Header], dropped: frozenset[bytes]) -> list[Header]:
    """Without those in `dropped`, and those that `Connection` names."""
    kept, named = [], b""
    for pair in headers:
        if pair[0] not in dropped:
            kept.append(pair)
        elif pair[0] == b"connection":
            named += b"," + pair[1]
    if named in (b"", b",keep-alive", b",close"):
        return kept
    names = {token.strip().lower() for token in named.split(b",")}
    return [pair for pair in kept if pair[0] not in names]


def _is_stopping(connection: Connection) -> bool:
    """The worker took no call: it is safe to give it to another."""
    return connection.status == 503 and (b"x-sie-error-code", b"SHUTTING_DOWN") in connection.headers


def _lost(message: str) -> ApiError:
    return ApiError("WORKER_LOST", message, hint="the same call may succeed at once on another worker")
