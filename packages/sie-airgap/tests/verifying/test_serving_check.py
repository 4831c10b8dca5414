"""`verify http://…`: what a worker or a gateway says it serves, against the lock."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sie_airgap.mirror.weights import mirror_weights
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import write_lock
from sie_airgap.verifying.serving import differences
from sie_core.artifacts.lock import Lock, lock_digest
from sie_core.artifacts.stores.local import LocalStore
from sie_core.ids import Revision
from sie_core.wire.messages import ModelDims, ModelEntry
from sie_testing.archives import packed
from sie_testing.carried import Run, filled_store, make_lock
from sie_testing.tiny_worker import PLAIN, REVISION, WHOLE, tiny_worker
from sie_testing.web import Answer, Request, json_answer, serving

OTHER = "3" * 40


def _lock(*models: str, revision: str = REVISION) -> Lock:
    return make_lock({model: {"model.safetensors": b"x"} for model in models}, revision=Revision(revision))


def _entry(name: str, **said: Any) -> ModelEntry:
    known: dict[str, Any] = {"loaded": True, "state": "loaded", "revision": REVISION, "verified": True}
    return ModelEntry(name=name, inputs=["text"], outputs=["dense"], dims=ModelDims(), **{**known, **said})


def _found(lock: Lock, *entries: ModelEntry) -> Sequence[str]:
    return [str(one) for one in differences(lock, entries, where="http://w")]


def test_a_worker_that_serves_the_lock_is_told_so(airgap: Run, tmp_path: Path) -> None:
    lock = _lock(WHOLE, PLAIN)
    write_lock(tmp_path / "airgap.lock", lock)

    with tiny_worker() as url:
        code, out, err = airgap("verify", url, "--lock", "airgap.lock")
        assert (code, out) == (0, f"{url}: 2 of 2 models loaded, each at its commit and verified\n"), err
        code, out, _ = airgap("verify", url, "--lock", "airgap.lock", "--output", "json")
    assert json.loads(out) == {"verified": [url], "findings": 0, "lock": lock_digest(lock)}


def test_a_worker_with_another_commit_and_a_model_too_many_and_one_too_few_is_drift(
    airgap: Run, tmp_path: Path
) -> None:
    write_lock(tmp_path / "airgap.lock", _lock(WHOLE, "acme/absent", revision=OTHER))

    with tiny_worker() as url:
        code, _, err = airgap("verify", url, "--lock", "airgap.lock")
    assert code == 8
    assert f"serves another commit of `{WHOLE}`\n  want  {OTHER}\n  have  {REVISION}" in err
    assert f"`{PLAIN}` is loaded at {url}\n  want  nothing: the lock has no such model\n  have  {REVISION}" in err
    assert f"`acme/absent` is not served at {url}\n  want  {OTHER}\n  have  nothing" in err
    assert "3 things are wrong" in err


@pytest.mark.parametrize(
    ("said", "have"),
    [
        ({"verified": False}, "unverified"),
        ({"verified": None}, "unverified"),
        ({"adopted": True, "verified": False}, "adopted"),
    ],
)
def test_what_nothing_vouches_for_is_an_integrity_failure(said: dict[str, Any], have: str) -> None:
    (found,) = differences(_lock("acme/a"), [_entry("acme/a", **said)], where="http://w")

    assert found.exit_code == 3
    assert f"want  verified: every file held against the lock\n  have  {have}" in str(found)


def test_workers_of_a_gateway_that_differ_are_drift() -> None:
    """A gateway lists every commit that any of its workers has."""
    (found,) = _found(_lock("acme/a"), _entry("acme/a", revision=f"{REVISION},{OTHER}"))

    assert f"want  {REVISION}\n  have  {REVISION},{OTHER}" in found


def test_a_model_that_failed_is_told_with_what_it_said() -> None:
    failed = _entry("acme/a", loaded=False, state="failed", verified=None, last_error={"message": "no room"})

    (found,) = differences(_lock("acme/a"), [failed], where="http://w")
    assert found.exit_code == 12
    assert "have  failed: no room" in str(found)


def test_what_nobody_has_loaded_is_noted_and_is_no_finding(airgap: Run, tmp_path: Path) -> None:
    """Its commit is then the catalog's, which says nothing about what would be served."""
    write_lock(tmp_path / "airgap.lock", _lock("acme/a"))
    idle = {"name": "acme/a", "inputs": [], "outputs": [], "dims": {}, "loaded": False, "state": "available"}

    def answer(request: Request) -> Answer:
        return json_answer({"models": [idle | {"revision": OTHER}], "data": []})

    with serving(answer) as url:
        code, out, err = airgap("verify", url, "--lock", "airgap.lock")
    assert (code, out) == (0, f"{url}: 0 of 1 model loaded, each at its commit and verified\n")
    assert "not loaded, so nothing is known of what would be served: acme/a" in err


@pytest.mark.parametrize("body", [{"models": [{"name": 5}]}, {"models": 5}, []])
def test_somebody_else_there_is_unreachable(airgap: Run, tmp_path: Path, body: object) -> None:
    write_lock(tmp_path / "airgap.lock", _lock("acme/a"))

    with serving(lambda request: json_answer(body)) as url:
        code, _, err = airgap("verify", url, "--lock", "airgap.lock")
    assert code == 5
    assert url in err
    assert "A registry without TLS is `oci+http://HOST/PATH`" in err


@pytest.mark.parametrize(
    ("url", "code", "says"),
    [("http://127.0.0.1:1", 5, "127.0.0.1:1"), ("http://", 2, "want `http://HOST:PORT`")],
)
def test_nobody_there_and_no_url_are_said(airgap: Run, tmp_path: Path, url: str, code: int, says: str) -> None:
    write_lock(tmp_path / "airgap.lock", _lock("acme/a"))

    ended, _, err = airgap("verify", url, "--lock", "airgap.lock")
    assert ended == code, err
    assert says in err


def test_the_lock_is_taken_from_the_store_the_media_or_the_bucket(airgap: Run, tmp_path: Path) -> None:
    lock = _lock(WHOLE, PLAIN)
    store = filled_store(
        tmp_path / "airgap-store", lock, {model.id: {"model.safetensors": b"x"} for model in lock.models}
    )
    packed(lock, store, tmp_path / "media")
    there = LocalStore(tmp_path / "bucket")
    mirror_weights(lock, store, there, progress=Silent())
    write_lock(tmp_path / "other" / "airgap.lock", _lock(WHOLE, revision=OTHER))

    with tiny_worker() as url:
        for words in ([], ["--from", "airgap-store"], ["--from", "media"], ["--from", there.url]):
            code, out, err = airgap("verify", url, *words)
            assert (code, "2 of 2 models loaded" in out) == (0, True), err
            assert "held against lock number 1 of " in err
        assert airgap("verify", url, "--lock", "other/airgap.lock")[0] == 8
        (tmp_path / "airgap-store").rename(tmp_path / "elsewhere")
        code, _, err = airgap("verify", url)
    assert code == 2
    assert "keeps no lock: name one with `--lock`\n\nhint: there is no store `airgap-store` here; `--from`" in err
