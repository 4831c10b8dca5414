"""What a worker says about itself: its metrics' names, its log events, and the numbers behind `/metrics`.

Names stand here and nowhere else. The numbers belong to the event loop's thread: device threads hand theirs
over with the results.
"""

from collections.abc import Mapping
from typing import Final

from sie_core.http.metrics import Counter, Gauge, Histogram, render

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
MODEL_PREDICTED: Final = "sie_model_memory_predicted_bytes"
MEMORY_BUDGET: Final = "sie_memory_budget_bytes"
LOADS_WAITING: Final = "sie_model_loads_waiting"
EVICTED: Final = "sie_models_evicted_total"
SPLITS: Final = "sie_oom_batch_splits"
FILES_EVICTED: Final = "sie_local_cache_evictions_total"
DEVICE_SECONDS: Final = "sie_device_seconds_total"
LOAD_SECONDS: Final = "sie_model_load_seconds"
LOAD_FAILURES: Final = "sie_model_load_failures"

PHASES: Final = ("total", "queue", "tokenization", "inference", "postprocessing")

EVENT_READY: Final = "ready"
EVENT_LOADING: Final = "loading"
EVENT_MODEL_LOADED: Final = "model loaded"
EVENT_MODEL_FAILED: Final = "model failed to load"
EVENT_NOT_WIDENED: Final = "second copy not made"
EVENT_LORA_LOADED: Final = "LoRA loaded"
EVENT_MODEL_UNLOADED: Final = "model unloaded"
EVENT_CATALOG: Final = "catalog changed"
EVENT_BATCH_FAILED: Final = "batch failed"
EVENT_BUG: Final = "failed on a bug"
EVENT_CALLER_GONE: Final = "caller gone"

_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)

Values = Mapping[tuple[str, ...], float]


class Metrics:
    """Everything that one worker counts, and the gauges that are read when somebody looks."""

    def __init__(self) -> None:
        self.requests = Counter(REQUESTS, "Calls answered, by HTTP status.", ("model", "endpoint", "status"))
        self.seconds = Histogram(REQUEST_SECONDS, "Where calls' time went.", ("model", "endpoint", "phase"))
        self.batch_items = Histogram(BATCH_ITEMS, "Items in a forward pass.", ("model",), limits=_ITEMS)
        self.batch_tokens = Histogram(BATCH_TOKENS, "Tokens in a forward pass.", ("model",), limits=_TOKENS)
        self.tokens = Counter(TOKENS, "Tokens that went through the model.", ("model",))
        self.dropped = Counter(DROPPED, "Items not run: their caller had gone or was late.", ("model",))
        self.queue_depth = Gauge(QUEUE_DEPTH, "Items that wait for the device.", ("model",))
        self.queued_tokens = Gauge(QUEUED_TOKENS, "Tokens admitted and not yet answered.")
        self.loaded = Gauge(MODEL_LOADED, "1 for each model that answers at once.", ("model", "device"))
        self.memory = Gauge(
            MODEL_MEMORY, "What a model counts for in the budget: measured where it could be.", ("model", "device")
        )
        self.predicted = Gauge(MODEL_PREDICTED, "What its files said that it would take.", ("model", "device"))
        self.budget = Gauge(MEMORY_BUDGET, "What all models together may hold.")
        self.loads_waiting = Gauge(LOADS_WAITING, "Loads that wait for memory.")
        self.evicted = Counter(EVICTED, "Models unloaded to make room, or because nobody used them.", ("model",))
        self.files_evicted = Counter(
            FILES_EVICTED, "Models removed from the local cache, on the disk, to make room.", ("model",)
        )
        self.device_seconds = Counter(DEVICE_SECONDS, "Time that device threads spent on a model.", ("model",))
        self.splits = Counter(SPLITS, "Batches run again in halves for want of memory.", ("model",))
        self.load_seconds = Gauge(LOAD_SECONDS, "How long the last load took.", ("model",))
        self.load_failures = Gauge(LOAD_FAILURES, "Loads that failed since the start.", ("model", "error_class"))

    def page(self) -> bytes:
        return render(tuple(vars(self).values()))
