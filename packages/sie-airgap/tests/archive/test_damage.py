"""What is wrong with media is named as what it is, with the volume, the file and the place; the rest stays usable."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from sie_airgap.archive.media import Media, read_media
from sie_airgap.archive.unpack import unpack
from sie_airgap.failures import Drift, Expected, Misused, Partial, Several
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder, lock_of
from sie_airgap.store.contents import contents
from sie_airgap.verifying.media import verify_media
from sie_airgap.verifying.store import verify_store
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import Lock
from sie_testing.archives import flip, packed, placed, volume_at, volumes
from sie_testing.carried import FILES, filled_store, make_lock


@pytest.fixture
def archive(tmp_path: Path, lock: Lock, store: BlobFolder) -> Path:
    return packed(lock, store, tmp_path / "archive", volume_bytes=2 << 20)


@pytest.fixture
def far(tmp_path: Path) -> BlobFolder:
    return BlobFolder(tmp_path / "far")


def found(*media: Path) -> list[Expected]:
    return verify_media(read_media(media), progress=Silent())


def notes(media: Media) -> str:
    return "\n".join(media.notes())


def all_taken(media: list[Path], far: BlobFolder, lock: Lock) -> bool:
    """Whether everything could be unpacked, whatever was complained of."""
    with suppress(TrustError, Drift, Several, Partial):
        unpack(read_media(media), far, progress=Silent())
    return verify_store(lock, far, progress=Silent()) == []


def last_part(path: Path) -> tuple[int, int]:
    """Where the last part on a volume begins and ends."""
    member = next(one for one in reversed(volume_at(path).members) if not one.whole)
    return member.offset, member.end


def test_the_mebibyte_of_a_part_is_named_in_the_volume_and_in_the_file(archive: Path) -> None:
    path = archive / "v0002.tar"
    member = next(one for one in volume_at(path).members if not one.whole)
    assert member.size_bytes > 1 << 20
    flip(path, member.offset + (1 << 20) + 17)

    (finding,) = found(archive)
    assert isinstance(finding, TrustError)
    assert finding.message == "a part of `model.safetensors` of `org/large` is not what was locked"
    start = member.offset + (1 << 20)
    inside = member.blob_offset + (1 << 20)
    assert f"{path}: bytes {start:,} to {member.end - 1:,} (of the file: {inside:,}" in finding.where
    assert "CRC-32" in finding.want
    assert finding.have.startswith("CRC-32")
    assert finding.want.split()[1] != finding.have.split()[1]
    assert "carry `v0002.tar` again" in str(finding.hint)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("the first header", "the index of this volume, is damaged"),
        ("the index", "the index of this volume, is damaged"),
        ("spaces after the index", "the index of this volume, is damaged"),
        ("a header", "the tar of `v0001.tar` is damaged before"),
        ("padding", "the tar of `v0001.tar` is damaged before"),
        ("a whole file", "`sub/vocab.txt` of `org/small` is not what was locked"),
        ("the lock", "`airgap.lock` is not what was locked"),
        ("a part", "a part of `model.safetensors` of `org/large` is not what was locked"),
        ("the header of CHUNKS", "`CHUNKS` of `v0001.tar` is damaged"),
        ("CHUNKS", "`CHUNKS` of `v0001.tar` is damaged"),
        ("the end", "`CHUNKS` of `v0001.tar` is damaged"),
    ],
)
def test_one_flipped_bit_is_named_wherever_it_is(archive: Path, what: str, says: str) -> None:
    path = archive / "v0001.tar"
    index = volume_at(path)
    vocab = placed(archive, "sub/vocab.txt", "org/small")[1]
    part = last_part(path)
    members = {member.name: member for member in index.members}
    small = next(one for one in index.members if one.size_bytes % 512)
    at = {
        "the first header": 3,
        "the index": 700,
        "spaces after the index": index.members[0].offset - 512 - 2,
        "a header": small.end + -small.end % 512 + 5,
        "padding": small.end,
        "a whole file": vocab + 100,
        "the lock": members["airgap.lock"].offset + 9,
        "a part": part[0] + 5,
        "the header of CHUNKS": index.tail_offset + 3,
        "CHUNKS": index.tail_offset + 600,
        "the end": index.size_bytes - 3,
    }[what]
    flip(path, at)

    findings = found(archive)
    told = [str(finding) for finding in findings if says in str(finding)]
    assert len(told) == 1, findings
    assert str(path) in told[0]
    if "index" not in says:
        assert len(findings) == 1, findings
    assert all(one.hint for one in findings)


@pytest.mark.parametrize("at", [512 + 2048 + 560, -100], ids=["tar", "end"])
def test_what_is_only_around_the_files_costs_none_of_them(archive: Path, far: BlobFolder, lock: Lock, at: int) -> None:
    path = archive / "v0002.tar"
    flip(path, volume_at(path).members[0].end if at > 0 else volume_at(path).size_bytes + at)

    assert found(archive)
    taken = all_taken([archive], far, lock)
    assert taken or at < 0


def test_damaged_checksums_cost_the_parts_beside_them_and_nothing_else(archive: Path, far: BlobFolder) -> None:
    path = archive / "v0002.tar"
    flip(path, volume_at(path).tail_offset + 600)

    with pytest.raises(TrustError, match="parts of blobs on this volume cannot be checked"):
        unpack(read_media([archive]), far, progress=Silent())
    media = read_media([archive])
    lacking = [one.label for one in contents(media.lock) if far.size(one.digest) is None]
    assert lacking == ["`model.safetensors` of `org/large`"]


def test_exchanged_names_are_told_and_do_no_harm(archive: Path, far: BlobFolder, lock: Lock) -> None:
    first, second = volumes(archive)[:2]
    first.rename(archive / "x")
    second.rename(first)
    (archive / "x").rename(second)

    media = read_media([archive])
    assert f"{first} is `v0002.tar`: the names of the two were exchanged" in notes(media)
    assert f"{second} is `v0001.tar`: the names of the two were exchanged" in notes(media)
    assert found(archive) == []
    assert all_taken([archive], far, lock)


def test_other_names_and_second_copies_are_told(archive: Path, far: BlobFolder, lock: Lock) -> None:
    first, second = volumes(archive)[:2]
    first.rename(archive / "disc one.bin")
    shutil.copy(second, archive / "v0002 (copy).tar")

    media = read_media([archive])
    assert notes(media).splitlines() == [
        f"{archive / 'disc one.bin'} is `v0001.tar`, renamed; `sha256sum -c` minds that",
        f"{archive / 'v0002 (copy).tar'} is a second copy of `v0002.tar`; the first is {second}",
    ]
    assert found(archive) == []
    assert all_taken([archive], far, lock)


def test_the_same_file_named_twice_is_one(archive: Path) -> None:
    media = read_media([archive, archive / "v0001.tar"])

    assert list(media.notes()) == []
    assert len(media.volumes) == len(volumes(archive))


def test_an_older_volume_is_named_as_that_and_its_place_as_missing(
    archive: Path, tmp_path: Path, far: BlobFolder
) -> None:
    later = make_lock(FILES, serial=2)
    newer = packed(later, filled_store(tmp_path / "store2", later, FILES), tmp_path / "newer", volume_bytes=2 << 20)
    shutil.copy(archive / "v0002.tar", newer / "v0002.tar")
    shutil.copytree(newer, tmp_path / "copy")
    (tmp_path / "copy" / "v0002.tar").unlink()

    drift, lacking = found(newer, tmp_path / "copy")
    assert isinstance(drift, Drift)
    assert f"{newer / 'v0002.tar'} is `v0002.tar` of an older archive, `sie-test-1`" in str(drift)
    assert "(number 2)\n  have  lock sha256:" in str(drift)
    assert "(number 1)" in str(drift)
    assert "`v0002.tar` not here" in str(lacking)
    with pytest.raises(Several) as told:
        unpack(read_media([newer]), far, progress=Silent())
    assert told.value.exit_code == 8


def test_a_volume_of_the_same_lock_cut_otherwise_is_set_aside(
    archive: Path, tmp_path: Path, far: BlobFolder, lock: Lock, store: BlobFolder
) -> None:
    other = packed(lock, store, tmp_path / "other", volume_bytes=1 << 20)
    shutil.copy(other / "v0002.tar", archive / "x.tar")

    (finding,) = found(archive)
    assert isinstance(finding, Drift)
    assert "is of the same lock cut otherwise" in str(finding)
    assert "want  one of 2 volumes of `sie-test-1`\n  have  one of 3" in str(finding)
    assert all_taken([archive], far, lock)


def test_two_cuts_one_after_the_other_make_one_store(
    archive: Path, tmp_path: Path, far: BlobFolder, lock: Lock, store: BlobFolder
) -> None:
    """The parts of one cut are not those of the other; what both have covered is what counts."""
    other = packed(lock, store, tmp_path / "other", volume_bytes=1 << 20)
    with pytest.raises(Partial):
        unpack(read_media([archive / "v0001.tar"]), far, progress=Silent())

    *others, last = volumes(other)
    for path in others:
        with pytest.raises(Partial):
            unpack(read_media([path]), far, progress=Silent())
    unpack(read_media([last]), far, progress=Silent())
    assert lock_of(far) == lock
    assert verify_store(lock, far, progress=Silent()) == []


def test_a_volume_that_goes_on_too_long_is_named_with_both_lengths(archive: Path) -> None:
    path = archive / "v0002.tar"
    want = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"more")

    (refused,) = read_media([archive]).refused
    assert "goes on too long" in str(refused)
    assert f"{want:,}" in str(refused)
    assert f"{want + 4:,}" in str(refused)


def test_what_is_no_file_is_not_opened(archive: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(Misused, match="neither a folder nor a file"):
        read_media([tmp_path / "pipe"])

    os.mkfifo(archive / "pipe")
    assert found(archive) == []


def test_a_sound_copy_is_used_where_the_first_is_damaged(archive: Path, tmp_path: Path, far: BlobFolder) -> None:
    shutil.copytree(archive, tmp_path / "copy")
    for path in volumes(archive):
        flip(path, volume_at(path).members[0].offset + 9)  # the lock, on every one of them

    media = read_media([archive, tmp_path / "copy"])
    assert digest_of(media.named("airgap.lock") or b"") == media.lock_digest


def test_a_parity_volume_of_another_cut_is_set_aside(
    archive: Path, tmp_path: Path, lock: Lock, store: BlobFolder
) -> None:
    """It makes none of the volumes beside it good, though it is for the same lock."""
    other = packed(lock, store, tmp_path / "other", volume_bytes=1 << 20, parity=10)
    shutil.copy(other / "p0001.tar", archive / "p0001.tar")

    (finding,) = found(archive)
    assert isinstance(finding, Drift)
    assert f"{archive / 'p0001.tar'} is a parity volume of the same lock cut otherwise" in str(finding)
