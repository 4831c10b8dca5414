"""What stands beside the volumes: a runbook that names them, and a script that needs nothing but sh and Python."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import msgspec
import pytest

from sie_airgap.archive.cut import plan_archive
from sie_airgap.archive.media import read_media
from sie_airgap.archive.medium import VolumeSize
from sie_airgap.archive.packing import pack
from sie_airgap.archive.runbook import readme
from sie_airgap.cli import cli
from sie_airgap.locking.building import lock_wheels
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import Lock, LockedChart, lock_digest
from sie_testing.wheels import write_ours


@pytest.fixture
def archive(tmp_path: Path, lock: Lock, store: BlobFolder) -> Path:
    wheels = write_ours(tmp_path / "wheels")
    carried = msgspec.structs.replace(lock, wheels=lock_wheels(wheels, store))
    cut = plan_archive(carried, store, name="sie-test", size=VolumeSize(2 << 20))
    pack(cut, store, tmp_path / "archive", progress=Silent())
    return tmp_path / "archive"


def start(archive: Path, home: Path, *words: str, python: str = sys.executable) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "START_HOME": str(home / "sie"), "PYTHON": python}
    return subprocess.run(
        ["/bin/sh", str(archive / "start.sh"), *words], env=environment, capture_output=True, text=True, check=False
    )


def test_the_script_installs_the_carried_toolkit_and_hands_over_to_it(archive: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in archive.iterdir()}

    first = start(archive, tmp_path, "verify", "MEDIA")
    assert (first.returncode, first.stdout) == (0, "the toolkit was asked to verify MEDIA\n"), first.stderr
    assert "checking v0001.tar" in first.stderr
    assert {path.name: path.read_bytes() for path in archive.iterdir()} == before

    again = start(archive, tmp_path, "unpack")
    assert (again.stdout, again.stderr) == ("the toolkit was asked to unpack\n", "")
    current = subprocess.run(
        ["sh", "-c", ". sie/current/bin/activate && sie-airgap plan"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert current.stdout == "the toolkit was asked to plan\n", current.stderr


def test_the_script_refuses_a_damaged_volume_with_both_values(archive: Path, tmp_path: Path) -> None:
    with (archive / "v0002.tar").open("r+b") as file:
        file.seek(-2000, 2)
        file.write(b"damage")

    ended = start(archive, tmp_path, "verify")
    assert ended.returncode == 3
    assert "v0002.tar is damaged" in ended.stderr
    assert ended.stderr.partition("is damaged")[2].count("sha256:") == 2
    assert not list(tmp_path.glob("sie/*/installed"))


def test_the_runbook_names_this_archives_own_files(archive: Path) -> None:
    text = (archive / "README.txt").read_text()

    for name in ("v0001.tar", "v0002.tar", "./charts/sie-cluster-0.3.1.tgz", "org/large"):
        assert name in text
    assert "golden compare" not in text
    assert read_media([archive]).lock_digest in text


def test_the_script_works_where_paths_have_spaces_and_nothing_can_be_written(archive: Path, tmp_path: Path) -> None:
    disc = tmp_path / "media" / "a disc (1)"
    disc.parent.mkdir()
    archive.rename(disc)
    for path in (*disc.iterdir(), disc):
        path.chmod(0o555)
    home = tmp_path / "my home"
    home.mkdir()

    ended = start(disc, home, "verify", "two words", "$HOME")
    assert (ended.returncode, ended.stdout) == (0, "the toolkit was asked to verify two words $HOME\n"), ended.stderr
    assert read_media([disc]).lock_digest in ended.stderr
    disc.chmod(0o755)


def test_an_install_that_was_interrupted_is_begun_anew(archive: Path, tmp_path: Path) -> None:
    digest = read_media([archive]).lock_digest
    left = tmp_path / "sie" / digest.removeprefix("sha256:")[:16]
    (left / "wheels").mkdir(parents=True)
    (left / "wheels" / "sie_airgap-9.9.9-py3-none-any.whl").write_bytes(b"half a wheel")

    ended = start(archive, tmp_path, "verify")
    assert (ended.returncode, ended.stdout) == (0, "the toolkit was asked to verify\n"), ended.stderr


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        ("no python", 4, "there is no `/nowhere/python3` here; Python 3.11 or later is needed"),
        ("old python", 4, "is too old; Python 3.11 or later is needed\n  have  Python 3.5.1"),
        ("no volumes", 4, "no volume lies beside start.sh"),
        ("no first volume", 4, "is on a volume that is not in"),
        ("no sums", 4, "SHA256SUMS is not there"),
        ("no tar", 3, "v0001.tar cannot be read"),
        ("cut short", 3, "v0002.tar is damaged"),
        ("nowhere to install", 6, "START_HOME=/elsewhere sh start.sh"),
    ],
)
def test_the_script_says_what_is_missing_and_ends_with_the_code_for_it(
    archive: Path, tmp_path: Path, spoil: str, code: int, says: str
) -> None:
    python = sys.executable
    match spoil:
        case "no python":
            python = "/nowhere/python3"
        case "old python":
            old = tmp_path / "python3.5"
            old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.5.1\n[ "$1" != -c ]\n')
            old.chmod(0o755)
            python = str(old)
        case "no volumes":
            for path in archive.glob("v*.tar"):
                path.unlink()
        case "no first volume":
            (archive / "v0001.tar").unlink()
        case "no sums":
            (archive / "SHA256SUMS").unlink()
        case "no tar":
            (archive / "v0001.tar").write_bytes(b"not a tar" * 200)
        case "cut short":
            with (archive / "v0002.tar").open("r+b") as file:
                file.truncate(30_000)
        case "nowhere to install":
            (tmp_path / "sie").write_text("a file, where a folder should be")

    ended = start(archive, tmp_path, "verify", python=python)
    assert ended.returncode == code, ended.stderr
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_a_wheel_that_is_called_like_an_option_is_installed_nowhere(
    tmp_path: Path, lock: Lock, store: BlobFolder
) -> None:
    evil = msgspec.structs.replace(lock.wheels[0], file="-evil.whl")
    carried = msgspec.structs.replace(lock, wheels=(evil,))
    pack(plan_archive(carried, store, name="sie-test"), store, tmp_path / "archive", progress=Silent())

    ended = start(tmp_path / "archive", tmp_path, "verify")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "'-evil.whl' is not the name of a wheel" in ended.stderr
    assert not list(tmp_path.rglob("*evil.whl"))


def test_the_runbook_of_many_volumes_with_parity_says_how_to_repair(lock: Lock) -> None:
    names = [*(f"v{number:04d}.tar" for number in range(1, 41)), "p0001.tar", "p0002.tar", "p0003.tar", "p0004.tar"]
    text = readme(lock, lock_digest(lock), "sie-7", names)

    assert "v0001.tar to v0040.tar, 40 of them" in text
    assert "sie-airgap repair MEDIA -o repaired" in text
    assert "sie-airgap pack FOLDER --only v0040.tar" in text
    assert max(map(len, text.splitlines())) <= 120


def commands(text: str) -> list[str]:
    """What the runbook gives to do, each on one line."""
    joined = re.sub(r" \\\n +", " ", text)
    return [line.strip().split("   ")[0] for line in joined.splitlines() if re.match(r" {5}[a-z]", line)]


def with_other_charts(lock: Lock) -> str:
    keda = LockedChart("keda", "2.14.3", "keda-2.14.3.tgz", digest_of(b"keda"), 9_000)
    more = msgspec.structs.replace(lock, charts=(keda, *lock.charts))
    return readme(more, lock_digest(more), "sie-7", ["v0001.tar", "p0001.tar"], golden=True)


def test_every_command_in_the_runbook_is_one_that_the_toolkit_takes(lock: Lock) -> None:
    ours = [command for command in commands(with_other_charts(lock)) if command.startswith("sie-airgap ")]
    assert len(ours) > 12

    for command in ours:
        name, *words = shlex.split(command)[1:]
        found = cli.get_command(click.Context(cli), name)
        while isinstance(found, click.Group):
            name, *words = words
            found = found.get_command(click.Context(found), name)
        assert found is not None, command
        parse(found, name, words)


def parse(command: click.Command, name: str, words: list[str]) -> None:
    try:
        command.make_context(name, words)
    except click.BadParameter as error:
        assert "does not exist" in error.message  # what the far side has by then is not here


def test_the_runbook_installs_the_other_charts_before_ours(lock: Lock) -> None:
    lines = commands(with_other_charts(lock))
    plain = commands(readme(lock, lock_digest(lock), "sie-7", ["v0001.tar"]))

    installs = [line for line in lines if line.startswith("helm ")]
    assert installs == [
        "helm upgrade --install keda ./charts/keda-2.14.3.tgz -f VALUES -n keda --create-namespace",
        "helm upgrade --install sie ./charts/sie-cluster-0.3.1.tgz -f values-offline.yaml -n sie",
    ]
    assert [line for line in plain if "keda" in line or "mirror rules" in line] == []
    namespace = lines.index("kubectl create namespace sie")
    secrets = [at for at, line in enumerate(lines) if line.startswith("kubectl create secret")]
    assert namespace < min(secrets) < max(secrets) < lines.index(installs[1])


def test_the_names_of_what_is_lost_or_damaged_come_from_sha256sum_alone(archive: Path) -> None:
    (archive / "v0001.tar").unlink()
    with (archive / "v0002.tar").open("r+b") as file:
        file.truncate(30_000)
    (told,) = [line for line in commands((archive / "README.txt").read_text()) if "--quiet" in line]

    said = subprocess.run(["sh", "-c", told], cwd=archive, capture_output=True, text=True, check=False)
    assert said.stdout.splitlines() == ["v0001.tar: FAILED open or read", "v0002.tar: FAILED"]
    assert said.stderr == ""
