"""What a lock costs to carry: bytes, disks, volumes and time, from the lock alone."""

import json
from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.amounts import lasting, parse_size, sized
from sie_airgap.archive.cut import beside_bytes, plan_archive, would_be
from sie_airgap.archive.medium import VolumeSize
from sie_airgap.reviewing.bill import bill, parse_link
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.store.contents import LOCK_NAME, contents
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import Lock, LockedBlob, LockedImage
from sie_testing.carried import FILES, Run, make_lock, seeded

SHARED = seeded(40_000, seed=9)
names = st.sampled_from(["config.json", "model.safetensors", "tokenizer.json", "x/model.bin", "vocab.txt"])
contents_ = st.integers(0, 5).map(lambda seed: seeded(seed * 1000, seed=seed))
repositories = st.dictionaries(names, contents_, min_size=1, max_size=4)
locks = st.dictionaries(st.sampled_from(["org/a", "org/b", "org/c"]), repositories, max_size=3).map(make_lock)


def nothing(count: int) -> int:
    """As where only volumes lie on a medium."""
    return 0


@given(locks, st.sets(st.integers(0, 30)))
def test_what_is_counted_each_once_is_what_is_carried(lock: Lock, chosen: set[int]) -> None:
    wanted = contents(lock)
    present = {content.digest for at, content in enumerate(wanted) if at in chosen}
    made = bill(lock, present, media={}, beside_bytes=nothing, links=[])

    assert sum(amount.each_once_bytes for amount in made.amounts) == made.size_bytes
    assert made.size_bytes == sum(content.size_bytes for content in wanted)
    assert made.lacking_bytes == sum(content.size_bytes for content in wanted if content.digest not in present)
    assert sum(amount.size_bytes for amount in made.amounts) >= made.size_bytes
    assert made.bucket_bytes == sum(model.size_bytes for model in lock.models)


@given(locks, st.integers(100_000, 4_000_000), st.integers(0, 1_000_000))
def test_larger_volumes_are_never_more(lock: Lock, volume_bytes: int, more_bytes: int) -> None:
    small, large = bill(
        lock,
        (),
        media={"small": VolumeSize(volume_bytes), "large": VolumeSize(volume_bytes + more_bytes)},
        beside_bytes=nothing,
        links=[],
    ).volumes

    assert large.count is not None
    assert small.count is None or large.count <= small.count


def test_a_blob_of_two_models_is_carried_once_and_lies_in_the_bucket_twice() -> None:
    made = bill(
        make_lock({"org/a": {"model.safetensors": SHARED}, "org/b": {"model.safetensors": SHARED}}),
        (),
        media={},
        beside_bytes=nothing,
        links=[],
    )
    (weights,) = [amount for amount in made.amounts if amount.kind == "weights"]

    assert (weights.count, weights.size_bytes, weights.each_once_bytes) == (2, 80_000, 40_000)
    assert made.bucket_bytes == 80_000


def test_two_names_of_one_repository_lie_in_the_bucket_once() -> None:
    lock = make_lock({"org/a": {"model.safetensors": SHARED}, "org/b": {"model.safetensors": SHARED}})
    same = tuple(msgspec.structs.replace(model, repo=lock.models[0].repo) for model in lock.models)

    assert (
        bill(msgspec.structs.replace(lock, models=same), (), media={}, beside_bytes=nothing, links=[]).bucket_bytes
        == 40_000
    )


def test_a_layer_of_two_images_is_in_the_registry_once() -> None:
    blobs = [LockedBlob(digest_of(data), len(data), "x") for data in (b"one", b"other", b"shared layer")]
    images = tuple(
        LockedImage(f"r.example/{at}:v1", blob.digest, "x", {}, tuple(sorted([blob, blobs[2]])), (), ())
        for at, blob in enumerate(blobs[:2])
    )
    made = bill(msgspec.structs.replace(make_lock({}), images=images), (), media={}, beside_bytes=nothing, links=[])

    assert made.registry_bytes == len(b"one" + b"other" + b"shared layer")


def test_the_volumes_are_those_that_pack_cuts(store: BlobFolder, lock: Lock) -> None:
    for volume_bytes in (1 << 20, 1 << 21, 1 << 30):
        (counted,) = bill(lock, (), media={"it": VolumeSize(volume_bytes)}, beside_bytes=nothing, links=[]).volumes
        cut = plan_archive(lock, store, name="x", size=VolumeSize(volume_bytes))

        assert counted.count == len(cut.volumes)


def test_a_disc_has_room_for_what_stands_beside_its_volume(store: BlobFolder, lock: Lock) -> None:
    """Of some discs one more is needed than for the volumes alone."""
    beside = partial(beside_bytes, would_be(lock))
    more = 0
    for disc_bytes in range(600_000, 4_000_000, 50_000):
        disc = VolumeSize(disc_bytes, holds_all=True)
        alone = {"disc": VolumeSize(disc_bytes)}
        (counted,) = bill(lock, (), media={"disc": disc}, beside_bytes=beside, links=[]).volumes
        (fewer,) = bill(lock, (), media=alone, beside_bytes=beside, links=[]).volumes
        cut = plan_archive(lock, store, name="sie-1", size=disc)

        assert counted.count == len(cut.volumes)
        assert max(cut.size_bytes.values()) + beside(len(cut.volumes)) <= disc_bytes
        more += counted.count != fewer.count
    assert more


def test_a_medium_that_is_too_small_has_no_volumes() -> None:
    (volumes,) = bill(make_lock(FILES), (), media={"floppy": VolumeSize(1000)}, beside_bytes=nothing, links=[]).volumes

    assert volumes.count is None


@pytest.mark.parametrize(
    ("text", "bits"), [("50Mbit/s", 50e6), ("1 Gbit/s", 1e9), ("2.5Gbit/s", 2.5e9), ("64kbit/s", 64e3)]
)
def test_a_line_is_read_in_bits(text: str, bits: float) -> None:
    assert parse_link(text) == bits


@pytest.mark.parametrize("text", ["50", "50MB/s", "0Mbit/s", "fast", "-1Mbit/s", "1e9Gbit/s", ""])
def test_what_is_no_line_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Mbit/s"):
        parse_link(text)


def test_a_line_takes_its_bits() -> None:
    (slow, fast) = bill(make_lock(FILES), (), media={}, beside_bytes=nothing, links=["1Mbit/s", "1Gbit/s"]).crossings

    assert slow.whole_s == 25  # 3,084,009 bytes
    assert fast.whole_s == 1


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2.0 h"), (200_000, "2.3 days")]
)
def test_times_are_said_as_one_waits(seconds: int, told: str) -> None:
    assert lasting(seconds) == told


@given(st.integers(0, 10**15))
def test_a_size_that_was_said_reads_as_about_the_same(size_bytes: int) -> None:
    assert abs(parse_size(str(size_bytes)) - size_bytes) == 0
    if size_bytes < 1000:
        assert parse_size(sized(size_bytes)) == size_bytes


def test_plan_needs_the_lock_alone_and_counts_what_the_store_has(airgap: Run, store: BlobFolder) -> None:
    path = store.root / LOCK_NAME

    code, out, err = airgap("plan", path, "--link", "5Mbit/s")
    assert (code, err) == (0, "")
    assert "to fetch   3.1 MB: none of it is in airgap-store" in out
    assert "fat32   4.3 GB    1" in out
    assert "5Mbit/s  5 s        5 s" in out
    _, out, _ = airgap("plan", store.root, "--store", store.root, "--output", "json")
    assert (json.loads(out)["size_bytes"], json.loads(out)["lacking_bytes"]) == (3_084_009, 0)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["plan"], 4, "there is no lock at airgap.lock"),
        (["plan", "--link", "fast"], 2, "`fast` is not a bandwidth"),
    ],
)
def test_what_cannot_be_planned_says_why(airgap: Run, words: list[str], code: int, says: str) -> None:
    ended, _, err = airgap(*words)

    assert ended == code
    assert says in err
