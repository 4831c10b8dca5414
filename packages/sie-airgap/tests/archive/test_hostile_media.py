"""What `pack` never writes is refused by name, whoever wrote it: indexes, checksums, tars that say something else."""

import os
import tarfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.archive.media import read_media
from sie_airgap.archive.parity_format import Covered, Parity, decode_parity, encode_parity
from sie_airgap.archive.plan import Piece, lay_out, with_offsets
from sie_airgap.archive.unpack import unpack
from sie_airgap.archive.volume_format import (
    Checks,
    Volume,
    decode_tail,
    decode_volume,
    encode_head,
    encode_tail,
    encode_volume,
    member_header,
)
from sie_airgap.archive.volume_reader import read_index
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.verifying.media import verify_media
from sie_airgap.verifying.store import verify_store
from sie_core.artifacts.digest import digest_of, hex_of
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import Lock
from sie_testing.archives import packed, placed, volume_at

LOCK = b"lock"
BLOBS = [(digest_of(b"%d" % number), 300_000 * number) for number in range(5)]


def sound() -> Volume:
    """The index of a volume with a lock, whole blobs and a part."""
    lock = Piece(digest_of(LOCK), len(LOCK), 0, len(LOCK), name="airgap.lock")
    (pieces, *_) = lay_out(BLOBS, volume_bytes=1 << 20, reserved_bytes=[len(LOCK)])
    part = Piece(digest_of(b"cut"), 9_000_000, 0, 500, 1, 9)
    empty = Volume(1, "sie-7", digest_of(LOCK), 1, 5, 0, {"airgap.lock": digest_of(LOCK)}, ())
    return with_offsets(empty, [lock, *pieces, part])


def spoilt(**changed: object) -> bytes:
    """Its bytes with other values; for a member's, `member` says which."""
    index = sound()
    number = changed.pop("member", None)
    if isinstance(number, int):
        members = list(index.members)
        members[number] = msgspec.structs.replace(members[number], **changed)
        changed = {"members": tuple(members)}
    return encode_volume(msgspec.structs.replace(index, **changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"version": 2},
        {"number": 0},
        {"number": 6},
        {"of": 10_000},
        {"size_bytes": 0},
        {"size_bytes": 1 << 62},
        {"lock": "sha256:beef"},
        {"named": {"../airgap.lock": digest_of(LOCK)}},
        {"named": {"/etc/passwd": digest_of(LOCK)}},
        {"named": {"airgap.lock": digest_of(b"another")}},
        {"named": {}},
        {"members": ()},
        {"members": sound().members * 2},
        {"members": sound().members[::-1]},
        {"member": 1, "name": "../../etc/passwd"},
        {"member": 1, "name": "/etc/passwd"},
        {"member": 1, "name": "blobs/sha256/../../x"},
        {"member": 1, "name": f"blobs/sha256/{'0' * 64}"},
        {"member": 1, "name": f"parts/sha256/{hex_of(BLOBS[1][0])}.1-2"},
        {"member": -1, "name": f"parts/sha256/{hex_of(digest_of(b'cut'))}.9-2"},
        {"member": -1, "name": f"parts/sha256/{hex_of(digest_of(b'cut'))}.0-2"},
        {"member": 1, "offset": 0},
        {"member": 1, "offset": 1 << 40},
        {"member": 1, "size_bytes": -1},
        {"member": 1, "size_bytes": 1 << 50},
        {"member": 1, "blob_size_bytes": 1 << 50},
        {"member": 1, "blob": "sha256:beef"},
        {"member": -1, "blob_offset": -1},
        {"member": -1, "blob_offset": 9_000_000},
    ],
    ids=lambda changed: " ".join(changed),
)
def test_an_index_that_says_something_else_than_its_members_do_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_volume(spoilt(**changed))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'{"archive"', b'{"also":1,"archive"'),
        (b'"blob":', b'"also":1,"blob":'),
        (b"sie-7", b"sie-\xff"),
        (b'"archive":"sie-7",', b""),
        (b'"number":1', b'"number":1.0'),
        (b'"number":1', b'"number": 1'),
        (b'"number":1', b'"number":"1"'),
    ],
)
def test_an_index_in_another_form_is_refused(old: bytes, new: bytes) -> None:
    data = encode_volume(sound())
    assert old in data

    with pytest.raises(ValueError, match=r"."):
        decode_volume(data.replace(old, new, 1))


INDEX, TAIL = encode_volume(sound()), encode_tail(Checks(digest_of(b""), (1, 2, 3)))
PARITY = encode_parity(Parity(1, "sie-7", digest_of(LOCK), 1, 1, (Covered("v0001.tar", 5, digest_of(b"")),)))


def spoil(data: bytes, drawn: st.DataObject) -> bytes:
    """Some bytes replaced, cut off or added."""
    spoiled = bytearray(data)
    for _ in range(drawn.draw(st.integers(1, 4))):
        at = drawn.draw(st.integers(0, max(0, len(data.rstrip()) - 1)))
        spoiled[at : at + drawn.draw(st.integers(0, 3))] = drawn.draw(st.binary(max_size=3))
    return bytes(spoiled)


@given(st.data())
def test_a_spoilt_index_is_refused_or_is_one_that_pack_could_write(drawn: st.DataObject) -> None:
    data = spoil(INDEX, drawn)
    try:
        volume = decode_volume(data)
    except ValueError:
        return
    assert encode_volume(volume) == data


@given(st.data())
def test_spoilt_checksums_are_refused(drawn: st.DataObject) -> None:
    data = spoil(TAIL, drawn)
    if data != TAIL:
        with pytest.raises(ValueError, match=r"."):
            decode_tail(data)


@given(st.data())
def test_a_spoilt_index_of_a_parity_volume_is_refused_or_is_one_that_pack_could_write(drawn: st.DataObject) -> None:
    data = spoil(PARITY, drawn)
    try:
        parity = decode_parity(data)
    except ValueError:
        return
    assert encode_parity(parity) == data


@given(st.binary(max_size=3000))
def test_any_bytes_are_no_index(data: bytes) -> None:
    for decode in (decode_volume, decode_parity, decode_tail):
        with pytest.raises(ValueError, match=r"."):
            decode(data)


@pytest.mark.parametrize("name", ["VOLUME.json", "PARITY.json"])
@pytest.mark.parametrize("size_bytes", [(1 << 33) - 1, 600, 0], ids=["a lie", "beyond the file", "nothing"])
def test_a_length_that_lies_fills_no_memory(tmp_path: Path, name: str, size_bytes: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(member_header(name, size_bytes)[:512] + bytes(512))
    os.truncate(path, 4096 if size_bytes < 4096 else 1 << 35)  # a sparse file: nothing of it is on the disk

    with pytest.raises(TrustError, match="is damaged"):
        read_index(path)


@given(st.binary(max_size=512))
def test_a_header_of_any_bytes_ends_in_an_error_of_ours(data: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(b"VOLUME.json\0" + data)
        file.flush()
        with pytest.raises(TrustError):
            read_index(Path(file.name))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (tarfile.SYMTYPE, None),
        (tarfile.LNKTYPE, None),
        (tarfile.CHRTYPE, None),
        (tarfile.BLKTYPE, None),
        (tarfile.DIRTYPE, None),
        (tarfile.FIFOTYPE, None),
        (tarfile.REGTYPE, "../../../outside"),
        (tarfile.REGTYPE, "/outside"),
    ],
)
def test_what_the_tar_calls_a_member_is_told_and_never_followed(
    tmp_path: Path, lock: Lock, store: BlobFolder, kind: bytes, name: str | None
) -> None:
    """Bytes are taken from where the index says, into a place that the lock names: the tar is for other programs."""
    archive = packed(lock, store, tmp_path / "archive")
    path, offset = placed(archive, "sub/vocab.txt", "org/small")
    member = next(one for one in volume_at(path).members if one.offset == offset)
    info = tarfile.TarInfo(name or member.name)
    info.type, info.size, info.linkname = kind, member.size_bytes, "/etc/passwd"
    with path.open("r+b") as file:
        file.seek(offset - 512)
        file.write(info.tobuf(tarfile.USTAR_FORMAT))

    (finding,) = verify_media(read_media([archive]), progress=Silent())
    assert f"the tar of `{path.name}` is damaged before `{member.name}`" in str(finding)
    far = BlobFolder(tmp_path / "far")
    unpack(read_media([archive]), far, progress=Silent())
    assert verify_store(lock, far, progress=Silent()) == []
    assert all(one.is_file() and not one.is_symlink() for one in (far.root / "blobs/sha256").iterdir())


def test_a_volume_whose_index_is_sound_and_whose_name_is_another_lock_is_not_believed(
    tmp_path: Path, lock: Lock, store: BlobFolder
) -> None:
    """The head's digest stands in CHUNKS: an index put before other members does not pass."""
    archive = packed(lock, store, tmp_path / "archive")
    path = archive / "v0001.tar"
    index = volume_at(path)
    head = encode_head("VOLUME.json", encode_volume(msgspec.structs.replace(index, archive="sie-other0")))
    with path.open("r+b") as file:
        file.write(head)

    (refused,) = read_media([archive]).refused
    assert "the index of this volume, is damaged" in str(refused)
