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


MOST_PLACES = 256
"""Of each the metrics keep a line for ever; clusters have a handful."""

ELSEWHERE = Place(bundle="other", gpu="other", pool="other")


@dataclass
class Demand:
    """When each place was last asked for in vain, call by call, for `REMEMBERED_S`."""

    _asked: dict[Place, deque[float]] = field(default_factory=dict)
    _named: set[Place] = field(default_factory=set)

    def note(self, wait: Wait, now_s: float) -> Place:
        """Returns the place it was counted under: callers choose the names, so there are `MOST_PLACES` of them."""
        place = Place(bundle=wait.bundle, gpu=wait.gpu, pool=wait.pool or "")
        if place not in self._named and len(self._named) >= MOST_PLACES:
            place = ELSEWHERE
        self._named.add(place)
        times = self._asked.setdefault(place, deque())
        times.append(now_s)
        _forget(times, now_s)
        return place

    def waiting(self, now_s: float) -> dict[Place, int]:
        """Calls turned away within the last `REMEMBERED_S`, by place; a place that nobody asks for is not there."""
        for times in self._asked.values():
            _forget(times, now_s)
        self._asked = {place: times for place, times in self._asked.items() if times}
        return {place: len(times) for place, times in self._asked.items()}


def _forget(times: deque[float], now_s: float) -> None:
    while times and times[0] < now_s - REMEMBERED_S:
        times.popleft()


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
