"""A snapshot moves whole or not at all, and an interrupted move goes on where it stopped."""

import io
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.errors import NoSpace, NotThere, TransferError, TrustError, Unreachable
from sie_core.artifacts.manifest import FileEntry, Manifest
from sie_core.artifacts.ranges import STREAMS, RangedFetch, journal_file, partial_file
from sie_core.artifacts.selection import selected
from sie_core.artifacts.stores.local import LocalStore
from sie_core.artifacts.stores.memory import MemoryStore
from sie_core.artifacts.transfer import (
    fetch_file,
    fetch_snapshot,
    listing,
    no_progress,
    require_space,
)
from sie_core.artifacts.uploading import upload_plan, upload_snapshot
from sie_core.ids import ModelId, Revision
from sie_testing.store_suite import blob, put

MODEL = ModelId("acme/tiny")
REVISION = Revision("1110a243fdf4706b3f48f1d95db1a4f5529b4d41")
FILES = {"1_Pooling/config.json": b"{}", "config.json": b'{"a": 1}', "empty": b"", "model.safetensors": blob(100_000)}
WEIGHTS = hf_layout.snapshot_file(MODEL, REVISION, "model.safetensors")


def entry_of(path: str, data: bytes) -> FileEntry:
    return FileEntry(path=path, digest=digest_of(data), size_bytes=len(data))


def manifest_of(files: dict[str, bytes]) -> Manifest:
    entries = tuple(entry_of(path, files[path]) for path in sorted(files))
    return Manifest(repo=MODEL, revision=REVISION, files=entries)


MANIFEST = manifest_of(FILES)


def source(entry: FileEntry) -> BinaryIO:
    return io.BytesIO(FILES[entry.path])


class Watched(MemoryStore):
    """Counts the bytes that are read, notes what is put, and fails a read after `fail_after_bytes`."""

    def __init__(self) -> None:
        super().__init__()
        self.read_bytes = 0
        self.puts: list[str] = []
        self.fail_after_bytes: int | None = None

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        with super().open(name, start=start, length=length) as stream:
            data = stream.read()
        if self.fail_after_bytes is not None:
            data = data[: self.fail_after_bytes]
            self.fail_after_bytes -= len(data)
            if not data:
                raise Unreachable("the bucket is gone")
        self.read_bytes += len(data)
        return io.BytesIO(data)

    def put(self, name: str, data: BinaryIO, *, size_bytes: int, digest: Digest) -> None:
        super().put(name, data, size_bytes=size_bytes, digest=digest)
        self.puts.append(name)


@pytest.fixture
def bucket() -> Watched:
    store = Watched()
    upload_snapshot(store, source, MANIFEST, absent=["added_tokens.json"])
    return store


def fetch(store: MemoryStore, target: Path, data: bytes, *, range_bytes: int) -> bool:
    """True when the file was published."""
    entry = entry_of(target.name, data)
    one = RangedFetch(store, target.name, target, entry, progress=no_progress, range_bytes=range_bytes)
    if one.run() != entry.digest:
        return False
    one.publish()
    return True


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(size_bytes=st.integers(0, 5_000), range_bytes=st.integers(1, 2_000), cut=st.integers(0, 5_000))
def test_any_file_in_any_ranges_arrives_whole_even_after_a_cut(
    tmp_path_factory: pytest.TempPathFactory, size_bytes: int, range_bytes: int, cut: int
) -> None:
    range_bytes = max(range_bytes, size_bytes // 50)
    target, data, store = tmp_path_factory.mktemp("fetch") / "x", blob(size_bytes), Watched()
    put(store, "x", data)
    store.fail_after_bytes = cut
    try:
        fetch(store, target, data, range_bytes=range_bytes)
    except Unreachable:
        assert not target.exists()
        store.fail_after_bytes = None
        assert fetch(store, target, data, range_bytes=range_bytes)

    assert target.read_bytes() == data
    assert {path.name for path in target.parent.iterdir()} == {"x"}
    assert store.read_bytes <= size_bytes + STREAMS * range_bytes


def test_a_killed_download_fetches_at_most_one_range_a_stream_again(tmp_path: Path) -> None:
    range_bytes, data = 64_000, blob(20 * 64_000)
    put(LocalStore(tmp_path / "store"), "x", data)
    child = subprocess.Popen(
        [sys.executable, "-c", _FETCH_UNTIL_TOLD, str(tmp_path), str(range_bytes), digest_of(data), str(len(data))],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    child.stdin.close()
    target, store = tmp_path / "x", Watched()
    put(store, "x", data)
    assert not target.exists()

    assert fetch(store, target, data, range_bytes=range_bytes)
    assert target.read_bytes() == data
    assert store.read_bytes <= len(data) // 2 + STREAMS * range_bytes


_FETCH_UNTIL_TOLD = """
import sys
from pathlib import Path
from sie_core.artifacts.manifest import FileEntry
from sie_core.artifacts.ranges import RangedFetch
from sie_core.artifacts.stores.local import LocalStore
root, range_bytes, digest, size_bytes = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
come = 0
def progress(path, size):
    global come
    come += size
    if come >= size_bytes / 2:
        print("half", flush=True)
        sys.stdin.read()
entry = FileEntry(path="x", digest=digest, size_bytes=size_bytes)
RangedFetch(LocalStore(root / "store"), "x", root / "x", entry, progress=progress, range_bytes=range_bytes).run()
"""


def test_a_journal_with_a_torn_line_is_read_up_to_it(tmp_path: Path) -> None:
    data, store, target = blob(10_000), Watched(), tmp_path / "x"
    put(store, "x", data)
    store.fail_after_bytes = 5_000
    with pytest.raises(Unreachable):
        fetch(store, target, data, range_bytes=1_000)
    with journal_file(target).open("ab") as journal:
        journal.write(b"9")  # killed before the line's end: range 9 is not there

    store.fail_after_bytes = None
    assert fetch(store, target, data, range_bytes=1_000)
    assert target.read_bytes() == data


def test_a_spoilt_partial_file_costs_a_second_fetch_and_no_more(tmp_path: Path) -> None:
    data, store, target = FILES["model.safetensors"], Watched(), tmp_path / "model.safetensors"
    put(store, WEIGHTS, data)
    entry = entry_of("model.safetensors", data)
    first = RangedFetch(store, WEIGHTS, target, entry, progress=no_progress)
    first.run()
    partial_file(target).write_bytes(bytes(len(data)))  # the journal survived a power cut, the data did not

    fetch_file(store, WEIGHTS, target, entry)

    assert target.read_bytes() == data


def test_a_flipped_byte_in_the_store_is_named_with_its_file(bucket: Watched, tmp_path: Path) -> None:
    altered = bytearray(FILES["model.safetensors"])
    altered[50_000] ^= 1
    bucket.files[WEIGHTS] = bytes(altered)

    with pytest.raises(TrustError) as caught:
        fetch_snapshot(bucket, MANIFEST, tmp_path)
    assert caught.value.where.endswith(WEIGHTS)
    assert digest_of(FILES["model.safetensors"]) in caught.value.want
    assert digest_of(bytes(altered)) in caught.value.have
    assert "model.safetensors" not in listing(tmp_path)
    assert not partial_file(tmp_path / "model.safetensors").exists()


def test_a_truncated_file_in_the_store_is_named_with_both_lengths(bucket: Watched, tmp_path: Path) -> None:
    bucket.files[WEIGHTS] = FILES["model.safetensors"][:99_000]

    with pytest.raises(TrustError, match="another length") as caught:
        fetch_snapshot(bucket, MANIFEST, tmp_path)
    assert (caught.value.want, caught.value.have) == ("100,000 bytes", "99,000 bytes")


def test_a_file_missing_from_the_store_is_not_there(bucket: Watched, tmp_path: Path) -> None:
    bucket.delete(WEIGHTS)

    with pytest.raises(NotThere, match=r"model\.safetensors"):
        fetch_snapshot(bucket, MANIFEST, tmp_path)


def test_a_second_fetch_reads_nothing(bucket: Watched, tmp_path: Path) -> None:
    assert not fetch_snapshot(bucket, MANIFEST, tmp_path).is_done
    bucket.read_bytes = 0

    assert fetch_snapshot(bucket, MANIFEST, tmp_path).is_done
    assert bucket.read_bytes == 0


def test_progress_adds_up_to_the_snapshot(bucket: Watched, tmp_path: Path) -> None:
    come: list[int] = []
    fetch_snapshot(bucket, MANIFEST, tmp_path, progress=lambda path, size: come.append(size))

    assert sum(come) == MANIFEST.size_bytes


def test_what_does_not_fit_is_refused_before_it_is_begun(tmp_path: Path) -> None:
    entry = FileEntry(path="x", digest=digest_of(b""), size_bytes=1 << 62)
    with pytest.raises(NoSpace, match="4,611,686,018,427,387,904 bytes do not fit"):
        fetch_file(MemoryStore(), "x", tmp_path / "x", entry)

    assert list(tmp_path.iterdir()) == []
    require_space(tmp_path, 1)


def test_files_come_before_the_manifest_and_the_ref_comes_last(bucket: Watched) -> None:
    files = {hf_layout.snapshot_file(MODEL, REVISION, path) for path in FILES}
    order = bucket.puts

    assert set(order[: len(files)]) == files
    assert order[-2:] == [hf_layout.manifest_file(MODEL, REVISION), hf_layout.ref_file(MODEL)]
    assert bucket.files[hf_layout.ref_file(MODEL)] == REVISION.encode()
    assert bucket.files[hf_layout.no_exist_file(MODEL, REVISION, "added_tokens.json")] == b""


def test_a_second_upload_puts_nothing_and_reads_no_weights(bucket: Watched) -> None:
    bucket.puts.clear()
    bucket.read_bytes = 0

    assert upload_snapshot(bucket, source, MANIFEST, absent=["added_tokens.json"]).is_done
    assert bucket.puts == []
    assert bucket.read_bytes < 10_000


def test_an_interrupted_upload_puts_only_the_rest(bucket: Watched) -> None:
    """What is there without a manifest is read and believed for its digest alone."""
    bucket.delete(hf_layout.manifest_file(MODEL, REVISION))
    bucket.delete(hf_layout.ref_file(MODEL))
    bucket.files[hf_layout.snapshot_file(MODEL, REVISION, "config.json")] = b'{"a": 2}'
    bucket.puts.clear()

    todo = upload_snapshot(bucket, source, MANIFEST)
    assert [entry.path for entry in todo.copies] == ["config.json"]
    assert bucket.files[hf_layout.snapshot_file(MODEL, REVISION, "config.json")] == FILES["config.json"]
    assert bucket.puts[-1] == hf_layout.ref_file(MODEL)
    assert WEIGHTS not in bucket.puts


def test_an_altered_file_of_the_same_length_is_found_and_repaired_by_rereading(bucket: Watched) -> None:
    bucket.files[WEIGHTS] = bytes(100_000)
    assert upload_plan(bucket, MANIFEST).is_done

    upload_snapshot(bucket, source, MANIFEST, reread=True)

    assert bucket.files[WEIGHTS] == FILES["model.safetensors"]


def test_a_source_that_is_not_what_was_locked_never_gets_a_manifest() -> None:
    store = MemoryStore()
    with pytest.raises(TrustError):
        upload_snapshot(store, lambda entry: io.BytesIO(b"other"), MANIFEST)

    assert not [name for name in store.files if "/manifests/" in name or "/refs/" in name]


def test_an_upload_that_fails_half_way_never_has_a_ref() -> None:
    class Full(MemoryStore):
        def put(self, name: str, data: BinaryIO, *, size_bytes: int, digest: Digest) -> None:
            if name == WEIGHTS:
                raise NoSpace("the bucket is full")
            super().put(name, data, size_bytes=size_bytes, digest=digest)

    store = Full()
    with pytest.raises(TransferError):
        upload_snapshot(store, source, MANIFEST)

    assert not [name for name in store.files if "/manifests/" in name or "/refs/" in name]


@pytest.mark.parametrize("name", ["model.safetensors.incoming", "model.safetensors.journal"])
def test_file_with_the_name_of_an_unfinished_one_is_not_fetched(tmp_path: Path, name: str) -> None:
    """It would be written, or published, in the place of the other one."""
    with pytest.raises(TransferError, match="a file on its way") as refused:
        fetch_snapshot(MemoryStore(), manifest_of({**FILES, name: b"other"}), tmp_path / "snapshot")

    assert not refused.value.transient
    assert selected([*FILES, name]) == tuple(sorted(FILES))


def test_file_that_somebody_cuts_short_while_it_comes_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    fetch = RangedFetch(
        MemoryStore(), WEIGHTS, tmp_path / "x", entry_of("x", b"0123456789"), progress=no_progress, range_bytes=10
    )
    fetch._arrived = [10]
    with (tmp_path / "x.incoming").open("w+b") as empty, pytest.raises(Unreachable, match="was cut short"):
        fetch._hash(empty.fileno())
