"""`completion`: what it prints makes a real bash complete verbs, options and files; other shells get a script."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sie_airgap.cli import VERBS, cli
from sie_testing.carried import Run

COMPLETED = r"""
set -eu
eval "$(sie-airgap completion bash)"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
function compopt { :; }
"$(complete -p sie-airgap | sed 's/.*-F \([^ ]*\) .*/\1/')" sie-airgap
printf '%s\n' "${COMPREPLY[@]}"
"""
"""`complete -p` says which function bash calls; `compopt` works only while somebody types."""


@pytest.fixture
def bash(tmp_path: Path) -> Path:
    """A folder for the `PATH` in which the program has its name. Skips where there is no bash."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    program = tmp_path / "bin" / "sie-airgap"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m sie_airgap "$@"\n')
    program.chmod(0o755)
    return program.parent


def _completed(folder: Path, *words: str) -> list[str]:
    """What bash would offer for the last of the words."""
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    command = ["bash", "-c", COMPLETED, "-", "sie-airgap", *words]
    ended = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.split()


def test_bash_completes_verbs_in_the_order_in_which_they_are_used(bash: Path) -> None:
    assert _completed(bash, "") == list(VERBS)
    assert _completed(bash, "re") == [verb for verb in VERBS if verb.startswith("re")]


def test_bash_completes_verbs_of_a_group_options_and_their_values(bash: Path) -> None:
    assert _completed(bash, "mirror", "we") == ["weights"]
    assert _completed(bash, "unpack", "--dry") == ["--dry-run"]
    assert _completed(bash, "verify", "--output", "j") == ["json"]


def test_bash_completes_every_option_of_every_verb(bash: Path) -> None:
    """What a shell offers is the program's own tree; one verb of each group and one that stands alone are asked."""
    for words in (["gc"], ["mirror", "all"], ["status"]):
        command: click.Command = cli
        for word in words:
            assert isinstance(command, click.Group)
            found = command.get_command(click.Context(command), word)
            assert found is not None
            command = found
        options = {name for option in command.params for name in option.opts if name.startswith("--")}
        assert set(_completed(bash, *words, "--")) == {*options, "--help"}


def test_bash_completes_nothing_after_a_verb_that_is_none(bash: Path) -> None:
    assert _completed(bash, "unpakc", "x") == []


@pytest.mark.parametrize(("shell", "holds"), [("zsh", "compdef"), ("fish", "complete --no-files --command sie-airgap")])
def test_other_shells_get_their_own_script(airgap: Run, shell: str, holds: str) -> None:
    code, out, err = airgap("completion", shell)

    assert (code, err) == (0, "")
    assert holds in out
    assert f"_SIE_AIRGAP_COMPLETE={shell}_complete" in out


def test_a_shell_that_is_not_known_is_refused_with_those_that_are(airgap: Run) -> None:
    code, _, err = airgap("completion", "tcsh")

    assert code == 2
    assert "'bash', 'zsh', 'fish'" in err
