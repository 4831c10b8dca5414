"""Volumes: their index, their checksums, the index of parity, the sums beside them, and whole files with all of it."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fuzz.target import Target, checked, compact, same
from fuzz.targets.locks import full_lock
from sie_airgap.archive.media import read_media
from sie_airgap.archive.parity_format import Covered, Parity, decode_parity, encode_parity
from sie_airgap.archive.plan import Piece, lay_out, with_offsets
from sie_airgap.archive.sums import encode_sums, read_sums
from sie_airgap.archive.volume_format import (
    BLOCK_BYTES,
    END_BYTES,
    Checks,
    RunningCrcs,
    Volume,
    decode_tail,
    decode_volume,
    encode_head,
    encode_tail,
    encode_volume,
    index_bytes,
    member_header,
    padding,
)
from sie_airgap.archive.volume_reader import Checked, Damaged, read_checks, read_index
from sie_airgap.failures import Failure
from sie_airgap.progress import Silent
from sie_airgap.store.contents import LOCK_NAME
from sie_airgap.verifying.media import verify_media
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import TransferError, TrustError
from sie_core.artifacts.lock import encode_lock

_LOCK = encode_lock(full_lock())
_BLOBS = [(digest_of(b"%d" % number), 300_000 * number) for number in range(5)]


def _empty(of: int) -> Volume:
    return Volume(1, "sie-7", digest_of(_LOCK), 1, of, 0, {LOCK_NAME: digest_of(_LOCK)}, ())


def _lock_piece() -> Piece:
    return Piece(digest_of(_LOCK), len(_LOCK), 0, len(_LOCK), name=LOCK_NAME)


def _indexes() -> Iterator[bytes]:
    (pieces, *_) = lay_out(_BLOBS, volume_bytes=1 << 20, reserved_bytes=[len(_LOCK)])
    part = Piece(digest_of(b"cut"), 9_000_000, 0, 500, 1, 9)
    yield encode_volume(with_offsets(_empty(5), [_lock_piece(), *pieces, part]))
    yield encode_volume(with_offsets(_empty(1), [_lock_piece()]))


def _padded(text: str) -> bytes:
    """As `encode_volume` pads it, for as many members as the text has."""
    data = compact(text)[:-1]
    return data + b" " * (index_bytes(data.count(b'"blob":')) - len(data) - 1) + b"\n"


def _read_volume(data: bytes) -> None:
    volume = decode_volume(data)
    same(data, encode_volume(volume))
    _ = volume.names, volume.chunks, volume.tail_offset, [member.end for member in volume.members]


def _tails() -> Iterator[bytes]:
    yield encode_tail(Checks(digest_of(b""), (1, 2, 3)))
    yield encode_tail(Checks(digest_of(b""), ()))


def _lines(data: bytes) -> list[str]:
    return data[BLOCK_BYTES : len(data) - END_BYTES].rstrip(b"\0").decode("ascii").splitlines()[:-1]


def _tail_of(text: str) -> bytes:
    """With the digest at its end that such lines have: only then are they looked at."""
    try:
        lines = json.loads(text)
    except (ValueError, RecursionError):
        lines = [text]
    body = "".join(f"{line}\n" for line in (lines if isinstance(lines, list) else ())).encode("utf-8", "surrogatepass")
    return encode_head("CHUNKS", body + f"{digest_of(body)}\n".encode()) + bytes(END_BYTES)


def _read_tail(data: bytes) -> None:
    same(data, encode_tail(decode_tail(data)))


def _parities() -> Iterator[bytes]:
    covered = (Covered("v0001.tar", 5, digest_of(b"")), Covered("v0003.tar", 1 << 30, digest_of(b"3")))
    yield encode_parity(Parity(1, "sie-7", digest_of(_LOCK), 1, 2, covered))


def _read_parity(data: bytes) -> None:
    parity = decode_parity(data)
    same(data, encode_parity(parity))
    _ = parity.size_bytes, parity.tail_offset, parity.chunks


def _files() -> Iterator[bytes]:
    """A whole volume that carries the lock and nothing else, and a parity volume."""
    volume = with_offsets(_empty(1), [_lock_piece()])
    head, crcs = encode_head("VOLUME.json", encode_volume(volume)), RunningCrcs()
    crcs.update(_LOCK)
    crcs.end_member()
    tail = encode_tail(Checks(digest_of(head), tuple(crcs.done)))
    yield head + member_header(LOCK_NAME, len(_LOCK)) + _LOCK + bytes(padding(len(_LOCK))) + tail
    parity = Parity(1, "sie-7", digest_of(_LOCK), 1, 1, (Covered("v0001.tar", 5, digest_of(b"")),))
    head, crcs = encode_head("PARITY.json", encode_parity(parity)), RunningCrcs()
    crcs.update(b"12345")
    crcs.end_member()
    yield (
        head
        + member_header("parity", 5)
        + b"12345"
        + bytes(507)
        + encode_tail(Checks(digest_of(head), tuple(crcs.done)))
    )


def _read_file(data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        path = Path(name) / "v0001.tar"
        path.write_bytes(data)
        index = read_index(path)
        if index is not None and (checks := read_checks(path, index)) is not None:
            _read_all(path, index, checks)
        if isinstance(index, Volume):
            media = read_media([path])
            _ = media.delta, list(media.notes())
            verify_media(media, progress=Silent())


def _read_all(path: Path, index: Volume | Parity, checks: Checks) -> None:
    opened = Checked(path, index, checks)
    try:
        have = opened.read(0, index.size_bytes)
    except Damaged:
        return
    finally:
        opened.close()
    assert len(have) == index.size_bytes


MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - each run has a folder of its own there


def _sums() -> Iterator[bytes]:
    yield encode_sums({"v0001.tar": digest_of(b"1"), "p0001.tar": digest_of(b"2")}, ["v0001.tar", "p0001.tar"]).encode()


def _read_sums(data: bytes) -> None:
    read = read_sums(data.decode("utf-8", "replace"))
    assert all(len(digest) == 71 for digest in read.values())


TARGETS = (
    Target("volume-index", _indexes, checked(_read_volume, ValueError), json.loads, _padded),
    Target("volume-chunks", _tails, checked(_read_tail, ValueError), _lines, _tail_of),
    Target("parity-index", _parities, checked(_read_parity, ValueError), json.loads, compact),
    Target("volume-file", _files, checked(_read_file, TrustError, TransferError, Failure), most_bytes=1 << 15),
    Target("sums", _sums, checked(_read_sums, ValueError)),
)
