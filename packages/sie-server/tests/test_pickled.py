"""Weights out of what torch pickled: what is read, what is refused, and that nothing of it ever runs."""

import ast
import contextlib
import io
import os
import pickle
import struct
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_server.models import pickle_machine
from sie_server.models.calls import LoadError
from sie_server.models.checkpoint import Checkpoint, open_tensors
from sie_testing.torch_zip import (
    BEGIN,
    END,
    STATE_DICT,
    Part,
    number,
    numbers,
    parameter,
    state_dict,
    tensor,
    text,
    write_archive,
    write_torch,
)

TABLE = np.arange(12, dtype=np.float32).reshape(3, 4)
WHOLE = Part(TABLE, (3, 4), (4, 1))
STORAGE = {"0": TABLE.tobytes()}


def read(path: Path) -> Checkpoint:
    """Everything that is in the file, too."""
    checkpoint = open_tensors(path)
    for name in checkpoint.names():
        try:
            checkpoint.weight(name, checkpoint.shape(name))
        except LoadError as error:
            assert "supported are F32, F16, BF16" in str(error) or "NaN" in str(error)
    return checkpoint


def read_opcodes(folder: Path, pickled: bytes) -> Checkpoint:
    return read(write_archive(folder / "weights.pt", pickled, STORAGE))


def array(checkpoint: Checkpoint, name: str) -> Any:
    return checkpoint.weight(name, checkpoint.shape(name)).array


@pytest.mark.parametrize(("dtype", "stored"), [("F32", np.float32), ("F16", np.float16), ("BF16", np.uint16)])
def test_every_floating_type_is_read_as_it_is_stored(tmp_path: Path, dtype: str, stored: type) -> None:
    write_torch(tmp_path / "weights.pt", {"a": TABLE.astype(stored)})

    weight = open_tensors(tmp_path / "weights.pt").weight("a", (3, 4))
    assert (weight.dtype, weight.array.tolist()) == (dtype, TABLE.astype(stored).tolist())


def test_buffers_of_other_types_stop_no_load(tmp_path: Path) -> None:
    others = {"ids": np.arange(3), "mask": np.ones(2, bool), "scale": np.ones(1)}
    checkpoint = open_tensors(write_torch(tmp_path / "weights.pt", {"a": TABLE, **others}))

    assert np.array_equal(array(checkpoint, "a"), TABLE)
    with pytest.raises(LoadError, match=r"`ids` of `weights.pt` is I64: supported are F32, F16, BF16"):
        array(checkpoint, "ids")


@pytest.mark.parametrize(
    ("part", "want"),
    [
        (Part(TABLE, (4, 3), (1, 4)), TABLE.T),
        (Part(TABLE, (2, 2), (4, 1), 5), TABLE[1:, 1:3]),
        (Part(TABLE, (4,), (1,), 8), TABLE[2]),
        (Part(TABLE, (3,), (4,), 3), TABLE[:, 3]),
        (Part(TABLE, (1, 12), (99, 1)), TABLE.reshape(1, 12)),
        (Part(TABLE, (0, 4), (4, 1)), TABLE[:0]),
        (Part(TABLE, (), (), 7), TABLE[1, 3]),
    ],
    ids=["transposed", "inner", "row", "column", "stride of one element", "empty", "scalar"],
)
def test_a_view_is_read_as_what_it_shows(tmp_path: Path, part: Part, want: Any) -> None:
    checkpoint = open_tensors(write_torch(tmp_path / "weights.pt", {"a": part}))

    assert array(checkpoint, "a").shape == want.shape
    assert np.array_equal(array(checkpoint, "a"), want)
    assert array(checkpoint, "a").flags.c_contiguous


def test_a_copied_view_lives_as_long_as_its_checkpoint(tmp_path: Path) -> None:
    """An engine is told an address: the same, whenever it is asked for."""
    checkpoint = open_tensors(write_torch(tmp_path / "weights.pt", {"a": Part(TABLE, (4, 3), (1, 4))}))

    assert array(checkpoint, "a") is array(checkpoint, "a")


def test_parameters_are_tensors_and_two_names_of_one_count_once(tmp_path: Path) -> None:
    made = tensor("0", WHOLE)
    checkpoint = read_opcodes(tmp_path, state_dict({"a": parameter(made), "b": made}))

    assert np.array_equal(array(checkpoint, "a"), array(checkpoint, "b"))
    assert checkpoint.size_bytes == TABLE.nbytes


def test_what_is_no_tensor_is_left_out(tmp_path: Path) -> None:
    checkpoint = read_opcodes(tmp_path, state_dict({"epoch": number(3), "a": tensor("0", WHOLE), "by": text("me")}))

    assert checkpoint.names() == ("a",)


def test_a_file_without_tensors_is_told_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"has no tensors by name: it has `model_state_dict`, `epoch`"):
        read_opcodes(tmp_path, state_dict({"model_state_dict": STATE_DICT, "epoch": number(1)}))


# What is refused.


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (Part(TABLE, (4, 4), (4, 1)), r"\[4, 4\] with strides \[4, 1\] from 0 of a storage of 12"),
        (Part(TABLE, (3, 4), (4, 1), 1), "from 1 of a storage of 12"),
        (Part(TABLE, (3, 4), (5, 1)), r"with strides \[5, 1\]"),
        (Part(TABLE, (3, 4), (4, -1), 4), r"with strides \[4, -1\]"),
        (Part(TABLE, (3, -4), (4, 1)), r"\[3, -4\]"),
        (Part(TABLE, (3, 4), (4, 1), -1), "from -1"),
        (Part(TABLE, (3, 4), (1,)), r"with strides \[1\]"),
        (Part(TABLE, (10**9, 10**9), (0, 0)), "of a storage of 12"),
        (Part(TABLE, (0, 4), (4, 1), 13), "from 13 of a storage of 12"),
        (Part(TABLE, (1,) * 9, (1,) * 9), "of a storage of 12"),
    ],
)
def test_a_view_that_its_storage_does_not_hold_is_named(tmp_path: Path, part: Part, why: str) -> None:
    with pytest.raises(LoadError, match=rf"`a` of .*weights.pt` is .*{why}"):
        open_tensors(write_torch(tmp_path / "weights.pt", {"a": part}))


@pytest.mark.parametrize("data", [TABLE.tobytes()[:-1], TABLE.tobytes() + b"\0", b""])
def test_a_storage_of_another_size_is_named_with_both(tmp_path: Path, data: bytes) -> None:
    path = write_archive(tmp_path / "weights.pt", state_dict({"a": tensor("0", WHOLE)}), {"0": data})

    with pytest.raises(LoadError, match=rf"storage `0` of `a` in .* has {len(data)} bytes, 12 of F32 is 48"):
        open_tensors(path)


@pytest.mark.parametrize("key", ["1", "../data.pkl", ""])
def test_a_storage_that_is_not_there_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(LoadError, match=rf"in the storage `{key}`, which the file does not have"):
        read_opcodes(tmp_path, state_dict({"a": tensor(key, WHOLE)}))


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    pickled = state_dict({"a": tensor("0", WHOLE)})
    path = write_archive(tmp_path / "weights.pt", pickled, STORAGE, compression=zipfile.ZIP_DEFLATED)

    with pytest.raises(LoadError, match=r"data.pkl` in .* is compressed or encrypted"):
        open_tensors(path)


def test_encrypted_entries_are_refused(tmp_path: Path) -> None:
    path = write_torch(tmp_path / "weights.pt", {"a": TABLE})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)

    with pytest.raises(LoadError, match=r"data.pkl` in .* is compressed or encrypted"):
        open_tensors(path)


def test_the_format_before_torch_1_6_is_named(tmp_path: Path) -> None:
    old = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, protocol=2)
    (tmp_path / "weights.pt").write_bytes(old + bytes(100))

    with pytest.raises(LoadError, match=r"is of the format before torch 1\.6"):
        open_tensors(tmp_path / "weights.pt")


@pytest.mark.parametrize("kept", [1, 10, 100, 500, -1, -30])
def test_a_file_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    path = write_torch(tmp_path / "weights.pt", {"a": TABLE})
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(LoadError, match="is not a zip as torch writes them"):
        open_tensors(path)


def test_an_altered_pickle_is_noticed(tmp_path: Path) -> None:
    path = write_torch(tmp_path / "weights.pt", {"weight": TABLE})
    path.write_bytes(path.read_bytes().replace(b"weight", b"weighs"))

    with pytest.raises(LoadError, match="has the checksum"):
        open_tensors(path)


def test_another_byte_order_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        archive.writestr("weights/data.pkl", state_dict({"a": tensor("0", WHOLE)}))
        archive.writestr("weights/byteorder", b"big")
        archive.writestr("weights/data/0", TABLE.tobytes())

    with pytest.raises(LoadError, match=r"in byte order b'big': supported is b'little'"):
        open_tensors(tmp_path / "weights.pt")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write_torch(tmp_path / "weights.pt", {"a": TABLE})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("weights/data/0", bytes(48))

    with pytest.raises(LoadError, match="5 entries under 4 names"):
        open_tensors(path)


def test_a_zip_of_something_else_is_told_what_it_has(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        archive.writestr("word/document.xml", b"<xml/>")

    with pytest.raises(LoadError, match=r"has 0 entries `\*/data.pkl`, want one: it has `word/document.xml`"):
        open_tensors(tmp_path / "weights.pt")


# What would run, if anything did.


class Calls:
    """Pickles to a call of `function` with `arguments`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


class SetsState:
    def __init__(self, state: object) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return OrderedDict, (), self.state


ATTACKS: dict[str, tuple[object, str]] = {
    "system": (Calls(os.system, "true"), r"names `posix.system`"),
    "eval": (Calls(eval, "1"), r"names `(__builtin__|builtins).eval`"),
    "popen": (Calls(subprocess.Popen, ["true"]), r"names `(subprocess|commands).Popen`"),
    "nested": (Calls(Calls, Calls(os.system, "true")), r"names `.*(Calls|_reconstructor|system)`"),
    "getattr": (Calls(getattr, OrderedDict, "fromkeys"), r"names `(__builtin__|builtins).getattr`"),
    "state": (SetsState({"items": 1}), "sets a state"),
    "dict state": (SetsState({"__class__": 1}), "sets a state"),
    "slots": (SetsState((None, {"items": 1})), "sets a state"),
    "arguments": (Calls(OrderedDict, [["a", 1]]), "with what torch does not give it"),
    "loads": (Calls(pickle.loads, b"cposix\nsystem\n"), r"names `_?pickle.loads`|opcode"),
    "bytes": (b"abc", r"names `_codecs.encode`|opcode"),
    "set": ({1, 2}, r"opcode|names `(__builtin__|builtins).set`"),
    "instance": (io.BytesIO(b"a"), r"names|opcode"),
    "key": ({1: 2}, "sets something other than a text's value"),
    "large number": (2**100, "a number of 13 bytes"),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_pickle_that_asks_for_more_is_refused_by_name(tmp_path: Path, name: str, protocol: int) -> None:
    made, why = ATTACKS[name]
    pickled = pickle.dumps({"a": made}, protocol) if name != "nested" else pickle.dumps(made, protocol)

    with pytest.raises(LoadError, match=why) as refused:
        read_opcodes(tmp_path, pickled)
    assert "nothing of it was run" in (refused.value.hint or "")


@pytest.mark.parametrize("protocol", [2, 4])
def test_what_a_pickle_would_do_is_not_done(tmp_path: Path, protocol: int) -> None:
    attack = pickle.dumps({"a": Calls(os.mkdir, str(tmp_path / "was here"))}, protocol)
    with pytest.raises(LoadError, match=r"names `posix.mkdir`"):
        read_opcodes(tmp_path, attack)
    assert not (tmp_path / "was here").exists()

    pickle.loads(attack)  # noqa: S301
    assert (tmp_path / "was here").exists()


def test_the_machine_knows_no_way_to_run_anything() -> None:
    tree = ast.parse(Path(pickle_machine.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}

    assert imported == {"struct", "collections.abc", "dataclasses", "typing", "sie_server.models.calls"}
    assert not called & {"getattr", "setattr", "eval", "exec", "compile", "__import__", "globals", "vars", "open"}


OPCODES: dict[str, tuple[bytes, str]] = {
    "a dotted name": (
        b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
        "names `torch._utils._rebuild_tensor_v2.__",
    ),
    "a name split elsewhere": (b"ctorch\n_utils._rebuild_tensor_v2\n)R.", "calls `torch._utils._rebuild_tensor_v2`"),
    "a storage called": (b"ctorch\nFloatStorage\n)R.", "calls `torch.FloatStorage`"),
    "a text called": (text("os.system") + b")R.", "calls at byte .* what has no name"),
    "a value called": (STATE_DICT + b")R.", "what has no name"),
    "a storage that is none": (text("storage") + b"Q.", "no storage"),
    "a storage of a function": (
        b"(" + text("storage") + b"ctorch._utils\n_rebuild_tensor_v2\n" + text("0") + text("cpu") + number(1) + b"tQ.",
        "no storage",
    ),
    "a storage of true": (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"\x88tQ.",
        "no storage",
    ),
    "a tensor of text": (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + text("0") + number(0) + numbers([1]) + numbers([1]) + b"\x89NtR.",
        "calls `torch._utils._rebuild_tensor_v2`",
    ),
    "a parameter of a parameter's name": (b"ctorch._utils\n_rebuild_parameter\n(\x88\x88NtR.", "calls `torch._utils"),
    "a memo of another": (b"h\x07.", "recalls value 7, which it has not stored"),
    "a memo from nothing": (b"q\x00.", "takes a value"),
    "a memo of a mark": (b"(q\x00.", "takes a value"),
    "a run without a start": (b"K\x01t.", "ends a run"),
    "nothing": (b".", "with 0 values"),
    "two values": (b"NN.", "with 2 values"),
    "a mark": (b"(.", "holds a _Mark|with"),
    "a state of a dict": (b"}}b.", "sets a state"),
    "a tensor's state": (tensor("0", WHOLE) + b"}b.", "sets a state"),
    "an uneven dict": (b"}(" + text("a") + b"u.", "sets something other"),
    "a dict of a tuple": (b")(" + text("a") + b"Nu.", "sets something other"),
    "a list of a dict": (b"}Na.", "appends to what is no list"),
    "an extension": (b"\x82\x01.", "opcode 0x82"),
    "an instance": (b"(iposix\nsystem\n.", "opcode 0x69"),
    "an object": (b"(cposix\nsystem\no.", "names `posix.system`"),
    "a new object": (STATE_DICT + b")\x81.", "opcode 0x81"),
    "a name off the stack": (text("posix") + text("system") + b"\x93.", "names `posix.system`"),
    "a name of numbers": (b"K\x01K\x02\x93.", "by what are no texts"),
    "a persistent text": (b"P1\n.", "opcode 0x50"),
    "protocol 6": (b"\x80\x06N.", "is of protocol 6"),
    "a text past the end": (b"X\xff\xff\xff\xffa.", "is cut short: 4,294,967,295 bytes"),
    "a text of 2**63": (b"\x8d" + struct.pack("<Q", 2**63) + b"a.", "is cut short"),
    "a name without an end": (b"cposix", "is cut short"),
    "bytes that are no text": (b"X\x02\0\0\0\xff\xfe.", "not UTF-8"),
    "half a character": (b"X\x03\0\0\0\xed\xa0\x80.", "not UTF-8"),
    "more after the end": (b"N.N.", "ends at byte"),
}


@pytest.mark.parametrize("name", OPCODES)
def test_opcodes_that_torch_does_not_write_are_refused(tmp_path: Path, name: str) -> None:
    opcodes, why = OPCODES[name]

    with pytest.raises(LoadError, match=why):
        read_opcodes(tmp_path, BEGIN + opcodes)


def test_a_dict_in_itself_is_no_trouble(tmp_path: Path) -> None:
    pickled = BEGIN + b"}q\x00(" + text("a") + tensor("0", WHOLE) + text("self") + b"h\x00u" + END

    assert read_opcodes(tmp_path, pickled).names() == ("a",)


@pytest.mark.parametrize("deeper", [b"\x85", b"q\x00h\x00\x86"], ids=["one in one", "each twice"])
def test_nesting_without_end_is_no_trouble(tmp_path: Path, deeper: bytes) -> None:
    nested = b")" + deeper * 200_000

    assert read_opcodes(tmp_path, state_dict({"a": tensor("0", WHOLE), "b": nested})).names() == ("a",)


def test_a_pickle_that_never_seems_to_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="takes more than 1,000,000 steps"):
        read_opcodes(tmp_path, BEGIN + b"\x95" + bytes(8) + b"N\x85" * 510_000 + END)


# Anything at all.

MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GOOD = state_dict({"a": tensor("0", WHOLE), "b": parameter(tensor("0", Part(TABLE, (4, 3), (1, 4))))})
PIECES = st.one_of(
    st.sampled_from(
        [
            *(bytes([code]) for code in b"()]}NQRbtausqhjrc.\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x93\x94"),
            *(STATE_DICT, tensor("0", WHOLE), b"cposix\nsystem\n", b"ctorch\nFloatStorage\n", text("0"), number(4)),
            *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n", b"q\x00", b"h\x00"),
        ]
    ),
    st.binary(max_size=3),
)


@MANY
@given(pieces=st.lists(PIECES, max_size=40))
def test_any_opcodes_are_read_or_refused(tmp_path: Path, pieces: list[bytes]) -> None:
    with contextlib.suppress(LoadError):
        read_opcodes(tmp_path, BEGIN + b"".join(pieces) + END)


@MANY
@given(data=st.data())
def test_a_damaged_pickle_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOOD) - 1))
    damaged = GOOD[:at] + data.draw(st.binary(max_size=5)) + GOOD[at + data.draw(st.integers(0, 3)) :]
    with contextlib.suppress(LoadError):
        read_opcodes(tmp_path, damaged)


@MANY
@given(data=st.data())
def test_a_damaged_archive_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = write_archive(tmp_path / "weights.pt", GOOD, STORAGE)
    whole = path.read_bytes()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, len(whole) - 1), st.integers(len(whole) - 500, len(whole) - 1)))
        whole = whole[:at] + data.draw(st.binary(max_size=5)) + whole[at + data.draw(st.integers(0, 5)) :]
    path.write_bytes(whole)
    with contextlib.suppress(LoadError):
        read(path)
    path.unlink()


@MANY
@given(data=st.binary(max_size=400), prefix=st.sampled_from([b"", b"PK\3\4", b"\x80\x02", b"PK\5\6"]))
def test_any_bytes_are_refused(tmp_path: Path, data: bytes, prefix: bytes) -> None:
    (tmp_path / "weights.pt").write_bytes(prefix + data)

    with pytest.raises(LoadError):
        open_tensors(tmp_path / "weights.pt")
