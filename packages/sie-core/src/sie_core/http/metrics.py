"""Counters, gauges and histograms in Prometheus' text format.

A program declares its metrics as constants in one place and a `Registry` prints them; there are no
global collectors and nothing is sent anywhere. Calls come from the loop's thread.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bucket limits for durations: from one short text to a long document on a busy worker."""


class Counter:
    """A number that only grows, by label values."""

    kind = "counter"

    def __init__(self, name: str, meaning: str, labels: Sequence[str] = ()) -> None:
        self.name, self.meaning, self.labels = name, meaning, tuple(labels)
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, *values: str, by: float = 1.0) -> None:
        self._values[values] = self._values.get(values, 0.0) + by

    def replace(self, values: Mapping[tuple[str, ...], float]) -> None:
        """Sets all at once, for what is counted elsewhere."""
        self._values = dict(values)

    def lines(self) -> list[str]:
        return [f"{self.name}{_shown(self.labels, key)} {value:.15g}" for key, value in sorted(self._values.items())]


class Gauge(Counter):
    """A number that is set, by label values; what `replace` leaves out is not shown any more."""

    kind = "gauge"


class Histogram:
    """Observations counted by upper limit, with sum and count, by label values."""

    kind = "histogram"

    def __init__(
        self, name: str, meaning: str, labels: Sequence[str] = (), *, limits: Sequence[float] = SECONDS
    ) -> None:
        self.name, self.meaning, self.labels, self._limits = name, meaning, tuple(labels), tuple(limits)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, value: float, *labels: str) -> None:
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._limits) + 1)
        counts[bisect_left(self._limits, value)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + value

    def lines(self) -> list[str]:
        lines = []
        for key, counts in sorted(self._counts.items()):
            running = 0
            for limit, count in zip([*map(repr, self._limits), "+Inf"], counts, strict=True):
                running += count
                lines.append(f"{self.name}_bucket{_shown((*self.labels, 'le'), (*key, limit))} {running}")
            lines.append(f"{self.name}_sum{_shown(self.labels, key)} {self._sums[key]:.9g}")
            lines.append(f"{self.name}_count{_shown(self.labels, key)} {running}")
        return lines


def render(metrics: Sequence[Counter | Histogram]) -> bytes:
    """The page that a scraper reads."""
    lines: list[str] = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {metric.meaning}", f"# TYPE {metric.name} {metric.kind}", *metric.lines()]
    return ("\n".join(lines) + "\n").encode()


def _shown(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = zip(names, values, strict=True)
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
