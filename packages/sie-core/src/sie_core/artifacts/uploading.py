"""Moving a snapshot's files into a store: each there once, and none seen before all that it stands for.

Files come first, then the hub's listing and markers, then the manifest, then the ref, each only when all before it
are there. A reader that starts at the ref or at the manifest finds everything. A file that the store has under
another name is copied there and not sent.
"""

import io
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, cast

from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import CHUNK_BYTES, Digest
from sie_core.artifacts.hashing import Hashing
from sie_core.artifacts.manifest import FileEntry, Manifest, encode_manifest
from sie_core.artifacts.plan import Plan, plan, shared
from sie_core.artifacts.ranges import STREAMS
from sie_core.artifacts.store import Destination, Store
from sie_core.artifacts.transfer import Progress, each, no_progress, one_at_a_time, read, write

Source = Callable[[FileEntry], BinaryIO]
"""Where an upload reads a file from; it may be asked several times."""

Attempt = Callable[[Callable[[], None]], None]
"""How one file is tried: once, or again while its failure is one that passes."""


def once(action: Callable[[], None]) -> None:
    action()


def upload_plan(store: Store, manifest: Manifest, *, reread: bool = False, progress: Progress = no_progress) -> Plan:
    """What `upload_files` would copy.

    Files of the right length are not copied when the store has this very manifest, which is written last;
    without it, or with `reread`, each is read from the store and copied when its digest is another.

    Args:
        progress: told of what is there already, and right.
    """
    prefix = hf_layout.snapshot_folder(manifest.repo, manifest.revision) + "/"
    todo = plan(manifest, {stat.name.removeprefix(prefix): stat.size_bytes for stat in store.list(prefix)})
    report = one_at_a_time(progress)
    name = hf_layout.manifest_file(manifest.repo, manifest.revision)
    if not reread and read(store, name) == encode_manifest(manifest):
        for entry in todo.present:
            report(entry.path, entry.size_bytes)
        return todo

    def is_right(entry: FileEntry) -> bool:
        return _stored_digest(store, prefix + entry.path, entry, report) == entry.digest

    with ThreadPoolExecutor(STREAMS) as pool:
        right = {entry.path for entry, held in zip(todo.present, pool.map(is_right, todo.present), strict=True) if held}
    return Plan(
        copies=tuple(entry for entry in manifest.files if entry.path not in right),
        present=tuple(entry for entry in todo.present if entry.path in right),
        conflicts=todo.conflicts,
        strays=todo.strays,
    )


def upload_files(
    store: Destination,
    source: Source,
    manifest: Manifest,
    *,
    absent: Iterable[str] = (),
    reread: bool = False,
    held: Mapping[Digest, str] | None = None,
    attempt: Attempt = once,
    progress: Progress = no_progress,
) -> Plan:
    """Copy a snapshot into a store: files, then the hub's listing and markers, then the manifest.

    Args:
        source: where each file is read from.
        absent: optional files that loaders ask for and this commit has not; each gets its marker.
        reread: read what is already there, too, instead of relying on the store's manifest.
        held: names that the store has these contents under, to copy from.
        attempt: how one file is tried.

    Returns:
        What there was to do; running it again does nothing.

    Raises:
        TransferError: the store or the source failed; run again, it goes on from there.
        TrustError: the source is not what the manifest says.
    """
    todo = upload_plan(store, manifest, reread=reread, progress=progress)
    report = one_at_a_time(progress)
    model, revision = manifest.repo, manifest.revision
    names = {entry.digest: hf_layout.snapshot_file(model, revision, entry.path) for entry in reversed(todo.copies)}
    sent, copied = shared(todo.copies, held or {})

    def send(entry: FileEntry) -> None:
        attempt(lambda: _send(store, hf_layout.snapshot_file(model, revision, entry.path), source, entry, report))

    def copy(entry: FileEntry) -> None:
        """On the server; where it cannot, or has no such file any more, the file is sent."""
        name = hf_layout.snapshot_file(model, revision, entry.path)
        its_source = (held or {}).get(entry.digest) or names[entry.digest]
        done: list[bool] = []
        attempt(lambda: done.append(store.copy(its_source, name, size_bytes=entry.size_bytes)))
        if done[-1]:
            report(entry.path, entry.size_bytes)
        else:
            send(entry)

    each(sent, send)
    each(copied, copy)
    for path in absent:
        write(store, hf_layout.no_exist_file(model, revision, path), b"")
    write(store, hf_layout.tree_file(model, revision), hf_layout.tree_json(manifest))
    write(store, hf_layout.manifest_file(model, revision), encode_manifest(manifest))
    return todo


def upload_ref(store: Store, manifest: Manifest, ref: str = "main") -> None:
    """What readers without a lock start from; only when the manifest is there."""
    write(store, hf_layout.ref_file(manifest.repo, ref), hf_layout.ref_bytes(manifest.revision))


def upload_snapshot(
    store: Destination, source: Source, manifest: Manifest, *, absent: Iterable[str] = (), reread: bool = False
) -> Plan:
    """`upload_files`, then the ref."""
    todo = upload_files(store, source, manifest, absent=absent, reread=reread)
    upload_ref(store, manifest)
    return todo


def _send(store: Store, name: str, source: Source, entry: FileEntry, report: Progress) -> None:
    with source(entry) as data:
        counted = _Counted(data, entry.path, report)
        try:
            store.put(name, cast(BinaryIO, counted), size_bytes=entry.size_bytes, digest=entry.digest)
        except BaseException:
            report(entry.path, -counted.size_bytes)  # it will be read again
            raise


def _stored_digest(store: Store, name: str, entry: FileEntry, report: Progress) -> Digest:
    """What a stored file hashes to; as progress it counts only when that is right."""
    running = Hashing()
    with store.open(name) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            running.update(chunk)
            report(entry.path, len(chunk))
    if running.digest != entry.digest:
        report(entry.path, -running.size_bytes)
    return running.digest


class _Counted(io.RawIOBase):
    """A stream that reports what is read from it."""

    def __init__(self, data: BinaryIO, path: str, report: Progress) -> None:
        self._data = data
        self._path = path
        self._report = report
        self.size_bytes = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._data.read(size)
        if chunk:
            self.size_bytes += len(chunk)
            self._report(self._path, len(chunk))
        return chunk
