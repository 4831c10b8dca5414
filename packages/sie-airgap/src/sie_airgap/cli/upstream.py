"""Where the connected side reads from: the options and settings that `lock` and `snapshot` share."""

from pathlib import Path

import click

from sie_airgap.failures import Misused
from sie_airgap.oci.sources import Elsewhere, parse_elsewhere
from sie_airgap.settings import settings
from sie_airgap.store.contents import LOCK_NAME
from sie_core.artifacts.stores.hub import Hub


def _elsewhere(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Elsewhere, ...]:
    try:
        return tuple(parse_elsewhere(value) for value in values)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


image_source_option = click.option(
    "--image-source",
    "elsewhere",
    multiple=True,
    callback=_elsewhere,
    metavar="PREFIX=URL|oci:DIR|tar:FILE",
    help="Read images whose names begin with PREFIX from here; the lock keeps their names.",
)
lock_file_option = click.option(
    "--lock",
    "lock_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path(LOCK_NAME),
    show_default=True,
    help="The lock.",
)


def hub() -> Hub:
    here = settings()
    token = here.hub_token.reveal() if here.hub_token is not None else None
    try:
        return Hub(here.hub_endpoint, token=token, ca_bundle=here.ca_bundle)
    except ValueError as error:
        raise Misused(f"HF_ENDPOINT, HF_TOKEN or REQUESTS_CA_BUNDLE: {error}") from error
