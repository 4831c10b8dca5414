"""`sie-config check` and `settings`, as an operator runs them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sie_config.cli import main

GOOD = "id: org/name\ndense: {dim: 8}\n"


def run(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(main, arguments, env=env)


def test_good_specs_are_printed(tmp_path: Path) -> None:
    (tmp_path / "org__name.yaml").write_text(GOOD)

    result = run("check", str(tmp_path))

    assert (result.exit_code, result.stdout) == (0, "# org__name.yaml\nid: org/name\ndense:\n  dim: 8\n\n")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("org__name.yaml", "id: org/name\ndense: {dims: 8}\n", "dims"),
        ("org__name.yaml", "id: org/name\nmax_token: 8\n", "did you mean `max_tokens`?"),
        ("org__name.yaml", "id: org/name\n", "at least one of `dense`"),
        ("org__name.yaml", "- id\n", "want a mapping with `id`"),
        ("other.yaml", GOOD, "want it named `org__name.yaml`"),
    ],
)
def test_wrong_specs_are_named_with_what_is_wrong(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)

    result = run("check", str(tmp_path / name))

    assert result.exit_code == 1
    assert f"error: `{name}`: " in result.stderr
    assert said in result.stderr


def test_nothing_to_check_is_a_usage_error(tmp_path: Path) -> None:
    assert run("check", str(tmp_path / "missing")).exit_code == 2
    assert run("check", str(tmp_path)).exit_code == 2


def test_settings_name_their_sources_and_show_no_secret() -> None:
    result = run("settings", "--port", "9", SIE_CONFIG_HOST="0.0.0.0", SIE_ADMIN_TOKEN="hidden")

    lines = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()}
    assert lines["port"] == ["9", "flag", "--port"]
    assert lines["host"] == ["0.0.0.0", "environment", "SIE_CONFIG_HOST"]
    assert lines["admin_token"][0] == "***"
    assert "hidden" not in result.stdout


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"SIE_CONFIG_PROT": "1"}, "did you mean `SIE_CONFIG_PORT`?"),
        ({"SIE_AUTH_MODE": "tokens"}, "want one of `none`, `token`, `static`"),
        ({"SIE_AUTH_MODE": "token"}, "no token is set"),
    ],
)
def test_what_cannot_be_meant_stops_the_start(env: dict[str, str], said: str) -> None:
    result = run("serve", "--port", "0", **env)

    assert result.exit_code == 2
    assert said in result.stderr


def test_process_says_where_it_listens_and_ends_with_0_on_a_signal() -> None:
    command = [sys.executable, "-c", "from sie_config.cli import main; main()", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.stderr.read()

        assert "listening url=http://127.0.0.1:" in first
        assert process.wait(30) == 0
