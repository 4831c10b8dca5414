"""The verbs of the connected side: lock, snapshot, pack."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import click
import yaml

from sie_airgap.archive import UNLIMITED_BYTES, plan_archive, present_volumes
from sie_airgap.archive import pack as pack_archive
from sie_airgap.archive_plan import LOCK_NAME, parse_volume_size
from sie_airgap.blobs import BlobFolder, Unwritten, read_lock, write_lock
from sie_airgap.cli.console import Console, dry_run_option, output_option, store_option
from sie_airgap.failures import Drift, Incomplete, Misused
from sie_airgap.lock_diff import difference
from sie_airgap.locking import assemble, lock_chart, lock_wheels, resolve_models
from sie_airgap.oci.sources import Elsewhere, ImageSources, parse_elsewhere
from sie_airgap.progress import counted, sized
from sie_airgap.settings import logins, settings
from sie_airgap.snapshot import missing
from sie_airgap.snapshot import snapshot as fetch_snapshot
from sie_airgap.wishes import wishes
from sie_core.artifacts.lock import Lock, LockedBlob, LockedImage, LockedWheel, lock_digest
from sie_core.artifacts.stores.hub import Hub
from sie_core.catalog.catalog import Catalog

_PATH = click.Path(path_type=Path, exists=True)


def _elsewhere(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Elsewhere, ...]:
    try:
        return tuple(parse_elsewhere(value) for value in values)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


_image_source_option = click.option(
    "--image-source",
    "elsewhere",
    multiple=True,
    callback=_elsewhere,
    metavar="PREFIX=URL|oci:DIR",
    help="Read images whose names begin with PREFIX from this registry or OCI layout; the lock keeps their names.",
)
_lock_file_option = click.option(
    "--lock",
    "lock_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path(LOCK_NAME),
    show_default=True,
    help="The lock.",
)


@click.command()
@click.option("-f", "--values", "values_files", type=_PATH, multiple=True, help="A values file, as Helm takes it.")
@click.option("--model", "models", multiple=True, metavar="ID", help="A model besides those that the values preload.")
@click.option("--bundle", "bundles", multiple=True, metavar="NAME", help="All models of a bundle.")
@click.option("--chart", type=_PATH, help="The chart, a folder or a .tgz: its images are read off what it renders.")
@click.option("--helm", type=click.Path(path_type=Path), help="The helm program.  [default: on the PATH]")
@click.option(
    "--wheels",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder with the wheels of the toolkit and the SDK and what they need.",
)
@_image_source_option
@_lock_file_option
@store_option
@click.option("--check", is_flag=True, help="Write nothing; exit 8 when the lock is no longer what would be resolved.")
@dry_run_option
@output_option
def lock(
    values_files: tuple[Path, ...],
    models: tuple[str, ...],
    bundles: tuple[str, ...],
    chart: Path | None,
    helm: Path | None,
    wheels: Path | None,
    elsewhere: tuple[Elsewhere, ...],
    lock_path: Path,
    store: Path,
    check: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Resolve what is to be carried: refs to commits, tags to digests, every file to its sha256.

    Models are those in `workers.common.preloadModels` of the values files and those named with --model; a whole
    bundle only with --bundle. HF_ENDPOINT says where the hub is, HF_TOKEN who asks. Review the lock, keep it in
    version control, and never edit it.
    """
    console = Console(output)
    catalog = Catalog.shipped()
    wanted = wishes([_values(path) for path in values_files], models=models, bundles=bundles, catalog=catalog)
    previous = read_lock(lock_path) if lock_path.exists() else None
    blobs = Unwritten(store) if check or dry_run else BlobFolder(store)
    charts = [lock_chart(chart, blobs)] if chart is not None else []  # before the hub is asked: it may be none
    resolved = resolve_models(wanted, _hub(), blobs, previous=previous, known=catalog.specs, progress=console.progress)
    images: Sequence[LockedImage] = ()
    if chart is None:
        console.note("note: no --chart, so no images and no chart are locked")
    else:
        images = _images(chart, helm, values_files, elsewhere, console)
    locked_wheels: Sequence[LockedWheel] = ()
    if wheels is None:
        console.note("note: no --wheels, so the far side must bring its own sie-airgap")
    else:
        locked_wheels = lock_wheels(wheels, blobs)
    made = assemble(previous, models=resolved.models, images=images, charts=charts, wheels=locked_wheels)
    for note in resolved.notes:
        console.note(f"note: {note}")
    _report_lock(previous, made, lock_path, console, check=check, dry_run=dry_run)


def _report_lock(
    previous: Lock | None, made: Lock, path: Path, console: Console, *, check: bool, dry_run: bool
) -> None:
    changes = tuple(difference(previous, made))
    if check:
        if changes:
            raise Drift(
                f"{path} is not what would be resolved now\n" + "\n".join(f"  {line}" for line in changes),
                hint="`sie-airgap lock` with the same options writes it anew",
            )
    elif not dry_run:
        write_lock(path, made)
    if not console.as_json:
        for line in changes:
            console.note(line)
    written = "unchanged" if made == previous else "would be written" if dry_run else "written"
    text = f"{path} {written}: number {made.serial}, {lock_digest(made)}"
    console.data(text, {"lock": str(path), "digest": lock_digest(made), "serial": made.serial, "state": written})


def _values(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        content = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise Misused(f"{path} is not YAML: {error}") from error
    if content is not None and not isinstance(content, dict):
        raise Misused(f"{path} holds a {type(content).__name__}, want a mapping of values")
    return path.name, content or {}


def _hub() -> Hub:
    here = settings()
    token = here.hub_token.reveal() if here.hub_token is not None else None
    try:
        return Hub(here.hub_endpoint, token=token)
    except ValueError as error:
        raise Misused(f"HF_ENDPOINT: {error}") from error


def _images(
    chart: Path, helm: Path | None, values: Sequence[Path], elsewhere: Sequence[Elsewhere], console: Console
) -> list[LockedImage]:
    from sie_airgap import chart_images
    from sie_airgap.helm import find
    from sie_airgap.oci.copy import resolve_image
    from sie_airgap.patience import patiently

    found = chart_images.read(find(helm), chart, release="sie", namespace="sie", values=values)
    for use in found.with_switches:
        console.note(f"note: not locked, since no value asks for it: {use.reference} ({', '.join(use.why)})")
    locked = []
    with ImageSources(elsewhere, logins=logins()) as sources:
        for use in found.needed:
            console.note(f"image {use.reference}")
            source = sources.find(use.reference)
            try:
                resolved = partial(resolve_image, use.reference, source, why=use.why)
                locked.append(patiently(resolved, say=console.note))
            except ValueError as error:
                raise Misused(str(error)) from error
    return locked


@click.command()
@_image_source_option
@_lock_file_option
@store_option
@dry_run_option
@output_option
def snapshot(elsewhere: tuple[Elsewhere, ...], lock_path: Path, store: Path, dry_run: bool, output: str) -> None:
    """Fetch what the store lacks of a lock, and check every byte of it.

    Files come in ranges, and a run that was interrupted goes on where it was.
    """
    console = Console(output)
    locked, blobs = read_lock(lock_path), BlobFolder(store)
    if dry_run:
        todo = missing(locked, blobs)
        for model, file in todo.files:
            console.note(f"fetch  {model.id} {file.path}  {sized(file.size_bytes)}")
        for image, blob in todo.blobs:
            console.note(f"fetch  {image.reference} {blob.digest[7:19]}  {sized(blob.size_bytes)}")
    else:
        with ExitStack() as stack:
            sources = stack.enter_context(ImageSources(elsewhere, logins=logins()))

            def open_blob(image: LockedImage, blob: LockedBlob, start: int) -> BinaryIO:
                source = sources.find(image.reference)
                if "manifest" in blob.media_type or "index" in blob.media_type:
                    return _manifest(source.manifest(blob.digest).data, start)
                return source.open(blob.digest, start=start)

            todo = fetch_snapshot(locked, blobs, hub=_hub(), open_blob=open_blob, progress=console.progress)
    verb = "to fetch" if dry_run else "fetched"
    count = len(todo.files) + len(todo.blobs)
    text = f"{counted(count, 'file')} {verb}, {sized(todo.size_bytes)}; {store} is for {lock_digest(locked)}"
    console.data(text, {"files": count, "bytes": todo.size_bytes, "lock": lock_digest(locked), "store": str(store)})


def _manifest(data: bytes, start: int) -> BinaryIO:
    from io import BytesIO

    stream = BytesIO(data)
    stream.seek(start)
    return stream


def _volume_bytes(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int:
    if value is None:
        return UNLIMITED_BYTES
    try:
        return parse_volume_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _archive_name(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value) is None:
        raise click.BadParameter(f"`{value[:100]}`: want letters, digits, `.`, `_` and `-`, 100 at most")
    return value


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--volume-size",
    "volume_bytes",
    callback=_volume_bytes,
    metavar="dvd|bd25|fat32|SIZE",
    help="The most that a volume may be: a medium, or a size like 4GiB.  [default: one volume]",
)
@click.option(
    "--name", callback=_archive_name, help="Of the archive.  [default: sie-N, N the lock's number]", metavar="NAME"
)
@store_option
@dry_run_option
@output_option
def pack(folder: Path, volume_bytes: int, name: str | None, store: Path, dry_run: bool, output: str) -> None:
    """Cut a store into volumes in FOLDER, with checksums and a runbook.

    A volume is a plain tar that needs none of the others. The same store and size give the same bytes; a volume
    that is lost is cut again by running this again.
    """
    console = Console(output)
    blobs = BlobFolder(store)
    if not (store / LOCK_NAME).exists():
        raise Incomplete(
            f"the store {store} is not complete for any lock", hint="`sie-airgap snapshot` fetches what is missing"
        )
    locked = read_lock(store / LOCK_NAME)
    try:
        cut = plan_archive(locked, blobs, name=name or f"sie-{locked.serial}", volume_bytes=volume_bytes)
    except ValueError as error:
        raise Misused(f"--volume-size: {error}") from error
    if dry_run:
        there = present_volumes(cut, folder)
        written = [folder / volume for volume in cut.volume_names if volume not in there]
    else:
        written = list(pack_archive(cut, blobs, folder, progress=console.progress))
    for path in written:
        console.note(f"{'write' if dry_run else 'wrote'}  {path}")
    verb = "to write" if dry_run else "written"
    text = f"{len(written)} of {len(cut.volumes)} volumes {verb}, {sized(cut.size_bytes)}; lock {cut.lock_digest}"
    console.data(text, {"volumes": list(cut.volume_names), "written": len(written), "lock": cut.lock_digest})
