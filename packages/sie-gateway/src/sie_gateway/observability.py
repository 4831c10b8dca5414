"""Metrics of the gateway: their names, in one place, and what they are about."""

from collections import Counter as Tally
from collections.abc import Iterable

from sie_core.http.metrics import Counter, Gauge, Histogram, render
from sie_gateway.capacity import Place
from sie_gateway.workers import Freshness, Worker


class Metrics:
    """One set a process."""

    def __init__(self) -> None:
        self.requests = Counter("sie_gateway_requests_total", "Calls answered.", ("endpoint", "status"))
        self.seconds = Histogram(
            "sie_gateway_request_duration_seconds", "From a call's first byte to its answer's last.", ("endpoint",)
        )
        self.rejected = Counter("sie_gateway_rejected_total", "Calls the gateway itself answered.", ("reason",))
        self.provisioning = Counter(
            "sie_gateway_provisioning_total", "Calls answered 202 for want of a worker.", ("bundle", "gpu", "pool")
        )
        self.hung_up = Counter("sie_gateway_hung_up_total", "Calls whose caller did not wait for the answer.")
        self._demand = Gauge(
            "sie_gateway_demand", "Calls of the last minute that nobody could serve.", ("bundle", "gpu", "pool")
        )
        self._workers = Gauge("sie_gateway_workers", "Workers by freshness.", ("freshness",))
        self._queued = Gauge("sie_gateway_worker_queued_tokens", "Tokens waiting, as the worker said.", ("worker",))

    def page(self, workers: Iterable[Worker], demand: dict[Place, int], now_s: float) -> bytes:
        known = list(workers)
        by_freshness = Tally(worker.freshness(now_s) for worker in known)
        self._workers.replace({(freshness.value,): by_freshness[freshness] for freshness in Freshness})
        self._queued.replace({(one.name,): one.status.queued_tokens for one in known if one.status is not None})
        self._demand.replace({tuple(place): calls for place, calls in demand.items()})
        return render(
            (
                self.requests,
                self.seconds,
                self.rejected,
                self.provisioning,
                self.hung_up,
                self._demand,
                self._workers,
                self._queued,
            )
        )
