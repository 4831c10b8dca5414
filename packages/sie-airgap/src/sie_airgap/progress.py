"""What an operator sees while bytes move: a bar on a terminal (`bar`), a line each 30 s elsewhere, or events.

A verb takes a `Progress` and opens one `Task` at a time on it; tasks are told how many bytes have moved,
from any thread. Everything here goes to stderr: stdout is for data. Time comes from a clock passed in.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

import msgspec

from sie_airgap.amounts import counted as counted
from sie_airgap.amounts import sized as sized

LINE_EVERY_S = 30.0


class Task(Protocol):
    """One stretch of work that moves a known number of bytes."""

    def at(self, what: str) -> None:
        """What is being moved now."""
        ...

    def advance(self, size_bytes: int) -> None:
        """So many bytes more. Callable from any thread; negative when bytes must be moved again."""
        ...


class Progress(Protocol):
    """Where verbs report to."""

    @contextmanager
    def task(self, verb: str, total_bytes: int) -> Iterator[Task]:
        """A stretch of work, shown until the block is left."""
        ...

    def say(self, text: str) -> None:
        """One line that stays."""
        ...


class Silent:
    """Reports to nobody."""

    @contextmanager
    def task(self, verb: str, total_bytes: int) -> Iterator[Task]:
        yield self

    def at(self, what: str) -> None:
        pass

    def advance(self, size_bytes: int) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class Lines:
    """One line each 30 s while a task runs, and one when it ends."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float]) -> None:
        self._stream, self._clock = stream, clock

    @contextmanager
    def task(self, verb: str, total_bytes: int) -> Iterator[Task]:
        task = _CountedTask(verb, total_bytes, self._clock, self._tell)
        yield task
        task.end()

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def _tell(self, task: "_CountedTask", done: bool) -> None:
        percent = 100 if task.total_bytes == 0 else 100 * task.done_bytes // task.total_bytes
        spent = f"{task.spent_s:.1f} s"
        if done:
            self.say(f"{task.verb}: {sized(task.done_bytes)} in {spent}")
        else:
            self.say(
                f"{task.verb}: {sized(task.done_bytes)} of {sized(task.total_bytes)} ({percent} %) {spent} {task.what}"
            )


class Events:
    """One JSON event a line, for programs: `begin`, `progress` (at most one a second), `end`, `said`."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float]) -> None:
        self._stream, self._clock = stream, clock

    @contextmanager
    def task(self, verb: str, total_bytes: int) -> Iterator[Task]:
        self._event(event="begin", verb=verb, total_bytes=total_bytes)
        task = _CountedTask(verb, total_bytes, self._clock, self._tell, every_s=1.0)
        yield task
        task.end()

    def say(self, text: str) -> None:
        self._event(event="said", text=text)

    def _tell(self, task: "_CountedTask", done: bool) -> None:
        kind = "end" if done else "progress"
        seconds = round(task.spent_s, 3)
        self._event(event=kind, verb=task.verb, at=task.what, done_bytes=task.done_bytes, seconds=seconds)

    def _event(self, **facts: str | int | float) -> None:
        print(msgspec.json.encode(facts).decode(), file=self._stream, flush=True)


class _CountedTask:
    """Counts bytes from any thread and tells every `every_s`."""

    def __init__(
        self,
        verb: str,
        total_bytes: int,
        clock: Callable[[], float],
        tell: "Callable[[_CountedTask, bool], None]",
        *,
        every_s: float = LINE_EVERY_S,
    ) -> None:
        self.verb, self.total_bytes, self.what, self.done_bytes = verb, total_bytes, "", 0
        self._clock, self._tell, self._every_s = clock, tell, every_s
        self._began_s = self._told_s = clock()
        self._guard = threading.Lock()

    @property
    def spent_s(self) -> float:
        return self._clock() - self._began_s

    def at(self, what: str) -> None:
        self.what = what

    def advance(self, size_bytes: int) -> None:
        with self._guard:
            self.done_bytes += size_bytes
            now_s = self._clock()
            if now_s - self._told_s >= self._every_s:
                self._told_s = now_s
                self._tell(self, False)

    def end(self) -> None:
        self._tell(self, True)
