"""The script beside the volumes with the very wheels that an archive carries: sh, Python, and no network at all.

`make wheels` fetches them once; `make gap` runs this.
"""

import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from sie_airgap.archive.cut import plan_archive
from sie_airgap.archive.medium import VolumeSize
from sie_airgap.archive.packing import pack
from sie_airgap.locking.building import lock_wheels
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_core.artifacts.lock import Lock
from sie_testing.interpreters import find_python

pytestmark = [pytest.mark.gap_servers, pytest.mark.timeout(600)]

WHEELS = Path(__file__).parents[4] / "dist" / "wheels"
EXTRAS = "import boto3, google.cloud.storage, numpy, sie_sdk; print('all there')"


@pytest.fixture
def archive(tmp_path: Path, lock: Lock, store: BlobFolder) -> Path:
    """Discs, the wheels on the first ones."""
    assert WHEELS.is_dir(), "`make wheels` fetches them"
    carried = msgspec.structs.replace(lock, wheels=lock_wheels(WHEELS, store))
    cut = plan_archive(carried, store, name="sie-test", size=VolumeSize(64 << 20))
    pack(cut, store, tmp_path / "archive", progress=Silent())
    return tmp_path / "archive"


def itself(python: Path) -> str:
    """Not pyenv's script of its name, which needs more than there is."""
    asked = [str(python), "-c", "import sys; print(sys.executable)"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_carried_wheels_are_enough_without_a_network(version: str, archive: Path, tmp_path: Path) -> None:
    python = find_python(version)
    unshare, shell = shutil.which("unshare"), shutil.which("sh")
    if python is None or unshare is None or shell is None:
        pytest.skip(f"needs Python {version} and unshare")
    only = tmp_path / "bin"
    only.mkdir()
    (only / "sh").symlink_to(shell)
    environment = {"PATH": str(only), "HOME": str(tmp_path / "home"), "PYTHON": itself(python)}

    def start(*words: str | Path) -> "subprocess.CompletedProcess[str]":
        asked = [unshare, "--user", "--map-root-user", "--net", shell, "start.sh", *map(str, words)]
        return subprocess.run(asked, cwd=archive, env=environment, capture_output=True, text=True, check=False)

    first = start("verify", archive)
    assert first.returncode == 0, first.stderr
    assert "archive: every byte is what was locked" in first.stdout
    mirrored = start("mirror", "weights", (tmp_path / "bucket").as_uri(), "--from", archive)
    assert mirrored.returncode == 0, mirrored.stderr
    assert "installing" not in mirrored.stderr

    installed = tmp_path / "home" / ".sie-airgap" / "current"
    asked = subprocess.run([installed / "bin" / "python", "-c", EXTRAS], capture_output=True, text=True, check=False)
    assert asked.stdout == "all there\n", asked.stderr
    assert not list(installed.resolve().rglob("*.whl"))
