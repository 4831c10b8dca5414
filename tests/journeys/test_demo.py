"""`make demo` as its reader sees it: one line a step, a summary, and a report that says nothing tried to leave."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

STEPS = [
    *("lock", "snapshot", "mirror weights", "golden record", "pack", "the hub is gone"),
    *("verify", "unpack", "mirror weights", "mirror images", "mirror chart", "verify", "verify", "values"),
    *("rehearse", "render", "pods", "init", "ready", "call", "golden", "status"),
]
pytestmark = pytest.mark.timeout(300)  # the whole demo runs in the first test, and others may be running beside it

SUMMARY = ["carried", "locked", "first inference", "same answers", "tried to leave"]


@pytest.fixture(scope="module")
def work(namespaces: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "work"


@pytest.fixture(scope="module")
def printed(work: Path) -> str:
    words = [sys.executable, "-m", "sie_testing.demo", "--work", str(work)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def report(work: Path, printed: str) -> Mapping[str, Any]:
    loaded: Mapping[str, Any] = json.loads((work / "report.json").read_text())
    return loaded


def names(lines: str) -> list[str]:
    """The first column; a line that goes on has none."""
    return [line[2:17].strip() for line in lines.splitlines() if line[:2] == "  " and line[2:17].strip()]


def test_each_step_is_one_line_in_the_order_of_the_guide(printed: str) -> None:
    steps, _, summary = printed.partition("What this showed")

    assert names(steps) == STEPS
    assert names(summary)[: len(SUMMARY)] == SUMMARY


def test_nothing_tried_to_leave_and_the_counter_counts(report: Mapping[str, Any]) -> None:
    assert report["egress_attempts"] == 0
    assert report["control_attempts"] >= 2 * len(report["namespaces"])
    assert {"far side", "pod client"} < set(report["namespaces"])
    assert len(report["namespaces"]) == 5


def test_first_inference_is_what_was_recorded_before_the_hub_was_gone(report: Mapping[str, Any]) -> None:
    assert report["printed"] == "(384,)"
    assert report["differs"] is False
    assert all("identical" in line or "within" in line for line in report["golden"])


def test_summary_says_what_the_report_says(printed: str, report: Mapping[str, Any]) -> None:
    summary = " ".join(printed.partition("What this showed")[2].split())

    assert "0 attempts, counted by the kernel in 5 namespaces, DNS included" in summary
    assert f"{report['control_attempts']} made on purpose were counted" in summary
    assert report["golden"][0].split(": ")[1] in summary


def test_what_holds_in_the_end_is_what_the_steps_showed(work: Path, printed: str) -> None:
    told = re.split(r"^\$ \S*sie-airgap status", (work / "transcript.txt").read_text(), flags=re.MULTILINE)[1]
    states = dict(re.findall(r"^(L[0-9])  .*?  +(holds|held|not known|FAILS|CHANGED|NOT REACHED)", told, re.MULTILINE))

    assert set(states) == {f"L{level}" for level in range(9)}
    assert {level for level, state in states.items() if state == "not known"} == {"L6"}
    assert not {"FAILS", "CHANGED", "NOT REACHED"} & set(states.values())
    assert "L5 rendered manifests is the highest level that is true now" in told
    assert (work / "state" / "sie-airgap" / "checks").is_dir()


def test_every_command_is_in_the_transcript_and_no_secret_is(work: Path, printed: str) -> None:
    transcript = (work / "transcript.txt").read_text()
    verbs = re.findall(r"^\$ \S*sie-airgap (\S+)", transcript, flags=re.MULTILINE)

    assert verbs == [
        "lock",
        "snapshot",
        "mirror",
        "golden",
        "pack",
        "verify",
        "unpack",
        *["mirror"] * 3,
        *["verify"] * 2,
        "values",
        "rehearse",
        "status",
    ]
    assert not re.search("demo-secret|demo-password", transcript + printed)
