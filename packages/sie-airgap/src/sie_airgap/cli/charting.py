"""The charts of `lock`: which are given, what each is rendered with, and which of the images seen are locked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from sie_airgap.charts.choosing import Seen, unlocked
from sie_airgap.charts.inventory import ImageUse
from sie_airgap.charts.package import tree_of
from sie_airgap.cli.console import Console
from sie_airgap.failures import Incomplete, Misused
from sie_airgap.locking.building import lock_chart, standing_images
from sie_airgap.oci.sources import Elsewhere, ImageSources
from sie_airgap.settings import logins
from sie_airgap.store.blobs import BlobFolder
from sie_core.artifacts.errors import TransferError
from sie_core.artifacts.lock import Lock, LockedChart, LockedImage

_PATH = click.Path(path_type=Path, exists=True)
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Given:
    """One chart of the command line, with the values files that it is rendered with."""

    path: Path
    values: tuple[Path, ...]
    is_extra: bool = False


def _extra(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Given, ...]:
    found = []
    for value in values:
        chart, _, file = value.partition("=")
        for path in (chart, *([file] if file else [])):
            if not Path(path).exists():
                raise click.BadParameter(f"Path '{path}' does not exist.")
        found.append(Given(Path(chart), (Path(file),) if file else (), is_extra=True))
    return tuple(found)


def chart_options(command: _Command) -> _Command:
    """--chart, --extra-chart, --with, --all-conditionals and --helm."""
    for option in reversed(
        (
            click.option(
                "--chart", type=_PATH, help="The chart, a folder or a .tgz: its images are read off what it renders."
            ),
            click.option(
                "--extra-chart",
                "extra_charts",
                multiple=True,
                callback=_extra,
                metavar="CHART[=VALUES]",
                help="Another chart, a folder or a .tgz with its dependencies inside, and its values file: KEDA, say.",
            ),
            click.option(
                "--with",
                "switches",
                multiple=True,
                metavar="VALUE",
                help="Lock also the images that come only when this value of a chart is switched on (a.b.c).",
            ),
            click.option(
                "--all-conditionals", is_flag=True, help="Lock the images that any value of a chart could bring."
            ),
            click.option("--helm", type=click.Path(path_type=Path), help="The helm program.  [default: on the PATH]"),
        )
    ):
        command = option(command)
    return command


def given_charts(
    chart: Path | None, extra: Sequence[Given], values: Sequence[Path], *, switches: Sequence[str], everything: bool
) -> tuple[Given, ...]:
    """Ours and the others. Raises `Misused` for options of charts without ours: a lock's charts are given together."""
    for option, is_given in (
        ("--extra-chart", extra),
        ("--with", switches),
        ("--all-conditionals", everything),
    ):
        if chart is None and is_given:
            raise Misused(f"{option} wants --chart beside it", hint="the charts of a lock are given together")
    return (Given(chart, tuple(values)), *extra) if chart is not None else ()


def lock_charts(given: Sequence[Given], store: BlobFolder) -> list[LockedChart]:
    """Into the store. Raises `Misused` for two that are called the same."""
    charts = [lock_chart(one.path, store) for one in given]
    names = [chart.file for chart in charts]
    for one, name in zip(given, names, strict=True):
        if names.count(name) > 1:
            raise Misused(f"two charts are called `{name}`; one of them is `{one.path}`")
    return charts


def render(given: Sequence[Given], helm: Path | None, console: Console) -> list[Seen]:
    """What each chart names, as helm renders it."""
    from sie_airgap.charts.helm import find
    from sie_airgap.charts.images import read

    if not given:
        return []
    program, seen = find(helm), []
    for one in given:
        name = tree_of(one.path).name
        release = name if one.is_extra else "sie"
        found = read(program, one.path, release=release, namespace=release, values=one.values)
        console.note(f"chart {name}: rendered {found.otherwise.renders + 1} times, with what is off switched on")
        seen.append(Seen(name, found.needed, found.otherwise, is_extra=one.is_extra))
    return seen


def with_sightings(
    charts: Sequence[LockedChart],
    seen: Sequence[Seen],
    images: Sequence[LockedImage],
    refused: dict[str, str],
    console: Console,
) -> list[LockedChart]:
    """The charts with what was seen of them and is not locked, which is told."""
    locked, made = {image.reference for image in images}, []
    for chart, one in zip(charts, seen, strict=True):
        left = unlocked(one, locked, refused)
        for image in left:
            console.note(f"note: not locked: {image.reference} ({'; '.join(image.why)})")
        if any(image.reference not in refused for image in left):
            console.note("hint: `--with VALUE` locks what a value brings, `--all-conditionals` all of them")
        if one.otherwise.not_tried:
            console.note(f"note: {chart.name} does not render with these: {', '.join(one.otherwise.not_tried)}")
        made.append(msgspec.structs.replace(chart, not_locked=left, not_tried=one.otherwise.not_tried))
    return made


def resolve_images(
    uses: Sequence[ImageUse], stays: Lock | None, elsewhere: Sequence[Elsewhere], console: Console, *, offline: bool
) -> tuple[list[LockedImage], dict[str, str]]:
    """Each image as the lock has it where it stays there, else as its registry has it now.

    An image that was only guessed and cannot be had is none: it is left out, and why is returned by reference.
    """
    from sie_airgap.oci.copy import resolve_image
    from sie_airgap.patience import patiently

    locked, asked = standing_images(uses, stays)
    certain = [use for use in asked if not use.is_guess]
    if certain and offline:
        raise Incomplete(
            f"{', '.join(f'`{use.reference}`' for use in certain)} are not in the lock, and `--offline` asks nobody",
            hint="run the same without `--offline`",
        )
    refused = {use.reference: "not in the lock, and `--offline` asks nobody" for use in asked} if offline else {}
    with ImageSources(elsewhere, logins=logins()) as sources:
        for use in asked if not offline else ():
            console.note(f"image {use.reference}")
            try:
                source = sources.find(use.reference)
                locked.append(patiently(partial(resolve_image, use.reference, source, why=use.why), say=console.note))
            except (TransferError, ValueError) as error:
                if use.is_guess:
                    refused[use.reference] = f"there is none: {str(error).splitlines()[0]}"
                elif isinstance(error, ValueError):
                    raise Misused(str(error)) from error
                else:
                    raise
    return locked, refused
