"""What this machine knows of an upload in parts that it began: which parts were acknowledged, and what was in them.

A server's ETag is no evidence of what it holds, so a part counts as sent when three things agree: we noted its
sha256 when the server took it, the server still lists it with its length and the ETag of then, and the bytes that
we would send now have that sha256. Without the last, a part that was read from a damaged medium before the process
was killed would end up in the file.

An upload belongs to the process that holds its journal. Two of them for one file do not meet: the second begins an
upload of its own, and whichever ends last has written the same bytes.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from sie_core.artifacts.digest import Digest, digest_of, hex_of
from sie_core.artifacts.stores.local import disk_errors


class UploadOf(Struct, frozen=True, forbid_unknown_fields=True):
    """What an upload is of, where it goes, and how it is cut; with any of these another, its parts mean nothing."""

    endpoint: str
    bucket: str
    key: str
    digest: Digest
    size_bytes: int
    part_bytes: int


class Begun(Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of a journal: `upload` is the server's name for it."""

    of: UploadOf
    upload: str


class SentPart(Struct, frozen=True, forbid_unknown_fields=True):
    """Each further line: a part that the server acknowledged."""

    number: int
    digest: Digest
    etag: str


class Listed(Struct, frozen=True):
    """A part as the server lists it."""

    size_bytes: int
    etag: str


def decode_journal(data: bytes) -> tuple[Begun, dict[int, SentPart]] | None:
    """None for what is no journal. A line that was half written when the process was killed is no line."""
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    try:
        begun = msgspec.json.decode(lines[0], type=Begun)
        parts = [msgspec.json.decode(line, type=SentPart) for line in lines[1:]]
    except (msgspec.MsgspecError, IndexError):
        return None
    return begun, {part.number: part for part in parts}


def sent_parts(noted: Mapping[int, SentPart], listed: Mapping[int, Listed], of: UploadOf) -> dict[int, SentPart]:
    """The parts that need not be sent again if their content is what it was."""
    return {
        number: part
        for number, part in noted.items()
        if listed.get(number) == Listed(size_bytes=part_length(of, number), etag=part.etag)
    }


def part_length(of: UploadOf, number: int) -> int:
    """In bytes; parts count from 1."""
    return min(of.part_bytes, of.size_bytes - (number - 1) * of.part_bytes)


class UploadJournal:
    """One upload's file; without a folder, or while another process holds it, it remembers nothing."""

    def __init__(self, fd: int | None, path: Path | None) -> None:
        self._fd, self._path = fd, path

    def read(self) -> tuple[Begun, dict[int, SentPart]] | None:
        if self._fd is None:
            return None
        return decode_journal(os.pread(self._fd, os.fstat(self._fd).st_size, 0))

    def begin(self, begun: Begun) -> None:
        """Forget what was noted before."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            self._append(begun)

    def note(self, part: SentPart) -> None:
        """One write a line: safe from several threads, and a process killed later has it noted."""
        self._append(part)

    def end(self) -> None:
        """The upload is no more: it is complete, or it was taken back."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _append(self, line: Begun | SentPart) -> None:
        if self._fd is not None:
            os.write(self._fd, msgspec.json.encode(line) + b"\n")


@contextmanager
def journal_of(folder: Path | None, of: UploadOf) -> Iterator[UploadJournal]:
    """The journal of uploads to one key. `folder` None: none is kept."""
    if folder is None:
        yield UploadJournal(None, None)
        return
    key = digest_of(f"{of.endpoint}\n{of.bucket}\n{of.key}".encode())
    path = folder / f"{hex_of(key)}.jsonl"
    with disk_errors(path, "write"):
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield UploadJournal(None, None)
            return
        yield UploadJournal(fd, path)
    finally:
        os.close(fd)
