"""`mirror weights` and `receipt` as an operator meets them: what is told, where, and the exit code."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sie_airgap.cli import cli
from sie_airgap.cli.outcome import run
from sie_airgap.deltas.receipt import decode_receipt
from sie_airgap.store.blobs import BlobFolder
from sie_core.artifacts.lock import Lock, lock_digest
from sie_testing import seaweed
from sie_testing.carried import CHART, FILES, WHEEL
from sie_testing.places import BUCKET
from sie_testing.seaweed import Seaweed

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def airgap(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(cli, [str(word) for word in words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return command


@pytest.fixture
def url(tmp_path: Path) -> str:
    return (tmp_path / "bucket").as_uri()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweed.running(tmp_path_factory.mktemp("seaweed")) as running:
        running.make_bucket(BUCKET)
        yield running


def test_who_may_not_write_ends_with_6_and_what_to_grant(
    airgap: Run, lock: Lock, store: BlobFolder, server: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.READER_SECRET)

    code, _, err = airgap("mirror", "weights", f"s3://{BUCKET}/w", "--endpoint", server.endpoint, "--from", store.root)
    assert code == 6
    assert f"as `{seaweed.READER_KEY}` (from env)" in err
    assert "hint: grant `s3:PutObject` on the bucket" in err


def test_a_bucket_that_is_not_there_ends_with_4_and_the_nearest_name(
    airgap: Run, lock: Lock, store: BlobFolder, server: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.SECRET_KEY)

    words = ["--endpoint", server.endpoint, "--from", store.root]
    code, _, err = airgap("mirror", "weights", "s3://models-privat/w", *words)
    assert code == 4
    assert f"hint: there is `{BUCKET}`" in err
    code, out, _ = airgap("mirror", "weights", f"s3://{BUCKET}/w", *words)
    assert code == 0
    assert "5 files copied" in out
    assert airgap("verify", f"s3://{BUCKET}/w", "--endpoint", server.endpoint)[0] == 0


def test_a_dry_run_says_what_would_be_sent_and_writes_nothing(
    airgap: Run, lock: Lock, store: BlobFolder, url: str, tmp_path: Path
) -> None:
    code, out, err = airgap("mirror", "weights", url, "--from", store.root, "--dry-run")

    assert code == 0
    assert "5 files to copy" in out
    assert "send  org/large model.safetensors  3.0 MB" in err
    assert not (tmp_path / "bucket").exists()


def test_strays_are_told_on_stderr_and_named_in_the_facts(
    airgap: Run, lock: Lock, store: BlobFolder, url: str, tmp_path: Path
) -> None:
    for number in range(25):
        path = tmp_path / "bucket" / f"note-{number:02}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "bucket" / ".incoming-x").write_bytes(b"half")

    code, out, err = airgap("mirror", "weights", url, "--from", store.root)
    assert code == 0
    assert out.startswith(f"5 files copied to {url}, 3.1 MB; 2 models")
    assert "stray  note-00.txt: no lock there names it; it is left alone" in err
    assert "stray  5 more" in err
    assert "unfinished  .incoming-x, begun 20" in err

    code, out, _ = airgap("mirror", "weights", url, "--from", store.root, "--output", "json")
    assert len(json.loads(out)["strays"]) == 25
    assert (tmp_path / "bucket" / "note-00.txt").exists()


def test_a_receipt_of_a_bucket_and_of_a_store(
    airgap: Run, lock: Lock, store: BlobFolder, url: str, tmp_path: Path
) -> None:
    airgap("mirror", "weights", url, "--from", store.root)

    code, out, _ = airgap("receipt", url, "-o", tmp_path / "receipt.json")
    assert code == 0
    assert out == f"{url} holds 5 blobs, 3.1 MB; its lock is number 1; {tmp_path}/receipt.json written\n"
    of_bucket = decode_receipt((tmp_path / "receipt.json").read_bytes())
    assert of_bucket.lock == lock_digest(lock)
    code, out, _ = airgap("receipt", store.root)
    of_store = decode_receipt(out.encode())
    assert code == 0
    assert of_bucket.digests < of_store.digests
    assert len(of_store.blobs) == len({*(b for files in FILES.values() for b in files.values()), WHEEL, CHART})


def test_a_receipt_of_nothing_says_what_is_missing(airgap: Run, tmp_path: Path) -> None:
    code, out, err = airgap("receipt", tmp_path)
    assert (code, out) == (4, "")
    assert "is no store" in err
    code, out, err = airgap("receipt", (tmp_path / "bucket").as_uri())
    assert (code, out) == (4, "")
    assert "nothing was mirrored there to the end" in err
    assert airgap("receipt", "s4://x/y")[0] == 2
