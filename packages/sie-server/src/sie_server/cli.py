"""`sie-server serve | weights | models | settings`.

Nothing heavy is imported here: the settings are read first, and the offline variables are set before
anything that would read them.
"""

import time

STARTED_S = time.monotonic()

import errno  # noqa: E402 - the clock starts before the imports
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from typing import Any, NoReturn  # noqa: E402

import click  # noqa: E402

from sie_core.http.flags import options, stop, table  # noqa: E402
from sie_core.settings import Loaded, SettingsError  # noqa: E402
from sie_server import __version__  # noqa: E402
from sie_server.settings import ServeSettings, read, settle_libraries  # noqa: E402


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sie-server")
def main() -> None:
    """The worker of SIE: embeddings over HTTP, from verified files, with no internet."""


@main.command()
@options(ServeSettings)
def serve(**flags: Any) -> None:
    """Load models and answer calls until stopped.

    \b
    sie-server serve --models sentence-transformers/all-MiniLM-L6-v2 --local-cache ./models
    """
    settings = _settings(flags).value
    from sie_server.app import run

    try:
        code = run(settings, started_s=STARTED_S)
    except SettingsError as error:
        stop(error)
    except OSError as error:
        code = _cannot_listen(error)
    except KeyboardInterrupt:
        code = 130  # before the server took signals over
    _end(code)


@main.command()
@options(ServeSettings)
def weights(**flags: Any) -> None:
    """Fetch and verify the models of --models, then exit; with none, check that the bucket can be read.

    What a person must put right (a permission, a missing file) is said, and looked at again every minute: in a
    cluster the pod stays in Init and its log says why.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # as process 1 of a container it would not end by the latter
        signal.signal(number, _end_at_once)
    settings = _settings(flags).value
    from sie_server.fetching import fetch

    try:
        sys.exit(fetch(settings))
    except SettingsError as error:
        stop(error)


@main.command()
@options(ServeSettings)
def models(**flags: Any) -> None:
    """List the models of the bundle: id, outputs, commit, and what the local cache holds of them."""
    settings = _settings(flags).value
    from sie_server.fetching import listing

    click.echo(listing(settings))


@main.command("settings")
@options(ServeSettings)
def show_settings(**flags: Any) -> None:
    """Print every effective value and where it comes from."""
    click.echo(table(_settings(flags)))


def _settings(flags: dict[str, Any]) -> Loaded[ServeSettings]:
    """Ends the process where they cannot be meant; seals the hub where it is not to be asked, and calms numpy."""
    try:
        loaded = read(flags)
    except SettingsError as error:
        stop(error)
    settle_libraries(offline=not loaded.value.asks_hub)
    return loaded


def _end(code: int) -> NoReturn:
    """At once: a model may still be loading, in a thread that nothing can stop, and the plugin that compiles it
    aborts the process when its library is taken down meanwhile, as an ordinary exit does."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_at_once(number: int, frame: object) -> NoReturn:
    """Whoever is being asked for bytes may be silent for half a minute. What has come is noted, and the locks are the
    kernel's to take back, as when the process is killed."""
    _end(128 + number)


def _cannot_listen(error: OSError) -> int:
    """A port that is taken is a matter of usage (2), one that may not be taken of permission (6)."""
    match error.errno:
        case errno.EADDRINUSE:
            hint = "`--port 0` takes a free port and says which"
        case errno.EACCES:
            hint = "this user may not listen there: take a port from 1024 on"
        case errno.EINVAL:
            hint = "8080 is the default; 0 takes a free one"
        case _:
            hint = "`--host` is an address of this machine: 127.0.0.1 for itself alone, 0.0.0.0 for all"
    said = (error.strerror or str(error)).partition(" (while attempting")[0]  # it would say the address once more
    click.echo(f"error: {said}\n\nhint: {hint}", err=True)
    return 6 if error.errno == errno.EACCES else 2


if __name__ == "__main__":
    main()
