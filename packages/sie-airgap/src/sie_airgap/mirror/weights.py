"""Copy the locked weights into the bucket that workers read, from a store or straight from the volumes.

Order is the promise: every model's files and then its manifest; when all models are there, what readers without a
lock start from; then the lock; then `.sie/current`. Whatever a reader finds, it finds the rest of, too. Nothing is
ever deleted. Images and chart: `images`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from sie_airgap.archive.media import Media
from sie_airgap.deltas.delta import NOTHING, weights_of
from sie_airgap.deltas.receipt import (
    RECEIPT_FILE,
    PlaceTraits,
    Receipt,
    decode_receipt,
    encode_receipt,
    held_files,
    receipt_of_bucket,
    strays,
)
from sie_airgap.deltas.recipes import OnBase, check_base
from sie_airgap.failures import Drift, Incomplete
from sie_airgap.mirror.current import lock_in_bucket
from sie_airgap.mirror.patient_bucket import PatientBucket
from sie_airgap.patience import Wait, patiently
from sie_airgap.progress import Progress, Task
from sie_airgap.store.blobs import Blobs, need_space
from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.lock import (
    CURRENT_FILE,
    LOCKS_FOLDER,
    Lock,
    LockedModel,
    decode_lock,
    encode_lock,
    lock_digest,
    lock_file,
    signatures_file,
)
from sie_core.artifacts.manifest import FileEntry
from sie_core.artifacts.plan import Plan, shared
from sie_core.artifacts.store import Destination, Store, Unfinished
from sie_core.artifacts.stores.local import LocalStore
from sie_core.artifacts.transfer import read, write
from sie_core.artifacts.uploading import upload_files, upload_plan, upload_ref


@dataclass(frozen=True)
class Copy:
    """One file that a bucket lacks; `is_sent`: its bytes travel, since the bucket has them under no other name."""

    model: str
    entry: FileEntry
    is_sent: bool


@dataclass(frozen=True)
class Mirrored:
    """What there was to do, and what else is there.

    Attributes:
        strays: files there that no lock there explains; they are left alone.
        unfinished: uploads that somebody began and has not ended.
    """

    copies: tuple[Copy, ...]
    receipt: Receipt
    strays: tuple[str, ...]
    unfinished: tuple[Unfinished, ...]


def plan_weights(
    lock: Lock, blobs: Blobs, store: Store, *, replace: bool = False, rolled_back: bool = False
) -> tuple[Copy, ...]:
    """The files that `mirror_weights` would copy.

    Args:
        replace: read what is already there, too, and copy what is not what was locked.
        rolled_back: the lock is an earlier one on purpose.

    Raises:
        Incomplete: `blobs` lacks weights that the lock names.
        Drift: the bucket holds a later lock.
    """
    refuse_older(lock, store, left=_left(store) if rolled_back else None)
    there = _held(store)
    _check_complete(lock, _on_base(blobs, lock, store, there))
    held = {} if replace else there
    copies: list[Copy] = []
    for model in lock.models:
        copies += _copies(model, upload_plan(store, model.manifest, reread=replace), held)
        held |= _names(model)
    return tuple(copies)


def mirror_weights(
    lock: Lock,
    blobs: Blobs,
    bucket: Destination,
    *,
    replace: bool = False,
    signatures: bytes | None = None,
    rolled_back: bool = False,
    progress: Progress,
    wait: Wait | None = None,
) -> Mirrored:
    """Bring the bucket to the lock. A second run copies nothing.

    Args:
        signatures: of the lock, to lie beside it.
        rolled_back: the lock is an earlier one on purpose.
        wait: waits before something is tried again; a test does not wait.

    Raises:
        Incomplete, Drift: as `plan_weights`; Drift also when another mirror has brought a later lock meanwhile.
        NoSpace: it is a folder whose disk has no room for it; nothing was written.
        TrustError: a blob is not what the lock says; the bucket has no trace of it.
        TransferError: of the bucket; what was copied stays, and a second run goes on from there.
    """
    store = PatientBucket(bucket, say=progress.say, wait=wait)
    left = _left(store) if rolled_back else None
    refuse_older(lock, store, left=left)
    there = _held(store)
    source = _on_base(blobs, lock, store, there)
    _check_complete(lock, source)
    if isinstance(bucket, LocalStore):
        need_space(bucket.root, _missing_bytes(lock, store))
    held = {} if replace else there
    copies: list[Copy] = []
    with progress.task("mirror weights", sum(model.size_bytes for model in lock.models)) as task:
        for model in lock.models:
            plan = upload_files(
                store,
                lambda entry: source.open(entry.digest),
                model.manifest,
                absent=model.absent,
                reread=replace,
                held=held,
                attempt=partial(patiently, say=progress.say, wait=wait),
                progress=partial(_moved, task, model.id),
            )
            copies += _copies(model, plan, held)
            held |= _names(model)
    return seal(lock, store, tuple(copies), signatures=signatures, left=left)


def seal(
    lock: Lock,
    store: PatientBucket,
    copies: tuple[Copy, ...],
    *,
    signatures: bytes | None = None,
    left: Digest | None = None,
) -> Mirrored:
    """What comes after the manifests of all of a lock's models: refs, the lock, and what says which lock it is.

    Raises `Drift` when another mirror has brought a later lock; `left`: the one that is left behind on purpose.
    """
    refuse_older(lock, store, left=left)
    for model in lock.models:
        upload_ref(store, model.manifest)
    digest = lock_digest(lock)
    if signatures is not None:
        write(store, signatures_file(digest), signatures)
    write(store, lock_file(digest), encode_lock(lock))
    # Last: whoever reads it finds the lock, and all that the lock names.
    write(store, CURRENT_FILE, digest.encode())
    refuse_older(lock, store, left=left)
    return _told(lock, store, copies)


def locks_in_bucket(store: Store) -> Iterator[Lock]:
    """Every lock there that is one; `lock_in_bucket` tells of the current one when it is none."""
    for stat in store.list(LOCKS_FOLDER):
        try:
            yield decode_lock(read(store, stat.name) or b"", where=stat.name)
        except TrustError:
            continue


def bucket_receipt(store: Store) -> Receipt:
    """What a bucket holds, from its listing and the locks in it. Raises as `lock_in_bucket`."""
    lock = lock_in_bucket(store)
    earlier = [one for one in locks_in_bucket(store) if one != lock]
    listed = {stat.name: stat.size_bytes for stat in store.list("")}
    return receipt_of_bucket(store.url, lock, earlier, listed, _traits_there(store))


def _told(lock: Lock, store: PatientBucket, copies: tuple[Copy, ...]) -> Mirrored:
    """The receipt, which is written, and what the mirror noticed."""
    locks = [lock, *(one for one in locks_in_bucket(store) if one != lock)]
    listed = {stat.name: stat.size_bytes for stat in store.list("")}
    known = _traits_there(store)
    tried = any(not copy.is_sent for copy in copies)
    traits = PlaceTraits(
        kind=store.url.partition(":")[0],
        copies=store.copied if tried else known.copies if known else None,
        lists_at_once=all(name in listed for model in lock.models for name in _names(model).values()),
    )
    receipt = receipt_of_bucket(store.url, locks[0], locks[1:], listed, traits)
    write(store, RECEIPT_FILE, encode_receipt(receipt))
    return Mirrored(copies, receipt, strays(locks, listed), tuple(store.unfinished("")))


def _traits_there(store: Store) -> PlaceTraits | None:
    try:
        return decode_receipt(read(store, RECEIPT_FILE) or b"").traits
    except ValueError:
        return None


def _moved(task: Task, model_id: str, path: str, size_bytes: int) -> None:
    task.at(f"{model_id} {path}")
    task.advance(size_bytes)


def _held(store: Store) -> dict[Digest, str]:
    """What earlier locks brought, to copy from."""
    return held_files(locks_in_bucket(store), {stat.name: stat.size_bytes for stat in store.list("")})


def _missing_bytes(lock: Lock, store: Store) -> int:
    """How much there is to write, by names and lengths."""
    listed = {stat.name: stat.size_bytes for stat in store.list("")}
    wanted = {
        hf_layout.snapshot_file(model.repo, model.revision, entry.path): entry.size_bytes
        for model in lock.models
        for entry in model.manifest.files
    }
    return sum(size_bytes for name, size_bytes in wanted.items() if listed.get(name) != size_bytes)


class _HeldBlobs:
    """What a bucket holds, as blobs: what a delta is made of."""

    def __init__(self, store: Store, held: Mapping[Digest, str]) -> None:
        self.where = store.url
        self._store, self._held = store, dict(held)

    def size(self, digest: Digest) -> int | None:
        found = self._store.stat(self._held[digest]) if digest in self._held else None
        return None if found is None else found.size_bytes

    def open(self, digest: Digest, *, start: int = 0, length: int | None = None) -> BinaryIO:
        return self._store.open(self._held[digest], start=start, length=length)

    def named(self, name: str) -> bytes | None:
        return None

    def named_everywhere(self, name: str) -> list[tuple[str, bytes]]:
        return []


def _on_base(blobs: Blobs, lock: Lock, store: Store, held: Mapping[Digest, str]) -> Blobs:
    """The blobs of a delta on what the bucket holds; other blobs as they are."""
    if not isinstance(blobs, Media) or blobs.delta == NOTHING:
        return blobs
    base = _HeldBlobs(store, held)
    check_base(weights_of(blobs.delta, lock), base, lock)
    return OnBase(blobs, blobs.delta, base, lock)


def _names(model: LockedModel) -> dict[Digest, str]:
    files = model.manifest.files
    return {entry.digest: hf_layout.snapshot_file(model.repo, model.revision, entry.path) for entry in files}


def _copies(model: LockedModel, plan: Plan, held: dict[Digest, str]) -> list[Copy]:
    sent = set(shared(plan.copies, held)[0])
    return [Copy(model.id, entry, is_sent=entry in sent) for entry in plan.copies]


def _check_complete(lock: Lock, blobs: Blobs) -> None:
    missing = [
        f"  `{file.path}` of `{model.id}`  {file.digest}"
        for model in lock.models
        for file in model.files
        if blobs.size(file.digest) is None
    ]
    if missing:
        raise Incomplete(
            f"{len(missing)} files are not in {blobs.where}\n" + "\n".join(missing[:10]),
            hint="`sie-airgap snapshot` (connected side) or `sie-airgap unpack` (far side) brings them",
        )


def _left(store: Store) -> Digest | None:
    """The lock that a bucket is for, which a rollback leaves."""
    try:
        return lock_digest(lock_in_bucket(store))
    except (Incomplete, NotThere):
        return None


def refuse_older(lock: Lock, store: Store, *, left: Digest | None = None) -> None:
    """A bucket never goes back to an older lock unnoticed. `left`: what it is taken back from on purpose."""
    if read(store, CURRENT_FILE) is None:
        return
    try:
        there = lock_in_bucket(store)
    except (Incomplete, NotThere):
        return
    is_later = there.serial > lock.serial or (there.serial == lock.serial and there != lock)
    if is_later and lock_digest(there) != left:
        raise Drift(
            f"{store.url} was filled from lock number {there.serial} ({lock_digest(there)}), "
            f"this one is number {lock.serial} ({lock_digest(lock)})",
            hint="mirror it to another prefix; or take the store back with `sie-airgap rollback --to SERIAL` first",
        )
