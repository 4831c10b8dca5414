"""How fast `pack` is beside the plainest thing that could be done, and what it costs as an archive grows.

The peer of `pack` copies the same bytes with `cp`, waits for the disk, and runs `sha256sum` over the copy: it carries,
and says what it carried, and no more. The other measurement is of ours alone: the time a file takes in an archive of
many files and volumes, over what it takes in one of a quarter of them.
"""

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

from bench.measures import Row, Say
from sie_airgap.archive.cut import Cut, plan_archive
from sie_airgap.archive.media import read_media
from sie_airgap.archive.medium import VolumeSize
from sie_airgap.archive.packing import pack
from sie_airgap.archive.unpack import unpack
from sie_airgap.mirror.weights import mirror_weights
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.store.disk_source import DiskSource
from sie_airgap.store.snapshot import snapshot
from sie_airgap.verifying.media import verify_media
from sie_core.artifacts.lock import Lock, LockedBlob, LockedImage
from sie_core.artifacts.stores.hub import Hub
from sie_core.artifacts.stores.local import LocalStore
from sie_testing.carried import CHART, WHEEL, filled_store, make_lock, seeded

_PIECE_BYTES = 64 << 20
_FILE_BYTES = 100_000
_FILES_A_VOLUME = 10


def pack_speed(size_bytes: int, rounds: int, folder: Path, say: Say) -> Row:
    """GB/s of `pack`, most of it one blob that is cut across volumes, against `cp`, `sync` and `sha256sum`."""
    piece = seeded(_PIECE_BYTES, seed=1)
    # Every MiB differs: nothing below may be quicker for having seen it before.
    big = b"".join(piece[:-8] + number.to_bytes(8) for number in range(size_bytes // _PIECE_BYTES))
    files = {"org/big": {"model.safetensors": big}, "org/small": {"model.safetensors": piece}}
    lock = make_lock(files)
    store = filled_store(folder / "store", lock, files)
    total_bytes = len(big) + len(piece)
    cut = plan_archive(lock, store, name="bench", size=VolumeSize(max(1 << 20, len(big) // 3)))
    del big
    ours: list[float] = []
    peer: list[float] = []
    for number in range(rounds):
        target = folder / f"round {number}"
        turns = [(ours, partial(_packed, cut, store, target)), (peer, partial(_copied, store, target))]
        for times, run in turns if number % 2 else reversed(turns):
            os.sync()
            times.append(_seconds(run))
            shutil.rmtree(target)
        say(f"round {number + 1}/{rounds}  pack {ours[-1]:.2f} s, cp and sha256sum {peer[-1]:.2f} s")
    return Row(
        what=f"pack, {total_bytes / 1e9:.1f} GB",
        unit="GB/s",
        ours=total_bytes / 1e9 / statistics.median(ours),
        peer=total_bytes / 1e9 / statistics.median(peer),
        ratio=statistics.median(other / mine for mine, other in zip(ours, peer, strict=True)),
        note="peer: cp, sync, sha256sum; each byte hashed twice by ours, for the lock and for SHA256SUMS",
    )


def _packed(cut: Cut, store: BlobFolder, target: Path) -> None:
    pack(cut, store, target, progress=Silent())


def _copied(store: BlobFolder, target: Path) -> None:
    target.mkdir()
    copies = [target / path.name for path in sorted((store.root / "blobs" / "sha256").iterdir())]
    for copy in copies:
        subprocess.run(["cp", store.root / "blobs" / "sha256" / copy.name, copy], check=True)
    subprocess.run(["sync", *copies], check=True)
    subprocess.run(["sha256sum", *copies], check=True, stdout=subprocess.DEVNULL)


def growth(volumes: int, folder: Path, say: Say) -> list[Row]:
    """Milliseconds a file of each verb with so many volumes, over those with a quarter of them."""
    small, large = (_each(count, folder, say) for count in (volumes // 4, volumes))
    return [
        Row(
            what=f"{verb}, {volumes * _FILES_A_VOLUME:,} files on {volumes} volumes",
            unit="ms a file",
            ours=large[verb],
            peer=small[verb],
            ratio=small[verb] / large[verb],
            note="beside it a quarter of them: 1 is linear",
        )
        for verb in small
    ]


def _each(volumes: int, folder: Path, say: Say) -> dict[str, float]:
    place = folder / f"{volumes} volumes"
    count = volumes * _FILES_A_VOLUME
    files = {"org/many": {f"{number}.bin": seeded(_FILE_BYTES + number, seed=number) for number in range(count)}}
    lock: Lock = make_lock(files)
    store = filled_store(place / "store", lock, files)
    # The lock is on every volume, and grows with the files: it is left out of what a volume has room for.
    room = _FILES_A_VOLUME * (_FILE_BYTES + 2_000) + len((place / "store" / "airgap.lock").read_bytes()) + 20_000
    cut = plan_archive(lock, store, name="bench", size=VolumeSize(max(1 << 20, room)))
    archive, far, bucket = place / "archive", BlobFolder(place / "far"), LocalStore(place / "bucket")
    models = place / "models"
    models.mkdir()
    for name, data in files["org/many"].items():
        (models / name).write_bytes(data)
    runs: dict[str, Callable[[], object]] = {
        "snapshot out of a folder": lambda: _snapshot(lock, models, BlobFolder(place / "copied")),
        "pack": lambda: pack(cut, store, archive, progress=Silent()),
        "verify": lambda: verify_media(read_media([archive]), progress=Silent()),
        "unpack": lambda: unpack(read_media([archive]), far, progress=Silent()),
        "mirror into a folder": lambda: mirror_weights(lock, far, bucket, progress=Silent()),
    }
    spent = {verb: 1000 * _seconds(run) / count for verb, run in runs.items()}
    shown = ", ".join(f"{verb} {value:.2f}" for verb, value in spent.items())
    say(f"{count:,} files on {len(cut.volumes)} volumes: {shown} ms a file")
    shutil.rmtree(place)
    return spent


def _snapshot(lock: Lock, models: Path, store: BlobFolder) -> None:
    for carried in (CHART, WHEEL):
        store.add(carried)
    source = DiskSource(models, say=_unsaid)
    snapshot(lock, store, hub=Hub("http://127.0.0.1:9"), open_blob=_no_image, progress=Silent(), source=source)


def _unsaid(text: str) -> None:
    raise AssertionError(text)


def _no_image(image: LockedImage, blob: LockedBlob, start: int) -> BinaryIO:
    raise AssertionError(image.reference)


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
