"""Cut what a lock names into volumes.

`pack` lays the blobs out (`plan`) and writes one volume after the other: under a hidden name until its last
byte is on the disk, so that a volume that is there is whole. Every blob is read once, hashed on the way against the
lock, a blob that is cut across volumes from its first part to its last; a volume gets its name when all that it
carries has been found right. Parity volumes come after the volumes they stand for (`parity`). A run that was killed
goes on inside the volume it was writing.

Besides the volumes an archive has `SHA256SUMS` for `sha256sum -c`, and the runbook (`runbook`).
"""

import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import BinaryIO

from sie_airgap.archive.cut import Cut
from sie_airgap.archive.parity import write_parity
from sie_airgap.archive.parity_format import PARITY_INDEX_NAME, encode_parity, parity_name
from sie_airgap.archive.runbook import README_NAME, START_NAME, start_script
from sie_airgap.archive.sums import SUMS_NAME, encode_sums, read_sums
from sie_airgap.archive.volume_format import (
    INDEX_NAME,
    Member,
    Volume,
    encode_head,
    encode_volume,
    member_header,
)
from sie_airgap.archive.volume_writer import Writer, draft, publish, writing
from sie_airgap.failures import Drift, Incomplete, Misused
from sie_airgap.progress import Progress, Task
from sie_airgap.store.blobs import SIGNATURES_NAME, Blobs, held, need_space, write_atomically
from sie_airgap.store.contents import labels
from sie_airgap.trust.files import merged, read_envelope, sealed_in
from sie_core.artifacts.digest import CHUNK_BYTES, Digest, digest_of, digest_of_stream, hex_of
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.hashing import Hashing


def pack(cut: Cut, source: Blobs, folder: Path, *, progress: Progress, only: Collection[str] = ()) -> tuple[Path, ...]:
    """Write what of the archive is not in `folder` yet; the volumes written now.

    Args:
        only: the names of the volumes to write; all of them where there is none.

    Raises:
        Drift: the folder holds volumes of another archive, or a volume cut alone is not the one that it was.
        Incomplete: a parity volume is asked for, and a volume that it stands for is not in the folder.
        Misused: the archive has no volume of such a name.
        TrustError: the store holds a blob that is not what the lock says.
        NoSpace, NoPermission: of the folder.
        Partial: another run is writing there.
    """
    wanted = chosen(cut, only)
    with held(folder):
        return _Pack(cut, source, folder, progress).run(wanted, alone=bool(only))


def chosen(cut: Cut, only: Collection[str]) -> frozenset[str]:
    """The names of the volumes to write. Raises `Misused` for one that there is not."""
    strange = [name for name in only if name not in cut.names]
    if strange:
        raise Misused(
            f"`{strange[0]}` is no volume of this archive: it has {_listed(cut.volume_names)}"
            + (f" and {_listed(cut.parity_names)}" if cut.parity_names else "; parity volumes come with --parity")
        )
    return frozenset(only or cut.names)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def absent(cut: Cut, folder: Path, only: Collection[str] = ()) -> tuple[str, ...]:
    """The names of the volumes to write that are not in `folder` at the length they have; for a dry run."""
    wanted = chosen(cut, only)
    return tuple(name for name in cut.names if name in wanted and _size(folder / name) != cut.size_bytes[name])


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


class _Pack:
    """One run."""

    def __init__(self, cut: Cut, source: Blobs, folder: Path, progress: Progress) -> None:
        self._cut, self._source, self._folder, self._progress = cut, source, folder, progress
        self._labels = labels(cut.lock)
        self._sums = _read_sums(folder)
        self._running: dict[Digest, Hashing] = {}
        """Blobs that are cut across volumes and not found right yet, each as far as it has been read."""

    def run(self, wanted: frozenset[str], *, alone: bool) -> tuple[Path, ...]:
        cut, folder = self._cut, self._folder
        todo = [index for index in cut.indexes if index.name in wanted and not self._has(index)]
        self._refuse_strangers({index.name for index in todo})
        written = [index.name for index in todo]
        new = [*written, *(name for name in cut.parity_names if name in wanted and not (folder / name).exists())]
        total_bytes = sum(cut.size_bytes[name] for name in new)
        need_space(folder, total_bytes - _started_bytes(folder))
        with self._progress.task("pack", total_bytes) as task:
            self._write_volumes(todo, task, alone=alone)
            for number, name in enumerate(cut.parity_names, start=1):
                if name in wanted and self._write_parity(number, task):
                    written.append(name)
        if not alone:
            self._write_beside()
        return tuple(folder / name for name in written)

    def _has(self, index: Volume) -> bool:
        """Whether a volume of that name, length and index is there; what its members hold is for `verify`."""
        return _begins(self._folder / index.name, index.size_bytes, encode_head(INDEX_NAME, encode_volume(index)))

    def _refuse_strangers(self, todo: Collection[str]) -> None:
        """Volumes that are not of this archive are never overwritten and never left to be taken for part of it."""
        for path in sorted(self._folder.glob("v[0-9][0-9][0-9][0-9].tar")):
            if path.name in todo or path.name not in self._cut.volume_names:
                raise self._stranger(path)

    def _stranger(self, path: Path) -> Drift:
        return Drift(
            f"{path} is there and is not what this archive has under that name (lock {self._cut.lock_digest})",
            hint="nothing was overwritten; name an empty folder, or remove that file if it is a damaged volume",
        )

    def _write_volumes(self, todo: Sequence[Volume], task: Task, *, alone: bool) -> None:
        waiting: list[tuple[Volume, Digest]] = []
        for index in todo:
            task.at(index.name)
            waiting.append((index, self._write(index, task)))
            waiting = self._publish(waiting, alone=alone)
        for blob in list(self._running):
            self._read_on(blob, self._running[blob], None)
            self._settle(blob)
        self._publish(waiting, alone=alone)

    def _publish(self, waiting: Sequence[tuple[Volume, Digest]], *, alone: bool) -> list[tuple[Volume, Digest]]:
        """Gives those volumes their names all of whose blobs have been found right; the others."""
        left = []
        for index, digest in waiting:
            if any(member.blob in self._running for member in index.members):
                left.append((index, digest))
                continue
            path = self._folder / index.name
            if alone and self._sums.get(index.name, digest) != digest:
                draft(path).unlink()
                raise _cut_otherwise(path, self._sums[index.name], digest)
            publish(path)
            self._sums[index.name] = digest
            self._write_sums()
        return left

    def _write(self, index: Volume, task: Task) -> Digest:
        """The draft of one volume; its digest."""
        head = encode_head(INDEX_NAME, encode_volume(index))
        with writing(self._folder / index.name, task) as writer:
            writer.put(head)
            for member in index.members:
                writer.put(member_header(member.name, member.size_bytes))
                self._copy(member, writer)
                writer.end_member(member.size_bytes)
            writer.end(digest_of(head))
            return writer.digest

    def _copy(self, member: Member, writer: Writer) -> None:
        """One member's bytes, hashed as what the lock knows: a blob, or one part after the other of a blob."""
        running = Hashing() if member.whole else self._running.setdefault(member.blob, Hashing())
        if not member.whole:
            self._read_on(member.blob, running, member.blob_offset)  # what stands on volumes that are there already
        with self._open(member) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                running.update(chunk)
                writer.put_content(chunk)
        end = member.blob_offset + member.size_bytes
        if running.size_bytes != end:
            raise self._altered(member.blob, f"{running.size_bytes:,} bytes", want=f"{end:,} bytes or more")
        if member.whole and running.digest != member.blob:
            raise self._altered(member.blob, running.digest)
        if not member.whole and end == member.blob_size_bytes:
            self._settle(member.blob)

    def _open(self, member: Member) -> BinaryIO:
        if member.name in self._cut.named:
            return io.BytesIO(self._cut.named[member.name])
        return self._source.open(member.blob, start=member.blob_offset, length=member.size_bytes)

    def _read_on(self, blob: Digest, running: Hashing, end: int | None) -> None:
        """Hash what is between what was read of a blob and `end`; None: all the rest."""
        length = None if end is None else end - running.size_bytes
        if length == 0:
            return
        with self._source.open(blob, start=running.size_bytes, length=length) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                running.update(chunk)

    def _settle(self, blob: Digest) -> None:
        """A blob that is cut has been read to its end. Raises `TrustError` when it is not what was locked."""
        have = self._running[blob].digest
        if have != blob:
            raise self._altered(blob, have)
        del self._running[blob]

    def _altered(self, blob: Digest, have: str, *, want: str | None = None) -> TrustError:
        return TrustError(
            f"{self._labels.get(blob, f'`{blob}`')} is not what was locked",
            where=f"{self._source.where}/blobs/sha256/{hex_of(blob)}",
            want=want or blob,
            have=have,
            hint="remove that file and run `sie-airgap snapshot`: it is fetched again",
        )

    def _write_parity(self, number: int, task: Task) -> bool:
        """A parity volume, unless it is there; whether it was written."""
        group = self._cut.parity_groups[number - 1]
        lacking = [name for name in group if not (self._folder / name).is_file()]
        path = self._folder / parity_name(number)
        if lacking:
            raise Incomplete(
                f"{', '.join(f'`{name}`' for name in lacking)} not in {self._folder}: "
                f"`{path.name}` is made of {len(group)} volumes",
                hint="copy them there, or leave out --only: what is missing is cut again",
            )
        parity = self._cut.parity(number, {name: self._sum(name) for name in group})
        head = encode_head(PARITY_INDEX_NAME, encode_parity(parity))
        if _begins(path, parity.size_bytes, head):
            self._sum(path.name)
            return False
        if path.exists():
            raise self._stranger(path)
        task.at(path.name)
        digest = write_parity(parity, self._folder, task)
        publish(path)
        self._sums[path.name] = digest
        self._write_sums()
        return True

    def _sum(self, name: str) -> Digest:
        """What `SHA256SUMS` says of a volume that is there; what it is, where a killed run had not said so yet."""
        if name not in self._sums:
            with (self._folder / name).open("rb") as file:
                self._sums[name] = digest_of_stream(file)[0]
        return self._sums[name]

    def _write_sums(self) -> None:
        volumes = frozenset(self._cut.volume_names)
        names = sorted(self._sums, key=lambda name: (name not in volumes, name))
        _write_if_changed(self._folder / SUMS_NAME, encode_sums(self._sums, names))

    def _write_beside(self) -> None:
        """The sums and the runbook. Parity volumes of an earlier run stay, and stay named."""
        cut = self._cut
        for name in cut.volume_names:
            self._sum(name)
        here = {path.name for path in self._folder.glob("p[0-9][0-9][0-9][0-9].tar")}
        self._sums = {name: self._sums[name] for name in self._sums if name in {*cut.volume_names, *here}}
        self._write_sums()
        _write_if_changed(self._folder / README_NAME, cut.runbook((*cut.volume_names, *sorted(here))))
        _write_if_changed(self._folder / START_NAME, start_script())
        self._write_signatures()

    def _write_signatures(self) -> None:
        """Those that the store has, beside those that were made in this folder."""
        path = self._folder / SIGNATURES_NAME
        there = sealed_in(self._source) + ([read_envelope(path)] if path.exists() else [])
        signatures = merged(there)
        if signatures is not None:
            _write_if_changed(path, signatures.decode())


def _begins(path: Path, size_bytes: int, head: bytes) -> bool:
    """Whether there is a file of that length that begins like that."""
    if _size(path) != size_bytes:
        return False
    with path.open("rb") as file:
        return file.read(len(head)) == head


def _cut_otherwise(path: Path, want: Digest, have: Digest) -> Drift:
    return Drift(
        f"`{path.name}` cut now is not the one that {path.with_name(SUMS_NAME)} names\n  want  {want}\n  have  {have}",
        hint="cut it with the --volume-size and the --name that the archive was cut with, from the same store",
    )


def _started_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob(".[vp]*.tar.partial"))


def _read_sums(folder: Path) -> dict[str, Digest]:
    path = folder / SUMS_NAME
    return read_sums(path.read_text("utf-8")) if path.exists() else {}


def _write_if_changed(path: Path, text: str) -> None:
    data = text.encode()
    if not path.exists() or path.read_bytes() != data:
        write_atomically(path, data)
