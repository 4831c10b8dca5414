"""Where a file is cut into chunks, so that what two versions of it have in common is found again.

Pure. A safetensors file is cut after its header, at the limits of its tensors, and every MiB inside of one: a changed
header, a retrained tensor or rows that were added move nothing else. Any other file is cut every MiB.
"""

import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

CHUNK_BYTES = 1 << 20
_MOST_HEADER_BYTES = 100_000_000
"""safetensors itself refuses longer ones."""

_WIDTHS = {"BF16": 2, "F16": 2, "F32": 4}

Read = Callable[[int, int], bytes]
"""Reads so many bytes of a file from an offset; fewer at its end."""


class Chunk(NamedTuple):
    """`width`: bytes of each number in it; 1 where they are no numbers, or nothing is known of them."""

    start: int
    size_bytes: int
    width: int


def chunks(size_bytes: int, read: Read) -> Iterator[Chunk]:
    """Each chunk, in order; together they are the whole file."""
    position = 0
    for end, width in [*_tensors(size_bytes, read), (size_bytes, 1)]:
        for start in range(position, end, CHUNK_BYTES):
            yield Chunk(start, min(CHUNK_BYTES, end - start), width)
        position = end


def _tensors(size_bytes: int, read: Read) -> list[tuple[int, int]]:
    """Where the header and each tensor of a safetensors file end, and its width; nothing for another file."""
    header_bytes = int.from_bytes(read(0, 8), "little")
    data = 8 + header_bytes
    if not 2 <= header_bytes <= _MOST_HEADER_BYTES or data > size_bytes:
        return []
    try:
        header = json.loads(read(8, header_bytes))
        ends = {data: 1}
        for name, one in header.items():
            if name != "__metadata__":
                ends.setdefault(data + int(one["data_offsets"][1]), _WIDTHS.get(str(one["dtype"]), 1))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError):
        return []
    return sorted((end, width) for end, width in ends.items() if data <= end <= size_bytes)
