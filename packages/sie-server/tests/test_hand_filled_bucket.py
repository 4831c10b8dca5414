"""A worker serves what somebody copied into its bucket by hand when that is whole, and says what it is."""

import io
import json
import struct
from pathlib import Path
from typing import BinaryIO

import pytest

from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import NotThere, TrustError, Unreachable
from sie_core.artifacts.hf_layout import git_blob_id
from sie_core.artifacts.manifest import FileEntry, Manifest, encode_manifest
from sie_core.artifacts.stores.memory import MemoryStore
from sie_core.artifacts.uploading import upload_snapshot
from sie_core.catalog.spec import ModelSpec
from sie_core.ids import ModelId, Revision
from sie_server import weights
from sie_server.weights import State

MODEL = ModelId("acme/tiny")
COMMIT = Revision("1" * 40)
SPEC = ModelSpec(id=MODEL)
FOLDER = f"models--acme--tiny/snapshots/{COMMIT}"


def safetensors(fill: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(fill)], "data_offsets": [0, len(fill)]}}).encode()
    return struct.pack("<Q", len(header)) + header + fill


FILES = {"config.json": b"{}", "model.safetensors": safetensors(b"abc" * 1_000), "tokenizer.json": b'{"model": 1}'}
WEIGHTS = f"{FOLDER}/model.safetensors"


class Bucket(MemoryStore):
    """Counts the files that are read whole, and fails while `gone`."""

    def __init__(self) -> None:
        super().__init__("s3://models/")
        self.read: list[str] = []
        self.gone = False

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        if self.gone:
            raise Unreachable("s3.example does not answer")
        if "/snapshots/" in name and start == 0 and length != 8:
            self.read.append(name.rsplit("/", 1)[1])
        return super().open(name, start=start, length=length)


@pytest.fixture
def bucket() -> Bucket:
    """As `aws s3 sync` of a cache of the hub's client leaves it: each file twice."""
    store = Bucket()
    for path, data in FILES.items():
        store.files[f"{FOLDER}/{path}"] = data
        store.files[f"models--acme--tiny/blobs/{git_blob_id(data)}"] = data
    store.files["models--acme--tiny/refs/main"] = COMMIT.encode() + b"\n"
    return store


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub"


def stop(pause_s: float) -> None:
    raise AssertionError("it would wait")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifest(*, adopted: bool = False) -> Manifest:
    entries = tuple(FileEntry(path, digest_of(data), len(data)) for path, data in sorted(FILES.items()))
    return Manifest(MODEL, COMMIT, entries, adopted)


def test_what_is_whole_is_fetched_and_said_to_be_unverified(bucket: Bucket, cache: Path) -> None:
    states: list[State] = []
    snapshot = weights.ensure(SPEC, cache=cache, cluster=bucket, progress=states.append, sleep=stop)

    assert contents(snapshot.folder) == FILES
    assert (snapshot.verified, snapshot.standing) == (False, "unverified")
    assert states[-1].step == "unverified"
    assert "`sie-airgap verify s3://models/ --write-manifest` adopts what is there" in states[-1].message
    assert not (cache / hf_layout.manifest_file(MODEL, COMMIT)).exists()


def test_it_is_fetched_once_and_stays_unverified(bucket: Bucket, cache: Path) -> None:
    first = weights.ensure(SPEC, cache=cache, cluster=bucket)
    assert sorted(bucket.read) == sorted(FILES)
    bucket.read.clear()

    assert weights.ensure(SPEC, cache=cache, cluster=bucket) == first
    assert weights.find(SPEC, cache, cluster=bucket) == first
    assert bucket.read == []


def test_a_file_that_changes_in_the_bucket_is_noticed_at_the_next_load(bucket: Bucket, cache: Path) -> None:
    weights.ensure(SPEC, cache=cache, cluster=bucket)
    data = safetensors(b"xyz" * 1_000)
    bucket.files[WEIGHTS] = data
    bucket.files[f"models--acme--tiny/blobs/{git_blob_id(data)}"] = data

    snapshot = weights.ensure(SPEC, cache=cache, cluster=bucket)
    assert contents(snapshot.folder)["model.safetensors"] == data


def test_while_the_bucket_does_not_answer_what_is_here_is_served(bucket: Bucket, cache: Path) -> None:
    first = weights.ensure(SPEC, cache=cache, cluster=bucket)
    bucket.gone = True
    states: list[State] = []

    assert weights.ensure(SPEC, cache=cache, cluster=bucket, progress=states.append, sleep=stop) == first
    assert "its bucket could not be looked at: s3.example does not answer" in states[-1].message


def test_a_byte_altered_after_the_download_is_refused_by_the_blob_beside_it(bucket: Bucket, cache: Path) -> None:
    altered = bytearray(FILES["model.safetensors"])
    altered[-1] ^= 1
    bucket.files[WEIGHTS] = bytes(altered)

    with pytest.raises(TrustError, match=r"`model.safetensors` of `acme/tiny` is not what was downloaded") as caught:
        weights.ensure(SPEC, cache=cache, cluster=bucket, sleep=stop)
    assert caught.value.want == git_blob_id(FILES["model.safetensors"])
    assert weights.find(SPEC, cache, cluster=bucket) is None

    bucket.files[WEIGHTS] = FILES["model.safetensors"]
    assert contents(weights.ensure(SPEC, cache=cache, cluster=bucket).folder) == FILES


def test_what_is_not_whole_is_refused_with_all_that_is_missing(bucket: Bucket, cache: Path) -> None:
    bucket.files[WEIGHTS] = bucket.files[WEIGHTS][:-1]
    del bucket.files[f"{FOLDER}/tokenizer.json"]

    with pytest.raises(NotThere) as caught:
        weights.ensure(SPEC, cache=cache, cluster=bucket, sleep=stop)
    assert "is not complete in s3://models/, commit 1111" in str(caught.value)
    assert "`model.safetensors` has 3,073 bytes, and its header describes 3,074" in str(caught.value)
    assert "there is no tokenizer" in str(caught.value)
    assert bucket.read == []


def test_a_manifest_that_comes_later_makes_it_verified_without_another_download(bucket: Bucket, cache: Path) -> None:
    weights.ensure(SPEC, cache=cache, cluster=bucket)
    upload_snapshot(bucket, lambda entry: io.BytesIO(FILES[entry.path]), manifest())
    bucket.read.clear()

    snapshot = weights.ensure(SPEC, cache=cache, cluster=bucket)
    assert (snapshot.standing, bucket.read) == ("verified", [])
    assert not (cache / hf_layout.unverified_file(MODEL, COMMIT)).exists()


def test_unverified_files_never_stand_under_an_older_manifest(bucket: Bucket, cache: Path) -> None:
    """The bucket lost its manifest, and the cache a part of a file that the manifest vouches for."""
    upload_snapshot(bucket, lambda entry: io.BytesIO(FILES[entry.path]), manifest())
    folder = weights.ensure(SPEC, cache=cache, cluster=bucket).folder
    (folder / "tokenizer.json").write_bytes(b"")
    bucket.delete(hf_layout.manifest_file(MODEL, COMMIT))

    assert weights.ensure(SPEC, cache=cache, cluster=bucket).standing == "unverified"
    assert weights.find(SPEC, cache, cluster=bucket, require_verified=True) is None


def test_an_adopted_manifest_is_checked_and_called_adopted(bucket: Bucket, cache: Path) -> None:
    bucket.files[hf_layout.manifest_file(MODEL, COMMIT)] = encode_manifest(manifest(adopted=True))

    snapshot = weights.ensure(SPEC, cache=cache, cluster=bucket)
    assert (snapshot.verified, snapshot.standing) == (False, "adopted")
    assert weights.find(SPEC, cache, cluster=bucket) == snapshot
    assert weights.find(SPEC, cache, cluster=bucket, require_verified=True) is None
    with pytest.raises(NotThere, match="was adopted from a bucket filled by hand; verified models are required"):
        weights.ensure(SPEC, cache=cache, cluster=bucket, require_verified=True, sleep=stop)


def test_where_verified_models_are_required_it_is_refused_with_the_next_command(bucket: Bucket, cache: Path) -> None:
    weights.ensure(SPEC, cache=cache, cluster=bucket)

    with pytest.raises(NotThere, match="and no manifest; verified models are required") as caught:
        weights.ensure(SPEC, cache=cache, cluster=bucket, require_verified=True, sleep=stop)
    assert "--lock airgap.lock --write-manifest`" in (caught.value.hint or "")
    assert weights.find(SPEC, cache, cluster=bucket, require_verified=True) is None
