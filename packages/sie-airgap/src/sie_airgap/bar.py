"""Progress on a terminal. A module of its own, since drawing takes a tenth of a second to import."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column

from sie_airgap.progress import Task, sized


def _columns() -> tuple[ProgressColumn, ...]:
    """One line on a terminal of 80 columns: amounts whole, and of what is being moved as much as there is room for."""
    name = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    return (
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(bar_width=16, table_column=Column(no_wrap=True)),
        DownloadColumn(table_column=Column(no_wrap=True)),
        TransferSpeedColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
    )


class Bar:
    """A bar while a task runs, and one line with its bytes and seconds when it has ended."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)

    @contextmanager
    def task(self, verb: str, total_bytes: int) -> Iterator[Task]:
        with Progress(*_columns(), console=self._console, transient=True, expand=True) as shown:
            yield _BarTask(shown, verb, total_bytes)
            (task,) = shown.tasks
        self.say(f"{verb}: {sized(int(task.completed))} in {task.elapsed or 0:.1f} s")

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class _BarTask:
    def __init__(self, shown: Progress, verb: str, total_bytes: int) -> None:
        self._shown, self._verb = shown, verb
        self._task = shown.add_task(verb, total=total_bytes)

    def at(self, what: str) -> None:
        self._shown.update(self._task, description=f"{self._verb}  {what}")

    def advance(self, size_bytes: int) -> None:
        self._shown.advance(self._task, size_bytes)
