"""What stands beside the volumes: a runbook that names them, and a script that needs nothing but sh and Python."""

import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest

from sie_airgap.archive import pack
from sie_airgap.blobs import BlobFolder
from sie_airgap.cut import plan_archive
from sie_airgap.locking import lock_wheels
from sie_airgap.media import read_media
from sie_airgap.medium import VolumeSize
from sie_airgap.progress import Silent
from sie_core.artifacts.lock import Lock

_PROGRAM = "import sys\n\n\ndef main():\n    print('the toolkit was asked to', *sys.argv[1:])\n"


def wheel(folder: Path, name: str, *, extra: str = "") -> None:
    """A wheel that does nothing, or whose program prints what it is asked to do."""
    about = f"{name}-0.3.1.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 0.3.1\n{extra}"
    content = {
        f"{name}.py": _PROGRAM,
        f"{about}/METADATA": metadata,
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": f"[console_scripts]\n{name.replace('_', '-')} = {name}:main\n",
    }
    content[f"{about}/RECORD"] = "".join(f"{path},,\n" for path in [*content, f"{about}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-0.3.1-py3-none-any.whl", "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)


@pytest.fixture
def archive(tmp_path: Path, lock: Lock, store: BlobFolder) -> Path:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel(wheels, "sie_core")
    wheel(wheels, "sie_sdk")
    wheel(wheels, "sie_airgap", extra="Requires-Dist: sie-core==0.3.1\nProvides-Extra: s3\nProvides-Extra: gcs\n")
    carried = msgspec.structs.replace(lock, wheels=lock_wheels(wheels, store))
    cut = plan_archive(carried, store, name="sie-test", size=VolumeSize(2 << 20))
    pack(cut, store, tmp_path / "archive", progress=Silent())
    return tmp_path / "archive"


def start(archive: Path, home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "START_HOME": str(home / "sie")}
    environment["PYTHON"] = sys.executable
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


def test_the_script_refuses_a_damaged_volume_with_both_values(archive: Path, tmp_path: Path) -> None:
    with (archive / "v0002.tar").open("r+b") as file:
        file.seek(-2000, 2)
        file.write(b"damage")

    ended = start(archive, tmp_path, "verify")
    assert ended.returncode != 0
    assert "v0002.tar is damaged" in ended.stderr
    assert ended.stderr.count("sha256:") == 2
    assert not list(tmp_path.glob("sie/*/installed"))


def test_the_runbook_names_this_archives_own_files(archive: Path) -> None:
    text = (archive / "README.txt").read_text()

    for name in ("v0001.tar", "v0002.tar", "sie-cluster-0.3.1.tgz", "org/large", "sha256sum -c SHA256SUMS"):
        assert name in text
    assert read_media([archive]).lock_digest in text
