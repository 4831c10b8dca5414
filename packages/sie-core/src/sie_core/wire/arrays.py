"""numpy arrays as bytes, in the format of msgpack-numpy (0.4.8), which the clients of SIE v0.3.1 speak.

An array is a map whose keys are *bin*-typed (bytes, not str); a scalar likewise with `nd` false. We
write bytes keys and read both kinds. Object, structured and string arrays are refused: nothing that
arrives is ever unpickled.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PLAIN_DTYPE = re.compile(r"[<>|=]?[biufc][0-9]+|[<>|=]?\?")
MAX_DIMENSIONS = 8


def to_wire(array: NDArray[Any]) -> dict[bytes, object]:
    """The map that stands for `array`; its data are little-endian and in C order."""
    dtype = array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else array.dtype
    data = np.ascontiguousarray(array, dtype=dtype)
    return {
        b"nd": True,
        b"type": dtype.str,
        b"kind": b"",
        b"shape": list(array.shape),
        b"data": data.reshape(-1).view(np.uint8).data if data.size else b"",
    }


def _text(key: object) -> str:
    return key.decode("ascii", "replace") if isinstance(key, bytes) else str(key)


def is_wire_array(value: object) -> bool:
    """Whether a decoded map stands for an array or a numpy scalar."""
    return isinstance(value, dict) and (b"nd" in value or "nd" in value)


def from_wire(value: dict[Any, Any]) -> NDArray[Any]:
    """The array (or 0-dimensional array of a scalar) that a map stands for; read-only, sharing the message's memory.

    Raises:
        ValueError: a dtype that is not a plain number, a shape that is none, or data of another length.
    """
    fields = {_text(key): item for key, item in value.items()}
    name = fields.get("type")
    name = _text(name) if isinstance(name, bytes) else name
    if not isinstance(name, str) or _PLAIN_DTYPE.fullmatch(name) is None:
        raise ValueError(f"array dtype {name!r} is not a plain number")
    try:
        dtype = np.dtype(name)
    except TypeError as error:
        raise ValueError(f"array dtype {name!r} is not one numpy has") from error
    shape, data = fields.get("shape", []) if fields.get("nd") else [], fields.get("data")
    if not isinstance(data, bytes | memoryview | bytearray):
        raise ValueError(f"array data are {type(data).__name__}, want bytes")
    if not isinstance(shape, list | tuple) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"array shape {shape!r} is not a list of at most {MAX_DIMENSIONS} sizes")
    if any(not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63 for size in shape):
        raise ValueError(f"array shape {shape!r} has a size that is not a whole number from 0")
    want_bytes = dtype.itemsize * _product(shape)
    have_bytes = memoryview(data).nbytes
    if have_bytes != want_bytes:
        raise ValueError(f"array of shape {list(shape)} and dtype {name} wants {want_bytes} bytes, has {have_bytes}")
    return np.frombuffer(data, dtype=dtype).reshape(tuple(shape))


def _product(sizes: list[int] | tuple[int, ...]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
