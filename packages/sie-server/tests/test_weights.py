"""A model's files are here whole and verified, or they are not here."""

import io
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from huggingface_hub import snapshot_download

from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.errors import NoPermission, NotThere, TrustError, Unreachable
from sie_core.artifacts.lock import CURRENT_FILE, Lock, LockedFile, LockedModel, encode_lock, lock_digest, lock_file
from sie_core.artifacts.manifest import FileEntry, Manifest, decode_manifest
from sie_core.artifacts.stores.hub import Hub
from sie_core.artifacts.stores.local import LocalStore
from sie_core.artifacts.stores.memory import MemoryStore
from sie_core.artifacts.uploading import upload_snapshot
from sie_core.catalog.spec import ModelSpec, Source
from sie_core.ids import ModelId, Revision
from sie_server import snapshots, weights
from sie_server.bucket import models_in, read_pin
from sie_server.weights import State
from sie_testing import hub as stand_in
from sie_testing.hub import serving_hub
from sie_testing.store_suite import blob

MODEL = ModelId("acme/tiny-embedder")
REVISION = Revision("1110a243fdf4706b3f48f1d95db1a4f5529b4d41")
FILES = {
    "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
    "config.json": b"{}",
    "model.safetensors": blob(300_000),
    "tokenizer.json": blob(1_000),
}
WEIGHTS = hf_layout.snapshot_file(MODEL, REVISION, "model.safetensors")


def manifest_of(files: dict[str, bytes]) -> Manifest:
    entries = (
        FileEntry(path=path, digest=digest_of(files[path]), size_bytes=len(files[path])) for path in sorted(files)
    )
    return Manifest(repo=MODEL, revision=REVISION, files=tuple(entries))


MANIFEST = manifest_of(FILES)
SPEC = ModelSpec(id=MODEL)


def source(entry: FileEntry) -> BinaryIO:
    return io.BytesIO(FILES[entry.path])


def lock_of(files: dict[str, bytes], *, model: ModelId = MODEL) -> Lock:
    locked = tuple(
        LockedFile(path=path, digest=digest_of(files[path]), size_bytes=len(files[path]), hub_id="0" * 40)
        for path in sorted(files)
    )
    one = LockedModel(
        id=model,
        repo=model,
        ref="main",
        revision=REVISION,
        license=None,
        gated=False,
        why=("--model",),
        files=locked,
        absent=("added_tokens.json",),
    )
    return Lock(version=1, serial=1, previous=None, models=(one,), images=(), charts=(), wheels=())


class Bucket(MemoryStore):
    """Counts what is read of weights, and raises `failures` one by one, each instead of the next file."""

    def __init__(self) -> None:
        super().__init__("s3://models/weights/")
        self.opened: list[str] = []
        self.failures: list[Exception] = []

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        if self.failures and "/snapshots/" in name:
            raise self.failures.pop(0)
        stream = super().open(name, start=start, length=length)
        self.opened.append(name)
        return stream

    @property
    def files_read(self) -> list[str]:
        return sorted(name.rsplit("/", 1)[1] for name in self.opened if "/snapshots/" in name)


@pytest.fixture
def bucket() -> Bucket:
    store = Bucket()
    upload_snapshot(store, source, MANIFEST)
    store.opened.clear()
    return store


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub"


class Stopped(Exception):
    """Raised where the worker would wait, to look at the world in between."""


def stop(pause_s: float) -> None:
    raise Stopped


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_comes_from_the_bucket_whole_and_is_found_after(bucket: Bucket, cache: Path) -> None:
    snapshot = weights.ensure(SPEC, cache=cache, cluster=bucket)

    assert files_in(snapshot.folder) == FILES
    assert (snapshot.folder, snapshot.verified) == (cache / hf_layout.snapshot_folder(MODEL, REVISION), True)
    assert weights.find(SPEC, cache) == snapshot


def test_a_model_in_the_cache_asks_nobody(bucket: Bucket, cache: Path) -> None:
    first = weights.ensure(SPEC, cache=cache, cluster=bucket)
    bucket.files.clear()
    bucket.opened.clear()

    assert weights.ensure(SPEC, cache=cache, cluster=bucket) == first
    assert bucket.opened == []


def test_the_cache_resolves_offline_in_the_hubs_own_client(bucket: Bucket, cache: Path) -> None:
    snapshot = weights.ensure(SPEC, cache=cache, cluster=bucket)

    for revision in (None, REVISION):
        assert (
            Path(snapshot_download(MODEL, cache_dir=cache, revision=revision, local_files_only=True)) == snapshot.folder
        )


def test_a_half_copied_snapshot_is_not_a_hit_and_is_not_copied_again(bucket: Bucket, cache: Path) -> None:
    bucket.failures = [Unreachable("the bucket is gone")]
    with pytest.raises(Stopped):
        weights.ensure(SPEC, cache=cache, cluster=bucket, sleep=stop)
    had = bucket.files_read
    assert weights.find(SPEC, cache) is None
    assert not (cache / hf_layout.snapshot_folder(MODEL, REVISION)).exists()

    bucket.opened.clear()
    assert files_in(weights.ensure(SPEC, cache=cache, cluster=bucket).folder) == FILES
    assert sorted(had + bucket.files_read) == sorted(path.rsplit("/", 1)[-1] for path in FILES)


def test_what_killed_processes_left_is_neither_served_nor_kept_for_ever(bucket: Bucket, cache: Path) -> None:
    """One was killed after a file was right and before its journal went, one between the two renames of a folder that
    made room, one while it fetched what an older lock named."""
    weights.ensure(SPEC, cache=cache, cluster=bucket)
    snapshot = cache / hf_layout.snapshot_folder(MODEL, REVISION)
    incoming = snapshots.incoming_folder(cache, MANIFEST)
    snapshot.rename(incoming)
    (incoming / "model.safetensors.journal").write_bytes(b"0\n")
    for name in (incoming.name + ".replaced", "0" * 40 + "-0123456789ab"):
        (incoming.parent / name).mkdir()
        (incoming.parent / name / "model.safetensors.incoming").write_bytes(blob(1_000))

    weights.ensure(SPEC, cache=cache, cluster=bucket)
    assert files_in(snapshot) == FILES
    assert list(incoming.parent.iterdir()) == []


def test_files_somebody_else_copied_are_not_a_hit_and_right_ones_are_kept(bucket: Bucket, cache: Path) -> None:
    folder = cache / hf_layout.snapshot_folder(MODEL, REVISION)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(FILES["model.safetensors"])
    (folder / "tokenizer.json").write_bytes(bytes(1_000))
    (folder / "config.json").write_bytes(b"")
    (folder / "stray.txt").write_bytes(b"?")

    assert weights.find(SPEC, cache) is None
    assert files_in(weights.ensure(SPEC, cache=cache, cluster=bucket).folder) == FILES
    assert "model.safetensors" not in bucket.files_read


def test_a_file_cut_short_in_the_cache_is_fetched_again(bucket: Bucket, cache: Path) -> None:
    folder = weights.ensure(SPEC, cache=cache, cluster=bucket).folder
    (folder / "tokenizer.json").write_bytes(FILES["tokenizer.json"][:500])
    bucket.opened.clear()

    assert weights.find(SPEC, cache) is None
    assert files_in(weights.ensure(SPEC, cache=cache, cluster=bucket).folder) == FILES
    assert bucket.files_read == ["tokenizer.json"]


def test_a_flipped_byte_in_the_bucket_is_said_at_once_with_its_file(bucket: Bucket, cache: Path) -> None:
    altered = bytearray(FILES["model.safetensors"])
    altered[1_000] ^= 4
    bucket.files[WEIGHTS] = bytes(altered)

    with pytest.raises(TrustError) as caught:
        weights.ensure(SPEC, cache=cache, cluster=bucket, sleep=stop)
    assert caught.value.where == f"s3://models/weights/{WEIGHTS}"
    assert weights.find(SPEC, cache) is None


def test_what_passes_is_waited_for_and_said(bucket: Bucket, cache: Path) -> None:
    bucket.failures = [Unreachable("s3.example answered 503")] * 3
    states: list[State] = []
    pauses: list[float] = []

    snapshot = weights.ensure(SPEC, cache=cache, cluster=bucket, progress=states.append, sleep=pauses.append)

    assert files_in(snapshot.folder) == FILES
    waits = [state for state in states if state.step == "waiting"]
    assert [state.retry_in_s for state in waits] == pauses
    assert all("s3.example answered 503; next attempt in" in state.message for state in waits)
    assert (states[-1].done_bytes, states[-1].total_bytes) == (MANIFEST.size_bytes, MANIFEST.size_bytes)


def test_a_far_end_that_says_when_is_not_asked_before(bucket: Bucket, cache: Path) -> None:
    busy = Unreachable("answered 429")
    busy.retry_after_s = 45
    bucket.failures = [busy]
    pauses: list[float] = []

    weights.ensure(SPEC, cache=cache, cluster=bucket, sleep=pauses.append)
    assert pauses == [45]


def test_what_does_not_pass_is_raised_at_once(bucket: Bucket, cache: Path) -> None:
    bucket.failures = [NoPermission("403 as `worker`")]

    with pytest.raises(NoPermission):
        weights.ensure(SPEC, cache=cache, cluster=bucket, sleep=stop)


def test_pauses_double_up_to_half_a_minute_and_differ_between_workers() -> None:
    assert [weights.delay_s(attempt, 0.0) for attempt in (0, 1, 2, 6, 7, 500)] == [0.5, 1, 2, 30, 30, 30]
    assert 15 < weights.delay_s(500, 0.9) < weights.delay_s(500, 0.1) < 30


def test_a_model_that_is_missing_is_said_with_those_that_are_there(bucket: Bucket, cache: Path) -> None:
    spec = ModelSpec(id=ModelId("acme/tiny-embeder"))

    with pytest.raises(NotThere, match="the models there are `acme/tiny-embedder`") as caught:
        weights.ensure(spec, cache=cache, cluster=bucket, sleep=stop)
    assert caught.value.hint == "nearest: `acme/tiny-embedder`"
    assert caught.value.exit_code == 4


def test_an_empty_bucket_is_said(cache: Path) -> None:
    with pytest.raises(NotThere, match="there are no models at all"):
        weights.ensure(SPEC, cache=cache, cluster=MemoryStore(), sleep=stop)


def test_files_without_a_manifest_are_not_served_where_verified_ones_are_required(bucket: Bucket, cache: Path) -> None:
    bucket.delete(hf_layout.manifest_file(MODEL, REVISION))

    with pytest.raises(NotThere, match=r"4 files of commit 1110.* and no manifest; verified models are req") as caught:
        weights.ensure(SPEC, cache=cache, cluster=bucket, require_verified=True, sleep=stop)
    assert "`sie-airgap verify s3://models/weights/ --lock airgap.lock --write-manifest`" in (caught.value.hint or "")


def test_a_ref_that_is_no_commit_is_refused_with_what_it_is(bucket: Bucket, cache: Path) -> None:
    bucket.files[hf_layout.ref_file(MODEL)] += b"1"

    with pytest.raises(TrustError, match="a ref is not a commit"):
        weights.ensure(SPEC, cache=cache, cluster=bucket, sleep=stop)


def test_without_cluster_and_hub_it_says_that_both_are_off(cache: Path) -> None:
    with pytest.raises(NotThere) as caught:
        weights.ensure(SPEC, cache=cache, sleep=stop)
    assert "the hub is off" in (caught.value.hint or "")


def test_with_a_pin_the_locks_commit_is_served_whatever_the_ref_says(bucket: Bucket, cache: Path) -> None:
    bucket.files[hf_layout.ref_file(MODEL)] = b"f" * 40
    lock = lock_of(FILES)

    snapshot = weights.ensure(SPEC, cache=cache, cluster=bucket, pin=lock)

    assert snapshot.manifest == lock.models[0].manifest
    assert (cache / hf_layout.no_exist_file(MODEL, REVISION, "added_tokens.json")).read_bytes() == b""


def test_a_bucket_that_holds_something_else_than_the_lock_is_refused(bucket: Bucket, cache: Path) -> None:
    lock = lock_of(FILES | {"config.json": b'{"other": 1}'})

    with pytest.raises(TrustError, match="not what was locked") as caught:
        weights.ensure(SPEC, cache=cache, cluster=bucket, pin=lock, sleep=stop)
    assert caught.value.where.endswith(f"manifests/{REVISION}.json")


def test_a_cache_that_holds_something_else_than_the_lock_is_not_a_hit(bucket: Bucket, cache: Path) -> None:
    weights.ensure(SPEC, cache=cache, cluster=bucket)
    files = FILES | {"config.json": b"[]"}

    assert weights.find(SPEC, cache, pin=lock_of(FILES)) is not None
    assert weights.find(SPEC, cache, pin=lock_of(files)) is None


def test_a_model_that_is_not_in_the_lock_is_said_with_those_that_are(bucket: Bucket, cache: Path) -> None:
    with pytest.raises(NotThere, match="is not in the lock: the models there are `acme/tiny`"):
        weights.ensure(SPEC, cache=cache, cluster=bucket, pin=lock_of(FILES, model=ModelId("acme/tiny")), sleep=stop)


def test_what_is_here_is_looked_for_as_it_would_be_served(bucket: Bucket, cache: Path) -> None:
    """With a bucket its refs say which commit that is, and not the spec."""
    spec = ModelSpec(id=MODEL, source=Source(repo=MODEL, revision=Revision("f" * 40)))
    snapshot = weights.ensure(spec, cache=cache, cluster=bucket)

    assert weights.find(spec, cache, cluster=bucket) == snapshot
    assert weights.find(spec, cache) is None


def test_the_pinned_lock_is_read_from_the_bucket_by_its_digest(bucket: Bucket) -> None:
    lock = lock_of(FILES)
    digest = lock_digest(lock)
    bucket.files[lock_file(digest)] = encode_lock(lock)
    bucket.files[CURRENT_FILE] = digest.encode()

    assert read_pin(bucket, digest) == lock
    with pytest.raises(NotThere) as caught:
        read_pin(bucket, Digest("sha256:" + "0" * 64))
    assert digest in (caught.value.hint or "")


def test_an_altered_lock_is_refused_with_both_digests(bucket: Bucket) -> None:
    lock = lock_of(FILES)
    digest = lock_digest(lock)
    bucket.files[lock_file(digest)] = encode_lock(lock).replace(b"main", b"mian")

    with pytest.raises(TrustError, match="not the one that was pinned") as caught:
        read_pin(bucket, digest)
    assert caught.value.want == digest


def test_models_in_a_bucket_are_listed_once_each(bucket: Bucket) -> None:
    bucket.files[".sie/current"] = b"x"

    assert models_in(bucket) == (MODEL,)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    for path, data in FILES.items():
        file = tmp_path / "hub-root" / MODEL / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    with serving_hub(stand_in.Hub(tmp_path / "hub-root", pins={MODEL: REVISION}, lfs_above_bytes=100_000)) as endpoint:
        yield Hub(endpoint)


def test_the_hub_is_asked_last_and_what_it_gives_gets_a_manifest(hub: Hub, cache: Path) -> None:
    spec = ModelSpec(id=ModelId("us/name"), source=Source(repo=MODEL, revision=REVISION))
    snapshot = weights.ensure(spec, cache=cache, cluster=MemoryStore(), hub=hub)

    assert files_in(snapshot.folder) == FILES
    assert decode_manifest((cache / hf_layout.manifest_file(MODEL, REVISION)).read_bytes()) == MANIFEST


def test_without_a_commit_the_hubs_main_is_taken(hub: Hub, cache: Path) -> None:
    assert weights.ensure(SPEC, cache=cache, hub=hub).manifest == MANIFEST
    assert weights.ensure(SPEC, cache=cache).manifest == MANIFEST


_ENSURE = """
import sys
from pathlib import Path
from sie_core.artifacts.stores.local import LocalStore
from sie_core.catalog.spec import ModelSpec
from sie_server import weights
root, model, hold_at_bytes = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
steps = set()
def progress(state):
    if state.step not in steps:
        steps.add(state.step)
        print(state.step, flush=True)
    if hold_at_bytes and state.done_bytes >= hold_at_bytes:
        print("holding", flush=True)
        sys.stdin.readline()
bucket = LocalStore(root / "bucket")
snapshot = weights.ensure(ModelSpec(id=model), cache=root / "hub", cluster=bucket, progress=progress)
print("done", len(snapshot.manifest.files), flush=True)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], "subprocess.Popen[str]"]]:
    upload_snapshot(LocalStore(tmp_path / "bucket"), source, MANIFEST)
    started: list[subprocess.Popen[str]] = []

    def start_one(hold_at_bytes: int) -> "subprocess.Popen[str]":
        words = [sys.executable, "-c", _ENSURE, str(tmp_path), MODEL, str(hold_at_bytes)]
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True))
        return started[-1]

    yield start_one
    for one in started:
        one.kill()
        one.communicate()


def lines_until(process: "subprocess.Popen[str]", wanted: str) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if lines[-1] == wanted:
            break
    return lines


def test_two_processes_at_once_download_once(start: Callable[[int], "subprocess.Popen[str]"]) -> None:
    first = start(1)
    lines_until(first, "holding")
    second = start(0)
    assert lines_until(second, "locked") == ["locked"]

    first.communicate("\n" * 1_000)
    said, _ = second.communicate()
    assert first.returncode == 0
    assert said.split() == ["done", "4"]


def test_a_worker_killed_while_fetching_goes_on_where_it_was(
    start: Callable[[int], "subprocess.Popen[str]"], cache: Path, bucket: Bucket
) -> None:
    first = start(300_000)
    lines_until(first, "holding")
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert weights.find(SPEC, cache) is None
    kept = {path.name for path in (cache / "models--acme--tiny-embedder/.incoming").rglob("*") if path.is_file()}

    snapshot = weights.ensure(SPEC, cache=cache, cluster=bucket)
    assert files_in(snapshot.folder) == FILES
    assert not {path.rsplit("/", 1)[-1] for path in FILES} & kept & set(bucket.files_read) - {"config.json"}
    assert not list((cache / "models--acme--tiny-embedder/.incoming").iterdir())
