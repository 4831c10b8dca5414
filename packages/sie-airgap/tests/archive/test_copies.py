"""Two copies of a volume: each MiB comes from the one where it is right, and the other is named."""

import shutil
from pathlib import Path

import pytest

from sie_airgap.archive.media import Media, read_media
from sie_airgap.archive.volume_reader import Unreadable
from sie_airgap.mirror.weights import mirror_weights
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.verifying.bucket import verify_bucket
from sie_airgap.verifying.media import verify_media
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import Lock
from sie_core.artifacts.stores.memory import MemoryStore
from sie_testing.archives import flip, packed, placed, volume_at, volumes
from sie_testing.carried import FILES, Run

WEIGHTS = FILES["org/large"]["model.safetensors"]
VOCAB = FILES["org/small"]["sub/vocab.txt"]


@pytest.fixture
def archive(tmp_path: Path, lock: Lock, store: BlobFolder) -> Path:
    return packed(lock, store, tmp_path / "a", volume_bytes=2 << 20)


@pytest.fixture
def copy(tmp_path: Path, archive: Path) -> Path:
    shutil.copytree(archive, tmp_path / "b")
    return tmp_path / "b"


def read(media: Media, data: bytes, *, start: int = 0) -> bytes:
    with media.open(digest_of(data), start=start) as stream:
        return stream.read()


def heard(*folders: Path) -> tuple[Media, list[str]]:
    media, said = read_media(folders), list[str]()
    media.say = said.append
    return media, said


def part_at(folder: Path, volume: str, *, at: int = 5) -> tuple[Path, int]:
    """A byte of a part of the weights."""
    path = folder / volume
    member = next(one for one in volume_at(path).members if not one.whole)
    return path, member.offset + at


@pytest.mark.parametrize("damaged_first", [True, False])
def test_a_whole_file_comes_from_the_sound_copy(archive: Path, copy: Path, damaged_first: bool) -> None:
    path, offset = placed(archive, "sub/vocab.txt", "org/small")
    flip(path, offset + 100)
    media, said = heard(*((archive, copy) if damaged_first else (copy, archive)))

    assert read(media, VOCAB) == VOCAB
    assert read(media, VOCAB, start=50_000) == VOCAB[50_000:]
    told = f"note: `sub/vocab.txt` of `org/small` on {path} is damaged; the copy on {copy / path.name} is used"
    assert said == ([told] if damaged_first else [])


def test_two_copies_damaged_in_different_places_make_one_sound_file(archive: Path, copy: Path) -> None:
    flip(*part_at(archive, "v0002.tar"))
    flip(*part_at(copy, "v0002.tar", at=(1 << 20) + 5))
    media, said = heard(archive, copy)

    assert read(media, WEIGHTS) == WEIGHTS
    assert [f"on {archive / 'v0002.tar'} is damaged" in line for line in said] == [True]
    assert read(heard(copy, archive)[0], WEIGHTS) == WEIGHTS


def test_where_no_copy_is_sound_the_place_is_named(archive: Path, copy: Path) -> None:
    flip(*part_at(archive, "v0002.tar"))
    flip(*part_at(copy, "v0002.tar", at=7))
    media, _ = heard(archive, copy)

    with pytest.raises(TrustError) as told:
        read(media, WEIGHTS)
    assert f"{archive / 'v0002.tar'}: bytes " in told.value.where
    assert (told.value.want[:6], told.value.have[:6]) == ("CRC-32", "CRC-32")


def test_a_copy_whose_checksums_are_damaged_is_the_last_that_is_read(archive: Path, copy: Path) -> None:
    path = archive / "v0002.tar"
    flip(path, volume_at(path).tail_offset + 600)
    flip(*part_at(archive, "v0002.tar"))
    media, said = heard(archive, copy)

    assert read(media, WEIGHTS) == WEIGHTS
    assert said == []


def test_a_copy_that_was_taken_out_is_passed_over(archive: Path, copy: Path) -> None:
    media, said = heard(archive, copy)
    shutil.rmtree(archive)

    assert read(media, VOCAB) == VOCAB
    assert ["cannot be read; the copy on" in line for line in said] == [True]
    shutil.rmtree(copy)
    with pytest.raises(Unreadable):
        read(media, VOCAB)


def test_weights_are_mirrored_from_the_sound_copies_and_the_damaged_ones_named(
    archive: Path, copy: Path, lock: Lock, airgap: Run, tmp_path: Path
) -> None:
    flip(*part_at(archive, "v0002.tar"))
    url = (tmp_path / "bucket").as_uri()

    code, _, err = airgap("mirror", "weights", url, "--from", archive, "--from", copy)
    assert code == 0, err
    assert f"`model.safetensors` of `org/large` on {archive / 'v0002.tar'} is damaged" in err
    assert airgap("verify", url)[0] == 0


def test_damage_on_one_of_two_copies_is_one_finding(archive: Path, copy: Path, lock: Lock) -> None:
    """What both hold together is sound, and is not told as wrong a second time."""
    flip(*part_at(archive, "v0002.tar"))
    media, _ = heard(archive, copy)

    (finding,) = verify_media(media, progress=Silent())
    assert str(archive / "v0002.tar") in str(finding)
    bucket = MemoryStore()
    mirror_weights(lock, media, bucket, progress=Silent())
    assert verify_bucket(bucket, lock, progress=Silent()) == []
    assert len(volumes(archive)) == 2
