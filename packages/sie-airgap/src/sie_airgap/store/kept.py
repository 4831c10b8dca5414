"""The locks that a far side's store was for, one after the other: what `rollback` goes back to.

store/locks/<hex>/      airgap.lock, airgap.lock.sha256, and airgap.lock.dsse, golden.json where there are any
"""

from dataclasses import dataclass
from pathlib import Path

from sie_airgap.failures import Incomplete, Misused
from sie_airgap.store.blobs import GOLDEN_NAME, SIGNATURES_NAME, BlobFolder, read_lock, told_os_errors, write_lock
from sie_airgap.store.contents import LOCK_NAME, Content, contents
from sie_core.artifacts.digest import hex_of
from sie_core.artifacts.lock import Lock, lock_digest

_BESIDE = (SIGNATURES_NAME, GOLDEN_NAME)


@dataclass(frozen=True)
class Kept:
    """A lock that was taken here, and the folder with what came with it."""

    lock: Lock
    folder: Path


def keep(store: BlobFolder) -> None:
    """Remember what the store is for now."""
    lock = read_lock(store.root / LOCK_NAME)
    _copy(store, BlobFolder(kept_folder(store, lock)), lock)


def kept(store: BlobFolder) -> tuple[Kept, ...]:
    """All that is remembered, by serial. Raises `TrustError` for one that was edited."""
    folders = sorted((store.root / "locks").glob(f"*/{LOCK_NAME}"))
    found = (Kept(read_lock(path), path.parent) for path in folders)
    return tuple(sorted(found, key=lambda one: one.lock.serial))


def find(store: BlobFolder, serial: int) -> Kept:
    """Raises `Misused` where no lock of that number was taken here."""
    there = kept(store)
    for one in there:
        if one.lock.serial == serial:
            return one
    numbers = ", ".join(str(one.lock.serial) for one in there) or "none"
    raise Misused(
        f"no lock number {serial} was taken into {store.root}; those that were: {numbers}",
        hint="`sie-airgap unpack` takes one in",
    )


def missing(store: BlobFolder, lock: Lock) -> tuple[Content, ...]:
    """What a lock names and the store lacks."""
    return tuple(content for content in contents(lock) if store.size(content.digest) is None)


def restore(store: BlobFolder, back: Kept) -> None:
    """Make the store be for an earlier lock. Raises `Incomplete` where its blobs are not all there."""
    if lacking := missing(store, back.lock):
        shown = "\n".join(f"  {content.label}  {content.digest}" for content in lacking[:10])
        raise Incomplete(
            f"{len(lacking)} blobs of lock number {back.lock.serial} are no longer in {store.root}\n{shown}",
            hint="unpack the media of that lock into another store",
        )
    _copy(BlobFolder(back.folder), store, back.lock)


def is_rolled_back(store: BlobFolder) -> bool:
    """Whether the store is for an earlier lock than the last one taken here."""
    path = store.root / LOCK_NAME
    if not path.exists():
        return False
    serial = read_lock(path).serial
    return any(one.lock.serial > serial for one in kept(store))


def kept_folder(store: BlobFolder, lock: Lock) -> Path:
    """Where a lock that was taken is remembered, with what came beside it."""
    return store.root / "locks" / hex_of(lock_digest(lock))


def _copy(source: BlobFolder, target: BlobFolder, lock: Lock) -> None:
    for name in _BESIDE:
        data = source.named(name)
        if data is None:
            with told_os_errors(target.root / name):
                (target.root / name).unlink(missing_ok=True)
        elif target.named(name) != data:
            target.write_named(name, data)
    # Last: a folder with a lock is whole.
    write_lock(target.root / LOCK_NAME, lock)
