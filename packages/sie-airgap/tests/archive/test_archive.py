"""Volumes: the same bytes every time, damage named where it is, and nothing lost to what is missing."""

import shutil
import subprocess
import tarfile
from pathlib import Path

import msgspec
import pytest

from sie_airgap.archive.cut import plan_archive
from sie_airgap.archive.media import read_media
from sie_airgap.archive.medium import VolumeSize
from sie_airgap.archive.packing import absent, pack
from sie_airgap.archive.unpack import unpack
from sie_airgap.archive.volume_reader import Unreadable
from sie_airgap.failures import Drift, Incomplete, Misused, Partial, Several
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder, held, lock_of
from sie_airgap.store.contents import contents
from sie_airgap.verifying.media import verify_media
from sie_airgap.verifying.store import verify_store
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import Lock, lock_digest
from sie_testing.archives import VOLUME_BYTES, content, flip, forge, packed, placed, volume_at, volumes
from sie_testing.carried import FILES, filled_store, make_lock


@pytest.fixture
def archive(tmp_path: Path, lock: Lock, store: BlobFolder) -> Path:
    return packed(lock, store, tmp_path / "archive")


@pytest.fixture
def far(tmp_path: Path) -> BlobFolder:
    return BlobFolder(tmp_path / "far")


def test_no_volume_is_larger_than_asked_and_every_one_is_a_plain_tar(archive: Path) -> None:
    assert len(volumes(archive)) > 2
    for path in volumes(archive):
        assert path.stat().st_size <= VOLUME_BYTES
        with tarfile.open(path) as tar:
            assert tar.getnames()[:2] == ["VOLUME.json", "airgap.lock"]


def test_what_was_packed_comes_out_again(archive: Path, lock: Lock, far: BlobFolder) -> None:
    unpack(read_media([archive]), far, progress=Silent())

    assert lock_of(far) == lock
    assert verify_store(lock, far, progress=Silent()) == []
    assert {path.read_bytes() for path in (far.root / "blobs/sha256").iterdir()} >= set(FILES["org/large"].values())


def test_two_packs_are_the_same_bytes(tmp_path: Path, archive: Path, lock: Lock, store: BlobFolder) -> None:
    again = packed(lock, store, tmp_path / "again")

    assert {path.name: path.read_bytes() for path in archive.iterdir()} == {
        path.name: path.read_bytes() for path in again.iterdir()
    }


def test_one_lost_volume_is_cut_again_alone_byte_for_byte(archive: Path, lock: Lock, store: BlobFolder) -> None:
    lost = volumes(archive)[1]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in volumes(archive)}
    lost.unlink()

    packed(lock, store, archive)

    assert lost.read_bytes() == before[lost][0]
    assert all(path.stat().st_mtime_ns == was for path, (_, was) in before.items() if path != lost)


def test_packing_again_writes_nothing(archive: Path, lock: Lock, store: BlobFolder) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in archive.iterdir()}

    packed(lock, store, archive)

    assert {path.name: path.stat().st_mtime_ns for path in archive.iterdir()} == before


def test_sha256sum_checks_an_archive_with_nothing_of_ours(archive: Path) -> None:
    subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=archive, check=True, capture_output=True)


def test_an_archive_is_read_straight_from_its_volumes(archive: Path, store: BlobFolder, lock: Lock) -> None:
    media = read_media([archive])

    for one in contents(lock):
        with media.open(one.digest) as stream:
            assert digest_of(stream.read()) == one.digest
    with media.open(digest_of(FILES["org/large"]["model.safetensors"]), start=1_500_000, length=7) as stream:
        assert stream.read() == FILES["org/large"]["model.safetensors"][1_500_000:1_500_007]


def test_a_sound_archive_has_no_findings(archive: Path) -> None:
    assert verify_media(read_media([archive]), progress=Silent()) == []


def test_no_flipped_bit_of_any_volume_goes_unnoticed(archive: Path) -> None:
    path = volumes(archive)[-1]
    size_bytes = path.stat().st_size
    for at in [0, 3, 150, 511, 600, 2000, size_bytes // 2, size_bytes - 1030, size_bytes - 1]:
        flip(path, at)
        try:
            findings = verify_media(read_media([archive]), progress=Silent())
        except TrustError as error:
            findings = [error]
        flip(path, at)

        assert findings, f"byte {at} of {size_bytes}"


def test_a_flipped_byte_is_named_with_its_volume_and_its_file(archive: Path) -> None:
    path, offset = placed(archive, "sub/vocab.txt", "org/small")
    flip(path, offset + 100)

    (finding,) = verify_media(read_media([archive]), progress=Silent())
    assert "`sub/vocab.txt` of `org/small`" in str(finding)
    assert path.name in str(finding)


def test_a_damaged_member_costs_nothing_but_itself(archive: Path, far: BlobFolder, lock: Lock) -> None:
    path, offset = placed(archive, "sub/vocab.txt", "org/small")
    flip(path, offset)

    with pytest.raises(TrustError, match=r"sub/vocab\.txt"):
        unpack(read_media([archive]), far, progress=Silent())
    assert [c.label for c in contents(lock) if far.size(c.digest) is None] == ["`sub/vocab.txt` of `org/small`"]

    flip(path, offset)
    unpack(read_media([archive]), far, progress=Silent())
    assert lock_of(far) == lock


def test_a_damaged_part_is_named_and_taken_from_a_second_copy(archive: Path, tmp_path: Path, far: BlobFolder) -> None:
    path, offset = placed(archive, "model.safetensors", "org/large")
    shutil.copytree(archive, tmp_path / "copy")
    flip(path, offset + 5)

    (finding,) = verify_media(read_media([archive]), progress=Silent())
    assert "model.safetensors" in str(finding)

    unpack(read_media([archive, tmp_path / "copy"]), far, progress=Silent())
    assert verify_store(lock_of(far), far, progress=Silent()) == []


def test_a_damaged_second_copy_does_not_replace_a_sound_first(archive: Path, tmp_path: Path, far: BlobFolder) -> None:
    path, offset = placed(archive, "model.safetensors", "org/large")
    shutil.copytree(archive, tmp_path / "copy")
    flip(tmp_path / "copy" / path.name, offset + 5)

    unpack(read_media([archive, tmp_path / "copy"]), far, progress=Silent())
    assert verify_store(lock_of(far), far, progress=Silent()) == []


def test_a_part_that_was_altered_together_with_its_checksums_is_not_what_was_locked(archive: Path) -> None:
    """The lock alone is the anchor: whoever can write the medium can write indexes and sums, too."""
    path, offset = placed(archive, "model.safetensors", "org/large")
    index = volume_at(path)
    flip(path, offset)
    forge(path, index)
    (archive / "SHA256SUMS").unlink()

    (finding,) = verify_media(read_media([archive]), progress=Silent())
    assert "`model.safetensors` of `org/large`, put together from its parts, is not what was locked" in str(finding)


def test_a_whole_file_that_was_altered_together_with_its_checksums_is_not_what_was_locked(archive: Path) -> None:
    path, offset = placed(archive, "sub/vocab.txt", "org/small")
    index = volume_at(path)
    flip(path, offset)
    forge(path, index)
    (archive / "SHA256SUMS").unlink()

    (finding,) = verify_media(read_media([archive]), progress=Silent())
    assert "`sub/vocab.txt` of `org/small` is not what was locked" in str(finding)


def test_an_index_cannot_pass_one_lock_off_as_another(archive: Path) -> None:
    """What `inspect` prints is read aloud to whoever packed: it must be the digest of the lock that is used."""
    for path in volumes(archive):
        forge(path, msgspec.structs.replace(volume_at(path), lock=digest_of(b"the lock that was announced")))

    with pytest.raises(Incomplete, match="no volume holds the lock"):
        read_media([archive])


def test_a_medium_that_was_taken_out_is_named_and_costs_nothing_but_itself(archive: Path, far: BlobFolder) -> None:
    path, _ = placed(archive, "sub/vocab.txt", "org/small")
    media = read_media([archive])
    path.rename(path.with_suffix(".gone"))

    (finding,) = verify_media(media, progress=Silent())
    assert isinstance(finding, Unreadable)
    assert f"{path} cannot be read: No such file or directory" in str(finding)
    with pytest.raises((Unreadable, Several)), media.open(digest_of(FILES["org/small"]["sub/vocab.txt"])) as stream:
        stream.read()
    with pytest.raises((Unreadable, Several)):
        unpack(media, far, progress=Silent())

    path.with_suffix(".gone").rename(path)
    unpack(media, far, progress=Silent())
    assert verify_store(media.lock, far, progress=Silent()) == []


def test_volumes_may_come_one_at_a_time_in_any_order(archive: Path, far: BlobFolder, lock: Lock) -> None:
    *first, last = reversed(volumes(archive))
    for path in first:
        with pytest.raises(Partial):
            unpack(read_media([path]), far, progress=Silent())
        assert far.named("airgap.lock") is None

    unpack(read_media([last]), far, progress=Silent())
    assert verify_store(lock, far, progress=Silent()) == []


def test_a_missing_volume_is_named_with_what_is_lost_with_it(archive: Path, far: BlobFolder) -> None:
    gone = volumes(archive)[1]
    gone.unlink()

    (finding,) = verify_media(read_media([archive]), progress=Silent())
    assert isinstance(finding, Incomplete)
    assert gone.name in str(finding)
    with pytest.raises(Partial, match=gone.name):
        unpack(read_media([archive]), far, progress=Silent())


def test_renamed_volumes_are_known_by_what_they_say_of_themselves(archive: Path, far: BlobFolder, lock: Lock) -> None:
    for number, path in enumerate(reversed(volumes(archive))):
        path.rename(archive / f"disc {number}.bin")

    assert verify_media(read_media([archive]), progress=Silent()) == []
    unpack(read_media([archive]), far, progress=Silent())
    assert lock_of(far) == lock


def test_a_volume_twice_is_no_trouble(archive: Path, far: BlobFolder, lock: Lock) -> None:
    shutil.copy(volumes(archive)[0], archive / "copy.tar")

    unpack(read_media([archive]), far, progress=Silent())
    assert lock_of(far) == lock


def test_a_volume_cut_short_is_named_with_both_lengths(archive: Path, far: BlobFolder) -> None:
    path = volumes(archive)[1]
    want = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(want - 1)

    (refused,) = read_media([archive]).refused
    assert f"{want:,}" in str(refused)
    assert f"{want - 1:,}" in str(refused)
    with pytest.raises(Several):
        unpack(read_media([archive]), far, progress=Silent())


def test_a_volume_of_another_archive_is_refused_by_name(archive: Path, tmp_path: Path, far: BlobFolder) -> None:
    files = {"org/other": {"config.json": b"[]"}}
    other = make_lock(files)
    foreign = packed(other, filled_store(tmp_path / "other", other, files), tmp_path / "foreign")
    shutil.copy(volumes(foreign)[0], archive / "x.tar")

    media = read_media([archive])
    (refused,) = media.refused
    assert lock_digest(other) in str(refused)
    assert media.lock_digest in str(refused)
    assert "x.tar" in str(refused)


def test_an_archive_never_overwrites_another(archive: Path, tmp_path: Path) -> None:
    files = {"org/other": {"config.json": b"[]"}}
    other = make_lock(files)
    before = {path.name: path.read_bytes() for path in archive.iterdir()}

    with pytest.raises(Drift):
        packed(other, filled_store(tmp_path / "other", other, files), archive)
    assert {path.name: path.read_bytes() for path in archive.iterdir()} == before


def test_a_store_that_lacks_a_blob_is_not_packed(tmp_path: Path, lock: Lock, store: BlobFolder) -> None:
    store.path(digest_of(FILES["org/small"]["sub/vocab.txt"])).unlink()

    with pytest.raises(Incomplete, match=r"sub/vocab\.txt"):
        plan_archive(lock, store, name="x")


def test_a_blob_altered_in_the_store_is_caught_while_packing(tmp_path: Path, lock: Lock, store: BlobFolder) -> None:
    flip(store.path(digest_of(FILES["org/small"]["sub/vocab.txt"])), 0)

    with pytest.raises(TrustError, match=r"sub/vocab\.txt"):
        packed(lock, store, tmp_path / "archive")
    assert not list((tmp_path / "archive").glob("v*.tar"))[1:]


def test_a_blob_altered_in_the_store_is_caught_though_it_is_cut_into_parts(
    tmp_path: Path, lock: Lock, store: BlobFolder
) -> None:
    flip(store.path(digest_of(FILES["org/large"]["model.safetensors"])), 2_000_000)

    with pytest.raises(TrustError, match=r"model\.safetensors"):
        packed(lock, store, tmp_path / "archive")
    assert not list((tmp_path / "archive").glob("v*.tar"))


def test_a_volume_that_is_too_short_is_not_counted_as_there(archive: Path, lock: Lock, store: BlobFolder) -> None:
    cut = plan_archive(lock, store, name="sie-test-1", size=VolumeSize(VOLUME_BYTES))
    assert absent(cut, archive) == ()
    short = volumes(archive)[1]
    with short.open("r+b") as file:
        file.truncate(short.stat().st_size - 1)

    assert absent(cut, archive) == (short.name,)


@pytest.mark.parametrize("name", ["v0001.tar", "v0002.tar", "v0003.tar"])
def test_one_volume_is_cut_again_alone_into_an_empty_folder(
    archive: Path, tmp_path: Path, lock: Lock, store: BlobFolder, name: str
) -> None:
    cut = plan_archive(lock, store, name="sie-test-1", size=VolumeSize(VOLUME_BYTES))

    assert pack(cut, store, tmp_path / "again", progress=Silent(), only=[name]) == (tmp_path / "again" / name,)
    made = content(tmp_path / "again")
    assert set(made) == {name, "SHA256SUMS"}
    assert made[name] == (archive / name).read_bytes()


def test_a_blob_is_held_against_the_lock_though_only_a_part_of_it_is_cut(
    tmp_path: Path, lock: Lock, store: BlobFolder
) -> None:
    flip(store.path(digest_of(FILES["org/large"]["model.safetensors"])), 2_900_000)
    cut = plan_archive(lock, store, name="sie-test-1", size=VolumeSize(VOLUME_BYTES))

    with pytest.raises(TrustError, match=r"model\.safetensors"):
        pack(cut, store, tmp_path / "again", progress=Silent(), only=["v0001.tar"])
    assert not list((tmp_path / "again").glob("v*.tar"))


def test_a_volume_cut_again_otherwise_is_held_against_the_sums(archive: Path, lock: Lock, store: BlobFolder) -> None:
    before = content(archive)
    (archive / "v0002.tar").unlink()
    other = plan_archive(lock, store, name="sie-test-1", size=VolumeSize(VOLUME_BYTES + 4096))
    for path in volumes(archive):
        path.unlink()

    with pytest.raises(Drift, match=r"`v0002.tar` cut now is not the one that .*SHA256SUMS names") as told:
        pack(other, store, archive, progress=Silent(), only=["v0002.tar"])
    assert "--volume-size" in str(told.value.hint)
    assert not list(archive.glob("*.tar*"))
    assert not list(archive.glob(".*"))
    assert content(archive)["SHA256SUMS"] == before["SHA256SUMS"]


def test_a_volume_that_there_is_not_cannot_be_cut_alone(tmp_path: Path, lock: Lock, store: BlobFolder) -> None:
    cut = plan_archive(lock, store, name="sie-test-1", size=VolumeSize(VOLUME_BYTES))

    for name in ("v0009.tar", "p0001.tar", "../v0001.tar"):
        with pytest.raises(Misused, match=r"it has v0001.tar to v0003.tar"):
            pack(cut, store, tmp_path / "again", progress=Silent(), only=[name])
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("parity", [None, 1, 10])
def test_on_a_disc_everything_beside_the_volume_fits_too(
    tmp_path: Path, lock: Lock, store: BlobFolder, parity: int | None
) -> None:
    disc_bytes = 2 << 20
    size = VolumeSize(disc_bytes, holds_all=True)
    cut = plan_archive(lock, store, name="sie-test-1", size=size, parity_every=parity)
    pack(cut, store, tmp_path / "archive", progress=Silent())

    sizes = {path.name: path.stat().st_size for path in (tmp_path / "archive").iterdir()}
    beside = sum(sizes[name] for name in ("README.txt", "SHA256SUMS", "start.sh"))
    assert max(sizes.values()) > disc_bytes - (1 << 17)
    assert all(size + beside <= disc_bytes for name, size in sizes.items() if name.endswith(".tar"))


def test_two_runs_do_not_write_into_one_place(archive: Path, lock: Lock, store: BlobFolder, far: BlobFolder) -> None:
    with held(archive), held(far.root):
        with pytest.raises(Partial, match="another sie-airgap is writing"):
            packed(lock, store, archive)
        with pytest.raises(Partial, match="another sie-airgap is writing"):
            unpack(read_media([archive]), far, progress=Silent())

    unpack(read_media([archive]), far, progress=Silent())
    assert lock_of(far) == lock


def test_an_older_archive_never_replaces_a_later_one(archive: Path, tmp_path: Path, far: BlobFolder) -> None:
    later = make_lock(FILES, serial=2)
    newer = packed(later, filled_store(tmp_path / "store2", later, FILES), tmp_path / "newer")
    unpack(read_media([newer]), far, progress=Silent())

    with pytest.raises(Drift, match="number 2"):
        unpack(read_media([archive]), far, progress=Silent())
    assert lock_of(far) == later


def test_a_later_archive_goes_into_the_same_store(archive: Path, tmp_path: Path, far: BlobFolder) -> None:
    unpack(read_media([archive]), far, progress=Silent())
    later = make_lock(FILES, serial=2)
    newer = packed(later, filled_store(tmp_path / "store2", later, FILES), tmp_path / "newer")

    plan = unpack(read_media([newer]), far, progress=Silent())
    assert plan.todo == ()
    assert lock_of(far) == later


def test_nothing_that_was_given_is_changed(archive: Path, far: BlobFolder) -> None:
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in archive.iterdir()}

    unpack(read_media([archive]), far, progress=Silent())
    verify_media(read_media([archive]), progress=Silent())

    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in archive.iterdir()} == before
