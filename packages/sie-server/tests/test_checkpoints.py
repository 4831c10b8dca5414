"""Weights by name out of safetensors files: what is read, and what is refused before anything trusts it."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_server.models import build
from sie_server.models.calls import LoadError, Precision
from sie_server.models.checkpoint import (
    INDEX,
    PICKLED,
    PICKLED_INDEX,
    SINGLE,
    open_checkpoint,
    open_tensors,
)
from sie_testing import tiny_bert
from sie_testing.site import spec
from sie_testing.tiny_bert import Stored, write_safetensors
from sie_testing.torch_zip import write_torch

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


@pytest.mark.parametrize(("size", "kind"), [(0, "file of weights"), (7, "safetensors file"), (8, "safetensors file")])
def test_a_file_without_a_header_is_refused(folder: Path, size: int, kind: str) -> None:
    (folder / SINGLE).write_bytes(b"\1" * size)

    with pytest.raises(LoadError, match=f"has {size} bytes: not a {kind}"):
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
    (tmp_path / "weights.onnx").touch()

    with pytest.raises(LoadError, match=r"no `model.safetensors` and no `pytorch_model.bin`.* it has `weights.onnx`"):
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


def test_safetensors_come_before_what_torch_pickled(folder: Path) -> None:
    write_torch(folder / PICKLED, {"a": TABLE + 1})

    assert np.array_equal(open_checkpoint(folder).weight("a", (3, 4)).array, TABLE)


def test_what_torch_pickled_is_read_where_there_are_no_safetensors(tmp_path: Path) -> None:
    write_torch(tmp_path / PICKLED, {"a": TABLE})

    assert np.array_equal(open_checkpoint(tmp_path).weight("a", (3, 4)).array, TABLE)


def test_pickled_shards_are_one_checkpoint(tmp_path: Path) -> None:
    write_torch(tmp_path / "one.bin", {"a": TABLE})
    write_torch(tmp_path / "two.bin", {"b": TABLE[0]})
    (tmp_path / PICKLED_INDEX).write_text(json.dumps({"weight_map": {"a": "one.bin", "b": "two.bin"}}))

    checkpoint = open_checkpoint(tmp_path)
    assert np.array_equal(checkpoint.weight("a", (3, 4)).array, TABLE)
    assert np.array_equal(checkpoint.weight("b", (4,)).array, TABLE[0])


def test_a_tensor_in_two_shards_is_named_with_both(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_safetensors(tmp_path / f"{name}.safetensors", {"a": TABLE})
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))

    with pytest.raises(LoadError, match=r"`a` is in `one.safetensors` and in `two.safetensors`"):
        open_checkpoint(tmp_path)


def test_one_named_file_is_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "2_Dense").mkdir()
    write_safetensors(tmp_path / "2_Dense" / SINGLE, {"linear.weight": TABLE})
    write_torch(tmp_path / "sparse_linear.pt", {"weight": TABLE})

    assert open_tensors(tmp_path / "2_Dense" / SINGLE).names() == ("linear.weight",)
    assert np.array_equal(open_tensors(tmp_path / "sparse_linear.pt").weight("weight", (3, 4)).array, TABLE)


def test_a_named_file_that_is_not_there_is_told_with_what_is(folder: Path) -> None:
    with pytest.raises(LoadError, match=r"no `sparse_linear.pt` in .*: it has `model.safetensors`"):
        open_tensors(folder / "sparse_linear.pt")


def test_names_and_shapes_are_known_without_reading(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)

    assert checkpoint.names() == ("a", "b")
    assert (checkpoint.shape("a"), checkpoint.shape("b")) == ((3, 4), (4,))
    assert checkpoint.size_bytes == 4 * (12 + 4)


@pytest.mark.parametrize(("precision", "each"), [("f32", 4), ("bf16", 2)])
def test_what_a_model_will_take_is_its_matrices_and_not_its_tables(
    tmp_path: Path, precision: Precision, each: int
) -> None:
    folder = tiny_bert.write(tmp_path, dtype="F16")
    shapes = {name: array.shape for name, array in tiny_bert.weights(0)}
    tables = sum(rows * width for rows, width in (shapes[name] for name in shapes if name.endswith("gs.weight")))
    matrices = sum(shape[0] * shape[1] for shape in shapes.values() if len(shape) == 2) - tables
    others = sum(shape[0] for shape in shapes.values() if len(shape) == 1)

    found = open_checkpoint(folder).predicted(precision)
    assert (found.computed, found.mapped) == (matrices * each + others * 4, tables * 2)


def test_tensors_that_must_be_copied_are_predicted(tmp_path: Path) -> None:
    """Here because they are not aligned."""
    write_safetensors(tmp_path / SINGLE, {"a": TABLE})
    header = (tmp_path / SINGLE).read_bytes()
    size = int.from_bytes(header[:8], "little")
    (tmp_path / SINGLE).write_bytes(
        (size + 2).to_bytes(8, "little") + header[8 : 8 + size] + b"  " + header[8 + size :]
    )
    shifted = open_checkpoint(tmp_path)

    assert np.array_equal(shifted.weight("a", (3, 4)).array, TABLE)
    assert shifted.predicted("f32").copied == TABLE.nbytes


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("wrong", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_with_its_place(tmp_path: Path, dtype: Stored, wrong: float) -> None:
    table = np.random.default_rng(0).normal(size=(300, 700)).astype(np.float32)
    table[299, 17] = wrong
    write_safetensors(tmp_path / SINGLE, {"a": table, "b": TABLE}, dtype)

    checkpoint = open_checkpoint(tmp_path)
    checkpoint.weight("b", (3, 4))
    with pytest.raises(LoadError, match=r"`a` of `model.safetensors` is NaN or infinite at \[299, 17\]"):
        checkpoint.weight("a", (300, 700))


def test_values_are_looked_at_while_the_caller_does_something_else(tmp_path: Path) -> None:
    write_safetensors(tmp_path / SINGLE, {"a": TABLE, "b": np.where(TABLE == 7, np.nan, TABLE)})
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.unseen("b", (3, 4))
    done = []

    with checkpoint.looking(["a"]):
        done.append("a")
    with pytest.raises(LoadError, match=r"`b` of `model.safetensors` is NaN or infinite at \[1, 3\]"):  # noqa: SIM117
        with checkpoint.looking(["a", "b"]):
            done.append("b")
    with pytest.raises(LoadError, match=r"`b` of `model.safetensors`"):
        checkpoint.weight("b", (3, 4))
    assert done == ["a", "b"]


def test_what_goes_wrong_meanwhile_is_told_first(tmp_path: Path) -> None:
    write_safetensors(tmp_path / SINGLE, {"a": np.full((3, 4), np.inf, np.float32)})

    with pytest.raises(MemoryError, match="no room"), open_checkpoint(tmp_path).looking(["a"]):
        raise MemoryError("no room")


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("wrong", ["embeddings.word_embeddings.weight", "encoder.layer.1.output.dense.bias"])
def test_no_model_is_made_of_values_that_are_not_finite(tmp_path: Path, wrong: str, streams: int) -> None:
    folder = tiny_bert.write(tmp_path)
    checkpoint = open_checkpoint(folder)
    floats = {name: checkpoint.weight(name, checkpoint.shape(name)).floats() for name in checkpoint.names()}
    floats[wrong].flat[3] = np.nan
    write_safetensors(folder / SINGLE, floats)

    with pytest.raises(LoadError, match=f"`{wrong}` of `{SINGLE}` is NaN or infinite at"):
        build.load(spec(), folder, precision="f32", streams=streams, threads=1)
    assert not [thread.name for thread in threading.enumerate() if thread.name in ("widen", "forget-pages")]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_every_finite_value_is_a_weight(tmp_path: Path, dtype: Stored) -> None:
    largest = {"F32": 3.4028234e38, "F16": 65504.0, "BF16": 3.3895314e38}[dtype]
    table = np.array([0.0, -0.0, largest, -largest, 1e-45, -1e-45], np.float32)
    write_safetensors(tmp_path / SINGLE, {"a": table}, dtype)

    assert len(open_checkpoint(tmp_path).weight("a", (6,)).array) == 6


def test_pages_handed_back_while_looking_are_read_again(tmp_path: Path) -> None:
    """More than is handed back at once, and not at a page's start."""
    table = np.random.default_rng(0).normal(size=(3, 1_000_003)).astype(np.float32)
    write_safetensors(tmp_path / SINGLE, {"first": TABLE, "a": table, "b": table[0]})
    checkpoint = open_checkpoint(tmp_path)

    assert np.array_equal(checkpoint.weight("a", table.shape).array, table)
    assert np.array_equal(checkpoint.weight("b", table[0].shape).array, table[0])


def test_buffers_of_other_types_stop_no_load(folder: Path) -> None:
    """Old checkpoints carry `embeddings.position_ids`."""
    rewrite_header(folder / SINGLE, '"a": {"dtype": "F32", "shape": [3, 4]', '"a": {"dtype": "I64", "shape": [3, 2]')

    assert np.array_equal(open_checkpoint(folder).weight("b", (4,)).array, TABLE[0])


def test_a_tensor_at_an_odd_byte_is_read(tmp_path: Path) -> None:
    write_safetensors(tmp_path / SINGLE, {"a": TABLE})
    data = (tmp_path / SINGLE).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length] + b" " * (3 - length % 2)
    (tmp_path / SINGLE).write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    assert len(header) % 2 == 1

    array = open_checkpoint(tmp_path).weight("a", (3, 4)).array
    assert array.flags.aligned
    assert np.array_equal(array, TABLE)


FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "I64", "F4", ""]),
        "shape": st.lists(st.integers(-1, 2**64), max_size=12),
        "data_offsets": st.lists(st.integers(-1, 2**64), min_size=2, max_size=2),
    }
)


@FEW
@given(header=st.one_of(st.binary(), st.dictionaries(st.text(), ENTRY).map(lambda made: json.dumps(made).encode())))
def test_any_header_is_read_or_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / SINGLE).write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    try:
        checkpoint = open_checkpoint(tmp_path)
        for name in checkpoint.names():
            checkpoint.weight(name, checkpoint.shape(name))
    except LoadError:
        pass


@FEW
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(folder: Path, data: st.DataObject) -> None:
    whole = (folder / SINGLE).read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + data.draw(st.binary(max_size=4)) + whole[at + 1 :]
    try:
        (folder / SINGLE).write_bytes(damaged)
        checkpoint = open_checkpoint(folder)
        for name in checkpoint.names():
            checkpoint.weight(name, checkpoint.shape(name))
    except LoadError:
        pass
    finally:
        (folder / SINGLE).write_bytes(whole)
