"""Cut what a lock names into volumes.

`pack` lays the blobs out (`archive_plan`), reads those that are cut into parts once for the parts' digests, which
stand at the head of a volume, then writes one volume after the other: under a hidden name until its last byte
is on the disk, so that a volume that is there is whole. Every member is hashed while it is copied, against the
lock. A run that was killed goes on inside the volume it was writing.

Besides the volumes an archive has `SHA256SUMS` for `sha256sum -c`, and the runbook (`runbook`).
"""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import msgspec

from sie_airgap.archive_plan import (
    ARCHIVE_VERSION,
    BLOCK_BYTES,
    INDEX_NAME,
    LOCK_NAME,
    Member,
    Piece,
    Volume,
    encode_volume,
    lay_out,
    member_header,
    padding,
    volume_name,
    with_offsets,
)
from sie_airgap.blobs import GOLDEN_NAME, Blobs, held, need_space, told_os_errors, write_atomically
from sie_airgap.contents import Content, contents, labels
from sie_airgap.failures import Drift, Incomplete, Misused
from sie_airgap.progress import Progress, Task
from sie_airgap.runbook import README_NAME, START_NAME, readme, start_script
from sie_core.artifacts.digest import CHUNK_BYTES, Digest, digest_of, digest_of_stream, hex_of
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.hashing import Hashing
from sie_core.artifacts.lock import Lock, encode_lock

SUMS_NAME = "SHA256SUMS"
UNLIMITED_BYTES = 1 << 60


@dataclass(frozen=True)
class Cut:
    """An archive before it is written: what stands on each volume."""

    name: str
    lock: Lock
    lock_digest: Digest
    named: Mapping[str, bytes]
    volumes: tuple[tuple[Piece, ...], ...]

    @property
    def volume_names(self) -> tuple[str, ...]:
        return tuple(volume_name(number) for number in range(1, len(self.volumes) + 1))

    @property
    def size_bytes(self) -> int:
        return sum(piece.size_bytes for pieces in self.volumes for piece in pieces)

    @property
    def parts(self) -> tuple[Piece, ...]:
        """The pieces of blobs that fit on no volume, each blob's together and in order."""
        found = (piece for pieces in self.volumes for piece in pieces if piece.of > 1)
        return tuple(sorted(found, key=lambda part: (part.blob, part.start)))


def plan_archive(lock: Lock, source: Blobs, *, name: str, volume_bytes: int = UNLIMITED_BYTES) -> Cut:
    """What `pack` will write.

    Raises:
        Incomplete: the source lacks something that the lock names.
        Drift: its golden answers belong to another lock.
        Misused: they are none.
    """
    wanted = contents(lock)
    _check_complete(wanted, source)
    lock_bytes = encode_lock(lock)
    named = {LOCK_NAME: lock_bytes}
    golden = source.named(GOLDEN_NAME)
    if golden is not None:
        _check_golden(golden, digest_of(lock_bytes))
        named[GOLDEN_NAME] = golden
    blobs = {content.digest: content.size_bytes for content in wanted}
    extra = {digest_of(data): len(data) for file, data in named.items() if file != LOCK_NAME}
    volumes = lay_out(list({**extra, **blobs}.items()), volume_bytes=volume_bytes, reserved_bytes=len(lock_bytes))
    return Cut(
        name=name,
        lock=lock,
        lock_digest=digest_of(lock_bytes),
        named=named,
        volumes=tuple(tuple(_with_names(pieces, named)) for pieces in volumes),
    )


class _Recorded(msgspec.Struct):
    lock: Digest


def _check_golden(golden: bytes, lock: Digest) -> None:
    try:
        have = msgspec.json.decode(golden, type=_Recorded).lock
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Misused(
            f"`{GOLDEN_NAME}` of the store holds no golden answers: {error}",
            hint="`sie-airgap golden record` writes it anew, or remove it",
        ) from error
    if have != lock:
        raise Drift(
            f"the golden answers were recorded for another lock\n  want  {lock}\n  have  {have}",
            hint=f"`sie-airgap golden record` records them anew, or remove `{GOLDEN_NAME}` from the store",
        )


def _check_complete(wanted: Sequence[Content], source: Blobs) -> None:
    missing = [content for content in wanted if source.size(content.digest) is None]
    if missing:
        shown = "\n".join(f"  {content.label}  {content.digest}" for content in missing[:10])
        more = f"\n  and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise Incomplete(
            f"{len(missing)} of {len(wanted)} blobs are not in {source.where}\n{shown}{more}",
            hint="`sie-airgap snapshot` fetches what the store lacks",
        )


def _with_names(pieces: Sequence[Piece], named: Mapping[str, bytes]) -> Iterator[Piece]:
    """The lock first on every volume, then the pieces, those that have a name of their own under it."""
    lock = named[LOCK_NAME]
    yield Piece(digest_of(lock), len(lock), 0, len(lock), name=LOCK_NAME)
    own = {digest_of(data): file for file, data in named.items()}
    for piece in pieces:
        if piece.blob in own and piece.of == 1:
            yield Piece(piece.blob, piece.blob_size_bytes, 0, piece.size_bytes, name=own[piece.blob])
        else:
            yield piece


def pack(cut: Cut, source: Blobs, folder: Path, *, progress: Progress) -> tuple[Path, ...]:
    """Write what of the archive is not in `folder` yet; the volumes written now.

    Raises:
        Drift: the folder holds volumes of another archive.
        TrustError: the store holds a blob that is not what the lock says.
        NoSpace, NoPermission: of the folder.
        Partial: another run is writing there.
    """
    with held(folder):
        return _packed(cut, source, folder, progress)


def _packed(cut: Cut, source: Blobs, folder: Path, progress: Progress) -> tuple[Path, ...]:
    names = labels(cut.lock)
    indexes = _indexes(cut, _part_digests(cut, source, progress, names))
    todo = [index for index in indexes if not _is_there(folder / index.name, index)]
    _refuse_strangers(folder, cut, {index.name for index in todo})
    need_space(folder, sum(index.size_bytes for index in todo) - _started_bytes(folder))
    sums = _read_sums(folder)
    with progress.task("pack", sum(index.size_bytes for index in todo)) as task:
        for index in indexes:
            path = folder / index.name
            if index in todo:
                task.at(index.name)
                sums[index.name] = _write_volume(index, cut, source, path, task, names)
            elif index.name not in sums:
                sums[index.name] = _digest_of_file(path)
            _write_if_changed(folder / SUMS_NAME, _sums_text(sums, cut.volume_names))
    _write_if_changed(folder / README_NAME, readme(cut.lock, cut.lock_digest, cut.name, cut.volume_names))
    _write_if_changed(folder / START_NAME, start_script())
    return tuple(folder / index.name for index in todo)


def present_volumes(cut: Cut, folder: Path) -> tuple[str, ...]:
    """The names of the volumes in `folder` that have the length they should; for a dry run."""
    sized = _indexes(cut, {part: part.blob for part in cut.parts})  # digests are all of one length
    return tuple(index.name for index in sized if _size_bytes(folder / index.name) == index.size_bytes)


def _size_bytes(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _part_digests(cut: Cut, source: Blobs, progress: Progress, names: Mapping[Digest, str]) -> dict[Piece, Digest]:
    """Of every part; each blob is read once and held against the lock on the way. Raises `TrustError`."""
    digests: dict[Piece, Digest] = {}
    if not cut.parts:
        return digests
    with progress.task("pack: hash parts", sum(part.size_bytes for part in cut.parts)) as task:
        for blob, parts in groupby(cut.parts, key=lambda part: part.blob):
            whole = Hashing()
            with source.open(blob) as stream:
                for part in parts:
                    task.at(part.member_name)
                    digests[part] = _passed(stream, part.size_bytes, whole, task)
            if whole.digest != blob:
                raise _altered(blob, f"`{blob}`", whole.digest, source, names)
    return digests


def _passed(stream: BinaryIO, size_bytes: int, whole: Hashing, task: Task) -> Digest:
    """The digest of the next `size_bytes`, which `whole` is given, too."""
    part = Hashing()
    while left := size_bytes - part.size_bytes:
        chunk = stream.read(min(CHUNK_BYTES, left))
        if not chunk:
            break  # the blob is shorter than it was: its digest tells
        part.update(chunk)
        whole.update(chunk)
        task.advance(len(chunk))
    return part.digest


def _indexes(cut: Cut, parts: Mapping[Piece, Digest]) -> list[Volume]:
    """`VOLUME.json` of every volume."""
    named = {file: digest_of(data) for file, data in cut.named.items()}
    empty = Volume(ARCHIVE_VERSION, cut.name, cut.lock_digest, 1, cut.volume_names, 0, named, ())
    return [
        with_offsets(msgspec.structs.replace(empty, number=number), pieces, parts)
        for number, pieces in enumerate(cut.volumes, start=1)
    ]


def volume_head(index: Volume) -> bytes:
    data = encode_volume(index)
    return member_header(INDEX_NAME, len(data)) + data


def _is_there(path: Path, index: Volume) -> bool:
    """Whether a volume of that name, length and index is there; what its members hold is for `verify`."""
    if _size_bytes(path) != index.size_bytes:
        return False
    head = volume_head(index)
    with path.open("rb") as file:
        return file.read(len(head)) == head


def _refuse_strangers(folder: Path, cut: Cut, todo: set[str]) -> None:
    """Volumes that are not of this archive are never overwritten and never left to be taken for part of it."""
    for path in sorted(folder.glob("v[0-9][0-9][0-9][0-9].tar")):
        if path.name in todo or path.name not in cut.volume_names:
            raise Drift(
                f"{path} is there and is not what this archive has under that name (lock {cut.lock_digest})",
                hint="nothing was overwritten; name an empty folder, or remove that file if it is a damaged volume",
            )


def _write_volume(
    index: Volume, cut: Cut, source: Blobs, path: Path, task: Task, names: Mapping[Digest, str]
) -> Digest:
    """One volume, under a hidden name until it is whole; its digest."""
    draft = _draft(path)
    with told_os_errors(path), draft.open("r+b" if draft.exists() else "w+b") as file:
        writer = _Writer(file, task)
        writer.put(volume_head(index))
        for member in index.members:
            writer.put(member_header(member.name, member.size_bytes))
            if not writer.keeps(member):
                with _opened(member, cut, source) as stream:
                    have = writer.copy(stream)
                if have != member.digest:
                    raise _altered(member.blob, f"`{member.name}`", have, source, names, want=member.digest)
            writer.put(bytes(padding(member.size_bytes)))
        writer.put(bytes(2 * BLOCK_BYTES))
        file.truncate(writer.position)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    return writer.digest


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _opened(member: Member, cut: Cut, source: Blobs) -> BinaryIO:
    if member.name in cut.named:
        return io.BytesIO(cut.named[member.name])
    return source.open(member.blob, start=member.blob_offset, length=member.size_bytes)


def _altered(
    blob: Digest, name: str, have: Digest, source: Blobs, names: Mapping[Digest, str], *, want: Digest | None = None
) -> TrustError:
    return TrustError(
        f"{names.get(blob, name)} is not what was locked",
        where=f"{source.where}/blobs/sha256/{hex_of(blob)}",
        want=want or blob,
        have=have,
        hint="remove that file and run `sie-airgap snapshot`: it is fetched again",
    )


class _Writer:
    """Writes a volume from its first byte and hashes it, keeping what a killed run had written right."""

    def __init__(self, file: BinaryIO, task: Task) -> None:
        self._file, self._task = file, task
        self._there = os.fstat(file.fileno()).st_size
        self._sum = Hashing()

    @property
    def position(self) -> int:
        return self._sum.size_bytes

    @property
    def digest(self) -> Digest:
        return self._sum.digest

    def put(self, data: bytes) -> None:
        self._sum.update(data)
        self._file.write(data)
        self._task.advance(len(data))

    def keeps(self, member: Member) -> bool:
        """Whether the file already holds `member` here; if so it is passed over."""
        if self._there < self.position + member.size_bytes:
            return False
        before = self._sum.copy()
        if _passed(self._file, member.size_bytes, self._sum, self._task) == member.digest:
            self._file.seek(self.position)
            return True
        self._task.advance(before.size_bytes - self.position)
        self._sum = before
        self._file.seek(self.position)
        return False

    def copy(self, stream: BinaryIO) -> Digest:
        running = Hashing()
        while chunk := stream.read(CHUNK_BYTES):
            running.update(chunk)
            self.put(chunk)
        return running.digest


def _started_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob(".v*.tar.partial"))


def _digest_of_file(path: Path) -> Digest:
    with path.open("rb") as file:
        return digest_of_stream(file)[0]


def _sums_text(sums: Mapping[str, Digest], names: Sequence[str]) -> str:
    return "".join(f"{hex_of(sums[name])}  {name}\n" for name in names if name in sums)


def _read_sums(folder: Path) -> dict[str, Digest]:
    path = folder / SUMS_NAME
    return read_sums(path.read_text("utf-8")) if path.exists() else {}


def read_sums(text: str) -> dict[str, Digest]:
    """`SHA256SUMS`: file name to digest. Lines that are not one are passed over."""
    sums = {}
    for line in text.splitlines():
        hexed, separator, name = line.partition("  ")
        if separator and len(hexed) == 64:
            sums[name] = Digest(f"sha256:{hexed}")
    return sums


def _write_if_changed(path: Path, text: str) -> None:
    data = text.encode()
    if not path.exists() or path.read_bytes() != data:
        write_atomically(path, data)
