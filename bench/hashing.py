"""A snapshot out of a folder on this disk: as fast as the disk copies, or as all cores hash, whichever is less.

Three sides take turns over the same files: a copy that hashes nothing, with as many threads as there are cores; sha256
of as much in memory, likewise; and ours, which copies, hashes, keeps a journal, and publishes by rename. All that write
wait until the disk has it, and send it there while they write.
"""

import hashlib
import os
import random
import shutil
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.measures import Row, Say
from sie_airgap.store.disk_source import DiskSource, copy_all
from sie_core.artifacts.digest import Digest, digest_of_stream, hex_of
from sie_core.artifacts.lock import LockedFile, LockedModel
from sie_core.artifacts.write_behind import WriteBehind
from sie_core.ids import ModelId, Revision

PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Effort:
    file_bytes: int
    rounds: int


FULL = Effort(file_bytes=1_000_000_000, rounds=5)
QUICK = Effort(file_bytes=250_000_000, rounds=3)


def hashing(effort: Effort, folder: Path, say: Say) -> Row:
    """GB/s, ours beside the lesser of the two limits."""
    cores = os.cpu_count() or 1
    sources = [folder / "models" / f"model-{number:05}.safetensors" for number in range(2 * cores)]
    sources[0].parent.mkdir(parents=True)
    for seed, source in enumerate(sources):
        _write(source, effort.file_bytes + seed, seed=seed)  # lengths differ, as those of shards do
    total_bytes = sum(source.stat().st_size for source in sources)
    files = [(_MODEL, _locked(source)) for source in sources]
    disk = DiskSource(folder / "models", say=say)

    def ours(target: Path) -> None:
        assert not copy_all(disk, files, lambda digest: target / hex_of(digest), advance=lambda moved: None)

    def copied(target: Path) -> None:
        _at_once(lambda one: _copy(one, target / one.name), sources, cores)

    def hashed(target: Path) -> None:
        _at_once(lambda one: _hash(one.stat().st_size), sources, cores)

    took: dict[str, list[float]] = {}
    for number in range(effort.rounds):
        for name, side in (("copy", copied), ("sha256", hashed), ("ours", ours)):
            took.setdefault(name, []).append(_timed(side, folder / "target"))
        say(f"hashing: round {number + 1} of {effort.rounds}")
    speed = {name: [total_bytes / 1e9 / one for one in seconds] for name, seconds in took.items()}
    limits = [min(pair) for pair in zip(speed["copy"], speed["sha256"], strict=True)]
    copy, sha256 = statistics.median(speed["copy"]), statistics.median(speed["sha256"])
    return Row(
        what="snapshot out of a folder",
        unit="GB/s",
        ours=statistics.median(speed["ours"]),
        peer=statistics.median(limits),
        ratio=statistics.median(own / limit for own, limit in zip(speed["ours"], limits, strict=True)),
        note=f"beside the lesser of: the disk copies {copy:.2f} GB/s, {cores} cores hash {sha256:.2f} GB/s",
    )


_MODEL = LockedModel(
    id=ModelId("bench/model"),
    repo=ModelId("bench/model"),
    ref="main",
    revision=Revision("0" * 40),
    license=None,
    gated=False,
    why=("bench",),
    files=(),
    absent=(),
)


def _locked(source: Path) -> LockedFile:
    with source.open("rb") as stream:
        digest, size_bytes = digest_of_stream(stream)
    return LockedFile(source.name, Digest(digest), size_bytes, hex_of(digest))


def _write(file: Path, size_bytes: int, *, seed: int) -> None:
    piece = random.Random(seed).randbytes(PIECE_BYTES)  # noqa: S311 - nobody has to be unable to guess it
    with file.open("wb") as stream:
        for start in range(0, size_bytes, len(piece)):
            stream.write(piece[: size_bytes - start])


def _at_once(action: Callable[[Path], None], sources: list[Path], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(action, sources))


def _copy(source: Path, target: Path) -> None:
    with source.open("rb", buffering=0) as there, target.open("wb") as here, WriteBehind(here.fileno()) as file:
        position = 0
        while piece := there.read(PIECE_BYTES):
            file.write(piece, position)
            position += len(piece)


def _hash(size_bytes: int) -> None:
    running, piece = hashlib.sha256(), bytes(PIECE_BYTES)
    for _ in range(size_bytes // PIECE_BYTES):
        running.update(piece)


def _timed(side: Callable[[Path], None], target: Path) -> float:
    target.mkdir()
    began_s = time.perf_counter()
    side(target)
    took_s = time.perf_counter() - began_s
    shutil.rmtree(target)
    return took_s
