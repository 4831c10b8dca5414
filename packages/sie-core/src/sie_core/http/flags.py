"""Settings as command-line options and as a printed table, for the programs whose commands are made with click.

An option exists for every setting but the secrets: what is on a command line is seen by every user of the machine.
"""

import dataclasses
import sys
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any, NoReturn, TypeVar, cast, get_type_hints

import click

from sie_core.settings import Loaded, Secret, SettingsError, field_docs, field_names

F = TypeVar("F", bound=Callable[..., Any])


def options(settings: type[Any]) -> Callable[[F], F]:
    """One `--name VALUE` for each field, its string as help; None where it is left out.

    Every command of a program has the same ones: they are made once.
    """

    def add(command: F) -> F:
        vars(command)["__click_params__"] = list(reversed(_options(cast(Hashable, settings))))
        return command

    return add


@cache
def _options(settings: Any) -> list[click.Option]:
    return [_Described(settings, field.name) for field in _open_fields(settings)]


class _Described(click.Option):
    """Its help is looked up when it is shown: the strings are in the source, and reading that takes milliseconds."""

    def __init__(self, settings: type[Any], name: str) -> None:
        super().__init__(["--" + name.replace("_", "-"), name], default=None, metavar="VALUE")
        self._settings = settings

    @property
    def help(self) -> str:
        docs, names = field_docs(cast(Hashable, self._settings)), field_names(self._settings)
        return f"{docs[str(self.name)]}  [{names[str(self.name)]}]"

    @help.setter
    def help(self, given: str | None) -> None:
        """Click sets it to None."""


def table(loaded: Loaded[Any]) -> str:
    """Every effective value with its source, one a line; values as one would write them, `-` for what is unset."""
    rows = [(name, _written(getattr(loaded.value, name)), source) for name, source in loaded.sources.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}" for name, value, source in rows)


def _written(value: object) -> str:
    match value:
        case None | () | "":
            return "-"
        case bool():
            return "true" if value else "false"
        case tuple():
            return ",".join(str(part) for part in value)
        case _:
            return str(value)


def stop(error: SettingsError) -> NoReturn:
    """Say on stderr what cannot be meant, and end with its exit code."""
    click.echo(f"error: {error.message}", err=True)
    if error.hint is not None:
        click.echo(f"\nhint: {error.hint}", err=True)
    sys.exit(error.exit_code)


def _open_fields(settings: type[Any]) -> list[dataclasses.Field[Any]]:
    hints = get_type_hints(settings)
    return [field for field in dataclasses.fields(settings) if Secret not in getattr(hints[field.name], "__args__", ())]
