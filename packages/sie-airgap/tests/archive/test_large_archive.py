"""Memory does not grow with a blob: twenty gigabytes are packed, verified, made good and unpacked in what one takes."""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sie_core.artifacts.digest import Digest
from sie_core.artifacts.hashing import Hashing
from sie_testing.carried import filled_store, make_lock

pytestmark = [pytest.mark.gap_large, pytest.mark.timeout(3600)]

MOST_RSS_BYTES = 150_000_000
"""The program with its imports is half of it; the rest is chunks under way."""

_CHILD = """
import sys
from sie_airgap.cli import cli
from sie_airgap.cli.outcome import run
code = run(cli, sys.argv[1:])
# Not getrusage: what it tells includes the memory of whoever started this process.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024)
sys.exit(code)
"""


def zeros_digest(size_bytes: int) -> Digest:
    running, zeros = Hashing(), bytes(1 << 20)
    for _ in range(size_bytes >> 20):
        running.update(zeros)
    return running.digest


def peak_bytes(*words: str, cwd: Path) -> int:
    """Of the program's resident memory, run with these words."""
    done = subprocess.run([sys.executable, "-c", _CHILD, *words], cwd=cwd, stdout=subprocess.PIPE, check=True)
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize("size_bytes", [1 << 30, 20 << 30], ids=["1 GiB", "20 GiB"])
def test_memory_stays_flat(tmp_path: Path, size_bytes: int) -> None:
    if shutil.disk_usage(tmp_path).free < 2 * size_bytes + size_bytes // 4 + (10 << 30):
        pytest.skip(f"not enough room for {2 * size_bytes >> 30} GiB")
    digest = zeros_digest(size_bytes)
    lock = make_lock({"org/big": {"model.safetensors": b""}})
    (model,) = lock.models
    file = msgspec.structs.replace(model.files[0], digest=digest, size_bytes=size_bytes, hub_id=digest[7:])
    lock = msgspec.structs.replace(lock, models=(msgspec.structs.replace(model, files=(file,)),))
    store = filled_store(tmp_path / "store", lock, {})
    with store.path(digest).open("wb") as sparse:
        sparse.truncate(size_bytes)

    size = f"{size_bytes // 8}"
    assert peak_bytes("pack", "out", "--store", "store", "--volume-size", size, cwd=tmp_path) < MOST_RSS_BYTES
    assert peak_bytes("verify", "out", cwd=tmp_path) < MOST_RSS_BYTES
    assert peak_bytes("unpack", "out", "--store", "far", cwd=tmp_path) < MOST_RSS_BYTES
    shutil.rmtree(tmp_path / "far")
    cut = ["pack", "out", "--store", "store", "--volume-size", size]
    assert peak_bytes(*cut, "--parity", "3", "--only", "p0001.tar", cwd=tmp_path) < MOST_RSS_BYTES
    lost = tmp_path / "out" / "v0001.tar"
    lost.rename(tmp_path / "lost")
    assert peak_bytes("repair", "out", "-o", "good", cwd=tmp_path) < MOST_RSS_BYTES
    assert (tmp_path / "good" / "v0001.tar").stat().st_size == (tmp_path / "lost").stat().st_size
    for path in tmp_path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
