"""Put an archive's content into a store on the far side, from whichever of its volumes are here.

Volumes may come all at once or one after the other; what was taken from one is kept until the others come,
also of blobs that are cut across volumes. Every blob is hashed before it counts. A damaged member is named
with its volume and costs nothing but itself. The lock is written last: a store that has one is whole.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sie_airgap.archive_plan import LOCK_NAME
from sie_airgap.blobs import (
    GOLDEN_NAME,
    BlobFolder,
    fill,
    held,
    need_space,
    read_lock,
    told_os_errors,
    write_lock,
)
from sie_airgap.contents import Content, contents
from sie_airgap.failures import Drift, Expected, Incomplete, Partial, raise_all
from sie_airgap.media import Media, Placed, Unreadable, altered
from sie_airgap.progress import Progress, Task
from sie_core.artifacts.digest import CHUNK_BYTES
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.hashing import Hashing
from sie_core.artifacts.lock import lock_digest


@dataclass(frozen=True)
class UnpackPlan:
    """What of the lock is in the store, on the media that are here, and on neither."""

    todo: tuple[Content, ...]
    present: tuple[Content, ...]
    missing: tuple[Content, ...]

    @property
    def todo_bytes(self) -> int:
        return sum(content.size_bytes for content in self.todo)


def plan_unpack(media: Media, store: BlobFolder) -> UnpackPlan:
    """Raises `Drift` when the store is for a later lock."""
    _refuse_older(media, store)
    todo, present, missing = [], [], []
    for content in contents(media.lock):
        if store.size(content.digest) is not None:
            present.append(content)
        elif content.digest in media.pieces:
            todo.append(content)
        else:
            missing.append(content)
    return UnpackPlan(tuple(todo), tuple(present), tuple(missing))


def unpack(media: Media, store: BlobFolder, *, progress: Progress) -> UnpackPlan:
    """Take what the store lacks from the media; what there was to do.

    Raises:
        TrustError, Unreadable: something on the media is damaged; everything else was taken.
        Partial: volumes are missing; what is here was taken. Or another run is filling the store.
        NoSpace: it will not fit; nothing was written.
    """
    plan = plan_unpack(media, store)
    need_space(store.root, plan.todo_bytes - store.arrived_bytes)
    with held(store.root):
        raise_all(_unpacked(media, store, plan, progress))
    return plan


def _unpacked(media: Media, store: BlobFolder, plan: UnpackPlan, progress: Progress) -> list[Expected]:
    """Does it; what went wrong on the way."""
    errors: list[Expected] = list(media.refused)
    with progress.task("unpack", plan.todo_bytes) as task:
        for content in plan.todo:
            task.at(content.label)
            errors += _take(media, store, content, task)
    lacking = [content for content in contents(media.lock) if store.size(content.digest) is None]
    if lacking and media.missing_volumes():
        errors.append(_missing(media, lacking))
    elif lacking and not errors:
        errors.append(Incomplete(f"{lacking[0].label} is on no volume, though every volume is here"))
    if not lacking:
        _finish(media, store)
    return errors


def _finish(media: Media, store: BlobFolder) -> None:
    golden = media.named(GOLDEN_NAME)
    if golden is not None:
        store.write_named(GOLDEN_NAME, golden)
    # Last: a store with a lock is whole.
    write_lock(store.root / LOCK_NAME, media.lock)


def _refuse_older(media: Media, store: BlobFolder) -> None:
    path = store.root / LOCK_NAME
    if not path.exists():
        return
    old = read_lock(path)
    if lock_digest(old) != media.lock_digest and old.serial >= media.lock.serial:
        raise Drift(
            f"the store {store.root} is for lock number {old.serial} ({lock_digest(old)}), "
            f"the archive is number {media.lock.serial} ({media.lock_digest})",
            hint="unpack it into another folder",
        )


def _take(media: Media, store: BlobFolder, content: Content, task: Task) -> Sequence[Expected]:
    """One blob into the store, or as much of it as is here; what was damaged on the way."""
    places = media.pieces[content.digest]
    if places.get(0, [])[:1] and places[0][0].member.whole:
        return _take_whole(store, content, places[0], task)
    return _assemble(store, content, places, task)


def _take_whole(store: BlobFolder, content: Content, copies: Sequence[Placed], task: Task) -> list[Expected]:
    errors: list[Expected] = []
    for placed in copies:
        try:
            fill(
                store,
                content.digest,
                content.size_bytes,
                lambda start, placed=placed: placed.open(start=start),  # type: ignore[misc]
                label=content.label,
                where=f"{placed.path}: {placed.member.name}, bytes from {placed.member.offset:,}",
                advance=task.advance,
            )
        except Unreadable as error:
            errors.append(error)
        except TrustError as error:
            error.hint = f"carry `{placed.path.name}` again; what is on the other volumes stays usable"
            errors.append(error)
        else:
            return []  # a second copy was sound: nothing is lost
    return errors


def _assemble(store: BlobFolder, content: Content, places: dict[int, list[Placed]], task: Task) -> list[Expected]:
    """Write the parts that are here in their places; when all have come, the blob."""
    target = store.arriving(content.digest).with_suffix(".assembly")
    journal = target.with_suffix(".done")
    done = _journal(journal) if target.exists() else {}
    whole = Hashing()
    errors: list[Expected] = []
    with told_os_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
        for offset, copies in sorted(places.items()):
            if offset in done:
                task.advance(done[offset])
                continue
            bad, whole = _take_part(copies, target, content, whole, task)
            if len(bad) == len(copies):
                errors += bad
                continue
            done[offset] = copies[0].member.size_bytes
            with journal.open("a", encoding="ascii") as file:
                file.write(f"{offset} {done[offset]}\n")
        if sum(done.values()) == content.size_bytes:
            errors += _adopt_assembled(store, content, target, journal, whole)
    return errors


def _take_part(
    copies: Sequence[Placed], target: Path, content: Content, whole: Hashing, task: Task
) -> tuple[list[Expected], Hashing]:
    """The first sound copy of a part to its place in `target`; what is wrong with those before it.

    `whole` is the blob's digest as far as its parts came in order; given back as it is with this part, or as it
    was where this part is not the next.
    """
    errors: list[Expected] = []
    for placed in copies:
        is_next = placed.member.blob_offset == whole.size_bytes
        joined = whole.copy() if is_next else None
        error = _copy_part(placed, target, content, joined, task)
        if error is None:
            return errors, joined or whole
        errors.append(error)
    return errors, whole


def _copy_part(placed: Placed, target: Path, content: Content, joined: Hashing | None, task: Task) -> Expected | None:
    """One part to its place in `target`, and into `joined`; what is wrong with it, or None."""
    running = Hashing()
    try:
        with placed.open() as source, target.open("r+b") as file:
            file.seek(placed.member.blob_offset)
            while chunk := source.read(CHUNK_BYTES):
                running.update(chunk)
                if joined is not None:
                    joined.update(chunk)
                file.write(chunk)
                task.advance(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    except Unreadable as error:
        return error
    have = running.digest
    return None if have == placed.member.digest else altered(placed, have, label=f"a part of {content.label}")


def _adopt_assembled(
    store: BlobFolder, content: Content, target: Path, journal: Path, whole: Hashing
) -> list[TrustError]:
    """Hash on what came out of order or in an earlier run, and take the blob up when it is right."""
    with target.open("rb") as file:
        file.seek(whole.size_bytes)
        while chunk := file.read(CHUNK_BYTES):
            whole.update(chunk)
    journal.unlink()
    if (whole.digest, whole.size_bytes) == (content.digest, content.size_bytes):
        target.replace(store.arriving(content.digest))
        store.adopt(content.digest)
        return []
    target.unlink()
    return [
        TrustError(
            f"{content.label}, put together from its parts, is not what was locked",
            where=str(target),
            want=f"{content.digest}  {content.size_bytes:,} bytes",
            have=f"{whole.digest}  {whole.size_bytes:,} bytes",
            hint="run the same command again: its parts are taken anew",
        )
    ]


def _journal(path: Path) -> dict[int, int]:
    """Offsets and lengths of the parts that are on the disk. A line cut short when power went is no line."""
    done = {}
    text = path.read_text("ascii") if path.exists() else ""
    for line in text.splitlines(keepends=True):
        numbers = line.split()
        if line.endswith("\n") and len(numbers) == 2:
            done[int(numbers[0])] = int(numbers[1])
    return done


def _missing(media: Media, lacking: Sequence[Content]) -> Partial:
    names = media.missing_volumes()
    of = len({name for volume in media.volumes.values() for name in volume.volumes})
    shown = ", ".join(content.label for content in lacking[:3]) + (" …" if len(lacking) > 3 else "")
    return Partial(
        f"{', '.join(f'`{name}`' for name in names)} of {of} volumes not here; still lacking: {shown}",
        hint="run the same command with the other media: what was taken is kept",
    )
