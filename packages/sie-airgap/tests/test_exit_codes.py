"""Each exit code that `sie-airgap --help` documents comes from a real verb that meets a real reason for it.

11, something tried to leave, needs a far side with pods in it: `tests/journeys/test_far_side.py`.
"""

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sie_airgap.cli import cli
from sie_airgap.cli.outcome import run
from sie_testing.errands import in_trouble

POLICY = "licences: {allowed: [apache-2.0]}\n"
ENDINGS = {
    0: "inspect media",
    2: "pack",
    3: "verify altered",
    4: "unpack nowhere",
    5: "golden record --url http://127.0.0.1:1 --store asked",
    8: "mirror weights file://{here}/new --from media --lock small.lock",
    9: "golden compare other.json --url {worker}",
    10: "unpack torn/v0002.tar --store new",
    12: "review store --policy policy.yaml",
}
IN_TROUBLE = {
    1: "broken",
    6: "unwritable",
    7: "full",
    130: "interrupted",
}
UNPACK = ["unpack", "media", "--store", "new"]
BROKEN = "import sys; sys.modules['yaml'] = None; from sie_airgap.cli import main; main()"


@pytest.fixture
def here(errands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "here"
    shutil.copytree(errands, here)
    monkeypatch.chdir(here)
    return here


def _spoil(here: Path) -> None:
    (here / "policy.yaml").write_text(POLICY)
    shutil.copytree(here / "media", here / "altered")
    with (here / "altered/v0002.tar").open("r+b") as volume:
        volume.seek(1_000_000)
        volume.write(b"altered")
    recorded = json.loads((here / "recorded.json").read_text())
    answers = recorded["models"][0]["series"][0]["answers"]
    answers[0]["said"], answers[1]["said"] = answers[1]["said"], answers[0]["said"]
    (here / "other.json").write_text(json.dumps(recorded))


def test_all_that_is_documented_is_here() -> None:
    _, _, said = inspect.cleandoc(cli.help or "").partition("Exit codes")

    assert {int(code) for code in re.findall(r"\b(\d+) \w", said)} == {*ENDINGS, *IN_TROUBLE, 11}


@pytest.mark.parametrize("code", ENDINGS)
def test_a_verb_ends_with(code: int, here: Path, worker: str, capsys: pytest.CaptureFixture[str]) -> None:
    _spoil(here)

    words = ENDINGS[code].format(here=here, worker=worker).split()
    assert run(cli, words) == code, capsys.readouterr().err


@pytest.mark.parametrize("code", [code for code in IN_TROUBLE if code != 1])
def test_a_verb_in_trouble_ends_with(code: int, here: Path, tmp_path: Path) -> None:
    if code == 6:
        here.chmod(0o555)

    ((ended, *_),) = in_trouble(IN_TROUBLE[code], [(here, UNPACK)], {"XDG_STATE_HOME": str(tmp_path / "s")}, at=1)
    here.chmod(0o755)
    assert ended.code == code, ended.err


def test_what_nobody_expected_is_a_bug_of_ours_with_its_traceback(tmp_path: Path) -> None:
    """A module that the verb needs cannot be imported: an installation that is broken."""
    words = [sys.executable, "-c", BROKEN, "lock", "--model", "org/small"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "this is a bug in sie-airgap, not a mistake of yours" in ended.stderr
