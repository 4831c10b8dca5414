"""Put an archive's content into a store on the far side, from whichever of its volumes are here.

Volumes may come all at once or one after the other; what was taken from one is kept until the others come,
also of blobs that are cut across volumes. Every blob is hashed before it counts. A damaged member is named
with its volume and costs nothing but itself. The lock is written last: a store that has one is whole.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sie_airgap.archive_plan import LOCK_NAME
from sie_airgap.blobs import (
    GOLDEN_NAME,
    BlobFolder,
    fill,
    need_space,
    read_lock,
    told_os_errors,
    window,
    write_lock,
)
from sie_airgap.contents import Content, contents
from sie_airgap.failures import Drift, Expected, Partial, raise_all
from sie_airgap.media import Media, Placed, altered
from sie_airgap.progress import Progress, Task
from sie_core.artifacts.digest import CHUNK_BYTES, Digest, digest_of_stream
from sie_core.artifacts.errors import TrustError
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
        TrustError: something on the media is damaged; everything else was taken.
        Partial: volumes are missing; what is here was taken.
        NoSpace: it will not fit; nothing was written.
    """
    plan = plan_unpack(media, store)
    need_space(store.root, plan.todo_bytes - _arrived_bytes(store))
    errors: list[Expected] = list(media.refused)
    with progress.task("unpack", plan.todo_bytes) as task:
        for content in plan.todo:
            task.at(content.label)
            errors += _take(media, store, content, task)
    lacking = [content for content in contents(media.lock) if store.size(content.digest) is None]
    if lacking and media.missing_volumes():
        errors.append(_missing(media, lacking))
    elif lacking and not errors:
        raise AssertionError(f"{lacking[0].label} is on no volume and none is missing")
    if not lacking:
        _finish(media, store)
    raise_all(errors)
    return plan


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


def _take(media: Media, store: BlobFolder, content: Content, task: Task) -> Sequence[TrustError]:
    """One blob into the store, or as much of it as is here; what was damaged on the way."""
    places = media.pieces[content.digest]
    if places.get(0, [])[:1] and places[0][0].member.whole:
        return _take_whole(store, content, places[0], task)
    return _assemble(store, content, places, task)


def _take_whole(store: BlobFolder, content: Content, copies: Sequence[Placed], task: Task) -> list[TrustError]:
    errors = []
    for placed in copies:
        try:
            fill(
                store,
                content.digest,
                content.size_bytes,
                lambda start, placed=placed: window(  # type: ignore[misc]
                    placed.path, start=placed.member.offset + start, length=placed.member.size_bytes - start
                ),
                label=content.label,
                where=f"{placed.path}: {placed.member.name}, bytes from {placed.member.offset:,}",
                advance=task.advance,
            )
        except TrustError as error:
            error.hint = f"carry `{placed.path.name}` again; what is on the other volumes stays usable"
            errors.append(error)
        else:
            return []  # a second copy was sound: nothing is lost
    return errors


def _assemble(store: BlobFolder, content: Content, places: dict[int, list[Placed]], task: Task) -> list[TrustError]:
    """Write the parts that are here in their places; when all have come, the blob."""
    target = store.arriving(content.digest).with_suffix(".assembly")
    journal = target.with_suffix(".done")
    done = _journal(journal) if target.exists() else {}
    errors = []
    with told_os_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
        for offset, copies in sorted(places.items()):
            if offset in done:
                task.advance(done[offset])
                continue
            bad = [error for placed in copies if (error := _copy_part(placed, target, content, task)) is not None]
            if len(bad) == len(copies):
                errors += bad
                continue
            done[offset] = copies[0].member.size_bytes
            with journal.open("a", encoding="ascii") as file:
                file.write(f"{offset} {done[offset]}\n")
        if sum(done.values()) == content.size_bytes:
            errors += _adopt_assembled(store, content, target, journal)
    return errors


def _copy_part(placed: Placed, target: Path, content: Content, task: Task) -> TrustError | None:
    """One part to its place in `target`; what is wrong with it, or None."""
    member, running = placed.member, hashlib.sha256()
    with window(placed.path, start=member.offset, length=member.size_bytes) as source, target.open("r+b") as file:
        file.seek(member.blob_offset)
        while chunk := source.read(CHUNK_BYTES):
            running.update(chunk)
            file.write(chunk)
            task.advance(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    have = Digest("sha256:" + running.hexdigest())
    return None if have == member.digest else altered(placed, have, label=f"a part of {content.label}")


def _adopt_assembled(store: BlobFolder, content: Content, target: Path, journal: Path) -> list[TrustError]:
    with target.open("rb") as file:
        have, size_bytes = digest_of_stream(file)
    journal.unlink()
    if (have, size_bytes) == (content.digest, content.size_bytes):
        target.replace(store.arriving(content.digest))
        store.adopt(content.digest)
        return []
    target.unlink()
    return [
        TrustError(
            f"{content.label}, put together from its parts, is not what was locked",
            where=str(target),
            want=f"{content.digest}  {content.size_bytes:,} bytes",
            have=f"{have}  {size_bytes:,} bytes",
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


def _arrived_bytes(store: BlobFolder) -> int:
    folder = store.root / "incoming"
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir()) if folder.is_dir() else 0


def _missing(media: Media, lacking: Sequence[Content]) -> Partial:
    names = media.missing_volumes()
    of = len({name for volume in media.volumes.values() for name in volume.volumes})
    shown = ", ".join(content.label for content in lacking[:3]) + (" …" if len(lacking) > 3 else "")
    return Partial(
        f"{', '.join(f'`{name}`' for name in names)} of {of} volumes not here; still lacking: {shown}",
        hint="run the same command with the other media: what was taken is kept",
    )
