"""Killed half-way, run again: what was done is kept, what was not is done, and the result is whole.

A child process runs the verb and stops in the middle, where it is killed with SIGKILL.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any

import pytest

from sie_airgap.archive.cut import plan_archive
from sie_airgap.archive.media import read_media
from sie_airgap.archive.medium import VolumeSize
from sie_airgap.archive.packing import pack
from sie_airgap.archive.unpack import unpack
from sie_airgap.mirror.current import lock_in_bucket
from sie_airgap.mirror.weights import mirror_weights
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder, fill, lock_of, read_lock, write_lock
from sie_airgap.store.snapshot import snapshot
from sie_airgap.verifying.bucket import verify_bucket
from sie_airgap.verifying.media import verify_media
from sie_airgap.verifying.store import verify_store
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import Lock
from sie_core.artifacts.stores.hub import Hub
from sie_core.artifacts.stores.open import open_store
from sie_testing.carried import CHART, FILES, WHEEL, filled_store, make_lock
from sie_testing.hub import Hub as Fake
from sie_testing.hub import serving_hub

VOLUME_BYTES = 1 << 20
TOTAL_BYTES = sum(len(data) for files in FILES.values() for data in files.values())

_CHILD = """
import json, sys
from contextlib import contextmanager
from pathlib import Path
from sie_airgap.archive.packing import pack
from sie_airgap.archive.cut import plan_archive
from sie_airgap.store.blobs import BlobFolder, read_lock
from sie_airgap.archive.media import read_media
from sie_airgap.archive.medium import VolumeSize
from sie_airgap.mirror.weights import mirror_weights
from sie_airgap.store.snapshot import snapshot
from sie_airgap.archive.unpack import unpack
from sie_core.artifacts.stores.hub import Hub
from sie_core.artifacts.stores.open import open_store

class Stopping:
    done = 0
    @contextmanager
    def task(self, verb, total_bytes):
        yield self
    def say(self, text): pass
    def at(self, what): pass
    def advance(self, size_bytes):
        self.done += size_bytes
        if self.done >= stop_at:
            print("there", flush=True)
            sys.stdin.read()

given = json.loads(sys.argv[1])
stop_at, here = given["stop_at"], Path(given["here"])
store, progress = BlobFolder(here / given["store"]), Stopping()
match given["verb"]:
    case "snapshot":
        lock = read_lock(here / "store" / "airgap.lock")
        snapshot(lock, store, hub=Hub(given["hub"]), open_blob=None, progress=progress)
    case "pack":
        lock = read_lock(store.root / "airgap.lock")
        cut = plan_archive(lock, store, name="x", size=VolumeSize(given["volume_bytes"]))
        pack(cut, store, here / "archive", progress=progress)
    case "unpack":
        unpack(read_media([here / "archive"]), store, progress=progress)
    case "mirror":
        lock = read_lock(store.root / "airgap.lock")
        mirror_weights(lock, store, open_store(f"file://{here}/bucket"), progress=progress)
"""


def killed(here: Path, verb: str, *, store: str, stop_at: int, hub: str = "") -> None:
    """Run the verb in a child until it has moved `stop_at` bytes, then SIGKILL."""
    given = {
        "verb": verb,
        "here": str(here),
        "store": store,
        "stop_at": stop_at,
        "hub": hub,
        "volume_bytes": VOLUME_BYTES,
    }
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, json.dumps(given)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"there\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL


halfway = pytest.mark.parametrize("stop_at", [1, TOTAL_BYTES // 2, TOTAL_BYTES])


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    for model, files in FILES.items():
        for path, data in files.items():
            file = tmp_path / "hub" / model / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    fake = Fake(tmp_path / "hub", pins=dict.fromkeys(FILES, "ab" * 20), lfs_above_bytes=1000)  # type: ignore[arg-type]
    with serving_hub(fake) as endpoint:
        yield endpoint


@halfway
def test_snapshot_goes_on_after_a_kill(tmp_path: Path, lock: Lock, store: BlobFolder, hub: str, stop_at: int) -> None:
    fresh = BlobFolder(tmp_path / "fresh")
    fresh.add(WHEEL)
    fresh.add(CHART)
    killed(tmp_path, "snapshot", store="fresh", stop_at=stop_at, hub=hub)
    assert fresh.named("airgap.lock") is None
    whole_before = {
        path: path.stat().st_mtime_ns for path in (fresh.root / "blobs/sha256").iterdir() if not path.suffix
    }

    snapshot(lock, fresh, hub=Hub(hub), open_blob=None, progress=Silent())  # type: ignore[arg-type]
    assert verify_store(lock, fresh, progress=Silent()) == []
    assert all(path.stat().st_mtime_ns == then for path, then in whole_before.items())


@halfway
def test_pack_goes_on_after_a_kill(tmp_path: Path, lock: Lock, store: BlobFolder, stop_at: int) -> None:
    killed(tmp_path, "pack", store="store", stop_at=stop_at)
    archive = tmp_path / "archive"
    for path in archive.glob("v*.tar"):
        assert not verify_media(read_media([path]), progress=Silent())[1:]

    cut = plan_archive(lock, store, name="x", size=VolumeSize(VOLUME_BYTES))
    pack(cut, store, archive, progress=Silent())
    pack(cut, store, tmp_path / "never killed", progress=Silent())
    assert {path.name: path.read_bytes() for path in archive.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "never killed").iterdir()
    }


@halfway
def test_unpack_goes_on_after_a_kill(tmp_path: Path, lock: Lock, store: BlobFolder, stop_at: int) -> None:
    cut = plan_archive(lock, store, name="x", size=VolumeSize(VOLUME_BYTES))
    pack(cut, store, tmp_path / "archive", progress=Silent())
    killed(tmp_path, "unpack", store="far", stop_at=stop_at)
    far = BlobFolder(tmp_path / "far")
    assert far.named("airgap.lock") is None

    unpack(read_media([tmp_path / "archive"]), far, progress=Silent())
    assert lock_of(far) == lock
    assert verify_store(lock, far, progress=Silent()) == []
    assert list((far.root / "incoming").iterdir()) == []


@halfway
def test_mirror_goes_on_after_a_kill(tmp_path: Path, lock: Lock, store: BlobFolder, stop_at: int) -> None:
    killed(tmp_path, "mirror", store="store", stop_at=stop_at)
    bucket = open_store(f"file://{tmp_path}/bucket")
    assert bucket.stat(".sie/current") is None

    mirror_weights(lock, store, bucket, progress=Silent())
    assert verify_bucket(bucket, lock, progress=Silent()) == []
    assert lock_in_bucket(bucket) == lock


def test_what_a_killed_run_left_of_a_blob_is_checked_before_it_is_kept(
    tmp_path: Path, lock: Lock, store: BlobFolder
) -> None:
    """The half that is there may be bad: power went before it was on the disk."""
    pack(plan_archive(lock, store, name="x"), store, tmp_path / "archive", progress=Silent())
    far = BlobFolder(tmp_path / "far")
    digest = digest_of(FILES["org/large"]["model.safetensors"])
    far.arriving(digest).parent.mkdir(parents=True)
    far.arriving(digest).write_bytes(bytes(1_000_000))

    unpack(read_media([tmp_path / "archive"]), far, progress=Silent())
    assert verify_store(lock, far, progress=Silent()) == []


def test_a_source_that_does_not_end_fills_no_disk(tmp_path: Path) -> None:
    """A registry may send what it likes: what is read is bounded by what was locked."""

    class Endless(RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            buffer[:] = bytes(len(buffer))
            return len(buffer)

    arrived: list[int] = []
    store = BlobFolder(tmp_path)
    with pytest.raises(TrustError, match="1,001 bytes"):
        fill(
            store,
            digest_of(b"x" * 1000),
            1000,
            lambda start: BufferedReader(Endless()),
            label="a layer",
            where="a registry",
            advance=arrived.append,
        )
    assert sum(arrived) == 1001
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_lock_stays_readable_when_writing_the_next_one_is_cut_short(tmp_path: Path, lock: Lock) -> None:
    """In the way of the draft stands a folder, so that writing ends between the lock and the digest beside it."""
    path = tmp_path / "airgap.lock"
    write_lock(path, lock)
    in_the_way = tmp_path / f".airgap.lock.{os.getpid()}"
    in_the_way.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_lock(path, make_lock(FILES, serial=2))
    assert read_lock(path) == lock

    in_the_way.rmdir()
    write_lock(path, make_lock(FILES, serial=2))
    assert read_lock(path).serial == 2
    assert subprocess.run(["sha256sum", "-c", "airgap.lock.sha256"], cwd=tmp_path, capture_output=True).returncode == 0


def test_a_lock_is_written_whole_or_not_at_all(tmp_path: Path, lock: Lock) -> None:
    store = filled_store(tmp_path / "s", lock, FILES)

    assert lock_of(store) == lock
    assert not list(store.root.glob(".*"))
