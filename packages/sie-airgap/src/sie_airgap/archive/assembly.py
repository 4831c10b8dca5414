"""Put a blob together that was cut into parts, from one volume after the other and over as many runs as it takes.

The parts lie in their places in one file; which of them are there is in a journal beside it. Bytes come from the
volumes checked chunk by chunk. What a killed run had written of a part is checked against the same CRCs and kept,
and the whole blob is hashed before it counts.
"""

import os
from collections.abc import Sequence
from zlib import crc32

from sie_airgap.archive.copies import Placed
from sie_airgap.archive.damage import Crcs, checks_altered, part_altered
from sie_airgap.archive.volume_format import CHUNK_BYTES, Member
from sie_airgap.archive.volume_reader import Checked, Damaged, Unreadable, read_checks
from sie_airgap.failures import Expected
from sie_airgap.progress import Task
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.store.contents import Content
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.hashing import Hashing
from sie_core.artifacts.write_behind import WriteBehind


class Assembly:
    """One blob in the making. `path`: the file in which it is put together."""

    def __init__(self, store: BlobFolder, content: Content) -> None:
        self._store, self._content = store, content
        self.path = store.arriving(content.digest).with_suffix(".assembly")
        self._journal = self.path.with_suffix(".done")
        self._done = self._read_journal() if self.path.exists() else {}
        self._joined = Hashing()

    @property
    def is_whole(self) -> bool:
        position = 0
        for start, end in sorted(self._done.items()):
            if start > position:
                return False
            position = max(position, end)
        return position == self._content.size_bytes

    def take(self, copies: Sequence[Placed], task: Task) -> list[Expected]:
        """A part, from the first of its copies that is sound; where there is none, what is wrong with each."""
        member = copies[0].member
        start, end = member.blob_offset, member.blob_offset + member.size_bytes
        if self._done.get(start, 0) >= end:
            task.advance(member.size_bytes)
            return []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        errors: list[Expected] = []
        for placed in copies:
            error = self._copy(placed, task)
            if error is None:
                self._done[start] = end
                with self._journal.open("a", encoding="ascii") as file:
                    file.write(f"{start} {end}\n")
                return []
            errors.append(error)
        return errors

    def _copy(self, placed: Placed, task: Task) -> Expected | None:
        """One part to its place; what is wrong with it, or None."""
        try:
            checks = read_checks(placed.path, placed.volume)
            if checks is None:
                return checks_altered(placed.path, "lines whose digest is another")
            volume = Checked(placed.path, placed.volume, checks)
        except Unreadable as error:
            return error
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with WriteBehind(handle) as file:
                bad = self._copy_chunks(file, volume, placed.member, task)
        finally:
            os.close(handle)
            volume.close()
        return part_altered(placed.path, placed.member, bad, label=self._content.label) if bad else None

    def _copy_chunks(self, file: WriteBehind, volume: Checked, member: Member, task: Task) -> dict[int, Crcs]:
        """Chunk by chunk what is not there yet; of those that are damaged, what their CRC must be and is."""
        bad: dict[int, Crcs] = {}
        joined = self._joined.copy() if self._joined.size_bytes == member.blob_offset else None
        for number, start, length in volume.chunks(member):
            data = os.pread(file.handle, length, member.blob_offset + start)
            if len(data) != length or crc32(data) != volume.crc(number):
                try:
                    data = volume.read(member.offset + start, length)
                except Damaged:
                    bad[start // CHUNK_BYTES] = volume.crc(number), volume.crc_there(member.offset + start, length)
                    joined = None
                else:
                    file.write(data, member.blob_offset + start)
            if joined is not None:
                joined.update(data)
            task.advance(length)
        if joined is not None:
            self._joined = joined
        return bad

    def adopt(self) -> list[TrustError]:
        """Take the blob up when it is right. What came out of order, or in an earlier run, is hashed now."""
        content, whole = self._content, self._joined
        with self.path.open("rb") as file:
            file.seek(whole.size_bytes)
            while chunk := file.read(CHUNK_BYTES):
                whole.update(chunk)
        self._journal.unlink()
        if (whole.digest, whole.size_bytes) == (content.digest, content.size_bytes):
            self.path.replace(self._store.arriving(content.digest))
            self._store.adopt(content.digest)
            return []
        self.path.unlink()
        return [
            TrustError(
                f"{content.label}, put together from its parts, is not what was locked",
                where=str(self.path),
                want=f"{content.digest}  {content.size_bytes:,} bytes",
                have=f"{whole.digest}  {whole.size_bytes:,} bytes",
                hint="run the same command again: its parts are taken anew",
            )
        ]

    def _read_journal(self) -> dict[int, int]:
        """Where the parts that are on the disk begin and end. A line cut short when power went is no line."""
        done = {}
        text = self._journal.read_text("ascii") if self._journal.exists() else ""
        for line in text.splitlines(keepends=True):
            numbers = line.split()
            if line.endswith("\n") and len(numbers) == 2:
                done[int(numbers[0])] = int(numbers[1])
        return done
