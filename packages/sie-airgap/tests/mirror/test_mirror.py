"""Weights in a bucket: whole before they are seen, the same after a second run, every altered byte named."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from sie_airgap.archive.cut import plan_archive
from sie_airgap.archive.media import read_media
from sie_airgap.archive.medium import VolumeSize
from sie_airgap.archive.packing import pack
from sie_airgap.failures import Drift, Incomplete
from sie_airgap.mirror.current import lock_in_bucket
from sie_airgap.mirror.weights import mirror_weights, plan_weights
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.verifying.bucket import verify_bucket
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.lock import CURRENT_FILE, Lock
from sie_core.artifacts.store import Destination
from sie_core.artifacts.stores.memory import MemoryStore
from sie_core.artifacts.transfer import read, write
from sie_testing.carried import FILES, make_lock
from sie_testing.places import PLACES, Place, running

REVISION = "ab" * 20
WEIGHTS = f"models--org--large/snapshots/{REVISION}/model.safetensors"


_prefixes = count()


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(request.param, tmp_path_factory.mktemp("place")) as started:
        yield started


@pytest.fixture
def bucket(place: Place) -> Destination:
    return place.store(f"run-{next(_prefixes)}")


def mirrored(lock: Lock, store: BlobFolder, bucket: Destination, *, replace: bool = False) -> int:
    return len(mirror_weights(lock, store, bucket, replace=replace, progress=Silent(), wait=_no_wait).copies)


def _no_wait(pause_s: float) -> None:
    """Time passes."""


def alter(bucket: Destination, name: str) -> None:
    data = bytearray(read(bucket, name) or b"")
    data[len(data) // 2] ^= 1
    write(bucket, name, bytes(data))


def test_what_was_mirrored_is_what_was_locked(lock: Lock, store: BlobFolder, bucket: Destination) -> None:
    mirrored(lock, store, bucket)

    assert verify_bucket(bucket, lock, progress=Silent()) == []
    assert verify_bucket(bucket, None, progress=Silent()) == []
    assert lock_in_bucket(bucket) == lock
    assert read(bucket, "models--org--large/refs/main") == REVISION.encode()
    assert read(bucket, f"models--org--large/.no_exist/{REVISION}/adapter_config.json") == b""


def test_a_second_run_copies_nothing(lock: Lock, store: BlobFolder, bucket: Destination) -> None:
    assert mirrored(lock, store, bucket) == len(plan_weights(lock, store, MemoryStore()))

    assert plan_weights(lock, store, bucket) == ()
    assert mirrored(lock, store, bucket) == 0


def test_a_flipped_byte_is_named_with_its_file_and_copied_again(
    lock: Lock, store: BlobFolder, bucket: Destination
) -> None:
    mirrored(lock, store, bucket)
    alter(bucket, WEIGHTS)

    (finding,) = verify_bucket(bucket, lock, progress=Silent())
    assert isinstance(finding, TrustError)
    assert "`model.safetensors` of `org/large`" in finding.message
    assert finding.where.endswith(WEIGHTS)
    assert digest_of(FILES["org/large"]["model.safetensors"]) in finding.want

    assert mirrored(lock, store, bucket, replace=True) == 1
    assert verify_bucket(bucket, lock, progress=Silent()) == []


def test_every_finding_is_told_not_the_first_only(lock: Lock, store: BlobFolder, bucket: Destination) -> None:
    mirrored(lock, store, bucket)
    alter(bucket, WEIGHTS)
    bucket.delete(f"models--org--small/snapshots/{REVISION}/sub/vocab.txt")
    write(bucket, "models--org--small/refs/main", b"main\n")

    findings = verify_bucket(bucket, lock, progress=Silent())
    assert {type(finding) for finding in findings} == {TrustError, NotThere}
    told = "\n".join(str(finding) for finding in findings)
    for name in ("model.safetensors", "sub/vocab.txt", "refs/main"):
        assert name in told


def test_weights_come_straight_from_the_volumes(tmp_path: Path, lock: Lock, store: BlobFolder) -> None:
    pack(plan_archive(lock, store, name="x", size=VolumeSize(1 << 20)), store, tmp_path / "archive", progress=Silent())
    bucket = MemoryStore()

    mirror_weights(lock, read_media([tmp_path / "archive"]), bucket, progress=Silent())
    assert verify_bucket(bucket, lock, progress=Silent()) == []


def test_a_blob_altered_in_the_store_never_reaches_the_bucket(
    lock: Lock, store: BlobFolder, bucket: Destination
) -> None:
    path = store.path(digest_of(FILES["org/large"]["model.safetensors"]))
    path.write_bytes(path.read_bytes()[:-1] + b"!")

    with pytest.raises(TrustError):
        mirrored(lock, store, bucket)
    assert bucket.stat(WEIGHTS) is None
    assert read(bucket, "models--org--large/refs/main") is None
    assert read(bucket, CURRENT_FILE) is None


def test_a_store_that_lacks_weights_is_not_mirrored(lock: Lock, store: BlobFolder) -> None:
    store.path(digest_of(FILES["org/large"]["model.safetensors"])).unlink()

    with pytest.raises(Incomplete, match=r"model\.safetensors"):
        mirrored(lock, store, MemoryStore())


def test_an_older_lock_never_replaces_a_later_one(lock: Lock, store: BlobFolder) -> None:
    bucket = MemoryStore()
    mirrored(make_lock(FILES, serial=3), store, bucket)

    with pytest.raises(Drift, match="number 3"):
        mirrored(lock, store, bucket)
    assert lock_in_bucket(bucket).serial == 3


def test_a_bucket_of_another_lock_is_drift(lock: Lock, store: BlobFolder) -> None:
    bucket = MemoryStore()
    mirrored(lock, store, bucket)

    (finding,) = verify_bucket(bucket, make_lock(FILES, serial=2), progress=Silent())
    assert isinstance(finding, Drift)


def test_a_lock_altered_in_the_bucket_is_not_believed(lock: Lock, store: BlobFolder) -> None:
    bucket = MemoryStore()
    mirrored(lock, store, bucket)
    (name,) = [stat.name for stat in bucket.list(".sie/locks/")]
    alter(bucket, name)

    with pytest.raises(TrustError, match="lock"):
        lock_in_bucket(bucket)


def test_a_bucket_that_was_not_filled_to_the_end_says_so() -> None:
    with pytest.raises(Incomplete, match="to the end"):
        lock_in_bucket(MemoryStore())
