"""A model out of a bucket: our verified download beside boto3's own, which verifies nothing.

From a static server, which is faster than either, and beside it from SeaweedFS, which is the limit itself. Both sides
fetch the same file from the same server into the same folder, in turn; ours also waits until the disk has it. So a
third side is the peer that waits for the disk, too, and still verifies nothing.
"""

import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from bench.measures import Row, Say
from bench.servers import free_port
from sie_core.artifacts.digest import digest_of_stream
from sie_core.artifacts.manifest import FileEntry
from sie_core.artifacts.stores.open import open_store
from sie_core.artifacts.transfer import fetch_file
from sie_testing import seaweed

BUCKET, NAME = "models-private", "model.safetensors"


@dataclass(frozen=True)
class Effort:
    size_bytes: int
    rounds: int


FULL = Effort(size_bytes=2_200_000_000, rounds=5)
QUICK = Effort(size_bytes=500_000_000, rounds=3)


def downloads(effort: Effort, folder: Path, say: Say) -> list[Row]:
    """GB/s of each from each server, and the CPU that each takes, which a busy machine changes little."""
    file = folder / "served" / BUCKET / NAME
    file.parent.mkdir(parents=True)
    _write_random(file, effort.size_bytes)
    with file.open("rb") as stream:
        digest, size_bytes = digest_of_stream(stream)
    entry = FileEntry(path=NAME, digest=digest, size_bytes=size_bytes)
    rows = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", seaweed.ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.SECRET_KEY)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with _static(folder / "served") as endpoint:
            rows += _beside("a static server", endpoint, entry, effort, folder, say)
        (folder / "seaweed").mkdir()
        with seaweed.running(folder / "seaweed") as server:
            server.make_bucket(BUCKET)
            boto3.client("s3", endpoint_url=server.endpoint).upload_file(str(file), BUCKET, NAME)
            rows += _beside("SeaweedFS", server.endpoint, entry, effort, folder, say)
    return rows


@dataclass(frozen=True)
class _Took:
    wall_s: float
    cpu_s: float


def _beside(where: str, endpoint: str, entry: FileEntry, effort: Effort, folder: Path, say: Say) -> list[Row]:
    peer_alone = _peer(endpoint)
    sides = {"ours": _ours(endpoint, entry), "peer": peer_alone, "peer, on the disk": _on_the_disk(peer_alone)}
    took: dict[str, list[_Took]] = {name: [] for name in sides}
    for number in range(effort.rounds + 1):  # the first warms up
        for name in sorted(sides, reverse=bool(number % 2)):
            one = _timed(sides[name], folder / name)
            if number:
                took[name].append(one)
        say(f"download from {where}, round {number}/{effort.rounds}")
    gb = entry.size_bytes / 1e9
    ours, peer = took["ours"], took["peer"]
    speed = _speed(f"download from {where}", gb, ours, peer, "ours is verified and on the disk; boto3's is neither")
    synced = _speed(f"download from {where} to the disk", gb, ours, took["peer, on the disk"], "ours is verified")
    pairs = zip(ours, peer, strict=True)
    cpu = Row(
        what=f"CPU of a download from {where}",
        unit="s/GB",
        ours=statistics.median(one.cpu_s / gb for one in ours),
        peer=statistics.median(one.cpu_s / gb for one in peer),
        ratio=statistics.median(theirs.cpu_s / own.cpu_s for own, theirs in pairs),
        note="of the client; ours has the sha256 in it",
    )
    return [speed, synced, cpu]


def _speed(what: str, gb: float, ours: list[_Took], peer: list[_Took], note: str) -> Row:
    return Row(
        what=what,
        unit="GB/s",
        ours=statistics.median(gb / one.wall_s for one in ours),
        peer=statistics.median(gb / one.wall_s for one in peer),
        ratio=statistics.median(theirs.wall_s / own.wall_s for own, theirs in zip(ours, peer, strict=True)),
        note=note,
    )


def _timed(fetch: Callable[[Path], None], target: Path) -> _Took:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    fetch(target)
    took = _Took(time.perf_counter() - wall_s, time.process_time() - cpu_s)
    target.unlink()
    return took


def _ours(endpoint: str, entry: FileEntry) -> Callable[[Path], None]:
    store = open_store(f"s3://{BUCKET}/", endpoint=endpoint)
    return lambda target: fetch_file(store, NAME, target, entry)


def _peer(endpoint: str) -> Callable[[Path], None]:
    client = boto3.client("s3", endpoint_url=endpoint)
    return lambda target: client.download_file(BUCKET, NAME, str(target))


def _on_the_disk(fetch: Callable[[Path], None]) -> Callable[[Path], None]:
    def fetch_and_wait(target: Path) -> None:
        fetch(target)
        with target.open("rb") as file:
            os.fdatasync(file.fileno())

    return fetch_and_wait


def _write_random(file: Path, size_bytes: int) -> None:
    piece = random.Random(1).randbytes(1 << 20)  # noqa: S311 - nobody has to be unable to guess it
    with file.open("wb") as stream:
        for start in range(0, size_bytes, len(piece)):
            stream.write(piece[: size_bytes - start])


@contextmanager
def _static(folder: Path) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.static_server", str(folder), str(port)])
    try:
        _wait_until_listening(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_until_listening(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"the static server does not listen on {port}")
