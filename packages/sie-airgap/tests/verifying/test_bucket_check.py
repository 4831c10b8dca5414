"""`verify s3://…`: what a bucket has otherwise than locked, all of it, whatever single files do; the rest is read."""

import os
import shutil
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import BinaryIO

import pytest

from sie_airgap.failures import Expected, Several, raise_all
from sie_airgap.mirror.weights import mirror_weights
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.verifying.bucket import verify_bucket
from sie_core.artifacts import hf_layout
from sie_core.artifacts.errors import NoPermission, NotThere, TransferError, TrustError, Unreachable
from sie_core.artifacts.lock import CURRENT_FILE, Lock, lock_digest, lock_file
from sie_core.artifacts.ranges import LARGE_BYTES, STREAMS
from sie_core.artifacts.store import Destination
from sie_core.artifacts.stores.memory import MemoryStore
from sie_core.artifacts.stores.open import open_store
from sie_core.artifacts.transfer import read, write
from sie_testing import seaweed
from sie_testing.carried import FILES, REVISION, Run, filled_store, make_lock, seeded
from sie_testing.faults import Fault, FaultKind
from sie_testing.front import Front, standing_in_front
from sie_testing.places import BUCKET
from sie_testing.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

WEIGHTS = f"models--org--large/snapshots/{REVISION}/model.safetensors"
VOCAB = f"models--org--small/snapshots/{REVISION}/sub/vocab.txt"
CONFIG = f"models--org--small/snapshots/{REVISION}/config.json"
REF = "models--org--small/refs/main"

_prefixes = count()


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def _no_wait(pause_s: float) -> None:
    """Time passes."""


def found(bucket: Destination, lock: Lock | None, said: Said | None = None) -> list[Expected]:
    return verify_bucket(bucket, lock, progress=said or Silent(), wait=_no_wait)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweed.running(tmp_path_factory.mktemp("seaweed")) as running:
        running.make_bucket(BUCKET)
        yield running


@pytest.fixture
def front(server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Front, str]]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    with standing_in_front(server.endpoint) as standing:
        yield standing


@pytest.fixture
def bucket(front: tuple[Front, str], lock: Lock, store: BlobFolder) -> Destination:
    there = open_store(f"s3://{BUCKET}/checked-{next(_prefixes)}/", endpoint=front[1])
    mirror_weights(lock, store, there, progress=Silent(), wait=_no_wait)
    return there


@pytest.fixture
def memory(lock: Lock, store: BlobFolder) -> MemoryStore:
    there = MemoryStore()
    mirror_weights(lock, store, there, progress=Silent(), wait=_no_wait)
    return there


def _fault(kind: FaultKind, name: str, *, status: int = 503, after_bytes: int = 0) -> Fault:
    return Fault(kind, match=f"*{name}", status=status, after_bytes=after_bytes)


def test_one_file_that_may_not_be_read_and_one_that_fails_leave_the_others_checked(
    front: tuple[Front, str], bucket: Destination, lock: Lock
) -> None:
    write(bucket, REF, b"main\n")
    front[0].faults = (
        _fault(FaultKind.STATUS, WEIGHTS, status=403),
        _fault(FaultKind.STATUS, VOCAB, status=503),
        _fault(FaultKind.FLIP, CONFIG, after_bytes=2),
    )

    findings = found(bucket, lock)
    kinds = {type(one): str(one) for one in findings}
    assert len(findings) == 4
    assert kinds.keys() == {NoPermission, Unreachable, TrustError}
    assert "`model.safetensors` of `org/large` cannot be read\n  at    s3://" in kinds[NoPermission]
    assert "answered 403" in kinds[NoPermission]
    assert "`sub/vocab.txt` of `org/small` cannot be read" in kinds[Unreachable]
    assert "  want  sha256:" in kinds[Unreachable]
    assert "answered 503" in kinds[Unreachable]
    with pytest.raises(Several) as ended:
        raise_all(findings)
    assert ended.value.exit_code == 3


def test_a_connection_that_breaks_in_the_middle_is_taken_up_there(
    front: tuple[Front, str], bucket: Destination, lock: Lock
) -> None:
    front[0].faults = (_fault(FaultKind.TRUNCATE, WEIGHTS, after_bytes=1_300_000),)
    front[0].seen.clear()

    assert found(bucket, lock) == []
    asked = [path for method, path, _ in front[0].seen if method == "GET" and path.endswith(WEIGHTS)]
    assert len(asked) >= 3


def test_a_connection_that_always_breaks_is_one_finding(
    front: tuple[Front, str], bucket: Destination, lock: Lock
) -> None:
    front[0].faults = (_fault(FaultKind.TRUNCATE, WEIGHTS, after_bytes=0),)

    (finding,) = found(bucket, lock)
    assert isinstance(finding, Unreachable)
    assert "`model.safetensors` of `org/large` cannot be read" in str(finding)


def test_a_bucket_where_nothing_answers_any_more_is_said_once(
    front: tuple[Front, str], bucket: Destination, lock: Lock
) -> None:
    class Leaving(Silent):
        """Once the first file is looked at, nobody is there any more."""

        def at(self, what: str) -> None:
            front[0].faults = (Fault(FaultKind.STATUS, status=503),)

    findings = verify_bucket(bucket, lock, progress=Leaving(), wait=_no_wait)
    (finding,) = findings
    assert isinstance(finding, Unreachable)
    assert finding.exit_code == 5
    assert "nothing in s3://" in str(finding)
    assert "0 of 15 files were looked at" in str(finding)


def test_nobody_there_and_no_bucket_are_said_at_once(
    front: tuple[Front, str], lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotThere, match="the bucket `no-such-bucket` does not exist"):
        found(open_store("s3://no-such-bucket/", endpoint=front[1]), lock)
    with pytest.raises(Unreachable):
        found(open_store(f"s3://{BUCKET}/", endpoint="http://127.0.0.1:9"), lock)

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(NoPermission):
        found(open_store(f"s3://{BUCKET}/", endpoint=front[1]), lock)


def test_credentials_that_expire_on_the_way_are_said_once(
    front: tuple[Front, str], bucket: Destination, lock: Lock
) -> None:
    class Expiring(Silent):
        def at(self, what: str) -> None:
            front[0].faults = (Fault(FaultKind.STATUS, status=403),)

    (finding,) = verify_bucket(bucket, lock, progress=Expiring(), wait=_no_wait)
    assert isinstance(finding, NoPermission)
    assert "files were looked at" in str(finding)


def test_what_names_the_lock_may_be_forbidden_alone(front: tuple[Front, str], bucket: Destination, lock: Lock) -> None:
    front[0].faults = (_fault(FaultKind.STATUS, CURRENT_FILE, status=403),)

    (finding,) = found(bucket, lock)
    assert isinstance(finding, NoPermission)
    assert "`.sie/current`, which names the lock, cannot be read" in str(finding)


def test_too_short_and_too_long_are_told_with_both_lengths(memory: MemoryStore, lock: Lock) -> None:
    memory.files[WEIGHTS] = memory.files[WEIGHTS][:1_000]
    memory.files[VOCAB] += b"more"

    short, long = found(memory, lock)
    assert isinstance(short, TrustError)
    assert isinstance(long, TrustError)
    assert (short.want[-15:], short.have[-13:]) == ("3,000,000 bytes", "  1,000 bytes")
    assert long.have == "70,004 bytes; the first 70,000 are right"


def test_everything_that_the_mirror_writes_is_checked(memory: MemoryStore, lock: Lock) -> None:
    """Each file in turn: the manifest, the listing, the marker, the lock, what names it."""
    for name, data in dict(memory.files).items():
        if name == ".sie/receipt.json":
            continue
        memory.files[name] = data + b"x"
        altered = found(memory, lock)
        del memory.files[name]
        missing = found(memory, lock)
        memory.files[name] = data

        assert [type(one) for one in (*altered, *missing)] == [TrustError, NotThere], name
        assert all(name in str(one) for one in (*altered, *missing))
    assert found(memory, lock) == []


def test_strays_are_said_and_those_in_the_place_of_nothing_are_findings(memory: MemoryStore, lock: Lock) -> None:
    memory.files["models--org--large/blobs/abc"] = b"x"
    memory.files["backup.tar"] = b"y"
    adapter = f"models--org--small/snapshots/{REVISION}/adapter_config.json"
    memory.files[adapter] = b"{}"
    said = Said()

    (finding,) = found(memory, lock, said)
    assert isinstance(finding, TrustError)
    assert "`adapter_config.json` of `org/small` is there, though the commit has no such file" in finding.message
    assert (finding.want, finding.have) == ("nothing", "2 bytes")
    assert said.lines == [
        "stray  backup.tar: no lock there names it; nothing reads it",
        "stray  models--org--large/blobs/abc: no lock there names it; nothing reads it",
    ]


def test_what_an_earlier_lock_brought_is_no_stray(memory: MemoryStore, lock: Lock, tmp_path: Path) -> None:
    later = make_lock({"org/small": FILES["org/small"]}, serial=2)
    mirror_weights(later, filled_store(tmp_path / "2", later, FILES), memory, progress=Silent(), wait=_no_wait)
    said = Said()

    assert found(memory, None, said) == []
    assert said.lines == []


def test_a_bucket_that_may_not_be_listed_is_checked_all_the_same(
    front: tuple[Front, str], bucket: Destination, lock: Lock
) -> None:
    front[0].faults = (Fault(FaultKind.STATUS, match=f"/{BUCKET}", status=403, methods=("GET",)),)
    said = Said()

    assert found(bucket, lock, said) == []
    (line,) = said.lines
    assert line.startswith("note: what else is in s3://")


class Counting(MemoryStore):
    """Notes how much is held at once, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int | None]] = []
        self.threads: set[str] = set()
        self.failing: dict[int, int] = {}

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        if name.endswith("model.safetensors"):
            self.asked.append((start, length))
            self.threads.add(threading.current_thread().name)
            if self.failing.get(start, 0):
                self.failing[start] -= 1
                raise Unreachable(f"no range from {start}")
        return super().open(name, start=start, length=length)


@pytest.fixture(scope="module")
def large() -> dict[str, dict[str, bytes]]:
    return {"org/large": {"model.safetensors": seeded(LARGE_BYTES + 12_345, seed=9)}}


@pytest.fixture
def shard(tmp_path: Path, large: dict[str, dict[str, bytes]]) -> tuple[Counting, Lock]:
    lock, there = make_lock(large), Counting()
    mirror_weights(lock, filled_store(tmp_path / "large", lock, large), there, progress=Silent(), wait=_no_wait)
    there.asked.clear()
    there.threads.clear()
    return there, lock


def test_a_large_file_comes_in_ranges_each_asked_for_once(shard: tuple[Counting, Lock]) -> None:
    there, lock = shard
    assert found(there, lock) == []
    assert sorted(there.asked) == [(0, 16 << 20), (16 << 20, 16 << 20), (32 << 20, 12_346)]
    assert 1 < len(there.threads) <= STREAMS


@pytest.mark.parametrize(("times", "findings"), [(2, 0), (99, 1)])
def test_a_range_that_fails_is_asked_for_again(shard: tuple[Counting, Lock], times: int, findings: int) -> None:
    there, lock = shard
    there.failing = {16 << 20: times}

    assert len(found(there, lock)) == findings


@pytest.mark.parametrize("length", [0, 5, 16 << 20, (16 << 20) + 5, LARGE_BYTES])
def test_a_large_file_cut_short_anywhere_is_told_with_its_length(shard: tuple[Counting, Lock], length: int) -> None:
    there, lock = shard
    there.files[WEIGHTS] = there.files[WEIGHTS][:length]

    (finding,) = found(there, lock)
    assert isinstance(finding, TrustError)
    assert finding.have.endswith(f"  {length:,} bytes")


def test_a_large_file_altered_or_too_long_is_told(shard: tuple[Counting, Lock]) -> None:
    there, lock = shard
    data = there.files[WEIGHTS]
    there.files[WEIGHTS] = data[:-1] + bytes([data[-1] ^ 1])
    (altered,) = found(there, lock)
    there.files[WEIGHTS] = data + b"x"
    (long,) = found(there, lock)

    assert isinstance(altered, TrustError)
    assert isinstance(long, TrustError)
    assert altered.have.startswith("sha256:")
    assert long.have.endswith(" are right")


def test_a_bucket_of_another_lock_is_drift_and_its_files_are_checked(memory: MemoryStore, lock: Lock) -> None:
    other = make_lock(FILES, serial=2)
    memory.files[VOCAB] = b""
    findings = found(memory, other)

    assert [one.exit_code for one in findings] == [8, 3]
    assert read(memory, CURRENT_FILE) == lock_digest(lock).encode()


def test_a_pinned_lock_that_is_altered_in_the_bucket_is_told(memory: MemoryStore, lock: Lock) -> None:
    memory.files[lock_file(lock_digest(lock))] = b"{}"

    (finding,) = found(memory, lock)
    assert "lock number 1 is not what `mirror weights` writes" in str(finding)


def test_whatever_stands_in_the_place_of_a_file_is_told_and_never_waited_for(
    tmp_path: Path, lock: Lock, store: BlobFolder
) -> None:
    there = open_store((tmp_path / "bucket").as_uri())
    mirror_weights(lock, store, there, progress=Silent(), wait=_no_wait)
    root = tmp_path / "bucket"
    for name in (VOCAB, hf_layout.ref_file(lock.models[0].repo)):
        (root / name).unlink()
        os.mkfifo(root / name)
    (root / WEIGHTS).unlink()
    (root / WEIGHTS).mkdir()

    findings = found(there, lock)
    assert len(findings) == 3
    assert all(isinstance(one, NotThere) and "something else is in its place" in str(one) for one in findings)


def test_a_folder_that_is_not_there_is_said_once(tmp_path: Path, lock: Lock) -> None:
    with pytest.raises(TransferError, match="nothing is in"):
        found(open_store((tmp_path / "nowhere").as_uri()), lock)


def test_the_verb_tells_every_finding_and_ends_with_the_gravest_code(
    airgap: Run, tmp_path: Path, lock: Lock, store: BlobFolder
) -> None:
    there = open_store((tmp_path / "bucket").as_uri())
    mirror_weights(lock, store, there, progress=Silent(), wait=_no_wait)
    there.delete(VOCAB)
    assert airgap("verify", there.url)[0] == 4
    write(there, CONFIG, b"x")
    shutil.rmtree(tmp_path / "bucket" / "models--org--large" / "refs")

    code, out, err = airgap("verify", there.url)
    assert (code, out) == (3, "")
    assert err.count("error: ") == 4
    assert "error: 3 things are wrong" in err
