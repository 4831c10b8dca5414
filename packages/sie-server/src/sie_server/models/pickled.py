"""The tensors of a `pytorch_model.bin` or `.pt`: a zip of storages, stored as they are, and one pickle of their shapes.

Read without torch and without running anything: `pickle_machine` reads the pickle, and every view that it
describes is checked against the storage it is of. Files of torch before 1.6, which are no zips, are refused.

Follows torch 2.13 `serialization.py` (`_save`) and `caffe2/serialize/inline_container.cc` (the archive).
"""

import mmap
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from sie_server.models.calls import LoadError
from sie_server.models.pickle_machine import TensorView, read_pickle
from sie_server.models.stored import ITEM_BYTES, MAX_RANK, Stored, contiguous

_PICKLE: Final = "/data.pkl"
_MAX_PICKLE_BYTES: Final = 32 * 2**20
_OLD: Final = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file of torch before 1.6 begins: a pickle of its magic number."""

_LOCAL_HEADER: Final = struct.Struct("<4s22sHH")
_ENCRYPTED: Final = 1


@dataclass(frozen=True)
class _Record:
    """One entry of the archive: where its bytes are."""

    start: int
    size_bytes: int
    crc: int


def read_pickled(path: Path, mapped: mmap.mmap) -> dict[str, Stored]:
    """The tensors of a mapped file by name; no data is read. What else it holds by name is left out.

    Raises:
        LoadError: it is no such file, is cut short, contradicts itself, or names what a checkpoint does not need.
    """
    if mapped[: len(_OLD)] == _OLD:
        raise LoadError(
            f"`{path}` is of the format before torch 1.6, which is not a zip",
            hint="load it with torch where it is trusted, and save it as safetensors",
        )
    records = _records(path, mapped)
    archive = _archive(path, records)
    _check_byte_order(path, mapped, records.get(f"{archive}/byteorder"))
    value = read_pickle(_pickle(path, mapped, records[archive + _PICKLE]), path.name)
    if not isinstance(value, dict):
        raise LoadError(f"`{path}` holds a {type(value).__name__}: want tensors by name")
    tensors = {name: view for name, view in value.items() if isinstance(view, TensorView)}
    if not tensors:
        have = ", ".join(f"`{name}`" for name in list(value)[:8]) or "nothing"
        raise LoadError(f"`{path}` has no tensors by name: it has {have}")
    return {
        name: _stored(path, name, view, records.get(f"{archive}/data/{view.storage.key}"))
        for name, view in tensors.items()
    }


def _records(path: Path, mapped: mmap.mmap) -> dict[str, _Record]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, OSError, struct.error) as error:
        raise LoadError(
            f"`{path}` of {len(mapped):,} bytes is not a zip as torch writes them: {error}",
            hint="the file is cut short or was altered: fetch it again",
        ) from error
    records = {entry.filename: _record(path, mapped, entry) for entry in entries}
    if len(records) != len(entries):
        raise LoadError(f"`{path}` has {len(entries)} entries under {len(records)} names: want each once")
    return records


def _record(path: Path, mapped: mmap.mmap, entry: zipfile.ZipInfo) -> _Record:
    def refuse(why: str) -> NoReturn:
        raise LoadError(f"`{entry.filename}` in `{path}` {why}")

    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
        refuse("is compressed or encrypted: torch stores its entries as they are")
    if entry.file_size != entry.compress_size:
        refuse(f"has {entry.compress_size:,} bytes, and {entry.file_size:,} of them unpacked, yet is not compressed")
    header = mapped[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size] if entry.header_offset >= 0 else b""
    if len(header) != _LOCAL_HEADER.size:
        refuse(f"starts at byte {entry.header_offset:,}, the file has {len(mapped):,}")
    magic, _, name, extra = _LOCAL_HEADER.unpack(header)
    start = entry.header_offset + _LOCAL_HEADER.size + name + extra
    if magic != b"PK\3\4" or start + entry.file_size > len(mapped):
        refuse(f"has {entry.file_size:,} bytes from {start:,}, the file has {len(mapped):,}")
    return _Record(start, entry.file_size, entry.CRC)


def _archive(path: Path, records: Mapping[str, _Record]) -> str:
    """The folder that all entries are in: torch names it after the file."""
    found = [name.removesuffix(_PICKLE) for name in records if name.endswith(_PICKLE) and name.count("/") == 1]
    if len(found) != 1:
        have = ", ".join(f"`{name}`" for name in list(records)[:8]) or "nothing"
        raise LoadError(f"`{path}` has {len(found)} entries `*{_PICKLE}`, want one: it has {have}")
    return found[0]


def _check_byte_order(path: Path, mapped: mmap.mmap, record: _Record | None) -> None:
    if record is not None and (order := mapped[record.start : record.start + min(record.size_bytes, 16)]) != b"little":
        raise LoadError(f"`{path}` has its numbers in byte order {order!r}: supported is b'little'")


def _pickle(path: Path, mapped: mmap.mmap, record: _Record) -> bytes:
    if record.size_bytes > _MAX_PICKLE_BYTES:
        raise LoadError(f"the pickle in `{path}` has {record.size_bytes:,} bytes: want {_MAX_PICKLE_BYTES:,} at most")
    data = mapped[record.start : record.start + record.size_bytes]
    if zlib.crc32(data) != record.crc:
        raise LoadError(
            f"the pickle in `{path}` has the checksum {zlib.crc32(data):#010x}, the zip says {record.crc:#010x}",
            hint="the file was altered: fetch it again",
        )
    return data


def _stored(path: Path, name: str, view: TensorView, record: _Record | None) -> Stored:
    storage = view.storage
    if record is None:
        raise LoadError(f"`{name}` of `{path}` is in the storage `{storage.key}`, which the file does not have")
    if storage.elements < 0 or record.size_bytes != storage.elements * ITEM_BYTES[storage.dtype]:
        raise LoadError(
            f"the storage `{storage.key}` of `{name}` in `{path}` has {record.size_bytes:,} bytes, "
            f"{storage.elements:,} of {storage.dtype} is {storage.elements * ITEM_BYTES[storage.dtype]:,}"
        )
    _check_view(path, name, view)
    strides = None if _is_contiguous(view) else view.strides
    return Stored(storage.dtype, view.shape, record.start + view.offset * ITEM_BYTES[storage.dtype], strides)


def _check_view(path: Path, name: str, view: TensorView) -> None:
    """It lies in its storage, and is no larger: an element repeated for ever would be as large as it likes."""
    shape, strides, held = view.shape, view.strides, view.storage.elements
    sane = len(shape) == len(strides) <= MAX_RANK and min((view.offset, *shape, *strides)) >= 0
    end = view.offset + 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=False))
    elements = Stored(view.storage.dtype, shape, 0).elements if sane else 0
    if not sane or view.offset > held or (elements and (end > held or elements > held)):
        raise LoadError(
            f"`{name}` of `{path}` is {list(shape[:MAX_RANK])} with strides {list(strides[:MAX_RANK])} "
            f"from {view.offset:,} of a storage of {held:,}"
        )


def _is_contiguous(view: TensorView) -> bool:
    """Strides of axes with one element say nothing."""
    want = contiguous(view.shape)
    pairs = zip(view.shape, view.strides, want, strict=True)
    return 0 in view.shape or all(stride == due for size, stride, due in pairs if size != 1)
