"""Archives that carry only what the far side lacks, and weights that travel compressed."""

import json
import struct
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.archive.cut import plan_archive
from sie_airgap.archive.medium import VolumeSize
from sie_airgap.archive.packing import pack
from sie_airgap.cli import cli
from sie_airgap.cli.outcome import run
from sie_airgap.deltas.chunking import CHUNK_BYTES, chunks
from sie_airgap.deltas.delta import DELTA_NAME, NOTHING, Base, ByRecipe, Delta, decode_delta, encode_delta
from sie_airgap.deltas.receipt import Receipt, receipt_of_store
from sie_airgap.deltas.recipe import (
    MAGIC,
    Carried,
    Copied,
    Planes,
    Recipe,
    compressed,
    decode_steps,
    decompressed,
    encode_steps,
    joined,
    steps_bytes,
)
from sie_airgap.deltas.recipes import plan_delta
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder, read_lock, write_lock
from sie_airgap.store.contents import LOCK_NAME
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import Lock, encode_lock
from sie_testing.carried import filled_store, make_lock, seeded

Ran = tuple[int, str, str]
Run = Callable[..., Ran]
MIB = 1 << 20
A, B = Digest("sha256:" + "a" * 64), Digest("sha256:" + "b" * 64)


def safetensors(tensors: Mapping[str, bytes], *, dtype: str = "BF16", note: str = "") -> bytes:
    header: dict[str, Any] = {"__metadata__": {"note": note}}
    position = 0
    for name, data in tensors.items():
        shape = [len(data) // {"BF16": 2, "F32": 4, "U8": 1}[dtype]]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(data)]}
        position += len(data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(tensors.values())


TENSORS = {f"layer.{at}": seeded(3 * MIB + 6, seed=at) for at in range(4)}
BEFORE = safetensors(TENSORS)


def weights(values: int, seed: int) -> bytes:
    """bfloat16 numbers as a model has them: small, normally distributed."""
    drawn = np.random.default_rng(seed).normal(0, 0.02, values).astype(np.float32)
    return (drawn.view(np.uint32) >> 16).astype(np.uint16).tobytes()


@pytest.fixture
def airgap(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str | Path) -> Ran:
        capsys.readouterr()
        code = run(cli, [str(word) for word in words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return command


class Sides:
    """A connected store with two locks' blobs, and a far side that has the first."""

    def __init__(self, root: Path, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
        self.old, self.new = make_lock({"org/m": before}), make_lock({"org/m": after}, serial=2)
        filled_store(root / "airgap-store", self.old, {"org/m": before})
        self.store = filled_store(root / "airgap-store", self.new, {"org/m": after})
        self.far = filled_store(root / "far", self.old, {"org/m": before})
        self.receipt = receipt_of_store("far", self.old, self.far.sizes())

    def delta(self, **more: Any) -> Delta:
        return plan_delta(self.new, self.store, self.receipt, progress=Silent(), **more)


def carried_bytes(delta: Delta, lock: Lock) -> int:
    """What is carried of the model's files."""
    sizes = {file.digest: file.size_bytes for model in lock.models for file in model.files}
    recipes = {one.blob: one.recipe_bytes for one in delta.recipes}
    return sum(recipes.get(digest, size) for digest, size in sizes.items() if digest not in delta.left_out)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 5 * MIB // 2), max_size=4))
def test_chunks_are_the_whole_file_in_order(sizes: dict[str, int]) -> None:
    data = safetensors({name: bytes(size - size % 2) for name, size in sizes.items()})
    found = list(chunks(len(data), lambda start, length: data[start : start + length]))

    assert [one.start for one in found] == [0, *np.cumsum([one.size_bytes for one in found])[:-1]]
    assert sum(one.size_bytes for one in found) == len(data)
    assert all(0 < one.size_bytes <= CHUNK_BYTES for one in found)


@given(st.binary(max_size=200))
def test_a_file_of_another_kind_is_cut_too(data: bytes) -> None:
    found = list(chunks(len(data), lambda start, length: data[start : start + length]))

    assert sum(one.size_bytes for one in found) == len(data)


@pytest.mark.parametrize(
    ("after", "most"),
    [
        (safetensors(TENSORS, note="another header, and a longer one"), 0.001),
        (safetensors({**TENSORS, "layer.2": seeded(3 * MIB + 6, seed=9)}), 0.26),
        (safetensors({**TENSORS, "layer.0": TENSORS["layer.0"] + bytes(2048)}), 0.01),
        (safetensors({name: TENSORS[name] for name in reversed(TENSORS)}), 0.001),
    ],
    ids=["a header edited", "one tensor of four retrained", "rows appended", "tensors in another order"],
)
def test_of_a_changed_file_only_what_changed_is_carried(tmp_path: Path, after: bytes, most: float) -> None:
    """What fixed blocks would carry: all of it, since everything behind the first change has moved."""
    sides = Sides(tmp_path, {"model.safetensors": BEFORE}, {"model.safetensors": after})

    assert carried_bytes(sides.delta(), sides.new) <= most * len(after)


def test_the_whole_way_from_receipt_to_receipt(airgap: Run, tmp_path: Path) -> None:
    """The far side says what it has, the connected side packs what it lacks, and the far side has it all."""
    after = {
        "model.safetensors": safetensors(TENSORS, note="new"),
        "config.json": b"{}",
        "added.bin": seeded(70_000, seed=5),
    }
    sides = Sides(tmp_path, {"model.safetensors": BEFORE, "config.json": b"{}"}, after)

    received = airgap("receipt", "far", "-o", "receipt.json")
    dry = airgap("pack", "media", "--base", "receipt.json", "--dry-run")
    packed = airgap("pack", "media", "--base", "receipt.json")
    again = airgap("pack", "media", "--base", "receipt.json")
    inspected, verified = airgap("inspect", "media"), airgap("verify", "media")
    unpacked = airgap("unpack", "media", "--store", "far")

    assert [ran[0] for ran in (received, dry, packed, again, inspected, verified, unpacked)] == [0] * 7, unpacked
    assert "left out" in dry[2]
    assert "1 of 1 volumes written, 5" not in again[1]
    assert (tmp_path / "media/v0001.tar").stat().st_size < 300_000
    assert "base     lock number 1" in inspected[1]
    assert "THIS IS A DELTA" in (tmp_path / "media/README.txt").read_text()
    assert read_lock(tmp_path / "far" / LOCK_NAME) == sides.new
    assert airgap("verify", "far")[0] == 0
    held = {path.name for path in (tmp_path / "far/blobs/sha256").iterdir()}
    assert not {one.recipe.removeprefix("sha256:") for one in sides.delta().recipes} & held, "recipes do not stay"


def test_a_bucket_is_brought_forward_from_its_own_receipt(airgap: Run, tmp_path: Path) -> None:
    after = {"model.safetensors": safetensors(TENSORS, note="new"), "config.json": b"{}"}
    Sides(tmp_path, {"model.safetensors": BEFORE, "config.json": b"{}"}, after)
    bucket = f"file://{tmp_path}/bucket"
    assert airgap("mirror", "weights", bucket, "--from", "far")[0] == 0

    assert airgap("receipt", bucket, "-o", "receipt.json")[0] == 0
    assert airgap("pack", "media", "--base", "receipt.json")[0] == 0
    mirrored = airgap("mirror", "weights", bucket, "--from", "media")
    verified = airgap("verify", bucket)

    assert mirrored[0] == 0, mirrored
    assert verified[0] == 0, verified
    assert (tmp_path / "media/v0001.tar").stat().st_size < 300_000


def test_a_far_side_that_is_not_what_its_receipt_said_is_told_and_left_alone(airgap: Run, tmp_path: Path) -> None:
    after = {"model.safetensors": safetensors(TENSORS, note="new"), "config.json": b"{}"}
    sides = Sides(tmp_path, {"model.safetensors": BEFORE, "config.json": b"{}"}, after)
    pack(
        plan_archive(sides.new, sides.store, name="d", delta=sides.delta()),
        sides.store,
        tmp_path / "media",
        progress=Silent(),
    )
    sides.far.path(digest_of(BEFORE)).unlink()
    before = sorted(path.name for path in (tmp_path / "far/blobs/sha256").iterdir())

    code, _, err = airgap("unpack", "media", "--store", "far")
    elsewhere = airgap("unpack", "media", "--store", "new")

    assert (code, elsewhere[0]) == (4, 4)
    assert digest_of(BEFORE) in err
    assert "a delta on lock number 1" in err
    assert "pack --base" in err
    assert sorted(path.name for path in (tmp_path / "far/blobs/sha256").iterdir()) == before
    assert not (tmp_path / "new/blobs").exists()


def test_where_no_receipt_comes_back_the_lock_that_was_taken_stands_for_one(airgap: Run, tmp_path: Path) -> None:
    """Also when this store holds more than was ever sent."""
    after = {
        "model.safetensors": safetensors(TENSORS, note="new"),
        "config.json": b"{}",
        "unsent": seeded(9_000, seed=8),
    }
    sides = Sides(tmp_path, {"model.safetensors": BEFORE, "config.json": b"{}"}, after)
    write_lock(tmp_path / "sent.lock", sides.old)

    packed = airgap("pack", "media", "--base", "sent.lock")
    unpacked = airgap("unpack", "media", "--store", "far")
    to_nobody = airgap("unpack", "media", "--store", "empty")

    assert (packed[0], unpacked[0]) == (0, 0), (packed, unpacked)
    assert "that whoever took lock number 1 has" in packed[2]
    assert (tmp_path / "media/v0001.tar").stat().st_size < 300_000
    assert airgap("verify", "far")[0] == 0
    assert to_nobody[0] == 4
    assert "a delta on lock number 1" in to_nobody[2]


def test_a_lock_that_was_edited_is_no_base(airgap: Run, tmp_path: Path) -> None:
    sides = Sides(tmp_path, {"a": b"1"}, {"a": b"2"})
    (tmp_path / "sent.lock").write_bytes(encode_lock(sides.old).replace(b'"main"', b'"next" '))

    code, _, err = airgap("pack", "media", "--base", "sent.lock")

    assert code == 3
    assert "--base sent.lock" in err


def test_a_source_that_is_altered_makes_nothing(airgap: Run, tmp_path: Path) -> None:
    after = {"model.safetensors": safetensors(TENSORS, note="new")}
    sides = Sides(tmp_path, {"model.safetensors": BEFORE}, after)
    pack(
        plan_archive(sides.new, sides.store, name="d", delta=sides.delta()),
        sides.store,
        tmp_path / "media",
        progress=Silent(),
    )
    path = sides.far.path(digest_of(BEFORE))
    data = bytearray(path.read_bytes())
    data[5 * MIB] ^= 1
    path.write_bytes(data)

    code, _, err = airgap("unpack", "media", "--store", "far")

    assert code == 3
    assert "is not what was locked" in err
    assert read_lock(tmp_path / "far" / LOCK_NAME) == sides.old
    assert sides.far.size(digest_of(after["model.safetensors"])) is None


def test_a_delta_over_several_media_comes_one_by_one(airgap: Run, tmp_path: Path) -> None:
    """Also where the recipe itself is cut across volumes."""
    after = {"model.safetensors": safetensors({**TENSORS, "layer.1": seeded(3 * MIB + 6, seed=8)})}
    sides = Sides(tmp_path, {"model.safetensors": BEFORE}, after)
    cut = plan_archive(
        sides.new, sides.store, name="d", size=VolumeSize(MIB * 3 // 2, holds_all=False), delta=sides.delta()
    )
    pack(cut, sides.store, tmp_path / "media", progress=Silent())
    names = cut.volume_names

    codes = [airgap("unpack", tmp_path / "media" / name, "--store", "far")[0] for name in reversed(names)]

    assert len(names) > 2
    assert codes == [10] * (len(names) - 1) + [0]
    assert airgap("verify", "far")[0] == 0


def test_weights_travel_compressed_and_arrive_as_they_were(airgap: Run, tmp_path: Path) -> None:
    whole = safetensors({"w": weights(MIB, 1), "v": weights(MIB // 2, 2)})
    lock = make_lock({"org/m": {"model.safetensors": whole}})
    filled_store(tmp_path / "airgap-store", lock, {"org/m": {"model.safetensors": whole}})

    assert airgap("pack", "media", "--compress")[0] == 0
    assert airgap("verify", "media")[0] == 0
    assert airgap("unpack", "media", "--store", "far")[0] == 0

    assert (tmp_path / "media/v0001.tar").stat().st_size < 0.8 * len(whole)
    assert BlobFolder(tmp_path / "far").path(digest_of(whole)).read_bytes() == whole
    assert airgap("mirror", "weights", f"file://{tmp_path}/bucket", "--from", "media")[0] == 0
    assert airgap("verify", f"file://{tmp_path}/bucket")[0] == 0


def test_what_does_not_shrink_travels_as_it_is(tmp_path: Path) -> None:
    noise = seeded(2 * MIB, seed=3)
    lock = make_lock({"org/m": {"model.bin": noise}})
    store = filled_store(tmp_path / "store", lock, {"org/m": {"model.bin": noise}})

    assert plan_delta(lock, store, None, compress=True, progress=Silent()) == NOTHING


def test_the_same_store_and_receipt_give_the_same_bytes(tmp_path: Path) -> None:
    after = {"model.safetensors": safetensors(TENSORS, note="new")}
    first, second = (Sides(tmp_path / name, {"model.safetensors": BEFORE}, after) for name in ("a", "b"))

    assert first.delta(compress=True) == second.delta(compress=True)


def test_a_recipe_on_the_media_that_is_damaged_is_named(airgap: Run, tmp_path: Path) -> None:
    after = {"model.safetensors": safetensors({**TENSORS, "layer.1": seeded(3 * MIB + 6, seed=8)})}
    sides = Sides(tmp_path, {"model.safetensors": BEFORE}, after)
    pack(
        plan_archive(sides.new, sides.store, name="d", delta=sides.delta()),
        sides.store,
        tmp_path / "media",
        progress=Silent(),
    )
    volume = tmp_path / "media/v0001.tar"
    data = bytearray(volume.read_bytes())
    data[-MIB] ^= 1
    volume.write_bytes(data)

    verified, unpacked = airgap("verify", "media"), airgap("unpack", "media", "--store", "far")

    assert verified[0] == unpacked[0] == 3
    assert "recipe of `model.safetensors` of `org/m`" in verified[2]


def test_a_receipt_that_is_none_is_refused(airgap: Run, tmp_path: Path) -> None:
    Sides(tmp_path, {"a": b"1"}, {"a": b"2"})
    (tmp_path / "receipt.json").write_text("{}")

    code, _, err = airgap("pack", "media", "--base", "receipt.json")

    assert code == 2
    assert "not a receipt" in err
    assert "sie-airgap receipt" in err


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_steps_that_go_on_are_one(sizes: list[int], random: Any) -> None:
    position, steps = 0, []
    for size in sizes:
        steps.append(Copied(0, position, size) if random.random() < 0.5 else Carried(size))
        position += size
    found = list(joined(steps))

    assert sum(step.size_bytes for step in found) == position
    assert all(type(one) is not type(other) or isinstance(one, Copied) for one, other in pairwise(found))


@given(st.binary(min_size=1, max_size=4000), st.sampled_from([1, 2, 4]))
def test_a_chunk_comes_back_from_its_planes(data: bytes, planes: int) -> None:
    data = (data * 8)[: len(data) * 8 // 4 * 4]
    stored = compressed(data, planes)

    if stored is not None:
        assert decompressed(stored, Planes(len(data), len(stored), planes)) == data


def test_a_step_that_unpacks_to_more_than_it_says_is_refused() -> None:
    bomb = compressed(bytes(MIB), 1)
    assert bomb is not None
    for size in (MIB - 1, 10):
        with pytest.raises(ValueError, match="is not the"):
            decompressed(bomb, Planes(size, len(bomb), 1))
    with pytest.raises(ValueError, match="compressed step"):
        decompressed(bomb[:-1], Planes(MIB, len(bomb) - 1, 1))
    with pytest.raises(ValueError, match="compressed step"):
        decompressed(b"what is this", Planes(MIB, 12, 1))


GOOD = Recipe(A, 30, (B,), (Copied(0, 5, 10), Carried(20)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"size_bytes": 31}, "make 30 bytes of a blob of 31"),
        ({"steps": (Copied(1, 0, 30),)}, "source 1"),
        ({"steps": (Copied(0, -1, 30),)}, "byte -1"),
        ({"steps": (Carried(0), Carried(30))}, "a step of 0 bytes"),
        ({"steps": (Carried(-1), Carried(31))}, "a step of -1 bytes"),
        ({"steps": (Planes(30, 31, 2),)}, "takes 31"),
        ({"steps": (Planes(30, 3, 4),)}, "4 planes"),
        ({"size_bytes": 2 * MIB, "steps": (Planes(2 * MIB, 3, 1),)}, "compressed step"),
        ({"sources": ("sha256:short",)}, "not a digest"),
    ],
)
def test_steps_that_cannot_be_are_refused(change: dict[str, Any], told: str) -> None:
    data = encode_steps(msgspec.structs.replace(GOOD, **change))[len(MAGIC) + 8 :]

    with pytest.raises(ValueError, match=told):
        decode_steps(data)


@given(st.binary(max_size=100))
def test_bytes_that_are_no_recipe_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        steps_bytes(data)
    with pytest.raises(ValueError, match="not a recipe"):
        decode_steps(data)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 2}, "version 2"),
        ({"base": None}, "says not what is expected"),
        ({"left_out": (B, A)}, "not sorted"),
        ({"left_out": (A, A)}, "not sorted"),
        ({"left_out": ("x",)}, "not a digest"),
    ],
)
def test_a_delta_that_cannot_be_is_refused(change: dict[str, Any], told: str) -> None:
    good = Delta(1, Base("far", A, 1), (A,), (ByRecipe(B, A, 5, (A,)),))

    assert decode_delta(encode_delta(good), where="x") == good
    with pytest.raises(TrustError, match=DELTA_NAME) as refused:
        decode_delta(encode_delta(msgspec.structs.replace(good, **change)), where="x")
    assert told in refused.value.have


def test_a_receipt_of_everything_leaves_nothing_to_carry(tmp_path: Path) -> None:
    sides = Sides(tmp_path, {"a.bin": seeded(9 * MIB, seed=1)}, {"a.bin": seeded(9 * MIB, seed=1), "b": b"2"})
    full: Receipt = receipt_of_store("far", sides.new, sides.store.sizes())

    assert carried_bytes(plan_delta(sides.new, sides.store, full, progress=Silent()), sides.new) == 0
