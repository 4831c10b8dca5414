"""Recipes read and written: what the store's blobs have in common, and blobs that are made of others as they are read.

The far side's blobs are known by a receipt. What of them lies in the store here, too, is what new blobs are compared
with, chunk by chunk.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from sie_airgap.deltas.chunking import Chunk, chunks
from sie_airgap.deltas.delta import DELTA_VERSION, NOTHING, Base, ByRecipe, Delta
from sie_airgap.deltas.receipt import Receipt
from sie_airgap.deltas.recipe import (
    HEAD_BYTES,
    MOST_STEP_BYTES,
    Carried,
    Copied,
    Planes,
    Recipe,
    Step,
    compressed,
    decode_steps,
    decompressed,
    encode_steps,
    joined,
    steps_bytes,
)
from sie_airgap.failures import Incomplete
from sie_airgap.progress import Progress, Task
from sie_airgap.store.blobs import BlobFolder, Blobs, Window, told_os_errors
from sie_airgap.store.contents import Content, contents
from sie_core.artifacts.digest import CHUNK_BYTES, Digest, digest_of_stream
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import Lock

_SMALLEST_BYTES = 64 << 10
"""A blob below that travels as it is."""

_SMALLEST_COPY_BYTES = 4 << 10


@dataclass(frozen=True)
class Held:
    """What the far side has of this store's blobs, chunk by chunk: where each chunk stands, by its sha256."""

    sources: list[Digest] = field(default_factory=list)
    places: dict[bytes, tuple[int, int]] = field(default_factory=dict)


def plan_delta(
    lock: Lock,
    store: BlobFolder,
    receipt: Receipt | None,
    *,
    compress: bool = False,
    dry_run: bool = False,
    progress: Progress,
) -> Delta:
    """What of a lock need not be carried, or less of it; recipes are put into the store, as blobs.

    Args:
        receipt: of the far side; None: nothing is there.
        compress: carry what shrinks by it compressed.
        dry_run: write nothing, and so make no recipes: what is left out is told, the rest counted whole.

    Raises:
        NoSpace: there is no room for the recipes.
    """
    there = receipt.digests if receipt is not None else frozenset()
    wanted = contents(lock)
    left_out = sorted(content.digest for content in wanted if content.digest in there)
    todo = [one for one in wanted if one.digest not in there and one.size_bytes >= _SMALLEST_BYTES]
    held = Held() if dry_run else _held(store, receipt, todo, progress)
    recipes = []
    if not dry_run and (compress or held.places):
        with progress.task("compare", sum(content.size_bytes for content in todo)) as task:
            for content in todo:
                task.at(content.label)
                made = _Making(store, content, held, compress=compress).make(task)
                if made is not None:
                    recipes.append(made)
    if receipt is None and not recipes:
        return NOTHING
    base = Base(receipt.place, receipt.lock, receipt.serial) if receipt is not None else None
    return Delta(DELTA_VERSION, base, tuple(left_out), tuple(sorted(recipes)))


def _held(store: BlobFolder, receipt: Receipt | None, todo: Sequence[Content], progress: Progress) -> Held:
    """The chunks of those blobs that are there and here, and about as long as one that is to be carried."""
    held = Held()
    if receipt is None:
        return held
    sizes = [content.size_bytes for content in todo]
    alike = [
        blob
        for blob in receipt.blobs
        if store.size(blob.digest) == blob.size_bytes
        and any(size <= 2 * blob.size_bytes and blob.size_bytes <= 2 * size for size in sizes)
    ]
    with progress.task("read what is there", sum(blob.size_bytes for blob in alike)) as task:
        for number, blob in enumerate(alike):
            held.sources.append(blob.digest)
            with store.open(blob.digest) as file:
                for chunk, data in _read(file, blob.size_bytes):
                    held.places.setdefault(hashlib.sha256(data).digest(), (number, chunk.start))
                    task.advance(len(data))
    return held


def _read(file: BinaryIO, size_bytes: int) -> Iterable[tuple[Chunk, bytes]]:
    def at(start: int, length: int) -> bytes:
        file.seek(start)
        return file.read(length)

    for chunk in chunks(size_bytes, at):
        yield chunk, at(chunk.start, chunk.size_bytes)


class _Making:
    """One recipe in the making."""

    def __init__(self, store: BlobFolder, content: Content, held: Held, *, compress: bool) -> None:
        self._store, self._content, self._held, self._compress = store, content, held, compress

    def make(self, task: Task) -> ByRecipe | None:
        """The recipe, which is in the store then; None where it would save less than a sixteenth."""
        draft = self._store.arriving(self._content.digest).with_suffix(".recipe")
        with told_os_errors(draft):
            draft.parent.mkdir(parents=True, exist_ok=True)
            try:
                with draft.open("w+b") as carried:
                    return self._written(carried, task)
            finally:
                draft.unlink(missing_ok=True)

    def _written(self, carried: BinaryIO, task: Task) -> ByRecipe | None:
        steps: list[Step] = []
        with self._store.open(self._content.digest) as file:
            for chunk, data in _read(file, self._content.size_bytes):
                steps.append(self._step(chunk, data, carried))
                task.advance(len(data))
        recipe = self._recipe(list(joined(steps)))
        if recipe.carried_bytes > self._content.size_bytes - self._content.size_bytes // 16:
            return None
        head = encode_steps(recipe)
        size_bytes = len(head) + recipe.carried_bytes
        digest = self._put(head, carried)
        return ByRecipe(recipe.blob, digest, size_bytes, recipe.sources)

    def _step(self, chunk: Chunk, data: bytes, carried: BinaryIO) -> Step:
        if len(data) >= _SMALLEST_COPY_BYTES:
            place = self._held.places.get(hashlib.sha256(data).digest())
            if place is not None:
                return Copied(place[0], place[1], len(data))
        stored = compressed(data, chunk.width) if self._compress else None
        carried.write(stored if stored is not None else data)
        return Carried(len(data)) if stored is None else Planes(len(data), len(stored), chunk.width)

    def _recipe(self, steps: Sequence[Step]) -> Recipe:
        """With those sources alone that are copied from."""
        used = sorted({step.source for step in steps if isinstance(step, Copied)})
        number = {source: at for at, source in enumerate(used)}
        renumbered = tuple(
            Copied(number[step.source], step.start, step.size_bytes) if isinstance(step, Copied) else step
            for step in steps
        )
        sources = tuple(self._held.sources[source] for source in used)
        return Recipe(self._content.digest, self._content.size_bytes, sources, renumbered)

    def _put(self, head: bytes, carried: BinaryIO) -> Digest:
        whole = self._store.arriving(self._content.digest).with_suffix(".whole")
        with whole.open("w+b") as file:
            file.write(head)
            carried.seek(0)
            while data := carried.read(CHUNK_BYTES):
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest, _ = digest_of_stream(file)
        whole.replace(self._store.arriving(digest))
        self._store.adopt(digest)
        return digest


Open = Callable[[Digest, int, int], BinaryIO]
"""Opens so many bytes of a blob that the far side has, from one on."""


def open_recipe(recipe: ByRecipe, blobs: Blobs) -> tuple[Recipe, int]:
    """The steps of a recipe, and where what it carries begins. Raises `TrustError` for one that is none."""
    try:
        with blobs.open(recipe.recipe, length=HEAD_BYTES) as stream:
            size_bytes = steps_bytes(stream.read(HEAD_BYTES))
        with blobs.open(recipe.recipe, start=HEAD_BYTES, length=size_bytes) as stream:
            found = decode_steps(stream.read())
        if (found.blob, found.sources) != (recipe.blob, recipe.sources):
            raise ValueError(f"it makes {found.blob} of {', '.join(found.sources) or 'nothing'}")
        if HEAD_BYTES + size_bytes + found.carried_bytes != recipe.recipe_bytes:
            raise ValueError(f"its steps take {found.carried_bytes:,} carried bytes, and there are others")
    except ValueError as error:
        raise TrustError(
            "a recipe cannot be followed",
            where=f"{blobs.where}: {recipe.recipe}",
            want=f"how {recipe.blob} is made",
            have=str(error),
        ) from error
    return found, HEAD_BYTES + size_bytes


class Made(io.RawIOBase):
    """The bytes of a blob from `start`, as its recipe makes them. Unverified: whoever reads them hashes them."""

    def __init__(self, recipe: ByRecipe, blobs: Blobs, sources: Open, *, start: int = 0) -> None:
        self._by, self._blobs, self._sources = recipe, blobs, sources
        self._recipe, self._carried_at = open_recipe(recipe, blobs)
        self._steps = iter(self._recipe.steps)
        self._open: BinaryIO | None = None
        self._skip = start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        while True:
            if self._open is None:
                self._open = self._next()
                if self._open is None:
                    return 0
            data = self._open.read(len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
            self._open.close()
            self._open = None

    def _next(self) -> BinaryIO | None:
        """The next step that is not skipped whole, opened at the first byte of it that is wanted."""
        for step in self._steps:
            at = self._carried_at
            if not isinstance(step, Copied):
                self._carried_at += step.stored_bytes
            if self._skip >= step.size_bytes:
                self._skip -= step.size_bytes
                continue
            skip, self._skip = self._skip, 0
            return self._opened(step, at, skip)
        return None

    def _opened(self, step: Step, at: int, skip: int) -> BinaryIO:
        if isinstance(step, Copied):
            return self._sources(self._recipe.sources[step.source], step.start + skip, step.size_bytes - skip)
        if isinstance(step, Carried):
            return self._blobs.open(self._by.recipe, start=at + skip, length=step.size_bytes - skip)
        with self._blobs.open(self._by.recipe, start=at, length=min(step.stored_bytes, MOST_STEP_BYTES)) as stream:
            stored = stream.read()
        try:
            return io.BytesIO(decompressed(stored, step)[skip:])
        except ValueError as error:
            raise TrustError(
                "a recipe cannot be followed",
                where=f"{self._blobs.where}: {self._by.recipe}, byte {at:,}",
                want=f"{step.size_bytes:,} bytes, compressed",
                have=str(error),
            ) from error

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        super().close()


def opened(recipe: ByRecipe, blobs: Blobs, sources: Open, *, start: int = 0) -> BinaryIO:
    """`Made`, buffered."""
    return io.BufferedReader(Made(recipe, blobs, sources, start=start), CHUNK_BYTES)


class OnBase:
    """The blobs of a delta on those that it was made against: what is carried, what a recipe makes, what is there.

    Attributes:
        where: of what is carried.
    """

    def __init__(self, blobs: Blobs, delta: Delta, base: Blobs, lock: Lock) -> None:
        self.where = blobs.where
        self._blobs, self._delta, self._base = blobs, delta, base
        self._sizes = {content.digest: content.size_bytes for content in contents(lock)}

    def size(self, digest: Digest) -> int | None:
        size_bytes = self._blobs.size(digest)
        if size_bytes is None and self._has_recipe(digest):
            size_bytes = self._sizes.get(digest)
        return size_bytes if size_bytes is not None else self._base.size(digest)

    def open(self, digest: Digest, *, start: int = 0, length: int | None = None) -> BinaryIO:
        if self._blobs.size(digest) is not None:
            return self._blobs.open(digest, start=start, length=length)
        if not self._has_recipe(digest):
            return self._base.open(digest, start=start, length=length)
        recipe = self._delta.by_blob[digest]
        made = opened(recipe, self._holder(recipe), self._source, start=start)
        return made if length is None else io.BufferedReader(Window(made, length), CHUNK_BYTES)

    def named(self, name: str) -> bytes | None:
        return self._blobs.named(name)

    def named_everywhere(self, name: str) -> list[tuple[str, bytes]]:
        return self._blobs.named_everywhere(name)

    def _has_recipe(self, digest: Digest) -> bool:
        recipe = self._delta.by_blob.get(digest)
        if recipe is None or self._holder(recipe).size(recipe.recipe) is None:
            return False
        return all(self._base.size(source) is not None for source in recipe.sources)

    def _holder(self, recipe: ByRecipe) -> Blobs:
        """Who has the recipe: one that is cut across media was put together in the base."""
        return self._base if self._blobs.size(recipe.recipe) is None else self._blobs

    def _source(self, digest: Digest, start: int, length: int) -> BinaryIO:
        return self._base.open(digest, start=start, length=length)


def lacking(delta: Delta, base: Blobs, lock: Lock) -> tuple[Content, ...]:
    """What the receipt said that the far side has, and it has not: blobs left out, and those that recipes copy from."""
    labels = {content.digest: content for content in contents(lock)}
    needed = {digest: labels.get(digest, Content(digest, 0, f"`{digest}`")) for digest in delta.left_out}
    for recipe in delta.recipes:
        if base.size(recipe.blob) is None:
            what = labels[recipe.blob].label if recipe.blob in labels else recipe.blob
            for source in recipe.sources:
                needed.setdefault(source, Content(source, 0, f"`{source}`, which {what} is made of"))
    return tuple(content for digest, content in needed.items() if base.size(digest) is None)


def check_base(delta: Delta, base: Blobs, lock: Lock) -> None:
    """Raises `Incomplete` where the far side is not what the receipt said: nothing has been written then."""
    missing = lacking(delta, base, lock)
    if not missing or delta.base is None:
        return
    shown = "\n".join(f"  {content.label}  {content.digest}" for content in missing[:10])
    more = f"\n  and {len(missing) - 10} more" if len(missing) > 10 else ""
    raise Incomplete(
        f"this archive is a delta on lock number {delta.base.serial} at {delta.base.place} ({delta.base.lock}), and "
        f"{base.where} lacks {len(missing)} blobs of it\n{shown}{more}",
        hint="unpack it where that lock is; or carry a receipt of what is here (`sie-airgap receipt`) to the connected "
        "side and `pack --base` with it, or `pack` without a base",
    )
