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

MISUSED, INTERRUPTED, BUG, UNREACHABLE = 2, 130, 1, 5
_REFUSED = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), (7, "free some space and run the same command again")),
    **dict.fromkeys((errno.EACCES, errno.EPERM), (6, "ask its owner, or run this as another user")),
    errno.EROFS: (6, "it can only be read; name another place to write to"),
    errno.ENOENT: (4, "is the name spelled as it is there, and the disk mounted?"),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
        (MISUSED, "name a file or a folder that can be there"),
    ),
}
"""What the operating system refuses: its number, our exit code, and what to do."""
_PATHS = {"does not exist": errno.ENOENT, "is not readable": errno.EACCES, "is not writable": errno.EACCES}
"""What click finds of a path that is named, by the words that its message ends with."""


def run(command: click.Command, arguments: Sequence[str]) -> int:
    """Run a command line; its exit code. Nothing that is expected ends in a traceback."""
    as_json = _wants_json(arguments)
    try:
        code = command.main(args=list(arguments), prog_name="sie-airgap", standalone_mode=False)
    except click.ClickException as error:
        return _misused(error, as_json=as_json)
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


def _misused(error: click.ClickException, *, as_json: bool) -> int:
    """What is wrong with the command line itself."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # asked for nothing: its message is the whole help
        error.show()
        return MISUSED
    if isinstance(error, click.BadParameter) and isinstance(error.param and error.param.type, click.Path):
        for ends, number in _PATHS.items():
            if error.message.rstrip(".").endswith(ends):
                code, hint = _REFUSED[number]
                _say(error.format_message().rstrip("."), as_json=as_json, code=code, hint=hint)
                return code
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "sie-airgap"
    said = error.format_message().rstrip(".")
    _say(said, as_json=as_json, code=MISUSED, hint=f"`{path} --help` says what it takes")
    return MISUSED


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
    code, hint = _REFUSED.get(error.errno or 0, (UNREACHABLE, "is the disk or the share it is on sound?"))
    _say(what, as_json=as_json, code=code, hint=hint)
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
