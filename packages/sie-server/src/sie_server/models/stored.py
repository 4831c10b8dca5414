"""Where a tensor lies in its file: what every reader of weights answers, and the checks they share.

Nothing here reads data. `safetensors_file` and `pickled` find tensors, `checkpoint` hands them out.
"""

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sie_server.models.calls import LoadError

ITEM_BYTES: Final[Mapping[str, int]] = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}
"""Types by their names in safetensors, with the bytes of one element."""

MAX_RANK: Final = 8
"""Of any tensor; the weights of a network have up to five."""


@dataclass(frozen=True)
class Stored:
    """One tensor, wholly inside its file.

    Attributes:
        dtype: as in safetensors; one that `ITEM_BYTES` does not know can be listed and not be read.
        start: the byte of the file where element 0 is.
        strides: in elements; None where the elements lie one after another, the last axis first.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    strides: tuple[int, ...] | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def is_usable(self) -> bool:
        """Whether it can be used where it lies: aligned, and its elements one after another."""
        return self.strides is None and self.start % ITEM_BYTES.get(self.dtype, 1) == 0

    @property
    def size_bytes(self) -> int:
        """0 for a type that is not known."""
        return self.elements * ITEM_BYTES.get(self.dtype, 0)


def map_file(path: Path) -> mmap.mmap:
    """The whole file, copy-on-write: OpenVINO refuses read-only arrays, and nothing ever writes to them.

    Raises:
        LoadError: it is not there, or empty, which no map can be.
    """
    if not path.is_file():
        have = ", ".join(f"`{file.name}`" for file in sorted(path.parent.glob("*"))) or "nothing"
        raise LoadError(f"no `{path.name}` in `{path.parent}`: it has {have}")
    if path.stat().st_size == 0:
        raise LoadError(f"`{path}` has 0 bytes: not a file of weights")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in elements, of a tensor whose elements lie one after another."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
