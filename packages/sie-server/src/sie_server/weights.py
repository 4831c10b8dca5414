"""One model's files on this machine's disk: found there, or fetched from the cluster cache, or from the hub.

A snapshot counts when its manifest is there and every file has the manifest's length; the manifest is written
last, after each file's sha256 proved right. Anything less is not there: a folder that a killed process or
another program left half filled is never loaded, and what of it is right is kept (`snapshots`). A cluster cache
that was filled by hand has no manifests: unless verified models are required, what is complete there is fetched
as `handfilled` does it, and said to be unverified wherever the model is named.

What passes by itself (no answer, 5xx, DNS) is waited for without end, and said. What does not (403, 404, a
wrong digest, no space) is raised at once. `sie_core.artifacts.transfer` moves the bytes.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Literal, TypeVar

from msgspec import Struct

from sie_core.artifacts import hf_layout
from sie_core.artifacts.errors import NotThere, TransferError
from sie_core.artifacts.handfilled import Pieces
from sie_core.artifacts.lock import Lock
from sie_core.artifacts.manifest import Manifest, encode_manifest
from sie_core.artifacts.store import Store
from sie_core.artifacts.stores.local import LocalStore, disk_errors
from sie_core.artifacts.transfer import fetch_snapshot, read, write
from sie_core.catalog.spec import ModelSpec
from sie_core.ids import ModelId, Revision, parse_revision
from sie_server import handfilled, snapshots
from sie_server.bucket import InBucket, adopts, missing, models_in
from sie_server.eviction import Kept
from sie_server.local_cache import Coming, make_room

if TYPE_CHECKING:  # it brings a client for HTTP along, which a cache that is whole has no use for
    from sie_core.artifacts.stores.hub import Hub

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0

T = TypeVar("T")


class Snapshot(Struct, frozen=True):
    """A model's files, all of them.

    Attributes:
        folder: holds them under their paths in the repository.
        manifest: what they are.
        verified: every file was held against the sha256 that the lock, or the hub, has of it.
    """

    folder: Path
    manifest: Manifest
    verified: bool

    @property
    def standing(self) -> str:
        """`verified`, `adopted` (held against a manifest made of a bucket filled by hand) or `unverified`."""
        return "verified" if self.verified else "adopted" if self.manifest.adopted else "unverified"


class State(Struct, frozen=True):
    """What is being done about a model, for a log line and for callers who ask why it is not there yet.

    Attributes:
        step: `locked`: another process of this machine is fetching it; `fetching`; `waiting`: for somebody
            who does not answer, until `retry_in_s` have passed; `evicted`: another one has gone from the local cache
            to make room; `unverified`: it is here, and nothing vouches for it.
        message: one readable line.
        done_bytes: of `total_bytes`, here and verified or on their way; 0 of 0 before it is known.
        evicted: the model that has gone.
    """

    model: ModelId
    step: Literal["locked", "fetching", "waiting", "evicted", "unverified"]
    message: str
    done_bytes: int = 0
    total_bytes: int = 0
    retry_in_s: float | None = None
    evicted: str | None = None


Progress = Callable[[State], None]


Take = Callable[[ModelId, Revision], None]
"""Told what is about to be used, before the last look at whether it is there (`local_cache.Holds.take`)."""


def no_progress(state: State) -> None:
    """For callers who show none."""


def not_held(repo: ModelId, revision: Revision) -> None:
    """For callers beside whom nobody evicts."""


def ensure(
    spec: ModelSpec,
    *,
    cache: Path,
    cluster: Store | None = None,
    hub: "Hub | None" = None,
    pin: Lock | None = None,
    require_verified: bool = False,
    budget_bytes: int | None = None,
    take: Take = not_held,
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
        require_verified: whether what no manifest vouches for, and what was only adopted, is refused. With a pin it is.
        budget_bytes: the most that the cache may hold; None: what its disk does.
        take: nothing that it was told of is evicted from then on.
        progress: told what is being done; may raise to end the attempt.
        sleep: waits; may raise to end the attempt.

    Raises:
        TransferError: it is nowhere (`NotThere`), may not be read, or does not fit on the disk.
        TrustError: what came, or the manifest it came with, is not what was locked.
    """
    wanted = _Wanted(spec, cache, cluster, hub, pin, require_verified, budget_bytes, take)
    return keep_trying(lambda: wanted.found() or wanted.fetched(progress), spec.id, progress=progress, sleep=sleep)


def find(
    spec: ModelSpec,
    cache: Path,
    *,
    cluster: Store | None = None,
    pin: Lock | None = None,
    require_verified: bool = False,
    take: Take = not_held,
) -> Snapshot | None:
    """The snapshot in the cache that `ensure` would take, when it is complete. Nobody else is asked.

    Raises `NotThere` for a model that the lock does not name.
    """
    wanted = _Wanted(spec, cache, cluster, None, pin, require_verified, None, take)
    return wanted.found() or wanted.kept()


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


class _Wanted(Struct, frozen=True):
    """One model, and where it may come from."""

    spec: ModelSpec
    cache: Path
    cluster: Store | None
    hub: "Hub | None"
    pin: Lock | None
    require_verified: bool
    budget_bytes: int | None
    take: Take

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
        if manifest.adopted and self.require_verified:
            return None
        return self._held(self._snapshot(manifest, verified=not manifest.adopted))

    def kept(self) -> Snapshot | None:
        """In the cache, as it came from a bucket filled by hand that is still the one to ask."""
        revision = self._revision_here() if self._takes_unverified else None
        here = handfilled.kept(self.cache, self.repo, revision) if revision is not None else None
        return None if here is None else self._held(self._snapshot(here[1], verified=False))

    def _held(self, snapshot: Snapshot) -> Snapshot | None:
        """None where it was evicted just before it was held."""
        manifest = snapshot.manifest
        self.take(manifest.repo, manifest.revision)
        return snapshot if snapshots.has_all(self.cache, manifest) else None

    @property
    def _takes_unverified(self) -> bool:
        return self.cluster is not None and self.pin is None and not self.require_verified

    def _snapshot(self, manifest: Manifest, *, verified: bool) -> Snapshot:
        folder = snapshots.folder_of(self.cache, manifest.repo, manifest.revision)
        return Snapshot(folder=folder, manifest=manifest, verified=verified)

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
            raise missing(self.spec.id, "the lock", tuple(model.id for model in self.pin.models))
        return locked.manifest

    def fetched(self, progress: Progress) -> Snapshot:
        def wait() -> None:
            message = f"another process is fetching `{self.spec.id}` into {self.cache}"
            progress(State(self.spec.id, "locked", message))

        with disk_errors(self.cache, "write"), snapshots.one_process(self.cache, self.repo, wait):
            if (snapshot := self.found()) is not None:
                return snapshot
            try:
                store, what = self._origin()
            except TransferError as error:
                if not error.transient or (kept := self.kept()) is None:
                    raise
                self._say_unverified(progress, f"its bucket could not be looked at: {error.message}")
                return kept
            snapshot = (
                self._unverified(store, what, progress)
                if isinstance(what, Pieces)
                else self._filled(store, what, progress)
            )
            self.take(snapshot.manifest.repo, snapshot.manifest.revision)
            return snapshot

    def _origin(self) -> tuple[Store, Manifest | Pieces]:
        """Who has it, and what it consists of there."""
        if self.cluster is not None:
            try:
                return self.cluster, self._in_bucket(self.cluster)
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

    def _in_bucket(self, cluster: Store) -> Manifest | Pieces:
        """What the bucket has; raises `NotThere` for pieces that are not all there, unless they are here already."""
        locked = self._locked() if self.pin else None
        there = InBucket(
            cluster, self.spec.id, self.repo, self.spec.revision, locked, takes_unverified=self._takes_unverified
        ).find()
        if isinstance(there, Pieces) and self._here(there) is None:
            handfilled.check_complete(cluster, there)
        return there

    def _here(self, pieces: Pieces) -> Manifest | None:
        """The manifest of the very pieces, where they were fetched before."""
        kept = handfilled.kept(self.cache, self.repo, pieces.revision)
        return kept[1] if kept is not None and kept[0] == pieces.listing else None

    def _nowhere(self) -> NotThere:
        here = models_in(LocalStore(self.cache))
        alone = "there is no cluster cache (SIE_CLUSTER_CACHE) to fetch it from, and the hub is off"
        if self.repo in here:
            return NotThere(
                f"`{self.spec.id}` is not complete in {self.cache}: no manifest vouches for its files",
                hint=f"only what was fetched and verified is served; {alone}",
            )
        error = missing(self.spec.id, str(self.cache), here)
        near = f"{error.hint}; " if here else ""
        error.hint = f"{near}{alone}"
        return error

    def _unverified(self, store: Store, pieces: Pieces, progress: Progress) -> Snapshot:
        manifest = self._here(pieces)
        if manifest is None:
            incoming = snapshots.incoming(self.cache, pieces.repo, pieces.revision, pieces.listing)
            self._make_room(pieces.revision, incoming, pieces.size_bytes, progress)
            counter = _Counter(self.spec.id, pieces.size_bytes, store.url, progress)
            manifest = handfilled.fetch(store, pieces, self.cache, counter)
        self._say_unverified(progress, f"nothing vouches for its {len(manifest.files)} files; {adopts(store)}")
        return self._snapshot(manifest, verified=False)

    def _say_unverified(self, progress: Progress, why: str) -> None:
        progress(State(self.spec.id, "unverified", f"`{self.spec.id}` is served unverified: {why}"))

    def _filled(self, store: Store, manifest: Manifest, progress: Progress) -> Snapshot:
        """Fetch into a folder of its own, then rename that folder and write what says that it is complete."""
        local = LocalStore(self.cache)
        incoming = snapshots.incoming_folder(self.cache, manifest)
        snapshots.adopt(self.cache, manifest)
        self._make_room(manifest.revision, incoming, manifest.size_bytes, progress)
        counter = _Counter(self.spec.id, manifest.size_bytes, store.url, progress)
        fetch_snapshot(store, manifest, incoming, progress=counter)
        snapshots.publish(self.cache, manifest, incoming)
        locked = self.pin.model(self.spec.id) if self.pin else None
        for path in locked.absent if locked else ():
            write(local, hf_layout.no_exist_file(self.repo, manifest.revision, path), b"")
        write(local, hf_layout.tree_file(self.repo, manifest.revision), hf_layout.tree_json(manifest))
        write(local, hf_layout.manifest_file(self.repo, manifest.revision), encode_manifest(manifest))
        write(local, hf_layout.ref_file(self.repo), hf_layout.ref_bytes(manifest.revision))
        local.delete(hf_layout.unverified_file(self.repo, manifest.revision))
        return self._snapshot(manifest, verified=not manifest.adopted)

    def _make_room(self, revision: Revision, incoming: Path, size_bytes: int, progress: Progress) -> None:
        """Raises `NoSpace` before anything has come. Others whom nobody uses go for it, and each is said."""

        def evicted(gone: Kept) -> None:
            used = "never loaded"
            if gone.used_s is not None:
                used = f"last used {datetime.fromtimestamp(gone.used_s, UTC):%Y-%m-%dT%H:%MZ}"
            which = f"`{gone.name}`, commit {gone.commit[:12]} ({gone.size_bytes:,} bytes, {used}),"
            message = f"{which} was removed from {self.cache} to make room for `{self.spec.id}`"
            progress(State(self.spec.id, "evicted", message, evicted=gone.name))

        here_bytes = snapshots.allocated_bytes(incoming)
        coming = Coming(self.repo, revision, incoming, max(0, size_bytes - here_bytes), here_bytes)
        make_room(self.cache, coming, self.budget_bytes, evicted)


class _Counter:
    """Bytes of single files as the state of one model."""

    def __init__(self, model: ModelId, total_bytes: int, url: str, progress: Progress) -> None:
        self._model = model
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._url = url
        self._progress = progress

    def __call__(self, path: str, size_bytes: int) -> None:
        self._done_bytes += size_bytes
        message = f"fetching `{self._model}` from {self._url}"
        self._progress(State(self._model, "fetching", message, self._done_bytes, self._total_bytes))
