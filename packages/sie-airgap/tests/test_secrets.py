"""No verb tells a secret: not on stdout or stderr, not in a file or an argument, and none can be given as one."""

import base64
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sie_airgap.cli import cli
from sie_testing.errands import WAYS, Way
from sie_testing.faults import Fault, FaultKind
from sie_testing.hub import Hub, serving_hub
from sie_testing.registry import Access, Registry, serving_registry

SECRET = "s3cr3t-and-planted"
EACH = [(verb, way) for verb, ways in WAYS.items() if not isinstance(ways, str) for way in ways]

PROGRAM = """
import json, os, sys
from pathlib import Path
from sie_airgap.cli import cli
from sie_airgap.cli.outcome import run
argvs = []
def hook(event, arguments):
    if event == "subprocess.Popen":
        argvs.append([str(word) for word in arguments[1]])
sys.addaudithook(hook)
for each in json.load(sys.stdin):
    os.chdir(each["here"])
    argvs += [each["words"]]
    print("code", run(cli, each["words"]), each["words"])
print("argv", json.dumps(argvs))
"""


def _env(here: Path, hub: str) -> dict[str, str]:
    """The secret wherever one can be put."""
    (here / "docker").mkdir()
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(here),
        "XDG_STATE_HOME": str(here / "state"),
        "HF_ENDPOINT": hub,
        "HF_TOKEN": f"hf_{SECRET}",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": SECRET,
        "DOCKER_CONFIG": str(here / "docker"),
    }


@pytest.fixture
def hub(tmp_path: Path, errands: Path) -> Iterator[str]:
    """One that lets nobody in."""
    fake = Hub(tmp_path / "hub")
    fake.set_faults(Fault(FaultKind.GATED))
    with serving_hub(fake) as url:
        yield url


def _login(folder: Path, host: str, *, password: str) -> None:
    auth = base64.b64encode(f"user:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


@pytest.mark.parametrize("lets_in", [True, False], ids=["let in", "refused"])
@pytest.mark.parametrize("output", ["text", "json"])
def test_what_is_secret_is_in_no_output_file_or_argument(
    tmp_path: Path, errands: Path, worker: str, hub: str, hub_url: str, *, lets_in: bool, output: str
) -> None:
    """All verbs, with the hub's token, a bucket's key, a registry's password and a key's passphrase."""
    here = tmp_path / "here"
    env = _env(tmp_path, hub_url if lets_in else hub)
    access = Access(user="user", password=SECRET if lets_in else "another")
    asked = []
    with serving_registry(Registry(tmp_path / "registry", access=access)) as registry:
        host = registry.removeprefix("http://")
        _login(Path(env["DOCKER_CONFIG"]), host, password=SECRET)
        for number, (verb, way) in enumerate(EACH):
            folder = here / str(number)
            shutil.copytree(errands, folder)
            (folder / "secret").write_text(f"{SECRET}\n" if verb == "trust key" else "correct horse\n")
            asked.append({"here": str(folder), "words": _words(verb, way, folder, host, worker, output)})
        program = [sys.executable, "-c", PROGRAM]
        ended = subprocess.run(program, input=json.dumps(asked), env=env, capture_output=True, text=True, check=True)

    assert len(re.findall(r"^code \d", ended.stdout, re.MULTILINE)) == len(EACH)
    told = {"stdout": ended.stdout, "stderr": ended.stderr}
    for path in [*here.rglob("*"), *(tmp_path / "state").rglob("*")]:
        if path.is_file() and path.name != "secret":
            told[str(path)] = path.read_text("latin-1")
    password = base64.b64encode(f"user:{SECRET}".encode()).decode()
    assert not [where for where, text in told.items() for one in (SECRET, "correct horse", password) if one in text]


def _words(verb: str, way: Way, here: Path, registry: str, worker: str, output: str) -> list[str]:
    place = {"bucket": f"file://{here}/bucket", "registry": f"{registry}/{here.name}", "worker": worker}
    words = [*verb.split(), *shlex.split(way.words.format(here=here, **place))]
    return words if verb == "completion" else [*words, "--output", output]


def test_no_option_takes_a_secret_itself() -> None:
    """Command lines are seen by everybody on a machine: secrets come from the environment, a file or the terminal."""

    def options(command: click.Command) -> Iterator[click.Option]:
        yield from (one for one in command.params if isinstance(one, click.Option))
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                below = command.get_command(click.Context(command), name)
                assert below is not None
                yield from options(below)

    for option in options(cli):
        for name in option.opts:
            if any(word in name for word in ("pass", "token", "secret", "credential", "password")):
                assert name in ("--passphrase-file", "--pull-secret", "--credentials-secret", "--ca-secret"), name
