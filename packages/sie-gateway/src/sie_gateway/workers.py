"""What the gateway knows of each worker, and how far that can be trusted at a given time.

A worker is an address and what was last heard there. Its freshness follows from two times alone:

| Freshness | It is so while | Routed to |
|---|---|---|
| unknown | listed, and never heard | no |
| fresh | heard within `FRESH_S`, and no call to it was refused or reset since | yes |
| stale | heard within `GONE_S` | no |
| gone | unheard for longer; forgotten unless discovery still lists it, its running calls given up | no |

No I/O and no clock here: `discovery.py` says which addresses there are, `heartbeat.py` what they answer.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from sie_core.wire.messages import WorkerStatus

FRESH_S = 3.0
"""Three heartbeats: one lost packet takes no worker out of service, a dead one is called for three seconds at most."""

GONE_S = 30.0
"""Longer than a pause of a busy machine; a call that runs on a worker unheard for so long has lost it."""


class Freshness(StrEnum):
    UNKNOWN = "unknown"
    FRESH = "fresh"
    STALE = "stale"
    GONE = "gone"


class Address(NamedTuple):
    """Where a worker listens; `host` is a numeric address."""

    host: str
    port: int

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}"


class Worker(Struct, frozen=True):
    """One worker. A struct and not a dataclass, since one is made anew for every call that is sent.

    Attributes:
        status: its last heartbeat; None before the first.
        heard_s: when that came, on the monotonic clock.
        lost_s: when a call to it was last refused or reset before an answer.
        sent_tokens: an estimate of what this gateway has sent it since that heartbeat.
        models, loaded: those of `status`, to be looked up by every call.
    """

    address: Address
    status: WorkerStatus | None = None
    heard_s: float | None = None
    lost_s: float | None = None
    sent_tokens: int = 0
    listed: bool = True
    models: frozenset[str] = frozenset()
    loaded: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """As it calls itself, or its address where it has not been heard."""
        return self.status.name if self.status is not None else self.address.authority

    @property
    def backlog_tokens(self) -> int:
        """Tokens waiting there: what it said, and what was sent since, or a second's calls would all go to one."""
        return (self.status.queued_tokens if self.status is not None else 0) + self.sent_tokens

    def freshness(self, now_s: float) -> Freshness:
        if self.heard_s is None:
            return Freshness.UNKNOWN
        unheard_s = now_s - self.heard_s
        if unheard_s <= FRESH_S and (self.lost_s is None or self.lost_s < self.heard_s):
            return Freshness.FRESH
        return Freshness.STALE if unheard_s <= GONE_S else Freshness.GONE


class WorkerTable:
    """All workers by address. Belongs to the loop's thread; a worker in it is replaced, never changed."""

    def __init__(self) -> None:
        self._workers: dict[Address, Worker] = {}

    def all(self) -> tuple[Worker, ...]:
        return tuple(self._workers.values())

    def list_addresses(self, addresses: Iterable[Address], *, is_whole: bool = True) -> None:
        """What discovery found. An address that is no longer there stays until it has not been heard for `GONE_S`:
        an outage of the name service must not take workers out of service that answer.

        Args:
            is_whole: false when some names could not be looked up: what is missing may be theirs.
        """
        found = set(addresses)
        for address, worker in self._workers.items():
            listed = address in found or (worker.listed and not is_whole)
            if worker.listed != listed:
                self._workers[address] = replace(worker, listed=listed)
        for address in sorted(found - self._workers.keys()):
            self._workers[address] = Worker(address)

    def hear(self, address: Address, status: WorkerStatus, now_s: float) -> None:
        worker = self._workers.get(address)
        if worker is not None:
            self._workers[address] = replace(
                worker,
                status=status,
                heard_s=now_s,
                sent_tokens=0,
                models=frozenset(status.models),
                loaded=frozenset(status.loaded),
            )

    def lose(self, address: Address, now_s: float) -> None:
        """A call was refused or reset: no further one until the next heartbeat."""
        worker = self._workers.get(address)
        if worker is not None:
            self._workers[address] = replace(worker, lost_s=now_s)

    def send(self, address: Address, tokens: int) -> None:
        worker = self._workers.get(address)
        if worker is not None:
            self._workers[address] = replace(worker, sent_tokens=worker.sent_tokens + tokens)

    def forget_gone(self, now_s: float) -> tuple[Address, ...]:
        """Drops what is neither listed nor heard of; returns every address whose worker is gone now."""
        gone = [worker for worker in self._workers.values() if worker.freshness(now_s) is Freshness.GONE]
        for worker in list(self._workers.values()):
            if not worker.listed and worker.freshness(now_s) in (Freshness.GONE, Freshness.UNKNOWN):
                del self._workers[worker.address]
        return tuple(worker.address for worker in gone)
