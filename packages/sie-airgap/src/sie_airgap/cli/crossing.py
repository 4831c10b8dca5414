"""The verbs that look at media: inspect, repair, unpack."""

from collections.abc import Iterator
from pathlib import Path

import click

from sie_airgap.archive.media import Media, read_media
from sie_airgap.archive.parity_format import Parity
from sie_airgap.archive.repair import repair as repair_volumes
from sie_airgap.archive.repair import survey
from sie_airgap.archive.unpack import plan_unpack
from sie_airgap.archive.unpack import unpack as unpack_media
from sie_airgap.cli.console import (
    Console,
    dry_run_option,
    output_option,
    store_option,
)
from sie_airgap.cli.guarding import Guard, trust_options
from sie_airgap.failures import raise_all
from sie_airgap.progress import counted, sized
from sie_airgap.store.blobs import BlobFolder

_MEDIA = click.argument("media", nargs=-1, required=True, type=click.Path(path_type=Path))


@click.command()
@_MEDIA
@output_option
def inspect(media: tuple[Path, ...], output: str) -> None:
    """Say what an archive is for, which of its volumes are here, and what they hold.

    MEDIA are folders or volumes, in any order. Only the indexes are read: `verify` reads every byte.

    A volume that cannot be read is said, exit 3; one that is absent is listed as missing.

    \b
    Example:  sie-airgap inspect /media/dvd1
    """
    console = Console(output)
    found = read_media(media)
    lock = found.lock
    lines = [
        f"archive  {found.archive}, lock number {lock.serial}",
        f"lock     {found.lock_digest}",
        *(f"volume   {volume.name}  {sized(volume.size_bytes)}  {path}" for path, volume in found.volumes.items()),
        *(
            f"parity   {one.name}  {sized(one.size_bytes)}  {path}, {_stands_for(one)}"
            for path, one in found.parity.items()
        ),
        *(f"missing  {name}" for name in found.missing_volumes()),
        *_base_lines(found),
        *(
            f"model    {model.id} at {model.revision}, {len(model.files)} files, {sized(model.size_bytes)}, "
            f"licence {model.license or 'not named'}"
            for model in lock.models
        ),
        *(f"image    {image.reference}  {', '.join(image.platforms)}" for image in lock.images),
        *(f"chart    {chart.file}" for chart in lock.charts),
        f"wheels   {len(lock.wheels)}",
    ]
    tell_notes(found, console)
    console.data("\n".join(lines), _facts(found))
    raise_all(found.refused)


def _base_lines(found: Media) -> Iterator[str]:
    delta = found.delta
    if delta.base is not None:
        yield f"base     lock number {delta.base.serial} at {delta.base.place}, {delta.base.lock}"
        yield f"         {counted(len(delta.left_out), 'blob')} of it left out"
    if delta.recipes:
        yield f"recipes  {len(delta.recipes)}, {sized(sum(one.recipe_bytes for one in delta.recipes))}"


def tell_notes(found: Media, console: Console) -> None:
    for note in found.notes():
        console.note(f"note: {note}")


def _stands_for(parity: Parity) -> str:
    return f"for {', '.join(volume.name for volume in parity.volumes)}"


def _facts(found: Media) -> dict[str, object]:
    return {
        "archive": found.archive,
        "lock": found.lock_digest,
        "serial": found.lock.serial,
        "volumes": {volume.name: str(path) for path, volume in found.volumes.items()},
        "parity": {one.name: [volume.name for volume in one.volumes] for one in found.parity.values()},
        "missing": list(found.missing_volumes()),
        "base": None if found.delta.base is None else found.delta.base.lock,
        "left_out": list(found.delta.left_out),
        "models": {model.id: model.revision for model in found.lock.models},
        "images": {image.reference: image.digest for image in found.lock.images},
    }


@click.command()
@_MEDIA
@click.option(
    "-o",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="FOLDER",
    help="Where the volumes that are made good are written: none of the media.",
)
@dry_run_option
@output_option
def repair(media: tuple[Path, ...], folder: Path, dry_run: bool, output: str) -> None:
    """Make volumes good that are lost or damaged, from the parity volumes and the others, byte for byte.

    MEDIA are folders or volumes, in any order: all that there is of the archive, damaged ones too. Of the volumes
    that a parity volume stands for one may be lost, or several be damaged in different places. Nothing that is
    given is changed. Where there is no parity volume, `pack --only` cuts a volume again on the connected side.

    \b
    Example:  sie-airgap repair /media/dvd1 /media/dvd2 -o mended
    """
    console = Console(output)
    found = survey(media, progress=console.progress)
    for error in found.refused:
        console.note(f"note: set aside: {error}")
    for one in found.lost:
        how = "lost" if one.chunks is None else f"{counted(len(one.chunks), 'MiB')} of it damaged"
        console.note(f"note: {one.volume.name}: {how}; {one.parity.name} stands for it")
    if dry_run:
        raise_all(found.errors)
        written = [folder / one.volume.name for one in found.lost]
    else:
        written = list(repair_volumes(found, folder, progress=console.progress))
    verb = "would be made good" if dry_run else "made good"
    text = f"{', '.join(str(path) for path in written)} {verb}" if written else "nothing to make good"
    console.data(text, {"repaired": [str(path) for path in written], "lost": len(found.lost)})


@click.command()
@_MEDIA
@store_option
@trust_options
@dry_run_option
@output_option
def unpack(media: tuple[Path, ...], store: Path, trust_path: Path, insecure: bool, dry_run: bool, output: str) -> None:
    """Put what MEDIA hold into a store. Nothing is deleted, on either side.

    MEDIA are folders or volumes, in any order, all at once or one after the other; each is checked on the way.

    Exit 10 says that volumes are still to come, and which.

    \b
    Example:  sie-airgap unpack /media/dvd1
              sie-airgap unpack /media/dvd1 /media/dvd2 --store /srv/sie
    """
    console = Console(output)
    found, blobs = read_media(media), BlobFolder(store)
    guard = Guard(trust_path, insecure=insecure, console=console)
    guard.check(found, found.lock)
    if dry_run:
        plan = plan_unpack(found, blobs)
        for content in plan.todo:
            console.note(f"unpack  {content.label}  {sized(content.size_bytes)}")
        for content in plan.missing:
            console.note(f"not here  {content.label}")
    else:
        plan = unpack_media(found, blobs, progress=console.progress)
        guard.taken(found, found.lock)
    verb, is_for = ("to unpack", "would be for") if dry_run else ("unpacked", "is for")
    text = f"{counted(len(plan.todo), 'blob')} {verb}, {sized(plan.todo_bytes)}; {store} {is_for} {found.lock_digest}"
    facts = {"blobs": len(plan.todo), "bytes": plan.todo_bytes, "lock": found.lock_digest, "store": str(store)}
    console.data(text, facts)
