"""A bucket that somebody filled by hand gets manifests for what is whole, and everything else is told."""

import json
import shutil
import struct
from pathlib import Path
from typing import BinaryIO

import pytest
from huggingface_hub import snapshot_download

from sie_airgap.failures import Drift, Incomplete
from sie_airgap.mirror.adoption import Adoption, adopt
from sie_airgap.mirror.current import lock_in_bucket
from sie_airgap.progress import Silent
from sie_airgap.verifying.bucket import verify_bucket
from sie_airgap.verifying.manifests import verify_manifests
from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.hf_layout import git_blob_id
from sie_core.artifacts.lock import CURRENT_FILE, Lock
from sie_core.artifacts.manifest import decode_manifest, encode_manifest
from sie_core.artifacts.stores.local import LocalStore
from sie_core.artifacts.stores.memory import MemoryStore
from sie_core.ids import ModelId
from sie_testing.carried import REVISION, Run, make_lock


def safetensors(fill: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(fill)], "data_offsets": [0, len(fill)]}}).encode()
    return struct.pack("<Q", len(header)) + header + fill


SMALL, LARGE = ModelId("org/small"), ModelId("org/large")
FILES: dict[str, dict[str, bytes]] = {
    LARGE: {"config.json": b"{}", "model.safetensors": safetensors(bytes(90_000)), "vocab.txt": b"a"},
    SMALL: {"config.json": b'{"a":1}', "model.safetensors": safetensors(b"small"), "tokenizer.json": b"{}"},
}
WEIGHTS = f"models--org--large/snapshots/{REVISION}/model.safetensors"


@pytest.fixture
def bucket() -> MemoryStore:
    """As `aws s3 sync` leaves it, with a newline after the ref as `echo` writes one."""
    store = MemoryStore("s3://models/")
    for model, files in FILES.items():
        folder = f"models--{model.replace('/', '--')}"
        for path, data in files.items():
            store.files[f"{folder}/snapshots/{REVISION}/{path}"] = data
            store.files[f"{folder}/blobs/{git_blob_id(data)}"] = data
        store.files[f"{folder}/refs/main"] = REVISION.encode() + b"\n"
    return store


@pytest.fixture
def lock() -> Lock:
    return make_lock(FILES)


def adopted(bucket: MemoryStore, lock: Lock | None = None, *, dry_run: bool = False) -> Adoption:
    return adopt(bucket, lock, dry_run=dry_run, progress=Silent())


def alter(bucket: MemoryStore, name: str = WEIGHTS) -> None:
    data = bytearray(bucket.files[name])
    data[-1] ^= 1
    bucket.files[name] = bytes(data)


def test_without_a_lock_manifests_say_that_they_were_adopted(bucket: MemoryStore) -> None:
    result = adopted(bucket)

    assert [(one.manifest.repo, one.proved) for one in result.adopted] == [(LARGE, 3), (SMALL, 3)]
    manifest = decode_manifest(bucket.files[hf_layout.manifest_file(LARGE, REVISION)])
    assert {entry.path: entry.digest for entry in manifest.files} == {
        path: digest_of(data) for path, data in FILES[LARGE].items()
    }
    assert manifest.adopted
    assert bucket.files["models--org--large/refs/main"] == REVISION.encode()
    assert CURRENT_FILE not in bucket.files
    assert verify_manifests(bucket, progress=Silent()) == []


def test_a_second_run_reads_nothing_and_writes_nothing(bucket: MemoryStore) -> None:
    adopted(bucket)
    before = dict(bucket.files)

    assert adopted(bucket) == Adoption((), (LARGE, SMALL), ())
    assert bucket.files == before


def test_a_dry_run_says_the_same_and_writes_nothing(bucket: MemoryStore) -> None:
    before = dict(bucket.files)
    dry = adopted(bucket, dry_run=True)

    assert bucket.files == before
    assert dry == adopted(bucket)


def test_held_against_a_lock_it_is_as_if_it_had_been_mirrored(bucket: MemoryStore, lock: Lock) -> None:
    assert adopted(bucket, lock).findings == ()

    assert verify_bucket(bucket, None, progress=Silent()) == []
    assert lock_in_bucket(bucket) == lock
    assert bucket.files[hf_layout.manifest_file(SMALL, REVISION)] == encode_manifest(lock.models[1].manifest)
    assert bucket.files[f"models--org--small/.no_exist/{REVISION}/adapter_config.json"] == b""


def test_a_lock_turns_what_was_adopted_into_what_was_locked(bucket: MemoryStore, lock: Lock) -> None:
    adopted(bucket)

    assert [one.manifest for one in adopted(bucket, lock).adopted] == [model.manifest for model in lock.models]
    assert not decode_manifest(bucket.files[hf_layout.manifest_file(LARGE, REVISION)]).adopted


def test_a_file_that_is_not_what_was_locked_is_told_and_its_model_left_alone(bucket: MemoryStore, lock: Lock) -> None:
    alter(bucket)
    result = adopted(bucket, lock)

    (error,) = result.findings
    assert isinstance(error, TrustError)
    assert (error.where, error.want.split()[0]) == (
        f"s3://models/{WEIGHTS}",
        digest_of(FILES[LARGE]["model.safetensors"]),
    )
    assert [one.manifest.repo for one in result.adopted] == [SMALL]
    assert hf_layout.manifest_file(LARGE, REVISION) not in bucket.files
    assert CURRENT_FILE not in bucket.files

    alter(bucket)
    assert adopted(bucket, lock).there == (SMALL,)
    assert lock_in_bucket(bucket) == lock


def test_a_file_that_is_none_of_its_blobs_is_told(bucket: MemoryStore) -> None:
    alter(bucket)
    (error,) = adopted(bucket).findings

    assert isinstance(error, TrustError)
    assert error.want == git_blob_id(FILES[LARGE]["model.safetensors"])


def test_what_is_missing_is_told_with_all_of_it(bucket: MemoryStore, lock: Lock) -> None:
    bucket.files[WEIGHTS] = bucket.files[WEIGHTS][:-1]
    del bucket.files[f"models--org--large/snapshots/{REVISION}/vocab.txt"]

    (error,) = adopted(bucket).findings
    assert isinstance(error, Incomplete)
    assert "its header describes" in error.message
    assert "there is no tokenizer" in error.message
    missing, altered = adopted(bucket, lock).findings
    assert "`vocab.txt` is missing" in str(missing)
    assert "`model.safetensors` of `org/large` is not what was locked" in str(altered)


def test_the_locks_commit_is_read_whatever_the_ref_says(bucket: MemoryStore, lock: Lock) -> None:
    bucket.files["models--org--large/refs/main"] = b"f" * 40

    assert adopted(bucket, lock).findings == ()
    assert bucket.files["models--org--large/refs/main"] == REVISION.encode()


def test_a_commit_that_is_not_there_is_told_with_those_that_are(bucket: MemoryStore) -> None:
    (one, two) = adopted(bucket, make_lock(FILES, revision=type(REVISION)("cd" * 20))).findings

    assert f"has no files of commit {'cd' * 20}; commits there: {REVISION}" in str(one)
    assert isinstance(two, NotThere)


def test_a_bucket_of_a_later_lock_is_not_taken_back(bucket: MemoryStore) -> None:
    adopted(bucket, make_lock(FILES, serial=2))

    with pytest.raises(Drift):
        adopted(bucket, make_lock(FILES, serial=1))


def test_a_plain_folder_is_laid_out_as_readers_look_for_it(tmp_path: Path) -> None:
    """And then every client of the hub resolves it offline."""
    store = LocalStore(tmp_path / "bucket")
    for path, data in FILES[SMALL].items():
        file = tmp_path / "bucket" / SMALL / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        note = tmp_path / "bucket" / SMALL / ".cache/huggingface/download" / f"{path}.metadata"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{REVISION}\n{git_blob_id(data)}\n1.0\n")

    (one,) = adopt(store, None, dry_run=False, progress=Silent()).adopted
    assert (one.proved, len(one.moves)) == (3, 3)
    found = Path(snapshot_download(SMALL, cache_dir=tmp_path / "bucket", local_files_only=True))
    assert {path: (found / path).read_bytes() for path in FILES[SMALL]} == FILES[SMALL]


def test_a_run_that_was_cut_short_goes_on_with_the_models_that_are_left(bucket: MemoryStore) -> None:
    class Breaks(MemoryStore):
        def open(self, name: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
            if "--small/snapshots" in name:
                raise Broken
            return super().open(name, start=start, length=length)

    class Broken(Exception):
        pass

    breaks = Breaks("s3://models/")
    breaks.files = bucket.files
    with pytest.raises(Broken):
        adopted(breaks)

    result = adopted(bucket)
    assert (result.there, [one.manifest.repo for one in result.adopted]) == ((LARGE,), [SMALL])


def test_verify_tells_what_changed_since_it_was_adopted_and_what_was_not(bucket: MemoryStore) -> None:
    adopted(bucket)
    alter(bucket)
    del bucket.files[f"models--org--large/snapshots/{REVISION}/vocab.txt"]
    del bucket.files[hf_layout.manifest_file(SMALL, REVISION)]

    no_manifest, altered, missing = verify_manifests(bucket, progress=Silent())
    assert "`org/small` in s3://models/ has no manifest" in str(no_manifest)
    assert "is not what its manifest says" in str(altered)
    assert isinstance(missing, NotThere)


def test_an_empty_bucket_is_said() -> None:
    for look in (lambda: adopted(MemoryStore()), lambda: verify_manifests(MemoryStore(), progress=Silent())):
        with pytest.raises(Incomplete, match="no models are in"):
            look()


def test_the_command_adopts_reports_and_verifies(airgap: Run, bucket: MemoryStore, tmp_path: Path) -> None:
    for name, data in bucket.files.items():
        file = tmp_path / "bucket" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    url = f"file://{tmp_path}/bucket"

    code, _, err = airgap("verify", url)
    assert code == 4
    assert f"`sie-airgap verify {url} --write-manifest` adopts it" in err
    code, out, err = airgap("verify", url, "--write-manifest", "--dry-run")
    assert (code, out) == (0, f"2 models would be adopted in {url}\n")
    code, out, err = airgap("verify", url, "--write-manifest", "--output", "json")
    assert (code, json.loads(out)["adopted"][LARGE]["proved"]) == (0, 3)
    code, out, err = airgap("verify", url)
    assert code == 0
    assert "every byte is what its manifests say; there is no lock" in out

    shutil.rmtree(tmp_path / "bucket" / "models--org--large" / "snapshots")
    assert airgap("verify", url)[0] == 4


def test_what_cannot_be_meant_is_refused(airgap: Run) -> None:
    assert airgap("verify", "file:///nowhere", "--dry-run")[0] == 2
    assert airgap("verify", "media", "--write-manifest")[0] == 2
    assert airgap("verify", "file:///nowhere-at-all", "--write-manifest")[0] == 4
