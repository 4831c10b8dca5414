"""A snapshot's weights by name, mapped into memory: nothing is copied before the graph needs it.

Reads safetensors (`model.safetensors`, or the shards of its index) and, where a folder has none, what torch
pickled (`pytorch_model.bin`, or its shards), without running anything of it. Not here: what the tensors mean
(`backbones`), and how the files are laid out (`safetensors_file`, `pickled`).
"""

import mmap
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from sie_server.models.calls import LoadError, Precision
from sie_server.models.pickled import read_pickled
from sie_server.models.predicting import WeightsBytes
from sie_server.models.safetensors_file import read_safetensors
from sie_server.models.stored import Stored, contiguous, map_file

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
PICKLED: Final = "pytorch_model.bin"
PICKLED_INDEX: Final = "pytorch_model.bin.index.json"

_STORED_AS: Final[Mapping[str, type[np.generic]]] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_INTEGERS: Final[Mapping[str, type[np.integer[Any]]]] = {"I64": np.int64, "I32": np.int32}
_COMPUTED_BYTES: Final[Mapping[Precision, int]] = {"f32": 4, "bf16": 2, "f16": 2}
_TABLE: Final = re.compile(r"(?:^|[._])(?:embeddings?|embed_tokens|embed_positions|wte|wpe|shared)(?:\.weight)?$")
"""Ends the name of every table that is looked up in and not multiplied with, in all families we serve."""

_INFINITY: Final[Mapping[str, int]] = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}
_SIGN: Final[Mapping[str, int]] = {"F32": 1 << 31, "F16": 1 << 15, "BF16": 1 << 15}
_SCANNED_BYTES: Final = 256 * 2**10
_FORGOTTEN_BYTES: Final = 4 * 2**20

_Reader = Callable[[Path, mmap.mmap], dict[str, Stored]]


@dataclass(frozen=True)
class Weight:
    """One tensor, still in the map.

    Attributes:
        dtype: F32, F16 or BF16.
        array: float32, float16, or the bits of bfloat16 as uint16, its elements one after another; a view, good
            while the checkpoint is.
    """

    dtype: str
    array: NDArray[Any]

    def floats(self) -> NDArray[np.float32]:
        """A copy in float32."""
        if self.dtype == "BF16":
            return (self.array.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return np.array(self.array, np.float32)


class Checkpoint:
    """The tensors of one snapshot.

    The maps are copy-on-write: OpenVINO refuses read-only arrays, and nothing ever writes to them.
    Whoever was handed a view must keep the checkpoint alive.
    """

    def __init__(self, files: Mapping[Path, mmap.mmap], tensors: Mapping[str, tuple[Path, Stored]]) -> None:
        self._files = files
        self._tensors = tensors
        self._copies: dict[str, NDArray[Any]] = {}
        self._finite: set[str] = set()

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def names(self) -> tuple[str, ...]:
        """Of every tensor, in the files' order."""
        return tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """As stored; raises `LoadError` when there is no such tensor."""
        return self._find(name)[1].shape

    @property
    def size_bytes(self) -> int:
        """Of the tensors' data as stored; one that stands under several names counts once."""
        return sum(stored.size_bytes for _, stored in set(self._tensors.values()))

    def predicted(self, precision: Precision) -> WeightsBytes:
        """What a model of it will take when its matrices are multiplied in `precision`.

        A table that is also multiplied with, under another name (a language model's head), is in both.
        """
        tables: set[tuple[Path, Stored]] = set()
        matrices: set[tuple[Path, Stored]] = set()
        others: set[tuple[Path, Stored]] = set()
        for name, one in self._tensors.items():
            if one[1].dtype in _STORED_AS:
                (others if len(one[1].shape) < 2 else tables if _is_table(name, one[1]) else matrices).add(one)
        return WeightsBytes(
            computed=sum(stored.elements for _, stored in matrices) * _COMPUTED_BYTES[precision]
            + sum(stored.elements for _, stored in others) * _COMPUTED_BYTES["f32"],
            mapped=sum(stored.size_bytes for _, stored in tables),
            copied=sum(stored.size_bytes for _, stored in tables | matrices | others if not stored.is_usable),
            converted=sum(
                stored.elements * _COMPUTED_BYTES["f32"]
                for _, stored in matrices
                if stored.dtype != "F32" and (stored.dtype, precision) != ("BF16", "bf16")
            ),
        )

    def weight(self, name: str, shape: tuple[int, ...]) -> Weight:
        """The tensor of that name, all of its values finite: looking costs about 0.2 s a GB.

        Raises:
            LoadError: as `unseen` does, or it has a NaN or infinity.
        """
        found = self.unseen(name, shape)
        self._look(name, lambda: False)
        return found

    def unseen(self, name: str, shape: tuple[int, ...]) -> Weight:
        """The tensor of that name, its values not looked at: `looking` must see to that before anything is answered.

        Raises:
            LoadError: it is missing, has another shape, or is of a type that is no weight.
        """
        path, stored = self._find(name)
        if stored.shape != shape:
            raise LoadError(
                f"`{name}` of `{path.name}` is {list(stored.shape)}, `config.json` makes it {list(shape)}",
                hint="`config.json` and the weights are of two different models",
            )
        if stored.dtype not in _STORED_AS:
            raise LoadError(f"`{name}` of `{path.name}` is {stored.dtype}: supported are {', '.join(_STORED_AS)}")
        return Weight(stored.dtype, self._array(name, path, stored))

    @contextmanager
    def looking(self, names: Iterable[str]) -> Iterator[None]:
        """Looks at the values of these tensors, in a thread of its own, while the caller does something else.

        Packing weights keeps little more than one core busy, and looking takes a quarter of its time.

        Raises:
            LoadError: a value is not finite. Raised when the caller has done what it does; what that raises goes first.
        """
        stop = threading.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="look") as pool:
            looked = pool.submit(self._look_at_all, names, stop.is_set)
            try:
                yield
            except BaseException:
                stop.set()
                raise
            looked.result()

    def integers(self, name: str, shape: tuple[int, ...]) -> NDArray[np.integer[Any]]:
        """A tensor of indices; a view.

        Raises:
            LoadError: it is missing, has another shape, or is of a type that is none for indices.
        """
        path, stored = self._find(name)
        if stored.shape != shape or stored.dtype not in _INTEGERS or stored.strides is not None:
            said = f"`{name}` of `{path.name}` is {stored.dtype} {list(stored.shape)}"
            raise LoadError(f"{said}: want {' or '.join(_INTEGERS)} {list(shape)}")
        return np.frombuffer(self._files[path], _INTEGERS[stored.dtype], count=stored.elements, offset=stored.start)

    def forget_pages(self) -> None:
        """Hands the pages read so far back to the kernel; they are read again when they are touched."""
        for mapped in self._files.values():
            mapped.madvise(mmap.MADV_DONTNEED)

    def _find(self, name: str) -> tuple[Path, Stored]:
        if name not in self._tensors:
            files = ", ".join(sorted(path.name for path in self._files))
            raise LoadError(
                f"`{name}` is not in `{files}`, which has {len(self._tensors)} tensors",
                hint="`config.json` and the weights are of two different models",
            )
        return self._tensors[name]

    def _array(self, name: str, path: Path, stored: Stored) -> NDArray[Any]:
        kind = np.dtype(_STORED_AS[stored.dtype])
        strides = stored.strides or contiguous(stored.shape)
        last = sum((size - 1) * stride for size, stride in zip(stored.shape, strides, strict=True))
        count = last + 1 if stored.elements else 0
        flat = np.frombuffer(self._files[path], kind, count=count, offset=stored.start)
        if stored.is_usable:
            return flat.reshape(stored.shape)
        if name not in self._copies:
            view = as_strided(flat, stored.shape, [stride * kind.itemsize for stride in strides], writeable=False)
            self._copies[name] = np.require(view, requirements=["C", "A", "W", "O"])
        return self._copies[name]

    def _look_at_all(self, names: Iterable[str], stopped: Callable[[], bool]) -> None:
        for name in names:
            self._look(name, stopped)

    def _look(self, name: str, stopped: Callable[[], bool]) -> None:
        """Once. Piece by piece, handing back what was read: else the whole checkpoint would be in memory at once."""
        if name in self._finite:
            return
        path, stored = self._find(name)
        array = self._array(name, path, stored)
        flat = array.reshape(-1)
        step = _SCANNED_BYTES // flat.itemsize
        forgotten = 0
        for start in range(0, len(flat), step):
            if stopped():
                return
            if not _is_finite(flat[start : start + step], stored.dtype):
                at = start + _first_not_finite(flat[start : start + step], stored.dtype)
                index = [int(axis) for axis in np.unravel_index(at, array.shape)]
                raise LoadError(
                    f"`{name}` of `{path.name}` is NaN or infinite at {index}: want finite numbers",
                    hint="the checkpoint was damaged when it was trained or saved: take another revision",
                )
            read = stored.start + (start + step) * flat.itemsize
            if name not in self._copies and read - forgotten >= _FORGOTTEN_BYTES:
                forgotten = self._forget(path, max(stored.start, forgotten), read)
        self._finite.add(name)

    def _forget(self, path: Path, first: int, end: int) -> int:
        """Hands back the pages from one byte to another; where the next ones start."""
        first = first // mmap.PAGESIZE * mmap.PAGESIZE
        end = min(end, len(self._files[path])) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > first:
            self._files[path].madvise(mmap.MADV_DONTNEED, first, end - first)
        return end


def open_checkpoint(folder: Path) -> Checkpoint:
    """Maps the weights in `folder`.

    Raises:
        LoadError: no weights there, a shard missing, a file that is not what it says it is.
    """
    return _open(_weight_files(folder))


def joined(checkpoint: Checkpoint, beside: Mapping[str, Checkpoint]) -> Checkpoint:
    """One checkpoint of several: the tensors of those beside it have their key before their names."""
    files, tensors = dict(checkpoint._files), dict(checkpoint._tensors)
    for prefix, other in beside.items():
        files.update(other._files)
        tensors.update({prefix + name: found for name, found in other._tensors.items()})
    return Checkpoint(files, tensors)


def open_tensors(path: Path) -> Checkpoint:
    """Maps one named file: `sparse_linear.pt`, `2_Dense/model.safetensors`, an adapter's weights.

    Raises:
        LoadError: it is not there, or is not what it says it is.
    """
    return _open([path])


def _open(paths: list[Path]) -> Checkpoint:
    files: dict[Path, mmap.mmap] = {}
    tensors: dict[str, tuple[Path, Stored]] = {}
    for path in paths:
        files[path] = map_file(path)
        read: _Reader = read_safetensors if path.suffix == ".safetensors" else read_pickled
        for name, stored in read(path, files[path]).items():
            if name in tensors:
                raise LoadError(f"`{name}` is in `{tensors[name][0].name}` and in `{path.name}`: want it once")
            tensors[name] = (path, stored)
    return Checkpoint(files, tensors)


def _weight_files(folder: Path) -> list[Path]:
    """The files to read: safetensors before pickled ones, a single file before shards."""
    for single, index in ((SINGLE, INDEX), (PICKLED, PICKLED_INDEX)):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return _shards(folder, index)
    have = ", ".join(f"`{path.name}`" for path in sorted(folder.iterdir())) or "nothing"
    raise LoadError(f"no `{SINGLE}` and no `{PICKLED}`, whole or in shards, in `{folder}`: it has {have}")


def _shards(folder: Path, index: str) -> list[Path]:
    try:
        content = msgspec.json.decode((folder / index).read_bytes(), type=dict[str, Any])
        names = sorted(set(msgspec.convert(content.get("weight_map"), dict[str, str]).values()))
    except msgspec.MsgspecError as error:
        raise LoadError(f"`{index}` of `{folder}` is not an index of shards: {error}") from error
    for name in names:
        if "/" in name or not (folder / name).is_file():
            raise LoadError(f"`{index}` names the shard `{name}`, which is not in `{folder}`")
    return [folder / name for name in names]


def _is_table(name: str, stored: Stored) -> bool:
    return len(stored.shape) == 2 and _TABLE.search(name) is not None


def _is_finite(flat: NDArray[Any], dtype: str) -> bool:
    """By the largest bits of either sign, which needs no copy and one instruction for many elements.

    The bits of a finite number are below those of the infinity of its sign, NaNs above.
    """
    unsigned = flat.view(f"<u{flat.itemsize}")
    signed = flat.view(f"<i{flat.itemsize}")
    largest, smallest = _INFINITY[dtype], _INFINITY[dtype] | _SIGN[dtype]
    return bool(signed.max() < largest and unsigned.max() < smallest)


def _first_not_finite(flat: NDArray[Any], dtype: str) -> int:
    bits = flat.view(f"<u{flat.itemsize}") & (_SIGN[dtype] - 1)
    return int(np.argmax(bits >= _INFINITY[dtype]))
