"""What the gateway shows of the cluster: `/health` and the list of models, in the shapes callers know. Pure."""

from collections.abc import Iterable, Sequence

from msgspec import UNSET, Struct

from sie_core.catalog.catalog import Catalog
from sie_core.wire.messages import ModelDims, ModelEntry, ModelList, Served, WorkerStatus, profiles
from sie_gateway.workers import Freshness, Worker


class ClusterSummary(Struct):
    worker_count: int
    gpu_count: int
    models_loaded: int
    total_qps: float


class WorkerSummary(Struct):
    """`gpu` is the machine profile; `queue_depth` counts tokens. Memory is not known here and said as 0."""

    name: str
    url: str
    gpu: str
    gpu_count: int
    loaded_models: list[str]
    queue_depth: int
    memory_used_bytes: int
    memory_total_bytes: int
    healthy: bool
    freshness: str
    bundle: str
    pool: str
    bundle_config_hash: str


class ModelSummary(Struct):
    name: str
    state: str
    worker_count: int
    gpu_types: list[str]
    total_queue_depth: int


class Health(Struct):
    status: str
    type: str
    configured_gpu_types: list[str]
    live_gpu_types: list[str]
    cluster: ClusterSummary
    workers: list[WorkerSummary]
    models: list[ModelSummary]


def healthy(workers: Iterable[Worker], now_s: float) -> list[tuple[Worker, WorkerStatus]]:
    """Workers that would be sent a call, in the order of their names."""
    found = [
        (worker, worker.status)
        for worker in workers
        if worker.status is not None and worker.status.ready and worker.freshness(now_s) is Freshness.FRESH
    ]
    return sorted(found, key=lambda pair: (pair[0].name, pair[0].address))


def health(
    workers: Sequence[Worker], catalog: Catalog, *, configured: Sequence[str], calls_per_s: float, now_s: float
) -> Health:
    up = healthy(workers, now_s)
    loaded = {model for _, status in up for model in status.loaded}
    return Health(
        status="healthy" if up else "degraded",
        type="gateway",
        configured_gpu_types=list(configured),
        live_gpu_types=sorted({status.machine_profile for _, status in up if status.machine_profile}),
        cluster=ClusterSummary(
            worker_count=len(up),
            gpu_count=sum(status.gpu_count for _, status in up),
            models_loaded=len(loaded),
            total_qps=calls_per_s,
        ),
        workers=[_worker(worker, worker.status, now_s) for worker in workers if worker.status is not None],
        models=[_model(model, up) for model in _served(catalog, up)],
    )


def models(workers: Iterable[Worker], catalog: Catalog, now_s: float) -> ModelList:
    """Every model of the catalog or of a worker, with who serves it now."""
    up = healthy(workers, now_s)
    entries = [_entry(model, catalog, up) for model in _served(catalog, up)]
    return ModelList(models=entries, data=entries)


def model(name: str, workers: Iterable[Worker], catalog: Catalog, now_s: float) -> ModelEntry | None:
    up = healthy(workers, now_s)
    return _entry(name, catalog, up) if name in _served(catalog, up) else None


def _served(catalog: Catalog, up: Sequence[tuple[Worker, WorkerStatus]]) -> list[str]:
    return sorted({*catalog.specs, *(model for _, status in up for model in status.models)})


def _entry(name: str, catalog: Catalog, up: Sequence[tuple[Worker, WorkerStatus]]) -> ModelEntry:
    """What a worker that has it loaded says of it; the catalog where none has."""
    serving = [(worker, status) for worker, status in up if name in status.models]
    loaded = any(name in status.loaded for _, status in serving)
    served = [status.served[name] for _, status in serving if name in status.served]
    revisions = sorted({one.revision for one in served})
    spec = catalog.find(name)
    bundles = [str(bundle) for bundle in catalog.bundles_of(spec.id)] if spec is not None else []
    return ModelEntry(
        name=name,
        id=name,
        inputs=list(spec.inputs) if spec is not None else [],
        outputs=list(spec.outputs) if spec is not None else [],
        dims=ModelDims(**spec.sizes) if spec is not None else ModelDims(),
        loaded=loaded,
        state="loaded" if loaded else "available",
        max_sequence_length=spec.max_tokens if spec is not None else None,
        revision=",".join(revisions) or (spec.revision if spec is not None else None),
        verified=all(one.verified for one in served) if served else None,
        adopted=_adopted(served) or UNSET,
        precision=",".join(sorted({one.precision for one in served})) or UNSET,
        device=", ".join(sorted({status.hardware for _, status in serving if name in status.served})) or UNSET,
        profiles=profiles(spec.variants if spec is not None else ()),
        bundles=bundles or sorted({status.bundle for _, status in serving}),
        worker_count=len(serving),
        workers=[worker.name for worker, _ in serving],
    )


def _adopted(served: Sequence[Served]) -> bool:
    """Whether a manifest vouches for what every worker serves, and for some of it no more than an adopted one."""
    return any(one.adopted for one in served) and all(one.verified or one.adopted for one in served)


def _worker(worker: Worker, status: WorkerStatus, now_s: float) -> WorkerSummary:
    freshness = worker.freshness(now_s)
    return WorkerSummary(
        name=worker.name,
        url=worker.address.url,
        gpu=status.machine_profile,
        gpu_count=status.gpu_count,
        loaded_models=list(status.loaded),
        queue_depth=status.queued_tokens,
        memory_used_bytes=0,
        memory_total_bytes=0,
        healthy=status.ready and freshness is Freshness.FRESH,
        freshness=freshness.value,
        bundle=status.bundle,
        pool=status.pool,
        bundle_config_hash=status.fingerprint,
    )


def _model(name: str, up: Sequence[tuple[Worker, WorkerStatus]]) -> ModelSummary:
    serving = [status for _, status in up if name in status.models]
    return ModelSummary(
        name=name,
        state="loaded" if any(name in status.loaded for status in serving) else "available",
        worker_count=len(serving),
        gpu_types=sorted({status.machine_profile for status in serving if status.machine_profile}),
        total_queue_depth=sum(status.queued_tokens for status in serving),
    )
