"""What a worker says about itself: metric names, log events, and the numbers behind `/metrics`.

Names stand here and nowhere else. Counters and histograms belong to the event loop's thread (device
threads hand their measurements over with the results), so they need no locks.
"""

import json
import logging
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

REQUESTS: Final = "sie_requests_total"
REQUEST_SECONDS: Final = "sie_request_duration_seconds"
BATCH_ITEMS: Final = "sie_batch_size"
BATCH_TOKENS: Final = "sie_batch_tokens"
TOKENS: Final = "sie_tokens_processed_total"
DROPPED: Final = "sie_jobs_dropped_total"
QUEUE_DEPTH: Final = "sie_queue_depth"
QUEUED_TOKENS: Final = "sie_queued_tokens"
MODEL_LOADED: Final = "sie_model_loaded"
MODEL_MEMORY: Final = "sie_model_memory_bytes"
LOAD_SECONDS: Final = "sie_model_load_seconds"
LOAD_FAILURES: Final = "sie_model_load_failures_total"

PHASES: Final = ("total", "queue", "tokenization", "inference", "postprocessing")

EVENT_MODEL_LOADED: Final = "model loaded"
EVENT_MODEL_FAILED: Final = "model failed to load"
EVENT_MODEL_UNLOADED: Final = "model unloaded"
EVENT_CATALOG: Final = "catalog changed"
EVENT_BATCH_FAILED: Final = "batch failed"
EVENT_BUG: Final = "request failed on a bug"
EVENT_WAITING: Final = "waiting for weights"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)

Labels = tuple[str, ...]


@dataclass
class Counter:
    """A sum per label values; also what a gauge is written with."""

    name: str
    help: str
    labels: Labels
    kind: str = "counter"
    values: dict[Labels, float] = field(default_factory=dict)

    def add(self, *labels: str, by: float = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + by

    def lines(self) -> Iterable[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.values.items():
            yield f"{self.name}{_braces(self.labels, labels)} {value:.17g}"


@dataclass
class Histogram:
    """Counts per bucket and label values, with their sum."""

    name: str
    help: str
    labels: Labels
    bounds: Sequence[float]
    counts: dict[Labels, list[int]] = field(default_factory=dict)
    sums: dict[Labels, float] = field(default_factory=dict)

    def observe(self, value: float, *labels: str) -> None:
        counts = self.counts.get(labels)
        if counts is None:
            counts = self.counts[labels] = [0] * (len(self.bounds) + 1)
            self.sums[labels] = 0.0
        counts[bisect_left(self.bounds, value)] += 1
        self.sums[labels] += value

    def lines(self) -> Iterable[str]:
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} histogram"
        for labels, counts in self.counts.items():
            running = 0
            for bound, count in zip((*(f"{bound:g}" for bound in self.bounds), "+Inf"), counts, strict=True):
                running += count
                yield f"{self.name}_bucket{_braces((*self.labels, 'le'), (*labels, bound))} {running}"
            yield f"{self.name}_sum{_braces(self.labels, labels)} {self.sums[labels]:.17g}"
            yield f"{self.name}_count{_braces(self.labels, labels)} {running}"


class Metrics:
    """Everything that one worker counts."""

    def __init__(self) -> None:
        self.requests = Counter(REQUESTS, "Calls answered, by HTTP status.", ("model", "endpoint", "status"))
        self.seconds = Histogram(REQUEST_SECONDS, "Where a call's time went.", ("model", "endpoint", "phase"), _SECONDS)
        self.batch_items = Histogram(BATCH_ITEMS, "Items in a forward pass.", ("model",), _ITEMS)
        self.batch_tokens = Histogram(BATCH_TOKENS, "Tokens in a forward pass.", ("model",), _TOKENS)
        self.tokens = Counter(TOKENS, "Tokens that went through the model.", ("model",))
        self.dropped = Counter(DROPPED, "Items not run because their caller had gone or was late.", ("model",))

    def render(self, gauges: Iterable[Counter]) -> str:
        """Prometheus' text format, with the gauges of this moment."""
        kept: tuple[Counter | Histogram, ...] = (
            self.requests,
            self.seconds,
            self.batch_items,
            self.batch_tokens,
            self.tokens,
            self.dropped,
        )
        return "".join(f"{line}\n" for metric in (*kept, *gauges) for line in metric.lines())


def gauge(name: str, help_text: str, labels: Labels, values: Mapping[Labels, float]) -> Counter:
    return Counter(name, help_text, labels, kind="gauge", values=dict(values))


def _braces(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class _Lines(logging.Formatter):
    """`12:00:01 INFO  model loaded  model=… seconds=…`, or the same as one JSON object a line."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self.as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        trace = self.formatException(record.exc_info) if record.exc_info else None
        if self.as_json:
            said = {"time": _utc(record.created), "level": record.levelname.lower(), "event": record.getMessage()}
            return json.dumps({**said, **fields, **({"trace": trace} if trace else {})}, default=str)
        pairs = " ".join(f"{name}={_shown(value)}" for name, value in fields.items())
        line = f"{_utc(record.created)} {record.levelname:<7} {record.getMessage()}  {pairs}".rstrip()
        return f"{line}\n{trace}" if trace else line


def configure_logging(level: str, *, as_json: bool) -> None:
    """All of the process' log lines to stderr, one event with fields each."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines(as_json=as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("sie").setLevel(level.upper())


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


def _shown(value: object) -> str:
    text = str(value)
    return json.dumps(text) if " " in text or "\n" in text or not text else text
