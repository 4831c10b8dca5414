"""A step of the demo: what it shows, what it keeps, and what it says when its command fails."""

import sys
from pathlib import Path

import pytest

from sie_testing.demo.stage import DemoFailed, Folder, Screen


@pytest.fixture
def screen(tmp_path: Path) -> Screen:
    return Screen(Folder(tmp_path))


def test_command_that_fails_in_the_middle_of_its_events_is_told_with_what_it_said(
    screen: Screen, tmp_path: Path
) -> None:
    """A traceback is no event."""
    event = {"event": "said", "text": "step  done"}
    code = f"import json, sys; print(json.dumps({event}), file=sys.stderr); 1 / 0"

    with pytest.raises(DemoFailed, match="ZeroDivisionError") as failed:
        screen.step("rehearse", [sys.executable, "-c", code], cwd=tmp_path, relayed=True)

    assert failed.value.exit_code == 1
    assert "ZeroDivisionError" in (tmp_path / "transcript.txt").read_text()


def test_command_may_print_more_than_a_pipe_holds_before_its_events_end(screen: Screen, tmp_path: Path) -> None:
    printed = screen.step("rehearse", [sys.executable, "-c", "print('x' * 1_000_000)"], cwd=tmp_path, relayed=True)

    assert len(printed) == 1_000_001
