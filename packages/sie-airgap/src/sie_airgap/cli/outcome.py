"""How a command ends: which errors are expected, how they are told, and the one table of exit codes.

Every expected error carries its own exit code (`failures`, `sie_core.artifacts.errors`, `SettingsError`);
what click finds wrong with a command line is 2, a signal from the keyboard 130, and anything else a bug, 1.
"""

import errno
import itertools
import os
import sys
import traceback
from collections.abc import Sequence

import click
import msgspec

from sie_airgap.failures import Failure, Several
from sie_core.artifacts.errors import TransferError, TrustError
from sie_core.artifacts.manifest import is_plain
from sie_core.settings import SettingsError

MISUSED, INTERRUPTED, BUG, NO_SPACE, NO_PERMISSION = 2, 130, 1, 7, 6
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def run(command: click.Command, arguments: Sequence[str]) -> int:
    """Run a command line; its exit code. Nothing that is expected ends in a traceback."""
    as_json = _wants_json(arguments)
    try:
        code = command.main(args=list(arguments), prog_name="sie-airgap", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return MISUSED
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted", as_json=as_json, code=INTERRUPTED, hint="run the same command again: it goes on from here")
        return INTERRUPTED
    except (Failure, TransferError, TrustError, SettingsError) as error:
        _tell(error, as_json=as_json)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has what it wanted; the interpreter must not complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _os_error(error, as_json=as_json)
    except Exception:  # whatever comes here is a bug, and whoever mends it needs all of it
        traceback.print_exc()
        _say("this is a bug in sie-airgap, not a mistake of yours", as_json=as_json, code=BUG)
        return BUG
    return code if isinstance(code, int) else 0


def _wants_json(arguments: Sequence[str]) -> bool:
    return "--output=json" in arguments or ("--output", "json") in itertools.pairwise(arguments)


def _tell(error: Failure | TransferError | TrustError | SettingsError, *, as_json: bool) -> None:
    if isinstance(error, Several):
        for one in error.errors:
            _tell(one, as_json=as_json)
            if not as_json:
                click.echo(err=True)
    if as_json:
        details = {key: str(getattr(error, key)) for key in ("where", "want", "have") if hasattr(error, key)}
        _say(error.message, as_json=True, code=error.exit_code, hint=error.hint, **details)
    else:
        _say(str(error), as_json=False, code=error.exit_code, hint=error.hint)


def _os_error(error: OSError, *, as_json: bool) -> int:
    """What the operating system refuses outside of `told_os_errors`: a file that cannot be read, above all."""
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if error.errno in _FULL:
        code = NO_SPACE
    elif isinstance(error, PermissionError):
        code = NO_PERMISSION
    elif isinstance(error, FileNotFoundError):
        code = 4
    else:
        code = 5
    _say(what, as_json=as_json, code=code)
    return code


def _say(message: str, *, as_json: bool, code: int, hint: str | None = None, **details: str) -> None:
    if as_json:
        event = {"event": "error", "message": message, "exit_code": code, **({"hint": hint} if hint else {}), **details}
        click.echo(msgspec.json.encode(event).decode(), err=True)
        return
    click.echo(_shown(f"error: {message}" if code != INTERRUPTED else message), err=True)
    if hint is not None:
        click.echo(_shown(f"\nhint: {hint}"), err=True)


def _shown(text: str) -> str:
    """What strangers wrote (a hub's answer, an edited lock) moves no cursor."""
    return "\n".join(line if is_plain(line) else ascii(line) for line in text.split("\n"))
