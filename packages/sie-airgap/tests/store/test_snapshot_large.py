"""Size costs time and nothing else: memory does not grow with a file, requests do not grow faster than files."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder, write_lock
from sie_airgap.store.snapshot import snapshot
from sie_core.artifacts.digest import Digest, hex_of
from sie_core.artifacts.lock import Lock
from sie_core.artifacts.stores.hub import Hub
from sie_testing.carried import CHART, WHEEL, locked_model, make_lock
from sie_testing.hub import Hub as Fake
from sie_testing.hub import serving_hub
from sie_testing.web import Answer, Request, file_answer, serving

SMALL_BYTES, LARGE_BYTES = 256 << 20, 20_000_000_000
MAY_GROW_KB = 32 << 10
_HIGHEST_MEMORY = """
import sys
from sie_airgap.cli import cli
from sie_airgap.cli.outcome import run
code = run(cli, sys.argv[1:])
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(status["VmHWM"].split()[0])
sys.exit(code)
"""


def zeros_digest(size_bytes: int) -> Digest:
    running, piece = hashlib.sha256(), bytes(1 << 20)
    for _ in range(size_bytes // len(piece)):
        running.update(piece)
    running.update(bytes(size_bytes % len(piece)))
    return Digest(f"sha256:{running.hexdigest()}")


@contextmanager
def static_server(file: Path, digest: Digest) -> Iterator[str]:
    """Serves that file, by range, under whatever name a hub would have it."""

    def answer(request: Request) -> Answer:
        return file_answer(request, file, etag=f'"{hex_of(digest)}"')

    with serving(answer) as origin:
        yield origin


def stored(here: Path, lock: Lock) -> BlobFolder:
    store = BlobFolder(here / "store")
    store.add(WHEEL)
    store.add(CHART)
    write_lock(here / "airgap.lock", lock)
    return store


def highest_memory_kb(here: Path, size_bytes: int) -> int:
    """Of the command that fetches a sparse file of that size."""
    here.mkdir()
    sparse, digest = here / "sparse", zeros_digest(size_bytes)
    with sparse.open("wb") as file:
        file.truncate(size_bytes)
    lock = make_lock({"org/big": {"model.safetensors": b""}})
    locked = msgspec.structs.replace(
        lock.models[0].files[0], digest=digest, size_bytes=size_bytes, hub_id=hex_of(digest)
    )
    lock = msgspec.structs.replace(lock, models=(msgspec.structs.replace(lock.models[0], files=(locked,)),))
    store = stored(here, lock)
    with static_server(sparse, digest) as endpoint:
        words = ["snapshot", "--lock", str(here / "airgap.lock"), "--store", str(store.root), "--output", "json"]
        ran = subprocess.run(
            [sys.executable, "-c", _HIGHEST_MEMORY, *words],
            env={"PATH": os.defpath, "HF_ENDPOINT": endpoint},
            capture_output=True,
            text=True,
            check=True,
        )
    assert store.size(digest) == size_bytes
    shutil.rmtree(here)
    return int(ran.stdout.splitlines()[-1])


@pytest.mark.gap_large
@pytest.mark.timeout(1500)
def test_memory_does_not_grow_with_a_file(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    if free < LARGE_BYTES + (2 << 30):
        pytest.skip(f"takes {LARGE_BYTES:,} bytes of disk, {free:,} are free")
    small, large = (highest_memory_kb(tmp_path / str(size), size) for size in (SMALL_BYTES, LARGE_BYTES))
    print(f"highest memory: {small} kB for {SMALL_BYTES:,} bytes, {large} kB for {LARGE_BYTES:,}")

    assert large - small < MAY_GROW_KB


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [10, 50, pytest.param(1000, marks=pytest.mark.gap_large)])
def test_requests_grow_as_files_do(tmp_path: Path, count: int) -> None:
    """Two a file, the hub's answer and the storage's; no listing is asked for again."""
    files = {f"shard{number:04}.bin": number.to_bytes(600, "big") for number in range(count)}
    folder = tmp_path / "hub" / "org" / "many"
    folder.mkdir(parents=True)
    for path, data in files.items():
        (folder / path).write_bytes(data)
    behind = Fake(tmp_path / "hub", pins={"org/many": "ab" * 20}, lfs_above_bytes=100)  # type: ignore[dict-item]
    lock = msgspec.structs.replace(make_lock({}), models=(locked_model("org/many", files),))
    store = stored(tmp_path, lock)
    with serving_hub(behind) as endpoint:
        snapshot(lock, store, hub=Hub(endpoint), open_blob=None, progress=Silent())  # type: ignore[arg-type]

    assert len(behind.seen) == 2 * count
