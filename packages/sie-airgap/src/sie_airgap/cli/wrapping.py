"""Help that can be copied: a line never ends within `us-east-1`, `airgap-store` or `--dry-run`."""

from collections.abc import Iterable

import click

_UNBROKEN = "\ue000"
"""Stands for `-` while lines are broken; it is in no text of ours."""


class _Formatter(click.HelpFormatter):
    def write_text(self, text: str) -> None:
        super().write_text(text.replace("-", _UNBROKEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], *widths: int, **named: int) -> None:
        super().write_dl([(name, said.replace("-", _UNBROKEN)) for name, said in rows], *widths, **named)

    def getvalue(self) -> str:
        return super().getvalue().replace(_UNBROKEN, "-")


class _Context(click.Context):
    formatter_class = _Formatter


def wrapped(command: click.Command) -> click.Command:
    """The command, its help written so, and that of the verbs below it."""
    command.context_class = _Context
    for one in command.commands.values() if isinstance(command, click.Group) else ():
        wrapped(one)
    return command
