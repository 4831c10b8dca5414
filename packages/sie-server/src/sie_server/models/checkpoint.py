"""A snapshot's weights by name, mapped into memory: nothing is copied before the graph needs it.

Reads `model.safetensors`, or the shards that `model.safetensors.index.json` names. A header is read
as data and checked against the file before anything trusts it. Not here: what the tensors mean
(`backbones`), pickled checkpoints (nothing from a snapshot is ever executed).
"""

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import LoadError

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"

_STORED_AS: Final[Mapping[str, type[np.generic]]] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_HEADER_LENGTH_BYTES: Final = 8
_MAX_HEADER_BYTES: Final = 100_000_000


@dataclass(frozen=True)
class Weight:
    """One tensor, still in the map.

    Attributes:
        dtype: F32, F16 or BF16.
        array: float32, float16, or the bits of bfloat16 as uint16; a view, good while the checkpoint is.
    """

    dtype: str
    array: NDArray[Any]


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Checkpoint:
    """The tensors of one snapshot.

    The maps are copy-on-write: OpenVINO refuses read-only arrays, and nothing ever writes to them.
    Whoever was handed a view must keep the checkpoint alive.
    """

    def __init__(self, files: Mapping[Path, mmap.mmap], entries: Mapping[str, tuple[Path, int, _Entry]]) -> None:
        self._files = files
        self._entries = entries

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def weight(self, name: str, shape: tuple[int, ...]) -> Weight:
        """The tensor of that name.

        Raises:
            LoadError: it is missing, has another shape, or is of a type that is no weight.
        """
        if name not in self._entries:
            files = ", ".join(sorted(path.name for path in self._files))
            raise LoadError(
                f"`{name}` is not in `{files}`, which has {len(self._entries)} tensors",
                hint="`config.json` and the weights are of two different models",
            )
        path, start, entry = self._entries[name]
        if entry.shape != shape:
            raise LoadError(
                f"`{name}` of `{path.name}` is {list(entry.shape)}, `config.json` makes it {list(shape)}",
                hint="`config.json` and the weights are of two different models",
            )
        if entry.dtype not in _STORED_AS:
            raise LoadError(f"`{name}` of `{path.name}` is {entry.dtype}: supported are {', '.join(_STORED_AS)}")
        flat = np.frombuffer(
            self._files[path], _STORED_AS[entry.dtype], count=math.prod(shape), offset=start + entry.data_offsets[0]
        )
        return Weight(entry.dtype, flat.reshape(shape))

    def forget_pages(self) -> None:
        """Hands the pages read so far back to the kernel; they are read again when they are touched."""
        for mapped in self._files.values():
            mapped.madvise(mmap.MADV_DONTNEED)


def open_checkpoint(folder: Path) -> Checkpoint:
    """Maps the weights in `folder`.

    Raises:
        LoadError: no safetensors there, a shard missing, a header that contradicts its file.
    """
    files: dict[Path, mmap.mmap] = {}
    entries: dict[str, tuple[Path, int, _Entry]] = {}
    for path in _weight_files(folder):
        files[path] = _map(path)
        start, header = _read_header(path, files[path])
        entries.update({name: (path, start, entry) for name, entry in header.items()})
    return Checkpoint(files, entries)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        have = ", ".join(f"`{path.name}`" for path in sorted(folder.iterdir())) or "nothing"
        raise LoadError(f"no `{SINGLE}` and no `{INDEX}` in `{folder}`: it has {have}")
    try:
        index = msgspec.json.decode((folder / INDEX).read_bytes(), type=dict[str, Any])
        names = sorted(set(msgspec.convert(index.get("weight_map"), dict[str, str]).values()))
    except msgspec.MsgspecError as error:
        raise LoadError(f"`{INDEX}` of `{folder}` is not an index of shards: {error}") from error
    for name in names:
        if "/" in name or not (folder / name).is_file():
            raise LoadError(f"`{INDEX}` names the shard `{name}`, which is not in `{folder}`")
    return [folder / name for name in names]


def _map(path: Path) -> mmap.mmap:
    if path.stat().st_size <= _HEADER_LENGTH_BYTES:
        raise LoadError(f"`{path}` has {path.stat().st_size} bytes: not a safetensors file")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _read_header(path: Path, mapped: mmap.mmap) -> tuple[int, dict[str, _Entry]]:
    """Where the data starts, and the tensors; every one lies wholly inside the file."""
    length = int.from_bytes(mapped[:_HEADER_LENGTH_BYTES], "little")
    start = _HEADER_LENGTH_BYTES + length
    if length > _MAX_HEADER_BYTES or start > len(mapped):
        raise LoadError(f"the header of `{path}` says it has {length:,} bytes, the file has {len(mapped):,}")
    try:
        raw = msgspec.json.decode(mapped[_HEADER_LENGTH_BYTES:start], type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        header = {name: msgspec.json.decode(entry, type=_Entry) for name, entry in raw.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LoadError(f"the header of `{path}` is not that of a safetensors file: {error}") from error
    for name, entry in header.items():
        _check_entry(path, name, entry)
    want = start + max((entry.data_offsets[1] for entry in header.values()), default=0)
    if want != len(mapped):
        raise LoadError(
            f"`{path}` has {len(mapped):,} bytes, its header describes {want:,}",
            hint="the file is cut short or was altered: fetch it again",
        )
    return start, header


def _check_entry(path: Path, name: str, entry: _Entry) -> None:
    first, end = entry.data_offsets
    if first < 0 or end < first or any(size < 0 for size in entry.shape):
        raise LoadError(f"`{name}` of `{path}` has the shape {list(entry.shape)} at bytes {first:,} to {end:,}")
    if entry.dtype not in _STORED_AS:
        return
    want = math.prod(entry.shape) * np.dtype(_STORED_AS[entry.dtype]).itemsize
    if end - first != want:
        raise LoadError(
            f"`{name}` of `{path}` has {end - first:,} bytes, {list(entry.shape)} of {entry.dtype} is {want:,}"
        )
