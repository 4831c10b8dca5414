"""Moving a snapshot's files out of a store, verified on the way. `uploading` moves them into one.

A file comes in ranges, several at a time, each written in its place; one thread follows and hashes
what has arrived in order. Nothing has the file's name before its digest has proved right. A journal beside
the file notes each finished range, so that a process killed at any point fetches at most one range a stream
again. A file that is replaced at its source while it comes is begun anew.

Whoever fetches into a folder holds that folder's lock: two fetches of one target would share a journal.
"""

import io
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import NoSpace, NotThere, Replaced, TransferError, TrustError
from sie_core.artifacts.manifest import FileEntry, Manifest
from sie_core.artifacts.plan import Plan, plan
from sie_core.artifacts.ranges import LARGE_BYTES, STREAMS, Patience, RangedFetch, impatient, partial_file
from sie_core.artifacts.store import Store
from sie_core.artifacts.stores.local import disk_errors

Progress = Callable[[str, int], None]
"""Told a path and how many bytes of it have just come, or had come before; from several threads, one at a time.

Negative when they are thrown away and must come again."""


def no_progress(path: str, size_bytes: int) -> None:
    """For callers who show none."""


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raises `NoSpace` with both values when `needed_bytes` do not fit on the disk of `folder`."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise NoSpace(
            f"{needed_bytes:,} bytes do not fit in {folder}: {free_bytes:,} bytes are free",
            hint="make room, or give a larger volume",
        )


def fetch_file(
    store: Store,
    name: str,
    target: Path,
    entry: FileEntry,
    *,
    progress: Progress = no_progress,
    patience: Patience = impatient,
) -> None:
    """Bring one file to `target`: ranges in parallel, hashed in order, resumed, renamed when right.

    Raises:
        TransferError: it did not come; what has come is kept for the next attempt, unless it was replaced meanwhile.
        TrustError: what the store holds has another length or digest; nothing of it is kept.
        NoSpace: the rest of it does not fit on the disk; nothing was started.
    """
    with disk_errors(target, "write"):
        target.parent.mkdir(parents=True, exist_ok=True)
        require_space(target.parent, entry.size_bytes - _allocated_bytes(target))
        report = one_at_a_time(progress)
        replaced = 0
        while True:
            fetch = RangedFetch(store, name, target, entry, progress=report, patience=patience)
            try:
                digest = fetch.run()
            except Replaced as error:
                fetch.discard()
                replaced += 1
                time.sleep(patience(error, replaced))
                continue
            if digest == entry.digest:
                fetch.publish()
                return
            fetch.discard()
            if not fetch.was_resumed:  # with ranges of an earlier process the fault may be this disk's: once more
                break
    raise TrustError(
        f"`{entry.path}` is not what was locked",
        where=f"{store.url.rstrip('/')}/{name}",
        want=f"{entry.digest}  {entry.size_bytes:,} bytes",
        have=f"{digest}  {entry.size_bytes:,} bytes",
        hint="it was altered where it is stored; copy it there again (`sie-airgap mirror weights … --replace`)",
    )


def fetch_snapshot(store: Store, manifest: Manifest, folder: Path, *, progress: Progress = no_progress) -> Plan:
    """Bring every file of a manifest into `folder`; those there with the right length are taken as verified.

    That holds for a folder which only `fetch_file` writes to. Raises as `fetch_file` does, and `TransferError` for a
    file that has the name of an unfinished one: it would be published in that one's place.

    Returns:
        What there was to do.
    """
    for entry in manifest.files:
        if hf_layout.is_unfinished(entry.path):
            refused = TransferError(f"`{entry.path}` of `{manifest.repo}` has the name of a file on its way")
            refused.transient = False
            raise refused
    folder.mkdir(parents=True, exist_ok=True)
    todo = plan(manifest, listing(folder))
    require_space(folder, todo.copy_bytes - sum(_allocated_bytes(folder / entry.path) for entry in todo.copies))
    report = one_at_a_time(progress)
    for entry in todo.present:
        report(entry.path, entry.size_bytes)

    def fetch(entry: FileEntry) -> None:
        name = hf_layout.snapshot_file(manifest.repo, manifest.revision, entry.path)
        fetch_file(store, name, folder / entry.path, entry, progress=report)

    each(todo.copies, fetch)
    return todo


def listing(folder: Path) -> dict[str, int]:
    """Path within a folder → length in bytes. Links are followed; partial files and journals are left out."""
    found = {}
    for parent, _, files in os.walk(folder):
        for file in files:
            path = Path(parent) / file
            if not hf_layout.is_unfinished(file) and path.is_file():
                found[path.relative_to(folder).as_posix()] = path.stat().st_size
    return found


def read(store: Store, name: str) -> bytes | None:
    """A small file, whole; None when it is not there."""
    try:
        with store.open(name) as stream:
            return stream.read()
    except NotThere:
        return None


def write(store: Store, name: str, data: bytes) -> None:
    """A small file, unless the store holds these bytes already."""
    if read(store, name) != data:
        store.put(name, io.BytesIO(data), size_bytes=len(data), digest=digest_of(data))


def _allocated_bytes(target: Path) -> int:
    """What the partial file of an earlier process takes on the disk already."""
    partial = partial_file(target)
    return partial.stat().st_blocks * 512 if partial.is_file() else 0


def each(entries: Sequence[FileEntry], action: Callable[[FileEntry], None]) -> None:
    """Small files several at a time, then large ones, which move in several streams themselves, in turn."""
    small = [entry for entry in entries if entry.size_bytes < LARGE_BYTES]
    with ThreadPoolExecutor(STREAMS) as pool:
        futures = [pool.submit(action, entry) for entry in small]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    for entry in entries:
        if entry.size_bytes >= LARGE_BYTES:
            action(entry)


def one_at_a_time(progress: Progress) -> Progress:
    """The same, told by several threads."""
    lock = Lock()

    def report(path: str, size_bytes: int) -> None:
        with lock:
            progress(path, size_bytes)

    return report
