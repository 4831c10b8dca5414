"""Fetch what the store lacks of a lock: model files from this disk or the hub, image blobs from where images are read.

Files come in ranges, several at a time, hashed as they come and journalled, so that a run that was killed
fetches at most one range a stream again. What the lock has by digest only (wheels, charts) was put into the
store when locking. The store gets the lock last: a store that has one is whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from sie_airgap.failures import Incomplete
from sie_airgap.patience import Patience, Wait, patiently
from sie_airgap.progress import Progress, Task, counted, sized
from sie_airgap.store.begun import begun
from sie_airgap.store.blobs import BlobFolder, fill, held, need_space, write_lock
from sie_airgap.store.contents import LOCK_NAME, contents
from sie_airgap.store.disk_source import DiskSource, copy_all
from sie_core.artifacts.errors import TransferError, TrustError
from sie_core.artifacts.hf_layout import snapshot_file
from sie_core.artifacts.lock import Lock, LockedBlob, LockedFile, LockedImage, LockedModel
from sie_core.artifacts.stores.hub import Hub
from sie_core.artifacts.transfer import fetch_file

OpenImageBlob = Callable[[LockedImage, LockedBlob, int], BinaryIO]
"""Opens a blob of an image at a byte, wherever images are read from."""


@dataclass(frozen=True)
class Missing:
    """What the store lacks, each digest once."""

    files: tuple[tuple[LockedModel, LockedFile], ...]
    blobs: tuple[tuple[LockedImage, LockedBlob], ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for _, file in self.files) + sum(blob.size_bytes for _, blob in self.blobs)


def missing(lock: Lock, store: BlobFolder) -> Missing:
    """Raises `Incomplete` when wheels, charts or files made when locking are gone, which only `lock` brings."""
    lacking = {content.digest for content in contents(lock) if store.size(content.digest) is None}
    files = {file.digest: (model, file) for model in lock.models for file in model.files if file.digest in lacking}
    blobs = {blob.digest: (image, blob) for image in lock.images for blob in image.blobs if blob.digest in lacking}
    others = [f"{model.id} {file.path}" for model, file in files.values() if file.derived_from is not None]
    others += [chart.file for chart in lock.charts if chart.digest in lacking]
    others += [wheel.file for wheel in lock.wheels if wheel.digest in lacking]
    if others:
        raise Incomplete(
            f"{', '.join(f'`{name}`' for name in others[:5])} of the lock are not in {store.root}",
            hint="`sie-airgap lock --frozen` with the chart and the wheels that were locked puts them there",
        )
    return Missing(tuple(files.values()), tuple(blobs.values()))


def snapshot(
    lock: Lock,
    store: BlobFolder,
    *,
    hub: Hub,
    open_blob: OpenImageBlob,
    progress: Progress,
    source: DiskSource | None = None,
    wait: Wait | None = None,
) -> Missing:
    """Bring the store to the lock; what there was to fetch. A second run fetches nothing.

    Args:
        source: where model files may lie already; the hub is asked for what is not there.
        wait: waits until what passes has passed; a test does not. None: sleeps.

    Raises:
        TransferError: it did not come; what came is kept for the next run.
        TrustError: the hub or the registry hold something else than was locked.
        Partial: another run is filling the store.
    """
    todo = missing(lock, store)
    need_space(store.root, todo.size_bytes - store.arrived_bytes)
    with held(store.root), begun(store, lock):
        with progress.task("snapshot", todo.size_bytes) as task:
            for model, file in _not_copied(todo, store, source, task, progress):
                task.at(f"{model.id} {file.path}")
                patience = Patience(say=progress.say, wait=wait)
                _fetch(hub, model, file, store.path(file.digest), task, patience)
            for image, blob in todo.blobs:
                task.at(f"{image.reference} {blob.digest[7:19]}")
                copy = partial(_copy, open_blob, image, blob, store, task)
                patiently(copy, say=progress.say, wait=wait)
        # Last: a store with a lock is whole.
        write_lock(store.root / LOCK_NAME, lock)
    return todo


def _not_copied(
    todo: Missing, store: BlobFolder, source: DiskSource | None, task: Task, progress: Progress
) -> Sequence[tuple[LockedModel, LockedFile]]:
    """Which files are not on this disk, after those that are have been copied."""
    if source is None:
        return todo.files
    task.at(str(source.folder))
    left = copy_all(source, todo.files, store.path, advance=task.advance)
    not_there = {file.digest for _, file in left}
    copied = [file.size_bytes for _, file in todo.files if file.digest not in not_there]
    progress.say(
        f"{counted(len(copied), 'file')} copied from {source.folder}, {sized(sum(copied))}; {len(left)} were not there"
    )
    return left


def _fetch(hub: Hub, model: LockedModel, file: LockedFile, target: Path, task: Task, patience: Patience) -> None:
    files = hub.store(model.repo, model.revision)
    name = snapshot_file(model.repo, model.revision, file.path)

    def progress(path: str, size_bytes: int) -> None:
        task.advance(size_bytes)

    try:
        fetch_file(files, name, target, file.entry, progress=progress, patience=patience)
    except TrustError as error:
        error.hint = (
            "the hub holds something else than it did when this was locked, or something between here and the hub "
            "alters it; `sie-airgap lock --check` tells which"
        )
        raise


def _copy(open_blob: OpenImageBlob, image: LockedImage, blob: LockedBlob, store: BlobFolder, task: Task) -> None:
    """One try at a blob; what it moved is taken back from the count when it breaks."""
    moved = 0

    def advance(size_bytes: int) -> None:
        nonlocal moved
        moved += size_bytes
        task.advance(size_bytes)

    try:
        fill(
            store,
            blob.digest,
            blob.size_bytes,
            lambda start: open_blob(image, blob, start),
            label=f"{blob.digest} of image `{image.reference}`",
            where=image.reference,
            advance=advance,
        )
    except TransferError:
        task.advance(-moved)
        raise
