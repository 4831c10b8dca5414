"""`sie-gateway serve | settings`."""

from typing import Any

import click

from sie_core.catalog.catalog import Catalog
from sie_core.http import log
from sie_core.http.flags import options, stop, table
from sie_core.http.serve import Drain, run
from sie_core.settings import SettingsError
from sie_gateway import __version__
from sie_gateway.app import Gateway
from sie_gateway.settings import GatewaySettings, auth, read


@click.group()
@click.version_option(__version__, prog_name="sie-gateway")
def main() -> None:
    """The front door of an SIE cluster: routes calls to workers and forwards their bytes unread."""


@main.command()
@options(GatewaySettings)
def serve(**flags: Any) -> None:
    """Serve until SIGTERM; running calls are finished first."""
    try:
        settings = read(flags).value
        log.configure(settings.log_level, as_json=settings.log_json)
        drain = Drain()
        gateway = Gateway(settings, catalog=Catalog.shipped(), auth=auth(settings), drain=drain)
        run(gateway, host=settings.host, port=settings.port, drain=drain, lifespan=gateway.lifespan)
    except SettingsError as error:
        stop(error)
    except OSError as error:
        raise click.ClickException(str(error)) from error


@main.command("settings")
@options(GatewaySettings)
def show_settings(**flags: Any) -> None:
    """Print every effective value and where it comes from."""
    try:
        click.echo(table(read(flags)))
    except SettingsError as error:
        stop(error)
