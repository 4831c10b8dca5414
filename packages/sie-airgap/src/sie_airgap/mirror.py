"""Copy the locked weights into the bucket that workers read, from a store or straight from the volumes.

Order is the promise: every model's files, then what readers of each model start from, then the lock, then
`.sie/current`, so that whatever a reader finds there it finds the rest of, too. Images and chart: `images`.
"""

from dataclasses import dataclass

from sie_airgap.blobs import Blobs
from sie_airgap.failures import Drift, Incomplete
from sie_airgap.progress import Progress
from sie_airgap.verify import lock_in_bucket
from sie_core.artifacts.errors import NotThere
from sie_core.artifacts.lock import CURRENT_FILE, Lock, encode_lock, lock_digest, lock_file
from sie_core.artifacts.manifest import FileEntry
from sie_core.artifacts.store import Store
from sie_core.artifacts.transfer import read, upload_plan, upload_snapshot, write


@dataclass(frozen=True)
class Copy:
    """One file that a bucket lacks."""

    model: str
    entry: FileEntry


def plan_weights(lock: Lock, blobs: Blobs, store: Store, *, replace: bool = False) -> tuple[Copy, ...]:
    """The files that `mirror_weights` would copy.

    Args:
        replace: read what is already there, too, and copy what is not what was locked.

    Raises:
        Incomplete: `blobs` lacks weights that the lock names.
        Drift: the bucket holds a later lock.
    """
    _check_complete(lock, blobs)
    _refuse_older(lock, store)
    return tuple(
        Copy(model.id, entry)
        for model in lock.models
        for entry in upload_plan(store, model.manifest, reread=replace).copies
    )


def mirror_weights(
    lock: Lock, blobs: Blobs, store: Store, *, replace: bool = False, progress: Progress
) -> tuple[Copy, ...]:
    """Bring the bucket to the lock; the files that were copied. A second run copies nothing.

    Raises:
        Incomplete, Drift: as `plan_weights`.
        TrustError: a blob is not what the lock says; the bucket has no trace of it.
        TransferError: of the bucket; what was copied stays, and a second run goes on from there.
    """
    _check_complete(lock, blobs)
    _refuse_older(lock, store)
    copied: list[Copy] = []
    with progress.task("mirror weights", sum(model.size_bytes for model in lock.models)) as task:
        for model in lock.models:

            def moved(path: str, size_bytes: int, model_id: str = model.id) -> None:
                task.at(f"{model_id} {path}")
                task.advance(size_bytes)

            plan = upload_snapshot(
                store,
                lambda entry: blobs.open(entry.digest),
                model.manifest,
                absent=model.absent,
                reread=replace,
                progress=moved,
            )
            copied += [Copy(model.id, entry) for entry in plan.copies]
    digest = lock_digest(lock)
    write(store, lock_file(digest), encode_lock(lock))
    # Last: whoever reads it finds the lock, and all that the lock names.
    write(store, CURRENT_FILE, digest.encode())
    return tuple(copied)


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


def _refuse_older(lock: Lock, store: Store) -> None:
    """A bucket never goes back to an older lock unnoticed."""
    if read(store, CURRENT_FILE) is None:
        return
    try:
        there = lock_in_bucket(store)
    except (Incomplete, NotThere):
        return
    if there.serial > lock.serial or (there.serial == lock.serial and there != lock):
        raise Drift(
            f"{store.url} was filled from lock number {there.serial} ({lock_digest(there)}), "
            f"this one is number {lock.serial} ({lock_digest(lock)})",
            hint="mirror it to another prefix",
        )
