"""What a bucket has is not sent again, what is not ours is told and left alone, and of two mirrors none wins half."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from threading import Barrier, Thread
from typing import BinaryIO

import msgspec
import pytest

from sie_airgap.deltas.receipt import RECEIPT_FILE, decode_receipt
from sie_airgap.failures import Drift, Expected
from sie_airgap.mirror.current import lock_in_bucket
from sie_airgap.mirror.weights import Mirrored, bucket_receipt, mirror_weights, plan_weights
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.verifying.bucket import verify_bucket
from sie_core.artifacts.digest import Digest, digest_of, hex_of
from sie_core.artifacts.errors import NoPermission, NoSpace, TransferError, Unreachable
from sie_core.artifacts.lock import CURRENT_FILE, Lock, LockedFile, lock_digest, lock_file
from sie_core.artifacts.store import Destination
from sie_core.artifacts.stores.local import LocalStore
from sie_core.artifacts.stores.memory import MemoryStore
from sie_core.artifacts.transfer import read, write
from sie_core.ids import Revision
from sie_testing.carried import FILES, filled_store, make_lock, seeded
from sie_testing.places import PLACES, Place, running
from sie_testing.tcp_faults import TcpFault, proxy

WEIGHTS = seeded(6_000_000, seed=7)
TWINS = {
    "org/one": {"config.json": b"{}", "model.safetensors": WEIGHTS, "onnx/again.safetensors": WEIGHTS},
    "org/two": {"config.json": b'{"a":2}', "empty.txt": b"", "weights.safetensors": WEIGHTS},
}
LATER = Revision("cd" * 20)
_prefixes = count()


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(request.param, tmp_path_factory.mktemp("place")) as started:
        yield started


@pytest.fixture
def bucket(place: Place) -> Destination:
    return place.store(f"run-{next(_prefixes)}")


@pytest.fixture
def twins(tmp_path: Path) -> tuple[Lock, BlobFolder]:
    lock = make_lock(TWINS)
    return lock, filled_store(tmp_path / "twins", lock, TWINS)


class Watched(MemoryStore):
    """Notes what is put and what is copied, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[str] = []
        self.copies: list[str] = []

    def put(self, name: str, data: BinaryIO, *, size_bytes: int, digest: Digest) -> None:
        super().put(name, data, size_bytes=size_bytes, digest=digest)
        self.puts.append(name)

    def copy(self, source: str, name: str, *, size_bytes: int) -> bool:
        self.copies.append(name)
        return super().copy(source, name, size_bytes=size_bytes)


def mirror(lock: Lock, store: BlobFolder, bucket: Destination, *, replace: bool = False) -> Mirrored:
    return mirror_weights(lock, store, bucket, replace=replace, progress=Silent(), wait=lambda pause_s: None)


def found(bucket: Destination, lock: Lock | None = None) -> list[Expected]:
    return verify_bucket(bucket, lock, progress=Silent())


def test_identical_files_are_sent_once_and_copied_there(twins: tuple[Lock, BlobFolder], bucket: Destination) -> None:
    lock, store = twins
    planned = plan_weights(lock, store, bucket)

    done = mirror(lock, store, bucket)
    assert done.copies == planned
    assert [copy.is_sent for copy in done.copies if copy.entry.digest == digest_of(WEIGHTS)] == [True, False, False]
    assert done.receipt.traits is not None
    assert done.receipt.traits.copies
    assert done.receipt.traits.lists_at_once
    assert found(bucket) == []


def test_a_bucket_is_hardly_larger_than_its_files(twins: tuple[Lock, BlobFolder], bucket: Destination) -> None:
    """Each file once, though three of them are the same: a reader opens each under its own name."""
    lock, store = twins
    mirror(lock, store, bucket)

    in_bucket = sum(stat.size_bytes for stat in bucket.list(""))
    assert in_bucket <= 1.01 * sum(model.size_bytes for model in lock.models)


def test_a_later_commit_with_the_same_weights_sends_only_what_is_new(
    twins: tuple[Lock, BlobFolder], bucket: Destination, tmp_path: Path
) -> None:
    lock, store = twins
    mirror(lock, store, bucket)
    later = {model: {**files, "config.json": b'{"later":1}'} for model, files in TWINS.items()}
    lock_2 = make_lock(later, serial=2, revision=LATER)
    store_2 = filled_store(tmp_path / "later", lock_2, later)

    done = mirror(lock_2, store_2, bucket)
    sent = {copy.entry.path for copy in done.copies if copy.is_sent}
    assert sent == {"config.json", "empty.txt"}
    assert found(bucket, lock_2) == []
    assert done.strays == ()  # the earlier lock explains what it brought
    assert {lock_digest(lock), lock_digest(lock_2)} == {
        digest_of(read(bucket, stat.name) or b"") for stat in bucket.list(".sie/locks/")
    }


def test_an_earlier_file_of_another_length_is_not_copied_from(twins: tuple[Lock, BlobFolder], tmp_path: Path) -> None:
    lock, store = twins
    bucket = Watched()
    mirror(lock, store, bucket)
    for name in [name for name in bucket.files if name.endswith(".safetensors")]:
        bucket.files[name] = WEIGHTS[:-1]
    lock_2 = make_lock(TWINS, serial=2, revision=LATER)

    mirror(lock_2, store, bucket)
    assert found(bucket, lock_2) == []


def test_a_server_that_cannot_copy_gets_the_bytes(twins: tuple[Lock, BlobFolder]) -> None:
    class Plain(MemoryStore):
        def copy(self, source: str, name: str, *, size_bytes: int) -> bool:
            return False

    bucket = Plain()
    done = mirror(*twins, bucket)

    assert found(bucket) == []
    assert done.receipt.traits is not None
    assert done.receipt.traits.copies is False


def test_refs_come_after_every_manifest_and_the_lock_after_them(lock: Lock, store: BlobFolder) -> None:
    bucket = Watched()
    mirror(lock, store, bucket)

    kinds = [next(kind for kind in ORDER if kind in name) for name in bucket.puts]
    last_files = kinds[kinds.index("/refs/") :]
    assert set(kinds[: kinds.index("/refs/")]) == {"/snapshots/", "/.no_exist/", "/trees/", "/manifests/"}
    assert last_files == ["/refs/", "/refs/", ".sie/locks/", CURRENT_FILE, RECEIPT_FILE]


ORDER = ("/snapshots/", "/.no_exist/", "/trees/", "/manifests/", "/refs/", ".sie/locks/", CURRENT_FILE, RECEIPT_FILE)


def test_strays_are_told_and_stay(lock: Lock, store: BlobFolder, bucket: Destination) -> None:
    revision = lock.models[0].revision
    names = [f"models--org--large/snapshots/{revision}/pytorch_model.bin", "models--org--none/refs/main", "notes.txt"]
    for name in names:
        write(bucket, name, b"somebody's")

    done = mirror(lock, store, bucket)
    assert done.strays == tuple(names)
    assert mirror(lock, store, bucket).strays == tuple(names)
    assert [read(bucket, name) for name in names] == [b"somebody's"] * 3
    assert found(bucket) == []


def test_a_byte_altered_to_the_same_length_is_found_and_repaired(
    lock: Lock, store: BlobFolder, bucket: Destination
) -> None:
    mirror(lock, store, bucket)
    name = f"models--org--large/snapshots/{lock.models[0].revision}/model.safetensors"
    altered = bytearray(read(bucket, name) or b"")
    altered[1_234_567] ^= 1
    write(bucket, name, bytes(altered))

    assert mirror(lock, store, bucket).copies == ()  # by name and length nothing is missing
    assert [finding.exit_code for finding in found(bucket)] == [3]
    (copy,) = mirror(lock, store, bucket, replace=True).copies
    assert copy.entry.path == "model.safetensors"
    assert found(bucket) == []


def test_a_receipt_says_what_the_bucket_holds(lock: Lock, store: BlobFolder, bucket: Destination) -> None:
    done = mirror(lock, store, bucket)

    assert decode_receipt(read(bucket, RECEIPT_FILE) or b"") == done.receipt == bucket_receipt(bucket)
    assert done.receipt.lock == lock_digest(lock)
    assert done.receipt.digests == {digest_of(data) for files in FILES.values() for data in files.values()}
    assert all(digest_of(read(bucket, blob.at) or b"") == blob.digest for blob in done.receipt.blobs)
    bucket.delete(next(blob.at for blob in done.receipt.blobs if blob.size_bytes == 3_000_000))
    assert len(bucket_receipt(bucket).blobs) == len(done.receipt.blobs) - 1


def at_once(jobs: list[tuple[Lock, BlobFolder]], bucket: Destination) -> list[Exception]:
    """Mirrors that begin at the same moment; what they failed with."""
    failed: list[Exception] = []
    together = Barrier(len(jobs))

    def run(lock: Lock, store: BlobFolder) -> None:
        together.wait()
        try:
            mirror(lock, store, bucket)
        except Drift as error:
            failed.append(error)

    threads = [Thread(target=run, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def test_two_mirrors_of_one_lock_at_once_end_well(lock: Lock, store: BlobFolder, bucket: Destination) -> None:
    assert at_once([(lock, store)] * 2, bucket) == []

    assert found(bucket) == []
    assert list(bucket.unfinished("")) == []


def test_a_later_lock_that_comes_meanwhile_stays(lock: Lock, store: BlobFolder, tmp_path: Path) -> None:
    """The earlier mirror was under way when the later one ended: it changes no ref, and says which lock is there."""
    later_files = {model: {**files, "config.json": b'{"later":1}'} for model, files in FILES.items()}
    later = make_lock(later_files, serial=2, revision=LATER)
    later_store = filled_store(tmp_path / "later", later, later_files)

    class Overtaken(Watched):
        """The later mirror runs to its end just before the first manifest of the earlier one is written."""

        was_overtaken = False

        def put(self, name: str, data: BinaryIO, *, size_bytes: int, digest: Digest) -> None:
            if "/manifests/" in name and not self.was_overtaken:
                self.was_overtaken = True
                mirror(later, later_store, self)
            super().put(name, data, size_bytes=size_bytes, digest=digest)

    bucket = Overtaken()
    with pytest.raises(Drift, match="number 2"):
        mirror(lock, store, bucket)

    assert lock_in_bucket(bucket) == later
    assert found(bucket, later) == []
    assert bucket.stat(lock_file(lock_digest(lock))) is None


class Failing(Watched):
    """Takes some of a large file and fails, so often."""

    def __init__(self, error: TransferError, times: int) -> None:
        super().__init__()
        self._error, self._left = error, times

    def put(self, name: str, data: BinaryIO, *, size_bytes: int, digest: Digest) -> None:
        if self._left and name.endswith("model.safetensors"):
            self._left -= 1
            data.read(1_000_000)
            raise self._error
        super().put(name, data, size_bytes=size_bytes, digest=digest)


class Summed(Silent):
    """What progress adds up to."""

    def __init__(self) -> None:
        self.done_bytes = 0

    def advance(self, size_bytes: int) -> None:
        self.done_bytes += size_bytes


def test_what_passes_is_waited_for_as_long_as_the_server_says(lock: Lock, store: BlobFolder) -> None:
    slow = Unreachable("503 SlowDown")
    slow.retry_after_s = 7
    pauses, progress, bucket = list[float](), Summed(), Failing(slow, 3)

    mirror_weights(lock, store, bucket, progress=progress, wait=pauses.append)
    assert pauses == [7, 7, 7]
    assert progress.done_bytes == sum(model.size_bytes for model in lock.models)
    assert found(bucket) == []


def test_what_does_not_pass_is_told_at_once(lock: Lock, store: BlobFolder) -> None:
    pauses, bucket = list[float](), Failing(NoPermission("403"), 1)

    with pytest.raises(NoPermission):
        mirror_weights(lock, store, bucket, progress=Silent(), wait=pauses.append)
    assert pauses == []


def test_a_folder_that_has_no_room_is_refused_before_anything_is_written(store: BlobFolder, tmp_path: Path) -> None:
    file = LockedFile(path="model.bin", digest=digest_of(b"{}"), size_bytes=1 << 60, hub_id=hex_of(digest_of(b"{}")))
    model = msgspec.structs.replace(make_lock(FILES).models[0], files=(file,))
    huge = msgspec.structs.replace(make_lock(FILES), models=(model,))

    with pytest.raises(NoSpace, match="1,152,921,504,606,846,976 are needed"):
        mirror(huge, store, LocalStore(tmp_path / "bucket"))
    assert not (tmp_path / "bucket").exists()


BAD_DAYS = [
    TcpFault("reset", after_bytes=400, times=6),
    TcpFault("cut", after_bytes=100, times=6),
    TcpFault("status", status=503, times=7),
]


@pytest.mark.parametrize("fault", BAD_DAYS, ids=lambda fault: str(fault.kind))
def test_a_mirror_comes_through_a_bad_day(
    twins: tuple[Lock, BlobFolder], server: Place, tmp_path: Path, fault: TcpFault
) -> None:
    """Connections that are reset, answers that are cut off, a server that is asked too much: all in mid-upload."""
    assert server.endpoint is not None
    with proxy(server.endpoint) as between:
        shaky = Place("s3", server.url, between.endpoint).store(f"run-{next(_prefixes)}", journals=tmp_path / "j")
        between.when_asked(3_000_000, lambda: between.arm(fault))
        said = Said()
        mirror_weights(*twins, shaky, progress=said, wait=lambda pause_s: None)
        sent_bytes = between.asked_bytes

        assert found(shaky) == []
        assert list(shaky.unfinished("")) == []
    assert any("again in" in text for text in said.lines)
    assert sent_bytes < 4 * len(WEIGHTS)


class Said(Silent):
    """What an operator is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running("seaweedfs", tmp_path_factory.mktemp("server")) as started:
        yield started
