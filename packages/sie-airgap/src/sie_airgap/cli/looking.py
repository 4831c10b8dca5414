"""What `status` looks at by itself: whatever shows at once at a place that was checked before."""

from collections.abc import Callable, Sequence
from pathlib import Path

from sie_airgap.cli.console import bucket
from sie_airgap.cli.noting import first_of
from sie_airgap.cli.registries import opened_registry
from sie_airgap.failures import Expected, Misused
from sie_airgap.progress import counted
from sie_airgap.proof.serving import served_models
from sie_airgap.verifying import bucket as buckets
from sie_airgap.verifying import registry as registries
from sie_airgap.verifying import serving
from sie_airgap.verifying.checks import Check, Kind
from sie_airgap.verifying.ladder import Look, Sight
from sie_airgap.verifying.records import differing, digests_of
from sie_core.artifacts.errors import NotThere, TransferError, TrustError
from sie_core.artifacts.lock import Lock

SILENCE_S = 10.0
"""Somebody waits for the answer to what is true now, and whoever is silent longer is not reached. Buckets have a
shorter one of their own."""


def look(check: Check, lock: Lock) -> Sight:
    """Nothing that takes long, and nobody is waited for."""
    if check.exit_code or check.kind not in _LOOKS:
        return Sight(Look.UNSEEN)
    try:
        return _LOOKS[check.kind](check, lock)
    except (NotThere, TrustError) as error:
        return Sight(Look.WRONG, first_of([error]), error.exit_code)
    except TransferError as error:
        return Sight(Look.AWAY, first_of([error]), error.exit_code)
    except Misused as error:  # its client is not installed here any more
        return Sight(Look.AWAY, first_of([error]))


def _media(check: Check, lock: Lock) -> Sight:
    if not all(Path(name).exists() for name in check.again[1:]):
        return Sight(Look.UNSEEN, "the media are not here now")
    return _files(check)


def _store(check: Check, lock: Lock) -> Sight:
    if not Path(check.place).is_dir():
        return Sight(Look.UNSEEN, "the store is not here now")
    gone, _ = differing(check.files)
    if gone:
        return Sight(Look.WRONG, f"{counted(len(gone), 'blob')} not there now: {gone[0]}", NotThere.exit_code)
    return _files(check)


def _values(check: Check, lock: Lock) -> Sight:
    now = digests_of(Path(name) for name in check.texts)
    changed = [name for name, digest in check.texts.items() if now.get(name) != digest]
    return Sight(Look.CHANGED, f"not as then: {changed[0]}") if changed else Sight(Look.SAME, "the values are the same")


def _files(check: Check) -> Sight:
    _, changed = differing(check.files)
    if changed:
        return Sight(Look.CHANGED, f"{counted(len(changed), 'file')} not as then: {changed[0]}")
    if check.files:
        return Sight(Look.SAME, "nothing of it was written to since")
    return Sight(Look.UNSEEN, "whether it was written to since cannot be told")


def _registry(check: Check, lock: Lock) -> Sight:
    with opened_registry(check.place, timeout_s=SILENCE_S) as registry:
        findings = registries.glance(lock, registry, full_names="--full-names" in check.again)
    return _seen(findings, "the tags name it now")


def _bucket(check: Check, lock: Lock) -> Sight:
    store = bucket(check.place, endpoint=check.option("--endpoint"), region=check.option("--region"))
    return _seen(list(buckets.glance(store, lock)), "lock, manifests and lengths are so now")


def _worker(check: Check, lock: Lock) -> Sight:
    entries = served_models(check.place, timeout_s=SILENCE_S)
    findings = list(serving.differences(lock, entries, where=check.place))
    wanted = {model.id for model in serving.callable_models(lock)}
    loaded = sum(entry.loaded for entry in entries if entry.name in wanted)
    look = Look.SAME if loaded == len(wanted) else Look.SO
    return _seen(findings, f"{loaded} of {counted(len(wanted), 'model')} loaded now", look)


def _seen(findings: Sequence[Expected], said: str, look: Look = Look.SO) -> Sight:
    if findings:
        return Sight(Look.WRONG, first_of(findings), findings[0].exit_code)
    return Sight(look, said)


_LOOKS: dict[str, Callable[[Check, Lock], Sight]] = {
    Kind.INDEX: _media,
    Kind.MEDIA: _media,
    Kind.STORE: _store,
    Kind.REGISTRY: _registry,
    Kind.BUCKET: _bucket,
    Kind.MANIFESTS: _values,
    Kind.WORKER: _worker,
}
