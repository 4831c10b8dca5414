"""The verbs that explain a lock: why, diff."""

from collections.abc import Iterator
from pathlib import Path

import click

from sie_airgap.blobs import BlobFolder, lock_of, read_lock
from sie_airgap.cli.console import Console, from_option, is_store, lock_option, opened, output_option
from sie_airgap.failures import Incomplete
from sie_airgap.lock_diff import difference, lines, weight
from sie_airgap.media import read_media
from sie_airgap.progress import sized
from sie_core.artifacts.lock import Lock, LockedImage, LockedModel, lock_digest
from sie_core.ids import nearest


@click.command()
@click.argument("what")
@from_option
@lock_option
@output_option
def why(what: str, sources: tuple[Path, ...], lock_path: Path | None, output: str) -> None:
    """Say why WHAT is carried: a model, an image, a file's path or a digest (its beginning is enough)."""
    console = Console(output)
    if lock_path is not None and not sources:
        lock = read_lock(lock_path)
    else:
        _, lock = opened(sources, lock_path)
    reasons = list(_reasons(lock, what))
    if not reasons:
        known = [*(model.id for model in lock.models), *(image.reference for image in lock.images)]
        near = nearest(what, known, most=1)
        raise Incomplete(
            f"the lock has no `{what}`", hint=f"did you mean `{near[0]}`?" if near else "`sie-airgap inspect` lists all"
        )
    console.data("\n".join(reasons), {"what": what, "why": reasons})


def _reasons(lock: Lock, what: str) -> Iterator[str]:
    for model in lock.models:
        yield from _model(model, what)
    for image in lock.images:
        yield from _image(image, what)
    for chart in lock.charts:
        if what in (chart.name, chart.file) or _begins(chart.digest, what):
            yield f"chart {chart.file} ({chart.digest}): given with --chart"
    for wheel in lock.wheels:
        if what == wheel.file or _begins(wheel.digest, what):
            yield f"wheel {wheel.file} ({wheel.digest}): found in the folder given with --wheels"


def _model(model: LockedModel, what: str) -> Iterator[str]:
    asked = f"asked for by {', '.join(model.why)}"
    if what in (model.id, model.repo):
        yield f"model {model.id}: {asked}; `{model.ref}` of {model.repo} was {model.revision} when it was locked"
    for file in model.files:
        if what == file.path or _begins(file.digest, what):
            yield f"{file.path} ({sized(file.size_bytes)}, {file.digest}) of model {model.id}: {asked}"


def _image(image: LockedImage, what: str) -> Iterator[str]:
    named = f"named by {'; '.join(image.why)}"
    if what == image.reference or _begins(image.digest, what):
        yield f"image {image.reference} ({image.digest}): {named}"
    for blob in image.blobs:
        if blob.digest != image.digest and _begins(blob.digest, what):
            yield f"{blob.media_type} ({sized(blob.size_bytes)}) of image {image.reference}: {named}"


def _begins(digest: str, what: str) -> bool:
    hexed = what.removeprefix("sha256:")
    return len(hexed) >= 8 and digest.removeprefix("sha256:").startswith(hexed)


@click.command()
@click.argument("old", type=click.Path(path_type=Path, exists=True))
@click.argument("new", type=click.Path(path_type=Path, exists=True))
@output_option
def diff(old: Path, new: Path, output: str) -> None:
    """Say what changed from OLD to NEW, which are locks, stores or archives, and how much NEW has that OLD lacks."""
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
