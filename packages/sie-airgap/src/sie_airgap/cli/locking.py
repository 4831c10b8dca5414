"""The verb that resolves: lock."""

from pathlib import Path
from typing import Any

import click

from sie_airgap.charts.choosing import wanted as wanted_images
from sie_airgap.charts.inventory import ImageUse
from sie_airgap.cli.charting import (
    Given,
    chart_options,
    given_charts,
    lock_charts,
    render,
    resolve_images,
    with_sightings,
)
from sie_airgap.cli.console import Console, dry_run_option, output_option, store_option
from sie_airgap.cli.upstream import hub, image_source_option, lock_file_option
from sie_airgap.failures import Drift, Misused
from sie_airgap.locking.building import assemble, check_given, lock_wheels, wheels_lacking
from sie_airgap.locking.resolving import bring_derived, resolve_models
from sie_airgap.locking.wheel_needs import told
from sie_airgap.locking.wishes import standing, wishes
from sie_airgap.oci.sources import Elsewhere
from sie_airgap.reviewing.diff import difference, lines
from sie_airgap.store.blobs import BlobFolder, Unwritten, read_lock, write_lock
from sie_core.artifacts.lock import Lock, lock_digest
from sie_core.catalog.catalog import Catalog
from sie_core.ids import is_revision
from sie_core.yaml_documents import document

_PATH = click.Path(path_type=Path, exists=True)
_NEVER_TOGETHER = (
    ("--check", "--locked"),
    ("--check", "--frozen"),
    ("--check", "--offline"),
    ("--check", "--update"),
    ("--check", "--update-all"),
    ("--locked", "--frozen"),
    ("--locked", "--update"),
    ("--locked", "--update-all"),
    ("--frozen", "--update"),
    ("--frozen", "--update-all"),
    ("--offline", "--update"),
    ("--offline", "--update-all"),
    ("--with", "--all-conditionals"),
)


@click.command()
@click.option("-f", "--values", "values_files", type=_PATH, multiple=True, help="A values file, as Helm takes it.")
@click.option("--model", "models", multiple=True, metavar="ID", help="A model besides those that the values preload.")
@click.option("--bundle", "bundles", multiple=True, metavar="NAME", help="All models of a bundle.")
@chart_options
@click.option(
    "--wheels",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder with the wheels of the toolkit and the SDK and what they need.",
)
@click.option(
    "--incomplete-wheels",
    is_flag=True,
    help="Take wheels, too, that cannot be installed on every Python from 3.11 to 3.13, x86-64 and arm64.",
)
@image_source_option
@lock_file_option
@store_option
@click.option(
    "--update", multiple=True, metavar="ID|IMAGE", help="Move this model or image to what its name means now."
)
@click.option("--update-all", is_flag=True, help="Move every model and image.")
@click.option("--check", is_flag=True, help="Write nothing; exit 8 when --update-all would change the lock.")
@click.option("--locked", is_flag=True, help="Write nothing; exit 8 when the lock is not what this command asks for.")
@click.option("--frozen", is_flag=True, help="Resolve nothing: fill the store with what only this command brings.")
@click.option("--offline", is_flag=True, help="Ask nobody: make do with what the lock and the store have.")
@dry_run_option
@output_option
@click.pass_context
def lock(
    ctx: click.Context,
    values_files: tuple[Path, ...],
    models: tuple[str, ...],
    bundles: tuple[str, ...],
    chart: Path | None,
    extra_charts: tuple[Given, ...],
    switches: tuple[str, ...],
    all_conditionals: bool,
    helm: Path | None,
    wheels: Path | None,
    incomplete_wheels: bool,
    elsewhere: tuple[Elsewhere, ...],
    lock_path: Path,
    store: Path,
    update: tuple[str, ...],
    update_all: bool,
    check: bool,
    locked: bool,
    frozen: bool,
    offline: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Resolve what is to be carried: refs to commits, tags to digests, every file to its sha256.

    Models are those that the values preload (workers.common.preloadModels) and those named here, with their LoRAs and
    the repositories that their own files name. HF_ENDPOINT says where the hub is, HF_TOKEN who asks.

    What a lock has keeps its commit and digest until --update or --update-all moves it; what is no longer asked for
    goes. Models, chart or wheels that the command does not mention at all stay.

    Images are read off what the charts render. What a value that is off would bring is told, and not locked until
    --with names the value.

    Review the lock (`sie-airgap review`), keep it in version control, and never edit it.

    \b
    Example:  sie-airgap lock -f values.yaml --chart sie-cluster-0.3.1.tgz
              sie-airgap lock --update intfloat/e5-base-v2
    """
    _refuse_together(ctx)
    console = Console(output)
    previous = read_lock(lock_path) if frozen or lock_path.exists() else None
    blobs = Unwritten(store) if check or locked or dry_run else BlobFolder(store)
    # Before the hub is asked: it may be none.
    given = given_charts(chart, extra_charts, values_files, switches=switches, everything=all_conditionals)
    charts = lock_charts(given, blobs) if given else None
    locked_wheels = lock_wheels(wheels, blobs, may_lack=incomplete_wheels) if wheels is not None else None
    for lack in wheels_lacking(wheels) if wheels is not None else ():
        console.note(f"note: no wheel: {told(lack)}")
    source = None if offline else hub()
    if frozen and previous is not None:
        check_given(previous, charts=charts, wheels=locked_wheels)
        for model in previous.models:
            bring_derived(model, source, blobs, progress=console.progress)
        _report(previous, previous, lock_path, console, refuses=False, writes=False)
        return
    catalog, values = Catalog.shipped(), [_values(path) for path in values_files]
    stays = None if check or update_all else standing(previous, update=update)
    wanted = wishes(values, models=models, bundles=bundles, catalog=catalog, locked=previous)
    for wish in wanted:
        if wish.id in update and is_revision(wish.ref):
            console.note(f"note: {wish.id} stays at {wish.ref}: its spec names that commit")
    resolved = resolve_models(
        wanted,
        source,
        blobs,
        previous=previous,
        standing=stays,
        known=catalog.specs,
        progress=console.progress,
    )
    seen = render(given, helm, console)
    if given:
        uses = wanted_images(seen, switches=switches, everything=all_conditionals)
    else:
        uses = tuple(ImageUse(image.reference, image.why) for image in (previous.images if previous else ()))
        _not_given("--chart", "images and no chart are", bool(previous and previous.charts), console)
    if wheels is None:
        _not_given("--wheels", "wheels are", bool(previous and previous.wheels), console)
    images, refused = resolve_images(uses, stays, elsewhere, console, offline=offline)
    if charts is not None:
        charts = with_sightings(charts, seen, images, refused, console)
    made = assemble(
        previous,
        models=resolved.models,
        images=images,
        charts=charts if charts is not None else previous.charts if previous else (),
        wheels=locked_wheels if locked_wheels is not None else previous.wheels if previous else (),
    )
    for note in resolved.notes:
        console.note(f"note: {note}")
    _report(previous, made, lock_path, console, refuses=check or locked, writes=not dry_run)


def _refuse_together(ctx: click.Context) -> None:
    given = {parameter.opts[-1] for parameter in ctx.command.params if ctx.params.get(parameter.name or "")}
    for one, other in _NEVER_TOGETHER:
        if {one, other} <= given:
            raise Misused(f"{one} and {other} do not go together")


def _not_given(option: str, what: str, stay: bool, console: Console) -> None:
    console.note(f"note: no {option}, so " + ("those of the lock stay" if stay else f"no {what} locked"))


def _report(previous: Lock | None, made: Lock, path: Path, console: Console, *, refuses: bool, writes: bool) -> None:
    """`refuses`: a change is drift, and nothing is written."""
    changes = difference(previous, made)
    if not refuses and writes:
        write_lock(path, made)
    if not console.as_json and not refuses:
        for line in lines(changes):
            console.note(line)
    state = "unchanged" if made == previous else "differs" if refuses else "written" if writes else "would be written"
    text = f"{path} {state}: number {made.serial}, {lock_digest(made)}"
    facts = {"lock": str(path), "digest": lock_digest(made), "serial": made.serial, "state": state}
    if not refuses or not changes:
        console.data(text, {**facts, "changes": changes})
        return
    if console.as_json:
        console.data(text, {**facts, "changes": changes})
    raise Drift(
        f"{path} is not what would be resolved now\n" + "\n".join(f"  {line}" for line in lines(changes)),
        hint="`sie-airgap lock` writes it anew, with the same options but those that only look; "
        "`--update ID` moves one model, `--update-all` all",
    )


def _values(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        content = document(path.read_bytes(), where=str(path))
    except ValueError as error:
        raise Misused(str(error)) from error
    if content is not None and not isinstance(content, dict):
        raise Misused(f"{path} holds a {type(content).__name__}, want a mapping of values")
    return path.name, content or {}
