"""One model's files on this machine's disk: found there, or fetched from the cluster cache, or from the hub.

A snapshot counts when its manifest is there and every file has the manifest's length; the manifest is written
last, after each file's sha256 proved right. Anything less is not there: a folder that a killed process or
another program left half filled is never loaded, and what of it is right is kept (`snapshots`).

What passes by itself (no answer, 5xx, DNS) is waited for without end, and said. What does not (403, 404, a
wrong digest, no space) is raised at once. `sie_core.artifacts.transfer` moves the bytes.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Literal, TypeVar

from msgspec import Struct

from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.errors import NotThere, TransferError, TrustError
from sie_core.artifacts.lock import CURRENT_FILE, Lock, decode_lock, lock_file
from sie_core.artifacts.manifest import Manifest, decode_manifest, encode_manifest, manifest_digest
from sie_core.artifacts.store import Store
from sie_core.artifacts.stores.local import LocalStore, disk_errors
from sie_core.artifacts.transfer import fetch_snapshot, read, write
from sie_core.catalog.spec import ModelSpec
from sie_core.ids import ModelId, Revision, nearest, parse_revision
from sie_server import snapshots

if TYPE_CHECKING:  # it brings a client for HTTP along, which a cache that is whole has no use for
    from sie_core.artifacts.stores.hub import Hub

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
_NAMED_MODELS = 12

T = TypeVar("T")


class Snapshot(Struct, frozen=True):
    """A model's files, all of them.

    Attributes:
        folder: holds them under their paths in the repository.
        manifest: what they are.
        verified: every file was held against the manifest's sha256 before it was put there.
    """

    folder: Path
    manifest: Manifest
    verified: bool


class State(Struct, frozen=True):
    """What is being done about a model, for a log line and for callers who ask why it is not there yet.

    Attributes:
        step: `locked`: another process of this machine is fetching it; `fetching`; `waiting`: for somebody
            who does not answer, until `retry_in_s` have passed.
        message: one readable line.
        done_bytes: of `total_bytes`, here and verified or on their way; 0 of 0 before it is known.
    """

    model: ModelId
    step: Literal["locked", "fetching", "waiting"]
    message: str
    done_bytes: int = 0
    total_bytes: int = 0
    retry_in_s: float | None = None


Progress = Callable[[State], None]


def no_progress(state: State) -> None:
    """For callers who show none."""


def ensure(
    spec: ModelSpec,
    *,
    cache: Path,
    cluster: Store | None = None,
    hub: "Hub | None" = None,
    pin: Lock | None = None,
    require_verified: bool = True,
    progress: Progress = no_progress,
    sleep: Callable[[float], None] = time.sleep,
) -> Snapshot:
    """The files of a model, fetched if they are not here. Safe to call from several processes at once.

    Args:
        cache: the folder that holds models, in the hub's layout. What is complete there is used as it is.
        cluster: asked next.
        hub: asked last; None: never.
        pin: the lock whose commits are served. None: the cluster cache's `refs/main`; without a cluster
            cache the commit that the spec names, else the hub's `main`.
        require_verified: whether somebody insists on manifests; only says why a model without one is refused.
        progress: told what is being done; may raise to end the attempt.
        sleep: waits; may raise to end the attempt.

    Raises:
        TransferError: it is nowhere (`NotThere`), may not be read, or does not fit on the disk.
        TrustError: what came, or the manifest it came with, is not what was locked.
    """
    wanted = _Wanted(spec, cache, cluster, hub, pin, require_verified)
    return keep_trying(lambda: wanted.found() or wanted.fetched(progress), spec.id, progress=progress, sleep=sleep)


def find(spec: ModelSpec, cache: Path, *, cluster: Store | None = None, pin: Lock | None = None) -> Snapshot | None:
    """The snapshot in the cache that `ensure` would take, when it is complete. Nobody else is asked.

    Raises `NotThere` for a model that the lock does not name.
    """
    return _Wanted(spec, cache, cluster, None, pin, True).found()


def keep_trying(
    action: Callable[[], T],
    model: ModelId,
    *,
    progress: Progress = no_progress,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call until it does not raise what passes by itself, with longer and longer pauses up to half a minute."""
    attempt = 0
    while True:
        try:
            return action()
        except TransferError as error:
            if not error.transient:
                raise
            pause_s = max(delay_s(attempt, SystemRandom().random()), error.retry_after_s or 0)
            progress(State(model, "waiting", f"{error.message}; next attempt in {pause_s:.1f} s", retry_in_s=pause_s))
            sleep(pause_s)
            attempt += 1


def delay_s(attempt: int, chance: float) -> float:
    """Doubling from half a second to half a minute; `chance` in [0, 1) takes up to half of it off.

    Workers that lost the bucket together must not come back together.
    """
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(attempt, 10))) * (1 - chance / 2)


def read_pin(cluster: Store, digest: Digest) -> Lock:
    """The lock of that digest, from the bucket.

    Raises:
        NotThere: it was not mirrored; the hint names the one that was mirrored last.
        TrustError: what is there has another digest, or is no lock.
    """
    name = lock_file(digest)
    data = read(cluster, name)
    if data is None:
        current = (read(cluster, CURRENT_FILE) or b"").decode("utf-8", "replace").strip()
        last = f"the lock mirrored last is {current}; " if current else ""
        raise NotThere(
            f"the lock {digest} is not in {cluster.url}",
            hint=f"{last}`sie-airgap mirror weights` puts it there, and `sie-airgap values` writes its digest",
        )
    where = f"{cluster.url}{name}"
    if (have := digest_of(data)) != digest:
        raise TrustError("the lock is not the one that was pinned", where=where, want=digest, have=have)
    return decode_lock(data, where=where)


def models_in(store: Store) -> tuple[ModelId, ...]:
    """The models of which anything is there, sorted. Raises when the store cannot be read."""
    return tuple(sorted({model for stat in store.list("models--") if (model := hf_layout.model_of(stat.name))}))


class _Wanted(Struct, frozen=True):
    """One model, and where it may come from."""

    spec: ModelSpec
    cache: Path
    cluster: Store | None
    hub: "Hub | None"
    pin: Lock | None
    require_verified: bool

    @property
    def repo(self) -> ModelId:
        locked = self.pin.model(self.spec.id) if self.pin else None
        return locked.repo if locked else self.spec.repo

    def found(self) -> Snapshot | None:
        """In the cache, complete."""
        revision = self._revision_here()
        if revision is None:
            return None
        manifest = snapshots.whole(self.cache, self.repo, revision)
        if manifest is None or (self.pin and manifest != self._locked()):
            return None
        folder = snapshots.folder_of(self.cache, self.repo, revision)
        return Snapshot(folder=folder, manifest=manifest, verified=True)

    def _revision_here(self) -> Revision | None:
        if self.pin is not None:
            return self._locked().revision
        if self.cluster is None and self.spec.revision is not None:
            return self.spec.revision
        ref = read(LocalStore(self.cache), hf_layout.ref_file(self.repo))
        with suppress(ValueError):
            return parse_revision((ref or b"").decode("ascii"))
        return self.spec.revision

    def _locked(self) -> Manifest:
        assert self.pin is not None
        locked = self.pin.model(self.spec.id)
        if locked is None:
            raise _missing(self.spec.id, "the lock", tuple(model.id for model in self.pin.models))
        return locked.manifest

    def fetched(self, progress: Progress) -> Snapshot:
        def wait() -> None:
            message = f"another process is fetching `{self.spec.id}` into {self.cache}"
            progress(State(self.spec.id, "locked", message))

        with disk_errors(self.cache, "write"), snapshots.one_process(self.cache, self.repo, wait):
            if (snapshot := self.found()) is not None:
                return snapshot
            store, manifest = self._origin()
            return self._filled(store, manifest, progress)

    def _origin(self) -> tuple[Store, Manifest]:
        """Who has it, and what it consists of there."""
        if self.cluster is not None:
            try:
                return self.cluster, self._manifest_in_cluster(self.cluster)
            except NotThere:
                if self.hub is None:
                    raise
        if self.hub is None:
            raise self._nowhere()
        if self.pin is not None:
            manifest = self._locked()
        else:
            revision = self.spec.revision or self.hub.resolve(self.repo)
            manifest = self.hub.manifest(self.repo, revision)
        return self.hub.store(self.repo, manifest.revision), manifest

    def _nowhere(self) -> NotThere:
        here = models_in(LocalStore(self.cache))
        alone = "there is no cluster cache (SIE_CLUSTER_CACHE) to fetch it from, and the hub is off"
        if self.repo in here:
            return NotThere(
                f"`{self.spec.id}` is not complete in {self.cache}: no manifest vouches for its files",
                hint=f"only what was fetched and verified is served; {alone}",
            )
        error = _missing(self.spec.id, str(self.cache), here)
        near = f"{error.hint}; " if here else ""
        error.hint = f"{near}{alone}"
        return error

    def _manifest_in_cluster(self, cluster: Store) -> Manifest:
        locked = self._locked() if self.pin else None
        revision = locked.revision if locked else self._main_of(cluster)
        name = hf_layout.manifest_file(self.repo, revision)
        data = read(cluster, name)
        if data is None:
            raise self._no_manifest(cluster, revision)
        where = f"{cluster.url}{name}"
        try:
            manifest = decode_manifest(data)
        except ValueError as error:
            raise TrustError("a manifest cannot be read", where=where, want="a manifest", have=str(error)) from error
        if (manifest.repo, manifest.revision) != (self.repo, revision):
            have = f"{manifest.repo} at {manifest.revision}"
            raise TrustError(
                "a manifest is of another model", where=where, want=f"{self.repo} at {revision}", have=have
            )
        if locked is not None and manifest != locked:
            want, have = manifest_digest(locked), manifest_digest(manifest)
            raise TrustError("a manifest is not what was locked", where=where, want=want, have=have)
        return manifest

    def _main_of(self, cluster: Store) -> Revision:
        name = hf_layout.ref_file(self.repo)
        data = read(cluster, name)
        if data is None:
            raise _missing(self.spec.id, cluster.url, models_in(cluster))
        try:
            return parse_revision(data.decode("ascii"))
        except ValueError as error:
            where, want = f"{cluster.url}{name}", "40 hex digits and nothing after them"
            raise TrustError("a ref is not a commit", where=where, want=want, have=repr(data[:80])) from error

    def _no_manifest(self, cluster: Store, revision: Revision) -> NotThere:
        """Nothing of this commit, or files without the manifest that comes after them."""
        prefix = hf_layout.snapshot_folder(self.repo, revision) + "/"
        files = sum(1 for _ in cluster.list(prefix))
        if not files:
            error = _missing(self.spec.id, cluster.url, models_in(cluster))
            error.message = f"{error.message}; wanted is commit {revision}"
            return error
        refused = "verified models are required" if self.require_verified else "only models with a manifest are served"
        return NotThere(
            f"`{self.spec.id}` in {cluster.url} has {files} files of commit {revision} and no manifest; {refused}",
            hint="the mirror was interrupted, or filled by hand: run `sie-airgap mirror weights` (again)",
        )

    def _filled(self, store: Store, manifest: Manifest, progress: Progress) -> Snapshot:
        """Fetch into a folder of its own, then rename that folder and write what says that it is complete."""
        local = LocalStore(self.cache)
        incoming = snapshots.incoming_folder(self.cache, manifest)
        snapshots.adopt(self.cache, manifest)
        fetch_snapshot(store, manifest, incoming, progress=_Counter(self.spec.id, manifest, store.url, progress))
        folder = snapshots.publish(self.cache, manifest)
        locked = self.pin.model(self.spec.id) if self.pin else None
        for path in locked.absent if locked else ():
            write(local, hf_layout.no_exist_file(self.repo, manifest.revision, path), b"")
        write(local, hf_layout.tree_file(self.repo, manifest.revision), hf_layout.tree_json(manifest))
        write(local, hf_layout.manifest_file(self.repo, manifest.revision), encode_manifest(manifest))
        write(local, hf_layout.ref_file(self.repo), hf_layout.ref_bytes(manifest.revision))
        return Snapshot(folder=folder, manifest=manifest, verified=True)


class _Counter:
    """Bytes of single files as the state of one model."""

    def __init__(self, model: ModelId, manifest: Manifest, url: str, progress: Progress) -> None:
        self._model = model
        self._total_bytes = manifest.size_bytes
        self._done_bytes = 0
        self._url = url
        self._progress = progress

    def __call__(self, path: str, size_bytes: int) -> None:
        self._done_bytes += size_bytes
        message = f"fetching `{self._model}` from {self._url}"
        self._progress(State(self._model, "fetching", message, self._done_bytes, self._total_bytes))


def _missing(model: ModelId, where: str, there: tuple[ModelId, ...]) -> NotThere:
    """Says which models are there, and the names most like the one that is not."""
    shown = ", ".join(f"`{one}`" for one in there[:_NAMED_MODELS])
    more = f" and {len(there) - _NAMED_MODELS} more" if len(there) > _NAMED_MODELS else ""
    found = f"the models there are {shown}{more}" if there else "there are no models at all"
    near = [one for one in nearest(model, there) if one != model]
    hint = f"nearest: {', '.join(f'`{one}`' for one in near)}" if near else "check the URL and its prefix"
    return NotThere(f"`{model}` is not in {where}: {found}", hint=hint)
