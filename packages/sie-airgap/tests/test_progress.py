"""What an operator is told while bytes move, on a terminal and off it."""

import io
import json
import os
import select
import termios
import threading

import pytest

from sie_airgap.bar import Bar
from sie_airgap.progress import Events, Lines, Task, sized


class Clock:
    """Goes on by what a test says."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (90_868_376, "90.9 MB"),
        (999_960_000, "1.0 GB"),
        (7 * 10**13, "70.0 TB"),
    ],
)
def test_sizes_read_as_media_are_sold(size_bytes: int, text: str) -> None:
    assert sized(size_bytes) == text


def test_off_a_terminal_there_is_a_line_each_half_minute_and_one_at_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    with Lines(stream, clock=clock).task("pack", 4000) as task:
        for _ in range(4):
            clock.now_s += 20
            task.at("v0001.tar")
            task.advance(1000)

    assert stream.getvalue().splitlines() == [
        "pack: 2.0 kB of 4.0 kB (50 %) 40.0 s v0001.tar",
        "pack: 4.0 kB of 4.0 kB (100 %) 80.0 s v0001.tar",
        "pack: 4.0 kB in 80.0 s",
    ]


def test_nothing_says_it_is_done_when_it_failed() -> None:
    stream = io.StringIO()
    with pytest.raises(RuntimeError), Lines(stream, clock=Clock()).task("pack", 1):
        raise RuntimeError

    assert stream.getvalue() == ""


def test_events_are_one_json_object_a_line() -> None:
    stream, clock = io.StringIO(), Clock()
    events = Events(stream, clock=clock)
    events.say("image x")
    with events.task("unpack", 10) as task:
        task.at("a")
        clock.now_s += 2
        task.advance(10)

    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in told] == ["said", "begin", "progress", "end"]
    assert told[-1] == {"event": "end", "verb": "unpack", "at": "a", "done_bytes": 10, "seconds": 2.0}


def test_bytes_counted_from_many_threads_are_all_counted() -> None:
    stream = io.StringIO()

    def move(task: Task) -> None:
        for _ in range(1000):
            task.advance(1)

    with Events(stream, clock=Clock()).task("x", 8000) as task:
        threads = [threading.Thread(target=move, args=(task,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert json.loads(stream.getvalue().splitlines()[-1])["done_bytes"] == 8000


def test_a_bar_leaves_one_line_with_bytes_and_seconds() -> None:
    stream = io.StringIO()
    with Bar(stream).task("snapshot", 2000) as task:
        task.at("model [x].safetensors")
        task.advance(2000)

    assert "snapshot: 2.0 kB in " in stream.getvalue()


@pytest.mark.parametrize("columns", [80, 120])
def test_the_bar_is_one_line_whatever_is_moved(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """On a real terminal: before the last line of all, the way up is drawn once for every line of the bar."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        with Bar(stream).task("mirror weights", 70_000_000_000) as task:
            task.at("intfloat/multilingual-e5-large-instruct onnx/model-00001-of-00004.safetensors")
            task.advance(1_000_000_000)
        drawn = ""
        while "mirror weights: 1.0 GB" not in drawn:  # a terminal hands out a piece at a time
            assert select.select([ours], [], [], 10)[0], drawn
            drawn += os.read(ours, 1 << 16).decode()
    os.close(ours)

    assert "mirror weights  intfloat" in drawn
    assert drawn.count("\x1b[1A") == 1
