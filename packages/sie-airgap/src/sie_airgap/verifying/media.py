"""Hold every byte of media against the lock, and against what the volumes say of themselves.

Every finding is given, not the first. Members are held against the lock's digests, headers and zeros against what
the index implies, the volume against `SHA256SUMS` where that lies beside it; the CRCs in `CHUNKS` say which bytes of
a damaged file to blame. Each volume is read once. Nothing is changed.

A volume that was read before and not written to since is not read again where the caller says so (`remembered`); a
blob that is cut across volumes is known where it was put together from these very files.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from sie_airgap.archive.damage import Crcs, altered, between, checks_altered, part_altered, sum_differs
from sie_airgap.archive.media import Media
from sie_airgap.archive.parity_format import MEMBER_NAME, PARITY_INDEX_NAME, Parity, encode_parity
from sie_airgap.archive.sums import SUMS_NAME, read_sums
from sie_airgap.archive.volume_format import (
    CHUNK_BYTES,
    INDEX_NAME,
    Checks,
    Member,
    RunningCrcs,
    Volume,
    chunk_ranges,
    chunks_of,
    encode_head,
    encode_tail,
    encode_volume,
    member_header,
    padding,
    tail_bytes,
)
from sie_airgap.archive.volume_reader import Index, Unreadable, read_checks
from sie_airgap.deltas.delta import carried, carried_labels
from sie_airgap.failures import Expected, Incomplete
from sie_airgap.progress import Progress, Task
from sie_airgap.verifying.remembered import Remembered, stamp_of
from sie_airgap.verifying.stamps import Stamp
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.hashing import Hashing


def verify_media(media: Media, *, progress: Progress, remembered: Remembered | None = None) -> list[Expected]:
    """Every byte of every volume that is here, and which volumes are not. `remembered` None: every byte is read."""
    remembered = remembered or Remembered()
    findings: list[Expected] = list(media.refused)
    files: dict[Path, Index] = {**media.volumes, **media.parity}
    with progress.task("verify", sum(index.size_bytes for index in files.values())) as task:
        check = _Check(media, task, remembered)
        try:
            for path, index in sorted(files.items(), key=lambda one: (isinstance(one[1], Parity), one[1].number)):
                task.at(path.name)
                findings += check.file(path, index)
            findings += check.joined()
        finally:
            remembered.keep(progress.say)  # of a run that is interrupted, too
    return findings + absent(media)


def absent(media: Media) -> list[Expected]:
    """Which volumes are not here, where something is on none of those that are; a damaged one is told by itself."""
    lacking = [content for content in carried(media.lock, media.delta) if media.size(content.digest) is None]
    missing = [name for name in media.missing_volumes() if name not in media.spoilt]
    if not missing or not lacking:
        return []
    shown = ", ".join(content.label for content in lacking[:3]) + (" …" if len(lacking) > 3 else "")
    names = ", ".join(f"`{name}`" for name in missing)
    hint = "name the other media, too; a volume that is lost, `sie-airgap repair` makes again from parity"
    return [Incomplete(f"{names} not here; lacking without: {shown}", hint=hint)]


@dataclass
class _Found:
    """What one pass over a file showed."""

    wrong: dict[str, Digest] = field(default_factory=dict)
    """Whole members that are not their blobs, by name, with what they are."""
    between: list[TrustError] = field(default_factory=list)


class _Check:
    """Reads each volume once: members, what stands between them, the volume itself, and blobs cut across volumes."""

    def __init__(self, media: Media, task: Task, remembered: Remembered) -> None:
        self._media, self._task, self._remembered = media, task, remembered
        self._stamps: dict[Path, Stamp | None] = {}
        self._names = carried_labels(media.lock, media.delta)
        self._cut: dict[Digest, Hashing] = {}
        self._damaged: set[Digest] = set()

    def file(self, path: Path, index: Index) -> list[Expected]:
        try:
            return list(self._file(path, index))
        except OSError as error:
            error_told = Unreadable(path, error)
        except Unreadable as error:
            error_told = error
        if isinstance(index, Volume):
            self._damaged |= {member.blob for member in index.members}
        return [error_told]

    def _file(self, path: Path, index: Index) -> Iterator[TrustError]:
        with path.open("rb") as file:
            before, want = stamp_of(file.fileno()), _sum_of(path, index)
            self._stamps[path] = before
            key = f"{digest_of(_head(index))} in {path}, {want or 'no sum'}"
            if self._remembered.holds(key, before):
                self._task.advance(index.size_bytes)
                return
            findings = list(self._read(file, path, index, want))
            after = stamp_of(file.fileno())
        if before != after:
            self._stamps[path] = None
        if not findings:
            self._remembered.note(key, before, after)
        yield from findings

    def _read(self, file: BinaryIO, path: Path, index: Index, want: Digest | None) -> Iterator[TrustError]:
        checks = read_checks(path, index)
        findings: list[TrustError] = []
        if checks is None:
            findings.append(checks_altered(path, "lines whose digest is another"))
        reading = _Reading(file, self._task, Hashing() if want is not None else None)
        if isinstance(index, Volume):
            found = self._volume(path, index, reading)
            findings += found.between
            findings += self._blamed(path, index, found, _wrong(reading.crcs, checks))
        else:
            findings += _parity(path, index, reading)
            bad = _wrong(reading.crcs, checks)
            findings += [_parity_altered(path, index, bad)] if bad else []
        tail = reading.take(tail_bytes(index.chunks) + 1)
        if checks is not None and tail != encode_tail(checks):
            findings.append(between(path, index.tail_offset, "at the end"))
        yield from findings
        if want is not None and not findings and reading.whole is not None and want != reading.whole.digest:
            yield sum_differs(path, SUMS_NAME, want, reading.whole.digest)

    def _volume(self, path: Path, volume: Volume, reading: "_Reading") -> _Found:
        found = _Found()
        before = _head(volume)
        for member in volume.members:
            before += member_header(member.name, member.size_bytes)
            offset = reading.position
            if reading.take(len(before)) != before:
                found.between.append(between(path, offset, f"before `{member.name}`"))
            running = Hashing() if member.whole else self._next_of_cut(member)
            reading.member(member.size_bytes, running)
            if member.whole and running is not None and running.digest != member.blob:
                found.wrong[member.name] = running.digest
            before = bytes(padding(member.size_bytes))
        if reading.take(len(before)) != before:
            found.between.append(between(path, volume.tail_offset - len(before), "at the end"))
        return found

    def _blamed(self, path: Path, volume: Volume, found: _Found, bad: Mapping[int, Crcs]) -> Iterator[TrustError]:
        """Each member that is damaged, and where in it. `bad`: the chunks whose CRC is wrong."""
        first = 0
        for member in volume.members:
            chunks = chunks_of(member.size_bytes)
            inside = {number - first: bad[number] for number in range(first, first + chunks) if number in bad}
            first += chunks
            label = self._names.get(member.blob, f"`{member.name}`")
            if member.name in found.wrong:
                have = found.wrong[member.name]
                yield altered(path, member, inside, label=label, want=member.blob, have=have)
            elif inside and member.whole:
                yield checks_altered(path, f"a wrong CRC-32 for `{member.name}`, which is right")
            elif inside:
                yield part_altered(path, member, inside, label=label)
            else:
                continue
            self._damaged.add(member.blob)

    def joined(self) -> Iterator[Expected]:
        """Blobs whose parts are all here and all what their volumes say: whether together they are what was locked."""
        cut = {one.blob for volume in self._media.volumes.values() for one in volume.members if not one.whole}
        for digest in sorted(cut):
            chain = self._media.chain(digest)
            if chain is None or self._was_joined(digest):
                continue
            try:
                have = self._joined(digest)
            except (TrustError, Unreadable) as error:
                if digest not in self._damaged:  # else told with its volume
                    yield error
                continue
            if have == digest:
                self._note_joined(digest)
            elif digest not in self._damaged:
                yield TrustError(
                    f"{self._names.get(digest, digest)}, put together from its parts, is not what was locked",
                    where=", ".join(sorted({str(placed.path) for placed in chain})),
                    want=digest,
                    have=have,
                    hint="the volumes' own checksums were changed with it: carry all of them again",
                )

    def _joined(self, digest: Digest) -> Digest:
        """What a blob is: going on from what was read in order, or from its first byte where that was damaged."""
        running = self._cut.get(digest) if digest not in self._damaged else None
        running = running or Hashing()
        with self._media.open(digest, start=running.size_bytes) as rest:
            while chunk := rest.read(CHUNK_BYTES):
                running.update(chunk)
        return running.digest

    def _parts(self, digest: Digest) -> list[tuple[str, Stamp | None]]:
        """Every file that a part of the blob stands in, as what is remembered of it."""
        places = {placed.path for at in self._media.pieces[digest].values() for placed in at}
        return [(f"a part of {digest} in {path}", self._stamps.get(path)) for path in sorted(places)]

    def _was_joined(self, digest: Digest) -> bool:
        return all(self._remembered.holds(key, stamp, is_file=False) for key, stamp in self._parts(digest))

    def _note_joined(self, digest: Digest) -> None:
        for key, stamp in self._parts(digest):
            self._remembered.note(key, stamp, stamp)

    def _next_of_cut(self, member: Member) -> Hashing | None:
        """The digest of the whole blob, where this member is the part that comes next."""
        running = self._cut.setdefault(member.blob, Hashing())
        return running if running.size_bytes == member.blob_offset else None


def _wrong(have: Sequence[int], checks: Checks | None) -> dict[int, Crcs]:
    """The chunks, by number, whose CRC is not what it must be."""
    pairs = enumerate(zip(checks.crcs, have, strict=False)) if checks is not None else ()
    return {number: (want, crc) for number, (want, crc) in pairs if want != crc}


def _parity(path: Path, parity: Parity, reading: "_Reading") -> Iterator[TrustError]:
    before = _head(parity) + member_header(MEMBER_NAME, parity.parity_bytes)
    if reading.take(len(before)) != before:
        yield between(path, 0, f"before `{MEMBER_NAME}`")
    reading.member(parity.parity_bytes, None)
    zeros = bytes(padding(parity.parity_bytes))
    if reading.take(len(zeros)) != zeros:
        yield between(path, parity.tail_offset - len(zeros), "at the end")


def _parity_altered(path: Path, parity: Parity, bad: Mapping[int, Crcs]) -> TrustError:
    ranges = [
        f"{parity.offset + start:,} to {parity.offset + stop - 1:,}"
        for start, stop in chunk_ranges(bad, parity.parity_bytes)
    ]
    want, have = bad[min(bad)]
    return TrustError(
        f"the parity volume `{parity.name}` is not what was packed",
        where=f"{path}: bytes {', '.join(ranges[:3])}" + (f" and {len(ranges) - 3} more" if len(ranges) > 3 else ""),
        want=f"CRC-32 {want:08x} of the first MiB concerned",
        have=f"CRC-32 {have:08x}",
        hint=f"carry `{path.name}` again; the volumes themselves do not need it",
    )


class _Reading:
    """Reads a file in order; `whole` is given all that is read."""

    def __init__(self, file: BinaryIO, task: Task, whole: Hashing | None) -> None:
        self._file, self._task, self.whole = file, task, whole
        self._crcs = RunningCrcs()
        self.position = 0

    def take(self, size_bytes: int) -> bytes:
        data = self._file.read(size_bytes)
        if self.whole is not None:
            self.whole.update(data)
        self._task.advance(len(data))
        self.position += len(data)
        return data

    def member(self, size_bytes: int, running: Hashing | None) -> None:
        """The next member, of which `running` is given every byte."""
        left = size_bytes
        while left and (chunk := self.take(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            self._crcs.update(chunk)
            if running is not None:
                running.update(chunk)
        self._crcs.end_member()

    @property
    def crcs(self) -> Sequence[int]:
        """Of the members until now."""
        return self._crcs.done


def _head(index: Index) -> bytes:
    """What a volume begins with."""
    if isinstance(index, Volume):
        return encode_head(INDEX_NAME, encode_volume(index))
    return encode_head(PARITY_INDEX_NAME, encode_parity(index))


def _sum_of(path: Path, index: Index) -> Digest | None:
    sums = path.parent / SUMS_NAME
    return read_sums(sums.read_text("utf-8", "replace")).get(index.name) if sums.is_file() else None
