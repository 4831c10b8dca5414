"""The verb that resolves: lock."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import yaml

from sie_airgap.blobs import BlobFolder, Unwritten, read_lock, write_lock
from sie_airgap.cli.console import Console, dry_run_option, output_option, store_option
from sie_airgap.cli.upstream import hub, image_source_option, lock_file_option
from sie_airgap.failures import Drift, Misused
from sie_airgap.lock_diff import difference
from sie_airgap.locking import assemble, lock_chart, lock_wheels, resolve_models
from sie_airgap.oci.sources import Elsewhere, ImageSources
from sie_airgap.settings import logins
from sie_airgap.wishes import wishes
from sie_core.artifacts.lock import Lock, LockedImage, LockedWheel, lock_digest
from sie_core.catalog.catalog import Catalog

_PATH = click.Path(path_type=Path, exists=True)


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
@image_source_option
@lock_file_option
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
    resolved = resolve_models(wanted, hub(), blobs, previous=previous, known=catalog.specs, progress=console.progress)
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
