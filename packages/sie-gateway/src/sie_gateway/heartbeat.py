"""Ask every worker how it is, each second, each in a task of its own: a slow one delays no other.

The addresses are looked up at the same pace. What is heard goes into the table, and calls that run on a
worker which has not been heard for too long are ended, so that their callers are told instead of waiting.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import msgspec

from sie_core.wire.messages import WorkerStatus
from sie_gateway.discovery import Found
from sie_gateway.upstream import BadAnswer, Connection, Connections, CutOff, Unanswered
from sie_gateway.workers import Address, WorkerTable

PERIOD_S = 1.0
EAGER = 4
"""How much more often a worker is asked that is not ready yet: a caller may be waiting for it."""

ANSWER_S = 2.0
"""A worker that takes longer to say how it is counts as unheard."""

BODY_LIMIT_BYTES = 4 << 20
"""A heartbeat names every model twice at the most: thousands of them fit."""

logger = logging.getLogger("sie.gateway")
_decoder = msgspec.json.Decoder(WorkerStatus)


class Heartbeats:
    """Keeps a table true.

    Args:
        lookup: the addresses there are now.
        token: sent as bearer token, for workers that want one.
        clock: monotonic seconds, the same that the table is asked with.
    """

    def __init__(
        self,
        table: WorkerTable,
        connections: Connections,
        *,
        lookup: Callable[[], Awaitable[Found]],
        token: str | None,
        clock: Callable[[], float],
        period_s: float = PERIOD_S,
    ) -> None:
        self._table = table
        self._connections = connections
        self._lookup = lookup
        self._token = token
        self._clock = clock
        self._period_s = period_s
        self._asking: dict[Address, asyncio.Task[None]] = {}
        self._failing: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(self._period_s)
        finally:
            for task in self._asking.values():
                task.cancel()
            await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def look(self) -> None:
        """One round: which addresses there are, who is gone, and a task for each that is not."""
        found = await self._lookup()
        self._table.list_addresses(found.addresses, is_whole=not found.failed)
        if found.failed.keys() != self._failing:
            self._failing = frozenset(found.failed)
            _report_lookups(found)
        for address in self._table.forget_gone(self._clock()):
            self._connections.drop(address, CutOff(f"{address.authority} has not been heard of"))
        known = {worker.address for worker in self._table.all()}
        for address in self._asking.keys() - known:
            self._asking.pop(address).cancel()
            self._connections.drop(address, CutOff(f"{address.authority} is not listed any more"))
        for address in known - self._asking.keys():
            self._asking[address] = asyncio.create_task(self._follow(address))

    async def _follow(self, address: Address) -> None:
        was_heard: bool | None = None
        while True:
            asked_s = self._clock()
            heard = await self._ask(address)
            if isinstance(heard, WorkerStatus):
                self._table.hear(address, heard, self._clock())
            is_heard = isinstance(heard, WorkerStatus)
            if is_heard != was_heard:
                was_heard = is_heard
                _report(address, heard)
            is_ready = isinstance(heard, WorkerStatus) and heard.ready
            period_s = self._period_s if is_ready else self._period_s / EAGER
            await asyncio.sleep(max(0.0, period_s - (self._clock() - asked_s)))

    async def _ask(self, address: Address) -> WorkerStatus | str:
        """The worker's status, or why there is none."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._get(address)
        except TimeoutError:
            return f"no answer within {ANSWER_S:g} s"
        except (Unanswered, CutOff, BadAnswer, msgspec.MsgspecError, RecursionError) as error:
            return str(error)

    async def _get(self, address: Address) -> WorkerStatus | str:
        kept = self._connections.kept(address, now_s=self._clock())
        if kept is not None:
            with contextlib.suppress(Unanswered):  # it was closed while it was idle
                return await self._get_on(kept)
        return await self._get_on(await self._connections.dial(address))

    async def _get_on(self, connection: Connection) -> WorkerStatus | str:
        try:
            await connection.ask(self._head(connection.address), b"")
            body = bytearray()
            while (part := await connection.take()) is not None and len(body) < BODY_LIMIT_BYTES:
                body += part
            if connection.status != 200:
                return f"`/heartbeat` answered {connection.status}"
            return _checked(_decoder.decode(body))
        finally:
            self._connections.give(connection, now_s=self._clock())

    def _head(self, address: Address) -> bytes:
        token = f"authorization: Bearer {self._token}\r\n" if self._token else ""
        return f"GET /heartbeat HTTP/1.1\r\nhost: {address.authority}\r\n{token}\r\n".encode()


def _report_lookups(found: Found) -> None:
    if found.failed:
        logger.warning("lookup_failed", extra={"fields": dict(found.failed)})
    else:
        logger.info("lookup_succeeded", extra={"fields": {"addresses": len(found.addresses)}})


def _checked(status: WorkerStatus) -> WorkerStatus | str:
    """Its names are put into headers: a line end in one would begin a header of the worker's choosing."""
    for name in (status.name, status.machine_profile, status.pool, status.bundle):
        if not (name.isascii() and name.isprintable()):
            return f"a name in `/heartbeat` is {ascii(name)[:80]}, want printable ASCII"
    return status


def _report(address: Address, heard: WorkerStatus | str) -> None:
    if isinstance(heard, WorkerStatus):
        fields = {"url": address.url, "worker": heard.name, "pool": heard.pool, "profile": heard.machine_profile}
        logger.info("worker_heard", extra={"fields": fields})
    else:
        logger.warning("worker_unheard", extra={"fields": {"url": address.url, "reason": heard}})
