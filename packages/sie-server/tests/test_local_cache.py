"""A local cache makes room by itself: for workers that share it, killed at any moment, and never of what is used."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import NoSpace, Unreachable
from sie_core.artifacts.manifest import FileEntry, Manifest, encode_manifest
from sie_core.artifacts.stores.local import LocalStore
from sie_core.artifacts.uploading import upload_snapshot
from sie_core.catalog.spec import ModelSpec
from sie_core.ids import ModelId, Revision
from sie_server import snapshots, weights
from sie_server.local_cache import Holds
from sie_server.weights import Snapshot, State
from sie_testing.cluster import fill_bucket
from sie_testing.cluster import worker as running_worker
from sie_testing.store_suite import blob

REVISION = Revision("1110a243fdf4706b3f48f1d95db1a4f5529b4d41")
NEWER = Revision("2220a243fdf4706b3f48f1d95db1a4f5529b4d42")
A, B, C = ModelId("acme/a"), ModelId("acme/b"), ModelId("acme/c")
SIZE_BYTES = 1 << 20
TWO_FIT = 2 * SIZE_BYTES + (SIZE_BYTES >> 1)


def data_of(model: ModelId, revision: Revision) -> dict[str, bytes]:
    return {"config.json": b"{}", "model.safetensors": blob(SIZE_BYTES - 64) + f"{model} {revision}".encode()}


def manifest_of(model: ModelId, revision: Revision) -> Manifest:
    files = data_of(model, revision)
    entries = (FileEntry(path, digest_of(files[path]), len(files[path])) for path in sorted(files))
    return Manifest(model, revision, tuple(entries))


def put(bucket: Path, model: ModelId, revision: Revision = REVISION) -> None:
    """As a mirror does; the ref moves to it."""
    files = data_of(model, revision)
    upload_snapshot(LocalStore(bucket), lambda entry: io.BytesIO(files[entry.path]), manifest_of(model, revision))


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    for model in (A, B, C):
        put(tmp_path / "bucket", model)
    return tmp_path / "bucket"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub"


class Worker:
    """What one process does with the cache; its downloads are told one by one."""

    def __init__(self, bucket: Path, cache: Path, budget_bytes: int = TWO_FIT) -> None:
        self._bucket, self._cache, self._budget_bytes = LocalStore(bucket), cache, budget_bytes
        self.said: list[State] = []

    def fetch(self, model: ModelId, *, keep: bool = False) -> tuple[Snapshot, Holds]:
        """Fetched, loaded, and released unless it is to be kept."""
        holds = Holds(self._cache)
        snapshot = weights.ensure(
            ModelSpec(id=model),
            cache=self._cache,
            cluster=self._bucket,
            budget_bytes=self._budget_bytes,
            take=holds.take,
            progress=self.said.append,
        )
        holds.loaded()
        if not keep:
            holds.release()
        return snapshot, holds

    def has(self, model: ModelId) -> bool:
        return weights.find(ModelSpec(id=model), self._cache, cluster=self._bucket) is not None

    @property
    def evicted(self) -> list[str | None]:
        return [state.evicted for state in self.said if state.step == "evicted"]


@pytest.fixture
def worker(bucket: Path, cache: Path) -> Worker:
    return Worker(bucket, cache)


def at(cache: Path, model: ModelId, seconds: float, revision: Revision = REVISION) -> None:
    """Makes that the time of a snapshot's last use."""
    folder = snapshots.folder_of(cache, model, revision)
    os.utime(cache / ".sie" / f"{folder.parents[1].name}@{revision}.use", (seconds, seconds))


def test_the_one_that_was_used_longest_ago_goes_and_is_said(worker: Worker, cache: Path) -> None:
    for model, used_s in ((A, 2_000_000_000), (B, 1_000_000_000)):
        worker.fetch(model)
        at(cache, model, used_s)
    worker.fetch(C)

    assert worker.evicted == [B]
    assert [worker.has(model) for model in (A, B, C)] == [True, False, True]
    said = next(state.message for state in worker.said if state.step == "evicted")
    assert re.fullmatch(
        r"`acme/b`, commit 1110a243fdf4 \([\d,]+ bytes, last used 2001-09-09T01:46Z\), was removed from \S+ to make "
        r"room for `acme/c`",
        said,
    )


def test_a_model_that_has_gone_comes_again(worker: Worker, bucket: Path, cache: Path) -> None:
    for model in (A, B, C, A):
        snapshot, _ = worker.fetch(model)
    assert (snapshot.folder / "model.safetensors").read_bytes() == data_of(A, REVISION)["model.safetensors"]
    folder = cache / "models--acme--b"
    assert not [path for path in folder.rglob("*") if path.is_file()]  # not a ref that leads nowhere, either


def test_what_is_loaded_stays_until_it_is_released(worker: Worker, cache: Path) -> None:
    _, first = worker.fetch(A, keep=True)
    _, second = worker.fetch(B, keep=True)
    at(cache, A, 1_000_000_000)

    with pytest.raises(NoSpace) as caught:
        worker.fetch(C)
    assert re.match(
        r"`acme/c` needs 1,048,\d+ bytes in \S+, and \d+,\d+ of the 2,621,440 that SIE_LOCAL_CACHE_BYTES allows can be "
        r"had; `acme/a` \([\d,]+ bytes\) would have to go, and may not: loaded, pinned, or on the way",
        caught.value.message,
    )
    assert [worker.has(model) for model in (A, B)] == [True, True]
    assert not list(cache.glob("models--acme--c/.incoming/*/*"))  # refused before anything came

    second.release()
    worker.fetch(C)
    assert worker.evicted == [B]
    first.release()


def test_what_never_fits_sends_nobody_away(worker: Worker, bucket: Path, cache: Path) -> None:
    worker.fetch(A)
    small = Worker(bucket, cache, SIZE_BYTES // 2)

    with pytest.raises(NoSpace, match=r"and [0-9,]+ of the 524,288 that SIE_LOCAL_CACHE_BYTES allows can be had$"):
        small.fetch(B)
    assert worker.has(A)


def test_an_older_commit_of_a_model_that_is_used_may_go(worker: Worker, bucket: Path, cache: Path) -> None:
    worker.fetch(A)
    old = snapshots.folder_of(cache, A, REVISION)
    put(bucket, A, NEWER)
    (cache / hf_layout.ref_file(A)).unlink()
    snapshot, holds = worker.fetch(A, keep=True)
    assert snapshot.folder.name == NEWER
    worker.fetch(B)

    assert not old.exists()
    assert worker.has(A)
    holds.release()


def test_what_a_killed_download_left_goes_first(worker: Worker, cache: Path) -> None:
    worker.fetch(A)
    left = snapshots.incoming_folder(cache, manifest_of(B, REVISION))
    left.mkdir(parents=True)
    (left / "model.safetensors.incoming").write_bytes(bytes(SIZE_BYTES))
    worker.fetch(C)

    assert worker.evicted == [B]
    assert (worker.has(A), left.exists()) == (True, False)


def test_what_came_from_elsewhere_is_left_alone(worker: Worker, cache: Path) -> None:
    """The folder may be that of the hub's own client, too."""
    foreign = cache / "models--other--model/snapshots" / REVISION
    foreign.mkdir(parents=True)
    (foreign / "model.safetensors").write_bytes(bytes(4 * SIZE_BYTES))
    for model in (A, B, C):
        worker.fetch(model)

    assert (foreign / "model.safetensors").stat().st_size == 4 * SIZE_BYTES
    assert worker.evicted == [A]


def test_a_read_only_cache_serves_what_it_has(worker: Worker, cache: Path) -> None:
    """Nothing can be noted there, and nothing can go."""
    worker.fetch(A)
    (cache / ".sie").rename(cache / ".gone")
    (cache / ".sie").write_bytes(b"")  # where a folder is wanted: fails for the superuser, too

    snapshot, _ = worker.fetch(A)
    assert snapshot.folder.is_dir()


def test_a_snapshot_that_goes_while_it_is_looked_at_is_fetched_again(worker: Worker, bucket: Path, cache: Path) -> None:
    worker.fetch(A)
    evictor = Worker(bucket, cache, TWO_FIT)
    taken: list[ModelId] = []

    def take(repo: ModelId, revision: Revision) -> None:
        if not taken:
            taken.append(repo)
            evictor.fetch(B)
            evictor.fetch(C)
            assert evictor.evicted == [A]

    snapshot = weights.ensure(ModelSpec(id=A), cache=cache, cluster=LocalStore(bucket), budget_bytes=TWO_FIT, take=take)
    assert snapshots.has_all(cache, snapshot.manifest)


_WORKER = """
import os, signal, sys
from pathlib import Path
from sie_core.artifacts.stores.local import LocalStore
from sie_core.catalog.spec import ModelSpec
from sie_server import weights
from sie_server.local_cache import Holds
root, model, budget_bytes, dies_at, holds_at = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])
changes = 0
def watch(event, arguments):
    global changes
    if event in ("os.rename", "os.remove", "os.rmdir", "os.truncate", "os.mkdir", "shutil.rmtree") or (
        event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    ):
        changes += 1
        if changes == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
def progress(state):
    print(state.step, state.evicted or "", flush=True)
    if state.step == "evicted":
        sys.exit(3) if dies_at else None
    if holds_at and state.done_bytes >= holds_at:
        print("holding", flush=True)
        sys.stdin.readline()
holds = Holds(root / "hub")
if dies_at:
    sys.addaudithook(watch)
weights.ensure(ModelSpec(id=model), cache=root / "hub", cluster=LocalStore(root / "bucket"), budget_bytes=budget_bytes,
               take=holds.take, progress=progress)
holds.loaded()
print("done", flush=True)
sys.stdin.readline()
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, bucket: Path) -> Iterator[Start]:
    """Workers in processes of their own. Each ends after a line to its stdin."""
    started: list[subprocess.Popen[str]] = []

    def start_one(model: ModelId, *, dies_at: int = 0, holds_at: int = 0) -> "subprocess.Popen[str]":
        words = [sys.executable, "-c", _WORKER, str(tmp_path), model, str(TWO_FIT), str(dies_at), str(holds_at)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(words, stdout=pipe, stdin=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start_one
    for one in started:
        one.kill()
        one.communicate()


def said_until(process: "subprocess.Popen[str]", wanted: str) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if lines[-1] == wanted:
            break
    return lines


def test_another_process_does_not_evict_what_this_one_has_loaded(start: Start, worker: Worker, cache: Path) -> None:
    first = start(A)
    assert said_until(first, "done")[-1] == "done"
    worker.fetch(B)
    at(cache, A, 1_000_000_000)
    worker.fetch(C)
    assert worker.evicted == [B]

    first.send_signal(signal.SIGKILL)  # in whatever way it ends, it holds nothing any more
    first.wait()
    worker.fetch(B)
    assert worker.evicted == [B, A]


def test_another_process_does_not_take_the_room_of_a_download(start: Start, worker: Worker, cache: Path) -> None:
    """Nor what has come of it: A is on its way, and with B the budget is spent."""
    first = start(A, holds_at=2)
    assert said_until(first, "holding")[-1] == "holding"
    _, holds = worker.fetch(B, keep=True)

    with pytest.raises(NoSpace, match=r"`acme/(a|b)` .* would have to go"):
        worker.fetch(C)
    holds.release()
    first.communicate("\n" * 1_000)
    assert worker.has(A)


def test_two_workers_that_want_the_same_room_both_get_what_they_asked_for_in_the_end(
    start: Start, worker: Worker, cache: Path
) -> None:
    worker.fetch(A)
    workers = [start(B), start(C)]
    said = [said_until(one, "done") for one in workers]

    assert [lines[-1] for lines in said] == ["done", "done"]
    assert sum("evicted acme/a" in line for lines in said for line in lines) == 1
    assert not worker.has(A)


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.gap_kills)])
def test_killed_at_any_change_to_the_disk_no_half_snapshot_looks_whole(
    start: Start, worker: Worker, cache: Path, step: int
) -> None:
    """C is fetched by a process that is killed before its first change to the disk, its second, and so on."""
    killed = 0
    for dies_at in range(1, 60, step):
        for model, used_s in ((A, 1_000_000_000), (B, 1_500_000_000)):
            worker.fetch(model)
            at(cache, model, used_s)
        process = start(C, dies_at=dies_at)
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            break
        killed += 1
        for model in (A, B):
            folder = snapshots.folder_of(cache, model, REVISION)
            there = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
            assert there in ({}, {path: len(data) for path, data in data_of(model, REVISION).items()}), dies_at
            assert worker.has(model) == bool(there), dies_at
        worker.said.clear()
        assert worker.fetch(C)[0].folder.is_dir(), dies_at  # and what it left is no hindrance
        assert worker.has(B), dies_at
        shutil.rmtree(snapshots.withdraw(cache / "models--acme--c", REVISION))
    assert process.returncode == 3, process.stderr
    assert killed > 12 // step


def test_what_was_whole_without_its_manifest_is_no_hit(worker: Worker, cache: Path) -> None:
    """Where the process was killed between the rename and the removal of the manifest."""
    worker.fetch(A)
    folder = snapshots.folder_of(cache, A, REVISION)
    manifest = cache / hf_layout.manifest_file(A, REVISION)
    snapshots.withdraw(cache / "models--acme--a", REVISION)
    manifest.parent.mkdir(exist_ok=True)
    manifest.write_bytes(encode_manifest(manifest_of(A, REVISION)))

    assert not worker.has(A)
    assert worker.fetch(A)[0].folder == folder
    assert not list((cache / "models--acme--a/.incoming").iterdir())


def test_a_worker_says_what_it_removed_and_counts_it(tmp_path: Path, cache: Path) -> None:
    """The real program, with a disk that its one model fills."""
    bucket = fill_bucket(tmp_path / "bucket")
    put(tmp_path / "bucket", A)
    Worker(tmp_path / "bucket", tmp_path / "cache").fetch(A)
    env = {"SIE_LOCAL_CACHE_BYTES": "92000000", "SIE_LOG_JSON": "true"}
    with running_worker(tmp_path, bucket=bucket, env=env) as running:
        page = httpx2.get(f"{running.url}/metrics").text

    assert 'sie_local_cache_evictions_total{model="acme/a"} 1' in page
    lines = [json.loads(line) for line in (tmp_path / "worker.log").read_text().splitlines()]
    assert ["`acme/a`, commit 1110a243fdf4" in line["message"] for line in lines if line["event"] == "evicted"] == [
        True
    ]


def test_a_download_that_does_not_come_leaves_its_room_to_others(bucket: Path, cache: Path, worker: Worker) -> None:
    """The note of what is coming counts while the lock is held, and no longer."""

    class Broken(LocalStore):
        def open(self, name: str, *, start: int = 0, length: int | None = None) -> io.BytesIO:
            if "/snapshots/" in name:
                raise Unreachable("gone")
            return io.BytesIO(super().open(name, start=start, length=length).read())

    def stop(pause_s: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weights.ensure(ModelSpec(id=C), cache=cache, cluster=Broken(bucket), budget_bytes=TWO_FIT, sleep=stop)
    worker.fetch(A)
    worker.fetch(B)
    assert worker.evicted == []
