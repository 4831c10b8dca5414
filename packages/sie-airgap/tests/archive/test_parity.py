"""One lost volume of those that a parity volume stands for comes back byte for byte; two are named."""

import shutil
import subprocess
import tarfile
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.archive.cut import plan_archive
from sie_airgap.archive.media import read_media
from sie_airgap.archive.medium import VolumeSize
from sie_airgap.archive.packing import pack
from sie_airgap.archive.parity import exclusive_or
from sie_airgap.archive.parity_format import Covered, Parity, decode_parity, encode_parity, groups, overhead_bytes
from sie_airgap.archive.repair import repair, survey
from sie_airgap.archive.volume_format import volume_name
from sie_airgap.archive.volume_reader import read_index
from sie_airgap.failures import Drift, Incomplete, Several
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.verifying.media import verify_media
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import Lock
from sie_testing.archives import VOLUME_BYTES, content, flip, packed, placed, volume_at, volumes
from sie_testing.carried import FILES, filled_store, make_lock, seeded

MORE = {**FILES, "org/third": {"model.safetensors": seeded(700_000, seed=9)}}


@pytest.fixture
def lock() -> Lock:
    return make_lock(MORE)


@pytest.fixture
def store(tmp_path: Path, lock: Lock) -> BlobFolder:
    return filled_store(tmp_path / "store", lock, MORE)


@pytest.fixture
def archive(tmp_path: Path, lock: Lock, store: BlobFolder) -> Path:
    """Four volumes and two parity volumes: v0001 and v0003 under the first, v0002 and v0004 under the second."""
    folder = packed(lock, store, tmp_path / "archive", parity=2)
    assert [path.name for path in volumes(folder)] == ["v0001.tar", "v0002.tar", "v0003.tar", "v0004.tar"]
    return folder


def made_good(media: Path, folder: Path) -> dict[str, bytes]:
    """What `repair` writes."""
    repair(survey([media], progress=Silent()), folder, progress=Silent())
    return content(folder) if folder.exists() else {}


def test_parity_volumes_are_plain_tars_no_larger_than_the_medium_and_summed(archive: Path) -> None:
    for name in ("p0001.tar", "p0002.tar"):
        assert (archive / name).stat().st_size <= VOLUME_BYTES
        with tarfile.open(archive / name) as tar:
            assert tar.getnames() == ["PARITY.json", "parity", "CHUNKS"]
    assert (archive / "SHA256SUMS").read_text().split()[1::2] == [
        *(path.name for path in volumes(archive)),
        "p0001.tar",
        "p0002.tar",
    ]
    subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=archive, check=True, capture_output=True)
    assert verify_media(read_media([archive]), progress=Silent()) == []


def test_parity_leaves_the_volumes_as_they_are_and_may_be_added_later(
    archive: Path, tmp_path: Path, lock: Lock, store: BlobFolder
) -> None:
    plain = packed(lock, store, tmp_path / "plain")
    assert {path.name: path.read_bytes() for path in volumes(archive)} == {
        path.name: path.read_bytes() for path in volumes(plain)
    }

    packed(lock, store, plain, parity=2)
    assert content(plain) == content(archive)


@pytest.mark.parametrize("lost", ["v0001.tar", "v0002.tar", "v0003.tar", "v0004.tar"])
def test_a_lost_volume_comes_back_byte_for_byte(archive: Path, tmp_path: Path, lost: str) -> None:
    before = content(archive)
    (archive / lost).unlink()

    assert made_good(archive, tmp_path / "good") == {lost: before[lost]}
    assert content(archive) == {name: data for name, data in before.items() if name != lost}


def test_one_volume_of_every_group_may_be_lost_and_media_may_be_anywhere(archive: Path, tmp_path: Path) -> None:
    before = content(archive)
    places = [tmp_path / "a", tmp_path / "b"]
    for number, path in enumerate(sorted(archive.glob("*.tar"))):
        target = places[number % 2]
        target.mkdir(exist_ok=True)
        if path.name not in ("v0001.tar", "v0004.tar"):
            path.rename(target / f"disc {number}.bin")

    written = repair(survey(places, progress=Silent()), tmp_path / "good", progress=Silent())
    assert [path.name for path in written] == ["v0001.tar", "v0004.tar"]
    assert all(path.read_bytes() == before[path.name] for path in written)


@pytest.mark.parametrize("at", [0, 700, 5_000, -700, -1], ids=["header", "index", "inside", "chunks", "end"])
def test_a_volume_damaged_anywhere_comes_back(archive: Path, tmp_path: Path, at: int) -> None:
    before = content(archive)
    path = archive / "v0003.tar"
    flip(path, at % path.stat().st_size)

    made = made_good(archive, tmp_path / "good")
    assert made == ({"v0003.tar": before["v0003.tar"]} if at not in (-1,) else made)
    assert set(made) <= {"v0003.tar"}


def test_a_volume_cut_short_comes_back(archive: Path, tmp_path: Path) -> None:
    before = content(archive)
    with (archive / "v0002.tar").open("r+b") as file:
        file.truncate(100_000)

    assert made_good(archive, tmp_path / "good") == {"v0002.tar": before["v0002.tar"]}


def test_volumes_scratched_in_different_places_all_come_back(tmp_path: Path, lock: Lock, store: BlobFolder) -> None:
    """What makes parity worth a disc: two damaged volumes of one group, and the parity volume damaged as well."""
    archive = packed(lock, store, tmp_path / "wide", volume_bytes=3 << 19, parity=10)
    before = content(archive)
    first, second = volumes(archive)[:2]
    flip(first, volume_at(first).members[-1].end - 10)
    flip(second, volume_at(second).members[-1].offset + 10)

    made = made_good(archive, tmp_path / "good")
    assert made == {first.name: before[first.name], second.name: before[second.name]}


def test_a_second_copy_that_is_damaged_elsewhere_helps(archive: Path, tmp_path: Path) -> None:
    before = content(archive)
    shutil.copy(archive / "v0003.tar", tmp_path / "copy.tar")
    (archive / "v0001.tar").unlink()
    flip(archive / "v0003.tar", volume_at(archive / "v0003.tar").members[-1].offset + 10)

    found = survey([archive, tmp_path / "copy.tar"], progress=Silent())
    repair(found, tmp_path / "good", progress=Silent())
    assert content(tmp_path / "good") == {"v0001.tar": before["v0001.tar"]}


def test_two_lost_under_one_parity_volume_are_named_and_the_rest_is_made_good(archive: Path, tmp_path: Path) -> None:
    before = content(archive)
    for name in ("v0001.tar", "v0003.tar", "v0002.tar"):
        (archive / name).unlink()

    with pytest.raises(Incomplete, match=r"`v0001.tar`, `v0003.tar` are lost .*`p0001.tar` makes one of its 2"):
        made_good(archive, tmp_path / "good")
    assert content(tmp_path / "good") == {"v0002.tar": before["v0002.tar"]}


def test_a_lost_one_and_damage_on_another_are_both_named_with_the_place(archive: Path, tmp_path: Path) -> None:
    (archive / "v0001.tar").unlink()
    flip(archive / "v0003.tar", volume_at(archive / "v0003.tar").members[-1].offset + 10)

    with pytest.raises(
        Incomplete,
        match=r"`v0001.tar` cannot be made good: what stands at byte [0-9,]+ is lost or damaged on `v0003.tar`, too",
    ):
        made_good(archive, tmp_path / "good")
    assert not list((tmp_path / "good").glob("v*"))


def test_a_lost_volume_and_its_parity_volume_are_named_with_what_to_do(archive: Path, tmp_path: Path) -> None:
    (archive / "v0001.tar").unlink()
    (archive / "p0001.tar").unlink()

    with pytest.raises(Incomplete, match=r"`v0001.tar` of `sie-test-1` not here, nor a parity volume") as told:
        made_good(archive, tmp_path / "good")
    assert "pack --only v0001.tar" in str(told.value.hint)


def test_an_archive_without_parity_says_what_helps(tmp_path: Path, lock: Lock, store: BlobFolder) -> None:
    plain = packed(lock, store, tmp_path / "plain")

    with pytest.raises(Incomplete, match="no sound parity volume") as told:
        survey([plain], progress=Silent())
    assert "pack --only" in str(told.value.hint)


def test_nothing_is_written_where_nothing_is_wrong(archive: Path, tmp_path: Path) -> None:
    assert made_good(archive, tmp_path / "good") == {}


def test_repairing_again_does_nothing_and_overwrites_nothing(archive: Path, tmp_path: Path) -> None:
    (archive / "v0001.tar").unlink()
    made_good(archive, tmp_path / "good")
    when = (tmp_path / "good" / "v0001.tar").stat().st_mtime_ns

    assert repair(survey([archive], progress=Silent()), tmp_path / "good", progress=Silent()) == ()
    assert (tmp_path / "good" / "v0001.tar").stat().st_mtime_ns == when

    flip(archive / "v0003.tar", 0)
    with pytest.raises((Drift, Several, Incomplete)):
        repair(survey([archive], progress=Silent()), archive, progress=Silent())


def test_a_damaged_volume_is_not_overwritten_where_it_lies(archive: Path) -> None:
    flip(archive / "v0003.tar", 5_000)
    before = content(archive)

    with pytest.raises(Drift, match="is there and is not the volume that was packed"):
        repair(survey([archive], progress=Silent()), archive, progress=Silent())
    assert content(archive) == before


def test_what_a_killed_run_left_is_gone_on_from_and_not_trusted(archive: Path, tmp_path: Path) -> None:
    before = content(archive)
    (archive / "v0001.tar").unlink()
    good = tmp_path / "good"
    good.mkdir()
    spoilt = bytearray(before["v0001.tar"][:700_000])
    spoilt[1000] ^= 1
    (good / ".v0001.tar.partial").write_bytes(bytes(spoilt))

    assert made_good(archive, good) == {"v0001.tar": before["v0001.tar"]}


def test_parity_that_was_forged_is_found_by_the_digest(archive: Path, tmp_path: Path) -> None:
    """A parity volume whose CRCs were made to fit other bytes."""
    from sie_airgap.archive.volume_format import Checks, RunningCrcs, encode_head, encode_tail

    path = archive / "p0001.tar"
    index = read_index(path)
    assert isinstance(index, Parity)
    data = bytearray(path.read_bytes()[: index.tail_offset])
    data[index.offset + 5] ^= 1
    crcs = RunningCrcs()
    crcs.update(bytes(data[index.offset : index.offset + index.parity_bytes]))
    crcs.end_member()
    head = encode_head("PARITY.json", encode_parity(index))
    path.write_bytes(bytes(data) + encode_tail(Checks(digest_of(head), tuple(crcs.done))))
    (archive / "v0001.tar").unlink()

    with pytest.raises(TrustError, match="is not what was packed"):
        made_good(archive, tmp_path / "good")
    assert list((tmp_path / "good").iterdir()) == []


def test_a_volume_that_changed_since_it_was_packed_gets_no_parity(
    tmp_path: Path, lock: Lock, store: BlobFolder
) -> None:
    plain = packed(lock, store, tmp_path / "plain")
    path, offset = placed(plain, "model.safetensors", "org/large")
    flip(path, offset + 5)

    with pytest.raises(TrustError, match=f"`{path.name}` is no longer what was packed"):
        packed(lock, store, plain, parity=10)
    assert not list(plain.glob("p*.tar"))


def test_a_damaged_parity_volume_is_named(archive: Path) -> None:
    index = read_index(archive / "p0002.tar")
    assert isinstance(index, Parity)
    flip(archive / "p0002.tar", index.offset + 100)

    (finding,) = verify_media(read_media([archive]), progress=Silent())
    assert "the parity volume `p0002.tar` is not what was packed" in str(finding)
    assert f"bytes {index.offset:,} to" in str(finding)


def test_parity_volumes_alone_are_told_from_no_archive(archive: Path) -> None:
    with pytest.raises(Incomplete, match=r"only parity in .*p0001.tar: it stands for v0001.tar to v0003.tar"):
        read_media([archive / "p0001.tar"])


def test_one_parity_volume_is_written_again_alone(archive: Path, lock: Lock, store: BlobFolder) -> None:
    before = content(archive)
    (archive / "p0001.tar").unlink()
    cut = plan_archive(lock, store, name="sie-test-1", size=VolumeSize(VOLUME_BYTES), parity_every=2)

    pack(cut, store, archive, progress=Silent(), only=["p0001.tar"])
    assert content(archive) == before

    (archive / "p0001.tar").unlink()
    (archive / "v0003.tar").unlink()
    with pytest.raises(Incomplete, match=r"`v0003.tar` not in .*`p0001.tar` is made of 2 volumes"):
        pack(cut, store, archive, progress=Silent(), only=["p0001.tar"])


def test_other_groups_do_not_replace_those_that_are_there(archive: Path, lock: Lock, store: BlobFolder) -> None:
    before = content(archive)

    with pytest.raises(Drift, match=r"p0001.tar is there"):
        packed(lock, store, archive, parity=10)
    assert content(archive) == before


@given(st.integers(1, 300), st.integers(1, 40))
def test_every_volume_has_one_parity_volume_and_neighbours_have_different_ones(volumes: int, every: int) -> None:
    found = groups(volumes, every)

    assert sorted(name for group in found for name in group) == [volume_name(n) for n in range(1, volumes + 1)]
    assert max(map(len, found)) <= every
    assert max(map(len, found)) - min(map(len, found)) <= 1
    of = {name: number for number, group in enumerate(found) for name in group}
    if len(found) > 1:
        assert all(of[volume_name(a)] != of[volume_name(b)] for a, b in pairwise(range(1, volumes + 1)))


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=6), st.data())
def test_any_one_is_the_exclusive_or_of_the_others_and_the_parity(pieces: list[bytes], data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, len(pieces) - 1))
    parity = exclusive_or(pieces, 50)
    others = [piece for number, piece in enumerate(pieces) if number != lost]

    assert exclusive_or([parity, *others], 50)[: len(pieces[lost])] == pieces[lost]


@given(st.lists(st.integers(1, 1 << 40), min_size=1, max_size=60))
def test_an_index_of_a_parity_volume_comes_back_and_has_the_room_that_was_kept(sizes: list[int]) -> None:
    lock = digest_of(b"lock")
    covered = tuple(Covered(volume_name(number), size, lock) for number, size in enumerate(sizes, start=1))
    parity = Parity(1, "a" * 100, lock, 1, 9999, covered)

    assert decode_parity(encode_parity(parity)) == parity
    assert parity.size_bytes - parity.parity_bytes <= overhead_bytes(len(sizes), parity.parity_bytes)


@pytest.mark.parametrize(
    "changed",
    [
        {"version": 2},
        {"number": 0},
        {"number": 3},
        {"lock": "sha256:x"},
        {"volumes": ()},
        {"volumes": (Covered("../v0001.tar", 1, digest_of(b"")),)},
        {"volumes": (Covered("v0001.tar", -1, digest_of(b"")),)},
        {"volumes": (Covered("v0001.tar", 1, digest_of(b"")),) * 2},
        {"volumes": (Covered("v0002.tar", 1, digest_of(b"")), Covered("v0001.tar", 1, digest_of(b"")))},
    ],
    ids=lambda changed: " ".join(changed),
)
def test_an_index_of_a_parity_volume_that_cannot_be_is_refused(changed: dict[str, object]) -> None:
    sound = Parity(1, "a", digest_of(b""), 1, 2, (Covered("v0001.tar", 1, digest_of(b"")),))

    with pytest.raises(ValueError, match=r"."):
        decode_parity(encode_parity(msgspec.structs.replace(sound, **changed)))
