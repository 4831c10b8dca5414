"""A worker and its init container beside a real S3 server, and without one once the files are here."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.lock import Lock, LockedFile, LockedModel, encode_lock, lock_digest, lock_file
from sie_core.artifacts.manifest import decode_manifest
from sie_core.artifacts.stores.open import open_store
from sie_core.artifacts.transfer import read, write
from sie_core.catalog.catalog import Catalog
from sie_core.ids import Revision
from sie_server import fetching
from sie_server.settings import ServeSettings
from sie_testing import seaweed
from sie_testing.cluster import MINILM, fill_bucket, worker
from sie_testing.seaweed import Seaweed
from sie_testing.tcp_faults import TcpFault, proxy

BUCKET = "models-private"
CLIENTS = re.compile(r"\b(boto3|botocore|urllib3|google|huggingface_hub|sie_core\.artifacts\.stores\.(s3|gcs|hub))\b")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweed.running(tmp_path_factory.mktemp("seaweed")) as running:
        running.make_bucket(BUCKET)
        yield running


def test_a_bucket_that_may_not_be_read_is_said_and_looked_at_again(
    server: Seaweed, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until somebody has granted it, which happens during the pause."""
    pauses: list[float] = []
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.SECRET_KEY)
    with proxy(server.endpoint) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", between.endpoint)
        between.arm(TcpFault("status", status=403))
        settings = ServeSettings(cluster_cache=f"s3://{BUCKET}/weights/", local_cache=tmp_path)
        code = fetching.fetch(settings, sleep=pauses.append)

    said = capsys.readouterr().err
    assert (code, pauses) == (0, [60.0])
    assert f"error: {between.endpoint} answered 403 for s3://{BUCKET}/weights/models-- as `demo-access`" in said
    assert "hint: grant `s3:ListBucket` on the bucket" in said
    assert "(exit code 6)" in said
    assert f"s3://{BUCKET}/weights/ can be read; models in it: none" in said


def pinned(bucket: str) -> Digest:
    """The digest of a lock of the bucket's one model, which is put where a mirror puts it."""
    store, spec = open_store(bucket), Catalog.shipped().find(MINILM)
    assert spec is not None
    manifest = decode_manifest(read(store, hf_layout.manifest_file(MINILM, Revision(str(spec.revision)))) or b"")
    files = tuple(LockedFile(file.path, file.digest, file.size_bytes, "0" * 40) for file in manifest.files)
    model = LockedModel(MINILM, MINILM, "main", manifest.revision, None, False, ("--model",), files, ())
    lock = Lock(1, 1, None, (model,), (), (), ())
    write(store, lock_file(lock_digest(lock)), encode_lock(lock))
    return lock_digest(lock)


def test_after_the_init_container_a_pinned_worker_asks_nobody_and_imports_no_client(
    tmp_path: Path, unused_port: int
) -> None:
    """The bucket may be down by then; and a client takes longer to import than the model to load."""
    bucket = fill_bucket(tmp_path / "bucket")
    lock = pinned(bucket)
    settings = ServeSettings((MINILM,), tmp_path / "cache", cluster_cache=bucket, cluster_cache_lock=lock)
    before = fetching.listing(settings)
    assert fetching.fetch(settings) == 0
    after = fetching.listing(settings)
    told = [next(line for line in listed.splitlines() if MINILM in line) for listed in (before, after)]
    assert [line.split()[-1] for line in told] == ["there", "complete"]

    env = {
        "SIE_CLUSTER_CACHE_LOCK": lock,
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{unused_port}",
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    with worker(tmp_path, bucket=f"s3://{BUCKET}/weights/", env=env):
        log = (tmp_path / "worker.log").read_text()

    imported = [line.rpartition("|")[2].strip() for line in log.splitlines() if line.startswith("import time:")]
    assert "sie_server.models.build" in imported
    assert [name for name in imported if CLIENTS.match(name)] == []
    assert "ready on http://" in log


def test_credentials_that_are_put_right_in_a_file_are_taken_at_the_next_look(
    server: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a mounted Secret changes under a running container."""
    credentials = tmp_path / "credentials"

    def write_key(secret: str) -> None:
        lines = ("[default]", f"aws_access_key_id = {seaweed.ACCESS_KEY}", f"aws_secret_access_key = {secret}", "")
        credentials.write_text("\n".join(lines))

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
    write_key("wrong")
    settings = ServeSettings(cluster_cache=f"s3://{BUCKET}/weights/", local_cache=tmp_path / "cache")
    code = fetching.fetch(settings, sleep=lambda pause_s: write_key(seaweed.SECRET_KEY))

    said = capsys.readouterr().err
    assert code == 0
    assert "looking again in 60 s" in said
    assert f"s3://{BUCKET}/weights/ can be read" in said


def test_three_workers_of_one_node_cost_one_download(
    server: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three init containers that share a folder, and what the bucket answered to all of them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.SECRET_KEY)
    filled, url = fill_bucket(tmp_path / "bucket"), f"s3://{BUCKET}/shared/"
    size_bytes = copied(filled, url, server)
    with proxy(server.endpoint) as between:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SIE_", "HF_"))},
            "AWS_ENDPOINT_URL_S3": between.endpoint,
            "SIE_CLUSTER_CACHE": url,
            "SIE_LOCAL_CACHE": str(tmp_path / "cache"),
            "SIE_PRELOAD_MODELS": MINILM,
        }
        program = str(Path(sys.executable).parent / "sie-server")
        workers = [
            subprocess.Popen([program, "weights"], env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)
        ]
        said = [one.communicate(timeout=100)[1] for one in workers]

    assert [one.returncode for one in workers] == [0, 0, 0], said
    assert sum(": fetching" in text or text.startswith("fetching") for text in said) == 1, said
    assert size_bytes < between.answered_bytes < 1.05 * size_bytes


def copied(source: str, url: str, server: Seaweed) -> int:
    """Copies a store as it is; how many bytes that were."""
    store, bucket = open_store(source), open_store(url, endpoint=server.endpoint)
    size_bytes = 0
    for stat in store.list(""):
        with store.open(stat.name) as stream:
            data = stream.read()
        size_bytes += len(data)
        bucket.put(stat.name, io.BytesIO(data), size_bytes=len(data), digest=digest_of(data))
    return size_bytes
