"""Weights by name out of safetensors files: what is read, and what is refused before anything trusts it."""

import json
from pathlib import Path

import numpy as np
import pytest

from sie_server.models.calls import LoadError
from sie_server.models.checkpoint import INDEX, SINGLE, open_checkpoint
from sie_testing.tiny_bert import Stored, write_safetensors

TABLE = np.arange(12, dtype=np.float32).reshape(3, 4)


def rewrite_header(path: Path, old: str, new: str) -> None:
    """`new` is as long as `old`, so that the offsets stay."""
    assert len(old) == len(new)
    data = path.read_bytes()
    assert data.count(old.encode()) == 1
    path.write_bytes(data.replace(old.encode(), new.encode()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_safetensors(tmp_path / SINGLE, {"a": TABLE, "b": TABLE[0]})
    return tmp_path


def test_a_tensor_is_found_by_name(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)

    assert "a" in checkpoint
    assert "c" not in checkpoint
    assert np.array_equal(checkpoint.weight("a", (3, 4)).array, TABLE)
    assert np.array_equal(checkpoint.weight("b", (4,)).array, TABLE[0])


@pytest.mark.parametrize(("dtype", "stored"), [("F32", np.float32), ("F16", np.float16), ("BF16", np.uint16)])
def test_every_floating_type_is_read_as_it_is_stored(tmp_path: Path, dtype: Stored, stored: type) -> None:
    write_safetensors(tmp_path / SINGLE, {"a": TABLE}, dtype)

    weight = open_checkpoint(tmp_path).weight("a", (3, 4))
    assert (weight.dtype, weight.array.dtype, weight.array.shape) == (dtype, np.dtype(stored), (3, 4))


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "one.safetensors", {"a": TABLE})
    write_safetensors(tmp_path / "two.safetensors", {"b": TABLE[0]})
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / INDEX).write_text(json.dumps(index))

    checkpoint = open_checkpoint(tmp_path)
    assert np.array_equal(checkpoint.weight("a", (3, 4)).array, TABLE)
    assert np.array_equal(checkpoint.weight("b", (4,)).array, TABLE[0])


def test_pages_handed_back_are_read_again(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    array = checkpoint.weight("a", (3, 4)).array
    checkpoint.forget_pages()

    assert np.array_equal(array, TABLE)


def test_a_missing_tensor_is_named_with_its_file(folder: Path) -> None:
    with pytest.raises(LoadError, match=r"`c` is not in `model.safetensors`, which has 2 tensors"):
        open_checkpoint(folder).weight("c", (1,))


def test_a_wrong_shape_is_named_with_both(folder: Path) -> None:
    with pytest.raises(LoadError, match=r"`a` of `model.safetensors` is \[3, 4\], `config.json` makes it \[4, 3\]"):
        open_checkpoint(folder).weight("a", (4, 3))


def test_a_type_that_is_no_weight_is_named(folder: Path) -> None:
    rewrite_header(folder / SINGLE, '"a": {"dtype": "F32"', '"a": {"dtype": "I32"')

    with pytest.raises(LoadError, match=r"`a` of `model.safetensors` is I32: supported are F32, F16, BF16"):
        open_checkpoint(folder).weight("a", (3, 4))


def test_a_file_cut_short_is_named_with_both_sizes(folder: Path) -> None:
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data[:-1])

    with pytest.raises(LoadError, match=f"has {len(data) - 1:,} bytes, its header describes {len(data):,}"):
        open_checkpoint(folder)


def test_bytes_after_the_last_tensor_are_noticed(folder: Path) -> None:
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data + b"\0")

    with pytest.raises(LoadError, match=f"has {len(data) + 1:,} bytes, its header describes {len(data):,}"):
        open_checkpoint(folder)


@pytest.mark.parametrize("size", [0, 7, 8])
def test_a_file_without_a_header_is_refused(folder: Path, size: int) -> None:
    (folder / SINGLE).write_bytes(b"\1" * size)

    with pytest.raises(LoadError, match=f"has {size} bytes: not a safetensors file"):
        open_checkpoint(folder)


def test_a_header_longer_than_its_file_is_refused(folder: Path) -> None:
    (folder / SINGLE).write_bytes((10**12).to_bytes(8, "little") + b"{}")

    with pytest.raises(LoadError, match=r"says it has 1,000,000,000,000 bytes, the file has 10"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"shape": [3, 4]', '"shape": [3, 5]'),
        ('"data_offsets": [0, 48]', '"data_offsets": [4, 48]'),
        ('"data_offsets": [0, 48]', '"data_offsets": [48, 0]'),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(folder: Path, old: str, new: str) -> None:
    rewrite_header(folder / SINGLE, old, new)

    with pytest.raises(LoadError, match="`a` of"):
        open_checkpoint(folder)


@pytest.mark.parametrize("header", [b"not json", b"[]", b'{"a": 1}', b'{"a": {"dtype": "F32"}}', b"\xff\xfe"])
def test_a_header_that_is_no_header_is_refused(folder: Path, header: bytes) -> None:
    (folder / SINGLE).write_bytes(len(header).to_bytes(8, "little") + header)

    with pytest.raises(LoadError, match="not that of a safetensors file"):
        open_checkpoint(folder)


def test_a_folder_without_weights_is_told_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()

    with pytest.raises(LoadError, match=r"no `model.safetensors`.* it has `pytorch_model.bin`"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("shard", ["gone.safetensors", "../one.safetensors"])
def test_a_shard_that_is_not_there_is_named(tmp_path: Path, shard: str) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": shard}}))

    with pytest.raises(LoadError, match=shard):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_no_index_is_refused(tmp_path: Path, index: str) -> None:
    (tmp_path / INDEX).write_text(index)

    with pytest.raises(LoadError, match="is not an index of shards"):
        open_checkpoint(tmp_path)
