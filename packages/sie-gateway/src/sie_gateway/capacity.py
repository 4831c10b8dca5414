"""Demand: calls that nobody could serve yet, counted for those who start workers; and the rate of calls served.

Pure: the time is handed in. What autoscaling reads is `Demand.waiting`.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from sie_gateway.routing import Wait

REMEMBERED_S = 60.0
"""Twice the longest `Retry-After`: a caller that still waits has come back by then."""

RATE_WINDOW_S = 10


class Place(NamedTuple):
    """What is wanted where."""

    bundle: str
    gpu: str
    pool: str


@dataclass
class Demand:
    """When each place was last asked for in vain, call by call, for `REMEMBERED_S`."""

    _asked: dict[Place, deque[float]] = field(default_factory=dict)

    def note(self, wait: Wait, now_s: float) -> None:
        place = Place(bundle=wait.bundle, gpu=wait.gpu, pool=wait.pool or "")
        self._asked.setdefault(place, deque()).append(now_s)

    def waiting(self, now_s: float) -> dict[Place, int]:
        """Calls turned away within the last `REMEMBERED_S`, by place; a place that nobody asks for is not there."""
        for place, times in list(self._asked.items()):
            while times and times[0] < now_s - REMEMBERED_S:
                times.popleft()
            if not times:
                del self._asked[place]
        return {place: len(times) for place, times in self._asked.items()}


class Rate:
    """Calls a second over the last `RATE_WINDOW_S` whole seconds."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def count(self, now_s: float) -> None:
        second = int(now_s)
        if second not in self._counts:
            self._counts = {past: n for past, n in self._counts.items() if past >= second - RATE_WINDOW_S}
            self._counts[second] = 0
        self._counts[second] += 1

    def per_s(self, now_s: float) -> float:
        second = int(now_s)
        return sum(n for past, n in self._counts.items() if second - RATE_WINDOW_S <= past < second) / RATE_WINDOW_S
