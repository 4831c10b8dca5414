"""A recipe: how a blob is made of pieces of others that the far side has, and of what is carried along.

Pure. It is a blob itself, named by its digest:

    SIE-RECIPE-1 LF
    8 bytes, little-endian: the length of the steps
    the steps, canonical JSON
    what is carried, one step's bytes after the other

A step copies bytes of a source, or takes the next bytes of what is carried: as they are, or compressed. Compressed
means zstd over byte planes: of numbers of `planes` bytes each, all first bytes, then all second ones, and so on,
since the exponents of weights resemble each other and their fractions do not.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from sie_core.artifacts.digest import Digest, parse_digest
from sie_core.artifacts.manifest import canonical_json

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b"SIE-RECIPE-1\n"
HEAD_BYTES = len(MAGIC) + 8
MOST_STEPS_BYTES = 1 << 28
MOST_STEP_BYTES = 1 << 20
"""Of a compressed step, which is unpacked in memory: a chunk."""

_LEVEL = 1
"""Of all-MiniLM-L6-v2 in bfloat16: level 1 leaves 69.2 %, level 3 71.2 %, level 6 70.2 %, and 1 is the fastest."""


class Copied(Struct, frozen=True, forbid_unknown_fields=True, tag="copy", tag_field="step"):
    """`size_bytes` of the source with that index, from `start`."""

    source: int
    start: int
    size_bytes: int


class Carried(Struct, frozen=True, forbid_unknown_fields=True, tag="carried", tag_field="step"):
    """The next `size_bytes` of what is carried."""

    size_bytes: int

    @property
    def stored_bytes(self) -> int:
        return self.size_bytes


class Planes(Struct, frozen=True, forbid_unknown_fields=True, tag="planes", tag_field="step"):
    """The next `stored_bytes` of what is carried, which become `size_bytes` of numbers of `planes` bytes each."""

    size_bytes: int
    stored_bytes: int
    planes: int


Step = Copied | Carried | Planes


class Recipe(Struct, frozen=True, forbid_unknown_fields=True):
    """`sources`: blobs that the far side has. The steps make `size_bytes` of the blob `blob`."""

    blob: Digest
    size_bytes: int
    sources: tuple[Digest, ...]
    steps: tuple[Step, ...]

    @property
    def carried_bytes(self) -> int:
        return sum(step.stored_bytes for step in self.steps if not isinstance(step, Copied))


def encode_steps(recipe: Recipe) -> bytes:
    """All of a recipe that comes before what is carried."""
    steps = canonical_json(recipe)
    return MAGIC + len(steps).to_bytes(8, "little") + steps


def steps_bytes(head: bytes) -> int:
    """The length of the steps, from the first `HEAD_BYTES`. Raises `ValueError` for what no recipe begins with."""
    size_bytes = int.from_bytes(head[len(MAGIC) :], "little")
    if len(head) != HEAD_BYTES or not head.startswith(MAGIC):
        raise ValueError("it does not begin as a recipe does")
    if not 0 < size_bytes <= MOST_STEPS_BYTES:
        raise ValueError(f"{size_bytes:,} bytes of steps; {MOST_STEPS_BYTES:,} are the most")
    return size_bytes


def decode_steps(data: bytes) -> Recipe:
    """Raises `ValueError` for steps that cannot make what they say."""
    try:
        recipe = msgspec.json.decode(data, type=Recipe)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a recipe: {error}") from error
    for digest in (recipe.blob, *recipe.sources):
        parse_digest(digest)
    for step in recipe.steps:
        _check(step, recipe)
    made = sum(step.size_bytes for step in recipe.steps)
    if made != recipe.size_bytes:
        raise ValueError(f"its steps make {made:,} bytes of a blob of {recipe.size_bytes:,}")
    if canonical_json(recipe) != data:
        raise ValueError("it is in another form than it is written in")
    return recipe


def _check(step: Step, recipe: Recipe) -> None:
    if step.size_bytes <= 0:
        raise ValueError(f"a step of {step.size_bytes} bytes")
    if isinstance(step, Copied) and (not 0 <= step.source < len(recipe.sources) or step.start < 0):
        raise ValueError(f"a step copies from source {step.source}, byte {step.start}; there are {len(recipe.sources)}")
    if isinstance(step, Planes):
        if step.planes not in (1, 2, 4) or step.size_bytes % step.planes or step.size_bytes > MOST_STEP_BYTES:
            raise ValueError(f"a compressed step of {step.size_bytes:,} bytes in {step.planes} planes")
        if not 0 < step.stored_bytes < step.size_bytes:
            raise ValueError(f"a compressed step of {step.size_bytes:,} bytes that takes {step.stored_bytes:,}")


def joined(steps: Sequence[Step]) -> Iterator[Step]:
    """Neighbours that go on where the one before ended, as one."""
    last: Step | None = None
    for step in steps:
        if isinstance(last, Carried) and isinstance(step, Carried):
            last = Carried(last.size_bytes + step.size_bytes)
        elif _goes_on(last, step):
            last = msgspec.structs.replace(last, size_bytes=last.size_bytes + step.size_bytes)  # type: ignore[union-attr,type-var]
        else:
            if last is not None:
                yield last
            last = step
    if last is not None:
        yield last


def _goes_on(last: Step | None, step: Step) -> bool:
    if not isinstance(last, Copied) or not isinstance(step, Copied):
        return False
    return last.source == step.source and last.start + last.size_bytes == step.start


def compressed(data: bytes, planes: int) -> bytes | None:
    """A chunk, compressed; None where that saves less than a sixteenth. The same chunk gives the same bytes."""
    if len(data) % planes or len(data) > MOST_STEP_BYTES:
        return None
    stored = zstd.compress(b"".join(data[at::planes] for at in range(planes)), level=_LEVEL)
    return stored if len(stored) <= len(data) - len(data) // 16 else None


def decompressed(stored: bytes, step: Planes) -> bytes:
    """Raises `ValueError` where it is not exactly the chunk that was announced: nothing is unpacked beyond it."""
    unpacker = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 23})
    try:
        plain = unpacker.decompress(stored, max_length=step.size_bytes)
        more = b"" if unpacker.eof else unpacker.decompress(b"", max_length=1)
    except (zstd.ZstdError, EOFError) as error:
        raise ValueError(f"a compressed step cannot be unpacked: {error}") from error
    if len(plain) != step.size_bytes or more or not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"a compressed step is not the {step.size_bytes:,} bytes that it announces")
    out: Any = bytearray(step.size_bytes)
    each = step.size_bytes // step.planes
    for at in range(step.planes):
        out[at :: step.planes] = plain[at * each : (at + 1) * each]
    return bytes(out)
