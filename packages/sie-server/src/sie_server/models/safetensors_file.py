"""The header of a safetensors file, read as data and checked against the file before anything trusts it.

Follows the format as safetensors 0.6 documents it: the header's length in 8 bytes, the header in JSON, the
data.
"""

import math
import mmap
from pathlib import Path
from typing import Final

import msgspec

from sie_server.models.calls import LoadError
from sie_server.models.stored import ITEM_BYTES, MAX_RANK, Stored

_LENGTH_BYTES: Final = 8
_MAX_HEADER_BYTES: Final = 100_000_000


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def read_safetensors(path: Path, mapped: mmap.mmap) -> dict[str, Stored]:
    """The tensors of a mapped file by name; no data is read.

    Raises:
        LoadError: it is no safetensors file, or its header contradicts it.
    """
    if len(mapped) <= _LENGTH_BYTES:
        raise LoadError(f"`{path}` has {len(mapped)} bytes: not a safetensors file")
    length = int.from_bytes(mapped[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    if length > _MAX_HEADER_BYTES or start > len(mapped):
        raise LoadError(f"the header of `{path}` says it has {length:,} bytes, the file has {len(mapped):,}")
    header = _decode(path, mapped[_LENGTH_BYTES:start])
    for name, entry in header.items():
        _check(path, name, entry)
    want = start + max((entry.data_offsets[1] for entry in header.values()), default=0)
    if want != len(mapped):
        raise LoadError(
            f"`{path}` has {len(mapped):,} bytes, its header describes {want:,}",
            hint="the file is cut short or was altered: fetch it again",
        )
    return {name: Stored(entry.dtype, entry.shape, start + entry.data_offsets[0]) for name, entry in header.items()}


def _decode(path: Path, data: bytes) -> dict[str, _Entry]:
    try:
        raw = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        return {name: msgspec.json.decode(entry, type=_Entry) for name, entry in raw.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LoadError(f"the header of `{path}` is not that of a safetensors file: {error}") from error


def _check(path: Path, name: str, entry: _Entry) -> None:
    first, end = entry.data_offsets
    if first < 0 or end < first or len(entry.shape) > MAX_RANK or any(size < 0 for size in entry.shape):
        raise LoadError(f"`{name}` of `{path}` has the shape {list(entry.shape)} at bytes {first:,} to {end:,}")
    if entry.dtype not in ITEM_BYTES:
        return
    want = math.prod(entry.shape) * ITEM_BYTES[entry.dtype]
    if end - first != want:
        raise LoadError(
            f"`{name}` of `{path}` has {end - first:,} bytes, {list(entry.shape)} of {entry.dtype} is {want:,}"
        )
