"""What `torch.save` writes for tensors by name, written without torch: whole, or with any part replaced."""

import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BEGIN: Final = b"\x80\x02"
END: Final = b"."
STATE_DICT: Final = b"ccollections\nOrderedDict\n)R"

_STORAGES: Final[Mapping[str, bytes]] = {
    "float32": b"FloatStorage",
    "float16": b"HalfStorage",
    "uint16": b"BFloat16Storage",
    "float64": b"DoubleStorage",
    "int64": b"LongStorage",
    "int32": b"IntStorage",
    "uint8": b"ByteStorage",
    "bool": b"BoolStorage",
}
"""By numpy's names; uint16 are the bits of bfloat16."""


@dataclass(frozen=True)
class Part:
    """A tensor that is a view of a storage: `offset` and `strides` in elements."""

    storage: NDArray[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def numbers(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(key: str, part: Part) -> bytes:
    """The opcodes that leave the tensor on the stack."""
    storage = b"((" + text("storage") + b"ctorch\n" + _STORAGES[part.storage.dtype.name] + b"\n" + text(key)
    storage += text("cpu") + number(part.storage.size) + b"tQ"
    where = number(part.offset) + numbers(part.shape) + numbers(part.strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + storage + where + b"\x89" + STATE_DICT + b"tR"


def parameter(made: bytes) -> bytes:
    return b"ctorch._utils\n_rebuild_parameter\n(" + made + b"\x88" + STATE_DICT + b"tR"


def state_dict(items: Mapping[str, bytes]) -> bytes:
    """The whole pickle; with the `_metadata` that every module's state has."""
    pairs = b"".join(text(name) + made for name, made in items.items())
    metadata = b"}(" + text("_metadata") + STATE_DICT + b"ub"
    return BEGIN + STATE_DICT + b"(" + pairs + b"u" + metadata + END


def write_torch(path: Path, arrays: Mapping[str, NDArray[Any] | Part]) -> Path:
    """Writes the file and returns its path; each array has a storage of its own."""
    parts = {name: made if isinstance(made, Part) else _whole(made) for name, made in arrays.items()}
    keys = {name: str(index) for index, name in enumerate(parts)}
    pickled = state_dict({name: tensor(keys[name], part) for name, part in parts.items()})
    return write_archive(path, pickled, {keys[name]: part.storage.tobytes() for name, part in parts.items()})


def write_archive(path: Path, pickled: bytes, storages: Mapping[str, bytes], *, compression: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{path.stem}/data.pkl", pickled)
        archive.writestr(f"{path.stem}/byteorder", b"little")
        for key, data in storages.items():
            archive.writestr(f"{path.stem}/data/{key}", data)
        archive.writestr(f"{path.stem}/version", b"3\n")
    return path


def _whole(array: NDArray[Any]) -> Part:
    strides = tuple(stride // array.itemsize for stride in np.ascontiguousarray(array).strides)
    return Part(np.ascontiguousarray(array), array.shape, strides)
