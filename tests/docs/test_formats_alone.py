"""What the pages of formats promise, read by what has the page and nothing of ours: sh, tar, jq, plain Python."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sie_testing.archives import flip
from sie_testing.carried import FILES

from .following import Operator

ALONE = "Read with nothing of ours"
TOOLS = ("cmp", "cut", "jq", "sha256sum", "tar")


@pytest.fixture(autouse=True)
def _tools() -> None:
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def alone(folder: Path) -> Operator:
    """With nothing of ours on the PATH."""
    return Operator(folder, env={"PATH": "/usr/bin:/bin"})


@pytest.fixture
def packed(folder: Path) -> Path:
    ran = Operator(folder).run("sie-airgap pack media --volume-size 1MiB && rm -r airgap-store")
    assert ran.code == 0, ran.said
    return folder


def reader(pages, folder: Path) -> "subprocess.CompletedProcess[str]":
    """The page's own program, by an interpreter that finds no packages at all."""
    (program,) = [
        block for block in pages["docs/formats/archive.md"].section(ALONE).blocks if block.language == "python"
    ]
    words = [sys.executable, "-I", "-S", "-c", program.text, "media", "out"]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


def test_an_archive(pages, packed: Path) -> None:
    looked = alone(packed / "media").read(pages["docs/formats/archive.md"].section(ALONE))
    assert looked.code == 0, looked.said
    digest = Operator(packed).run("sha256sum airgap.lock").said.split()[0]
    assert f"sie-1\nsha256:{digest}\n4\n{digest}  -\n" in looked.said

    read = reader(pages, packed)
    assert read.returncode == 0, read.stderr
    written = {
        model: {path: (packed / "out" / model / path).read_bytes() for path in files} for model, files in FILES.items()
    }
    assert written == FILES


def test_an_archive_that_was_altered(pages, packed: Path) -> None:
    flip(packed / "media" / "v0003.tar", 500_000)

    assert alone(packed / "media").read(pages["docs/formats/archive.md"].section(ALONE)).code != 0
    read = reader(pages, packed)
    assert (read.returncode, read.stderr) == (1, "out/org/large/model.safetensors is not what was locked\n")


def test_a_lock(pages, folder: Path) -> None:
    page = pages["docs/formats/airgap-lock.md"].section(ALONE)
    for model, files in FILES.items():
        for path, data in files.items():
            (folder / model / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / model / path).write_bytes(data)

    ran = alone(folder).read(page)
    assert ran.code == 0, ran.said
    assert f"org/large {'ab' * 20}\n" in ran.said
    assert "ghcr.io/superlinked/sie-server:v0.3.1 sha256:" in ran.said
    assert "org/large/model.safetensors: OK" in ran.said

    flip(folder / "org/large/model.safetensors", 7)
    assert alone(folder).read(page).code != 0
    (folder / "airgap.lock").write_bytes((folder / "airgap.lock").read_bytes().replace(b": ", b":", 1))
    assert "differ" in alone(folder).read(page).said


def test_a_bucket(pages, folder: Path) -> None:
    page = pages["docs/formats/bucket-layout.md"].section(ALONE)
    mirrored = Operator(folder).run('sie-airgap mirror weights "file://$PWD/bucket"')
    assert mirrored.code == 0, mirrored.said

    ran = alone(folder / "bucket").read(page)
    assert ran.code == 0, ran.said
    assert Operator(folder).run("sha256sum airgap.lock").said.split()[0] in ran.said

    flip(folder / "bucket/models--org--large/snapshots" / ("ab" * 20) / "model.safetensors", 7)
    spoilt = alone(folder / "bucket").read(page)
    assert spoilt.code != 0
    assert "model.safetensors: FAILED" in spoilt.said
