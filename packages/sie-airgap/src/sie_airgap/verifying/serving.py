"""What a running worker or gateway says it serves, held against the lock. Pure.

A worker checks every file before it loads a model, and says so in `/v1/models`: the commit, and whether what it loaded
was verified. Of a model that nobody has loaded yet there is nothing to say, and it is no finding.
"""

from collections.abc import Iterable, Iterator

from sie_airgap.failures import Drift, Expected, Findings
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.lock import Lock, LockedModel
from sie_core.wire.messages import ModelEntry


def differences(lock: Lock, entries: Iterable[ModelEntry], *, where: str) -> Iterator[Expected]:
    """Every model of the lock that is not served, or otherwise than as locked; every one loaded that is not locked."""
    served = {entry.name: entry for entry in entries}
    for model in callable_models(lock):
        entry = served.pop(model.id, None)
        if entry is None:
            yield NotThere(
                f"`{model.id}` is not served at {where}\n  want  {model.revision}\n  have  nothing",
                hint="`workers.common.bundle` and the specs at the config service say what is served",
            )
        else:
            yield from _model(model, entry, where)
    for entry in served.values():
        if entry.loaded:
            yield Drift(
                f"`{entry.name}` is loaded at {where}\n  want  nothing: the lock has no such model\n"
                f"  have  {entry.revision}"
            )


def callable_models(lock: Lock) -> list[LockedModel]:
    """Those that are called by their own names: no LoRA, no part of another."""
    return [model for model in lock.models if not model.is_part]


def _model(model: LockedModel, entry: ModelEntry, where: str) -> Iterator[Expected]:
    if entry.last_error is not None:
        said = entry.last_error.get("message") or entry.last_error
        yield Findings(f"`{model.id}` cannot be loaded at {where}\n  want  it loaded\n  have  {entry.state}: {said}")
    if not entry.loaded:
        return
    if entry.revision != model.revision:
        yield Drift(
            f"{where} serves another commit of `{model.id}`\n  want  {model.revision}\n  have  {entry.revision}",
            hint="`sie-airgap values` pins the lock; a worker takes the commits of the lock that it is pinned to",
        )
    if entry.verified is not True:
        yield TrustError(
            f"nothing vouches for what is served as `{model.id}`",
            where=where,
            want="verified: every file held against the lock",
            have="adopted: as it was when a hand-filled bucket got its manifests"
            if entry.adopted is True
            else "unverified",
            hint="`sie-airgap verify URL --write-manifest --lock airgap.lock` holds the bucket against the lock",
        )
