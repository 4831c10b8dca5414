"""`sie-config serve | check | settings`."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from sie_config import __version__
from sie_config.app import ConfigService
from sie_config.checking import check as check_specs
from sie_config.ledger import Ledger
from sie_config.settings import ConfigSettings, auth, read
from sie_core.catalog.catalog import Catalog
from sie_core.catalog.spec import dump_spec
from sie_core.http import log
from sie_core.http.flags import options, stop, table
from sie_core.http.serve import Drain, run
from sie_core.settings import SettingsError


@click.group()
@click.version_option(__version__, prog_name="sie-config")
def main() -> None:
    """The ledger of model specs of an SIE cluster."""


@main.command()
@options(ConfigSettings)
def serve(**flags: Any) -> None:
    """Serve until SIGTERM; running calls are finished first."""
    try:
        settings = read(flags).value
        log.configure(settings.log_level, as_json=settings.log_json)
        drain = Drain()
        ledger = Ledger(Catalog.shipped(), epoch=0, began_at=datetime.now(UTC).isoformat(timespec="seconds"))
        service = ConfigService(ledger, auth=auth(settings), drain=drain)
        run(service, host=settings.host, port=settings.port, drain=drain)
    except SettingsError as error:
        stop(error)
    except OSError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
def check(path: Path) -> None:
    """Check the spec at PATH, or every spec in the folder PATH, and print what they say.

    Exits 1 when any of them is wrong.
    """
    wrong = 0
    try:
        for checked in check_specs(path):
            if checked.spec is not None:
                click.echo(f"# {checked.file.name}\n{dump_spec(checked.spec)}")
            else:
                wrong += 1
                click.echo(f"error: `{checked.file.name}`: {checked.wrong}", err=True)
    except FileNotFoundError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    sys.exit(1 if wrong else 0)


@main.command("settings")
@options(ConfigSettings)
def show_settings(**flags: Any) -> None:
    """Print every effective value and where it comes from."""
    try:
        click.echo(table(read(flags)))
    except SettingsError as error:
        stop(error)
