"""Which worker gets a call.

`route` is given a call's envelope, what is known of the workers, the catalog and the time, and answers
`Forward`, `Wait` or `Refuse`. It does no I/O and reads no body: `forward.py` carries the answer out and
`capacity.py` counts the waits.

A worker is eligible when it is fresh and ready, serves one of the model's bundles, has the model, and is of
the machine profile and pool asked for (`l4` is met by `l4-spot` as well, and any by a worker that names
none). Among the eligible, one that has the model loaded comes before one that must load it; then the fewest
tokens waiting; then the name and the address, so that tests can be exact.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sie_core.catalog.catalog import Catalog
from sie_core.errors import ApiError
from sie_core.ids import BundleName, nearest
from sie_core.wire.envelope import Envelope
from sie_core.wire.messages import WorkerStatus
from sie_gateway.workers import Freshness, Worker

ANY_PROFILE = "any"
"""What a 202 names as `gpu` where the caller asked for none."""

SPOT = "-spot"

SOON_S, STARTING_S, ABSENT_S = 5.0, 10.0, 30.0
"""How long a caller is told to wait: a worker is there and gets ready; an address is there and nobody answers
yet; there is nobody. 5 s is the least and 30 s the most that a caller sleeps past the moment capacity comes."""


@dataclass(frozen=True)
class Forward:
    """Send it to `worker`; should that one refuse the connection, to `second`."""

    worker: Worker
    second: Worker | None = None


@dataclass(frozen=True)
class Wait:
    """Nobody can serve it yet, and somebody may soon: 202."""

    gpu: str
    bundle: str
    pool: str | None
    estimated_wait_s: float
    message: str


@dataclass(frozen=True)
class Refuse:
    """It cannot be served; `also` are the keys at the top of v0.3.1's body for the same case."""

    error: ApiError
    also: Mapping[str, object] = field(default_factory=dict)


Decision = Forward | Wait | Refuse


def route(
    call: Envelope, workers: Sequence[Worker], catalog: Catalog, *, configured: Sequence[str], now_s: float
) -> Decision:
    """`configured`: the machine profiles the operator listed; empty where none were."""
    fresh = [
        (worker, worker.status)
        for worker in workers
        if worker.status is not None and worker.freshness(now_s) is Freshness.FRESH
    ]
    bundles = _bundles(call, catalog, fresh)
    if isinstance(bundles, Refuse):
        return bundles
    profiles = _profiles(call.machine_profile)
    if profiles and configured and not _exists(profiles, configured, workers):
        return _no_such_profile(profiles[0], configured)
    if call.pool is not None and not _may_come(call.pool, workers, configured):
        return _no_such_pool(call.pool, workers)
    placed = [(worker, status) for worker, status in fresh if _is_place(status, call, bundles, profiles)]
    able = [worker for worker, status in placed if status.ready and call.model in worker.models]
    if able:
        able.sort(key=lambda worker: _rank(call, worker))
        return Forward(worker=able[0], second=able[1] if len(able) > 1 else None)
    if placed and all(_will_never_have(call, worker, status, catalog) for worker, status in placed):
        return _nobody_has(call, bundles, placed)
    return _wait(call, bundles, profiles, workers, [status for _, status in placed], configured)


def _rank(call: Envelope, worker: Worker) -> tuple[bool, int, str, str, int]:
    return call.model not in worker.loaded, worker.backlog_tokens, worker.name, *worker.address


def _bundles(
    call: Envelope, catalog: Catalog, fresh: Sequence[tuple[Worker, WorkerStatus]]
) -> tuple[BundleName, ...] | Refuse:
    """The bundles whose workers may serve the call, the one that is meant first in front.

    A model that the catalog lacks and a worker has is served all the same: the worker's catalog may be newer.
    """
    holding = catalog.bundles_of(call.model) if catalog.find(call.model) is not None else ()
    holding = holding or tuple(
        dict.fromkeys(BundleName(status.bundle) for worker, status in fresh if call.model in worker.models)
    )
    if not holding:
        return Refuse(catalog.no_model(call.model))
    if call.bundle is None:
        return holding
    if call.bundle in holding:
        return (call.bundle,)
    return _other_bundle(call, catalog, holding)


def _profiles(asked: str | None) -> tuple[str, ...]:
    """The machine profiles that meet what was asked: itself and its spot form; none asked, none wanted."""
    if asked is None:
        return ()
    return (asked,) if asked.endswith(SPOT) else (asked, asked + SPOT)


def _exists(profiles: Sequence[str], configured: Sequence[str], workers: Sequence[Worker]) -> bool:
    if any(profile in configured for profile in profiles):
        return True
    live = {worker.status.machine_profile for worker in workers if worker.status is not None}
    return "" in live or any(profile in live for profile in profiles)


def _may_come(pool: str, workers: Sequence[Worker], configured: Sequence[str]) -> bool:
    """Whether a worker of that pool is there, or can be on its way.

    It can be while nobody at all is there, or an address is listed that has not answered yet, which may be of that
    pool. It can be, too, where the pool has the name of a configured machine profile, as the chart names pools.
    """
    pools = _pools(workers)
    return not pools or pool in pools or pool in configured or any(one.listed and one.status is None for one in workers)


def _pools(workers: Sequence[Worker]) -> set[str]:
    return {worker.status.pool for worker in workers if worker.status is not None}


def _is_place(status: WorkerStatus, call: Envelope, bundles: Sequence[BundleName], profiles: Sequence[str]) -> bool:
    return (
        status.bundle in bundles
        and (not profiles or not status.machine_profile or status.machine_profile in profiles)
        and (call.pool is None or status.pool == call.pool)
    )


def _will_never_have(call: Envelope, worker: Worker, status: WorkerStatus, catalog: Catalog) -> bool:
    """It follows the same catalog and still does not have the model: it was started for others."""
    return status.ready and call.model not in worker.models and status.fingerprint == catalog.fingerprint


def _wait(
    call: Envelope,
    bundles: Sequence[BundleName],
    profiles: Sequence[str],
    workers: Sequence[Worker],
    placed: Sequence[WorkerStatus],
    configured: Sequence[str],
) -> Wait:
    gpu = next(
        (profile for profile in reversed(profiles) if profile in configured), call.machine_profile or ANY_PROFILE
    )
    wanted = f"bundle `{bundles[0]}` on `{gpu}`" + (f" in pool `{call.pool}`" if call.pool else "")
    if placed:
        estimate_s, why = SOON_S, f"a worker with {wanted} is getting ready"
    elif any(worker.listed and worker.status is None for worker in workers):
        estimate_s, why = STARTING_S, f"no worker with {wanted} has answered yet"
    else:
        estimate_s, why = ABSENT_S, f"there is no worker with {wanted}"
    return Wait(gpu=gpu, bundle=bundles[0], pool=call.pool, estimated_wait_s=estimate_s, message=why)


def _nobody_has(call: Envelope, bundles: Sequence[BundleName], placed: Sequence[tuple[Worker, WorkerStatus]]) -> Refuse:
    served = sorted({model for _, status in placed for model in status.models})
    near = nearest(call.model, served) or served[:3]
    message = f"model `{call.model}` is in the catalog, and no worker of bundle `{bundles[0]}` was started to serve it"
    return Refuse(ApiError("MODEL_NOT_FOUND", message, hint=f"they serve {_named(near)}" if near else None))


def _other_bundle(call: Envelope, catalog: Catalog, holding: Sequence[BundleName]) -> Refuse:
    if catalog.bundle(str(call.bundle)) is None:
        known = _named(bundle.name for bundle in catalog.bundles)
        return Refuse(ApiError("NOT_FOUND", f"there is no bundle `{call.bundle}`", hint=f"bundles are {known}"))
    message = f"bundle `{call.bundle}` does not hold model `{call.model}`"
    extra = {"compatible_bundles": list(holding)}
    return Refuse(ApiError("CONFLICT", message, hint=f"{_named(holding)} does", extra=extra), also=extra)


def _no_such_profile(profile: str, configured: Sequence[str]) -> Refuse:
    """503 as in v0.3.1, with `status: gpu_not_configured`; waiting does not help, and the code says so."""
    said = {"status": "gpu_not_configured", "gpu": profile, "configured_gpu_types": list(configured)}
    message = f"machine profile `{profile}` is not one of this cluster's"
    error = ApiError("GPU_NOT_CONFIGURED", message, hint=f"it has {_named(configured)}", extra=said)
    return Refuse(error, also=said)


def _no_such_pool(pool: str, workers: Sequence[Worker]) -> Refuse:
    hint = f"pools are {_named(sorted(_pools(workers)))}"
    return Refuse(ApiError("NOT_FOUND", f"no worker is in a pool `{pool}`", hint=hint))


def _named(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
