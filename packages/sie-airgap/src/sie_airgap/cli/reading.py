"""The verbs that explain a lock: why, explain, diff."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import click

from sie_airgap.amounts import sized
from sie_airgap.archive.cut import beside_bytes, would_be
from sie_airgap.archive.media import Media, read_media
from sie_airgap.archive.medium import MEDIA
from sie_airgap.archive.plan import lay_out_on
from sie_airgap.cli.console import Console, from_option, is_store, lock_option, opened, output_option
from sie_airgap.failures import Incomplete
from sie_airgap.reviewing.diff import difference, lines, weight
from sie_airgap.reviewing.explaining import Subject, find, likely, places
from sie_airgap.store.blobs import BlobFolder, Blobs, lock_of, read_lock
from sie_airgap.store.contents import contents
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.lock import Lock, encode_lock, lock_digest


@click.command()
@click.argument("what")
@from_option
@lock_option
@output_option
def why(what: str, sources: tuple[Path, ...], lock_path: Path | None, output: str) -> None:
    """Say why WHAT is carried, back to the value or the option that asked for it.

    WHAT is a model, an image (`sie-server` is enough), a file's path, a chart, a wheel, or the beginning of a digest
    or a commit. --lock alone looks into a lock without any store or archive.

    \b
    Example:  sie-airgap why intfloat/e5-base-v2
              sie-airgap why sie-server --lock airgap.lock
    """
    console = Console(output)
    _, lock = _looked_into(sources, lock_path)
    found = _found(lock, what)
    told = [f"{one.kind} {one.name}: {reason}" for one in found for reason in one.why]
    facts = [{"kind": one.kind, "name": one.name, "why": one.why} for one in found]
    console.data("\n".join(told), {"what": what, "found": facts})


@click.command()
@click.argument("what")
@from_option
@lock_option
@output_option
def explain(what: str, sources: tuple[Path, ...], lock_path: Path | None, output: str) -> None:
    """Say everything that is known of WHAT: where it is from, licence, sizes, digests, volumes, and who asked for it.

    WHAT is a model, an image (`sie-server` is enough), a file's path, a chart, a wheel, or the beginning of a digest
    or a commit. With --from and the media of an archive it says on which volumes WHAT is; otherwise on which it would
    be. --lock alone looks into a lock without any store or archive.

    \b
    Example:  sie-airgap explain intfloat/e5-base-v2 --from /media/dvd1
    """
    console = Console(output)
    blobs, lock = _looked_into(sources, lock_path)
    volumes = _on_volumes(blobs) if isinstance(blobs, Media) else _would_be_on(lock)
    present = None
    if isinstance(blobs, BlobFolder):
        present = {content.digest for content in contents(lock) if blobs.size(content.digest) is not None}
    told, facts = [], []
    for subject in _found(lock, what):
        known = {**subject.facts, **places(subject, present=present, volumes=volumes)}
        about = {"kind": subject.kind, "name": subject.name, "bytes": subject.size_bytes}
        facts.append({**about, "facts": known, "why": subject.why})
        width = max(len(label) for label in known)
        rows = [*known.items(), *(("why", reason) for reason in subject.why)]
        told.append("\n".join([f"{subject.kind} {subject.name}", *(f"  {k:{width}}  {v}" for k, v in rows)]))
    console.data("\n\n".join(told), {"what": what, "lock": lock_digest(lock), "found": facts})


def _looked_into(sources: tuple[Path, ...], lock_path: Path | None) -> tuple[Blobs | None, Lock]:
    if lock_path is not None and not sources:
        return None, read_lock(lock_path)
    return opened(sources, lock_path)


def _found(lock: Lock, what: str) -> tuple[Subject, ...]:
    found = find(lock, what)
    if not found:
        near = [f"`{name}`" for name in likely(lock, what)]
        hint = f"did you mean {' or '.join(near)}?" if near else "`sie-airgap review` lists all models and images"
        raise Incomplete(f"the lock has no `{what}`", hint=hint)
    return found


def _on_volumes(media: Media) -> Mapping[str, Mapping[Digest, Sequence[str]]]:
    on = {
        digest: [placed.path.name for placed_here in at.values() for placed in placed_here]
        for digest, at in media.pieces.items()
    }
    return {"on": on}


def _would_be_on(lock: Lock) -> Mapping[str, Mapping[Digest, Sequence[str]]]:
    """The volumes of each medium, as `pack` would cut them."""
    blobs = [(content.digest, content.size_bytes) for content in contents(lock)]
    beside = partial(beside_bytes, would_be(lock))
    found = {}
    for medium, size in MEDIA.items():
        on: dict[Digest, list[str]] = {}
        cut = lay_out_on(size, blobs, reserved_bytes=[len(encode_lock(lock))], beside_bytes=beside)
        for number, pieces in enumerate(cut, start=1):
            for piece in pieces:
                on.setdefault(piece.blob, []).append(f"volume {number} of {len(cut)}")
        found[f"on {medium}, if packed"] = on
    return found


@click.command()
@click.argument("old", type=click.Path(path_type=Path, exists=True))
@click.argument("new", type=click.Path(path_type=Path, exists=True))
@output_option
def diff(old: Path, new: Path, output: str) -> None:
    """Say what changed from OLD to NEW, which are locks, stores or archives, and how much NEW has that OLD lacks.

    \b
    Example:  sie-airgap diff old/airgap.lock airgap.lock
    """
    console = Console(output)
    before, after = read_any_lock(old), read_any_lock(new)
    changes, heavy = difference(before, after), weight(before, after)
    told = [*lines(changes), *_order(before, after)]
    if changes:
        told.append(f"to carry to where OLD is: {sized(heavy.anew_bytes)} of {sized(heavy.size_bytes)}")
    facts = {
        "old": {"lock": lock_digest(before), "serial": before.serial},
        "new": {"lock": lock_digest(after), "serial": after.serial, "previous": after.previous},
        "changes": changes,
        "bytes": heavy.size_bytes,
        "bytes_anew": heavy.anew_bytes,
    }
    console.data("\n".join(told), facts)


def _order(before: Lock, after: Lock) -> Iterator[str]:
    """Which of the two came first, and whether one follows right after the other."""
    old, new = lock_digest(before), lock_digest(after)
    if old == new:
        yield f"the same lock: number {after.serial}, {new}"
    elif after.previous == old:
        yield f"number {after.serial} follows number {before.serial}"
    elif before.previous == new or before.serial > after.serial:
        yield f"number {after.serial} is older than number {before.serial}: OLD and NEW may have changed places"
    else:
        yield f"number {after.serial} does not follow number {before.serial} directly: its `previous` is another lock"


def read_any_lock(path: Path) -> Lock:
    """The lock of a file, a store, a folder of volumes or one volume."""
    if path.is_dir():
        return lock_of(BlobFolder(path)) if is_store(path) else read_media([path]).lock
    if path.suffix == ".tar":
        return read_media([path]).lock
    return read_lock(path)
