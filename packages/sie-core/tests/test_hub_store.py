"""A hub is a store like the others, read through its HTTP API."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import NoPermission, NotThere, TransferError, TrustError, Unreachable
from sie_core.artifacts.manifest import FileEntry
from sie_core.artifacts.selection import selected, without_weights
from sie_core.artifacts.stores.hub import Hub
from sie_core.artifacts.transfer import fetch_file, fetch_snapshot
from sie_core.ids import ModelId, Revision
from sie_testing import hub as stand_in
from sie_testing.hub import Fault, FaultKind, serving_hub
from sie_testing.store_suite import blob
from sie_testing.web import Answer, Request, json_answer, serving

MODEL = ModelId("acme/tiny")
REVISION = Revision("1110a243fdf4706b3f48f1d95db1a4f5529b4d41")
LARGE = blob(200_000)
FILES = {"config.json": b"{}", "1_Pooling/config.json": b'{"x": 1}', "model.safetensors": LARGE}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[stand_in.Hub, Hub]]:
    for path, data in (FILES | {"onnx/model.onnx": b"other form"}).items():
        file = tmp_path / "hub" / MODEL / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    behind = stand_in.Hub(
        tmp_path / "hub", pins={MODEL: REVISION}, lfs_above_bytes=100_000, token="hf_right", page_entries=2
    )
    with serving_hub(behind) as endpoint:
        yield behind, Hub(endpoint, token="hf_right")


def test_a_branch_resolves_to_its_commit(served: tuple[stand_in.Hub, Hub]) -> None:
    assert served[1].resolve(MODEL, "main") == REVISION


def test_the_manifest_has_what_is_carried_with_its_sha256(served: tuple[stand_in.Hub, Hub]) -> None:
    manifest = served[1].manifest(MODEL, REVISION)

    assert {entry.path: entry.digest for entry in manifest.files} == {
        path: digest_of(data) for path, data in FILES.items()
    }
    assert [entry.path for entry in manifest.files] == sorted(FILES)


def test_small_files_are_asked_for_at_the_same_time(tmp_path: Path) -> None:
    """The hub answers the first of them once it has been asked for another one, too."""
    together = threading.Barrier(2, timeout=20)

    class Waiting(stand_in.Hub):
        def answer_api(self, request: Request) -> Answer:
            if "/resolve/" in request.path:
                together.wait()
            return super().answer_api(request)

    for name in ("a.json", "b.json"):
        file = tmp_path / MODEL / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"{}")
    with serving_hub(Waiting(tmp_path, pins={MODEL: REVISION})) as endpoint:
        assert len(Hub(endpoint).manifest(MODEL, REVISION).files) == 2


def test_a_snapshot_is_fetched_and_verified(served: tuple[stand_in.Hub, Hub], tmp_path: Path) -> None:
    hub = served[1]
    fetch_snapshot(hub.store(MODEL, REVISION), hub.manifest(MODEL, REVISION), tmp_path / "snapshot")

    assert {path: (tmp_path / "snapshot" / path).read_bytes() for path in FILES} == FILES


def test_a_range_across_the_redirect_is_exactly_that_range(served: tuple[stand_in.Hub, Hub]) -> None:
    store = served[1].store(MODEL, REVISION)
    with store.open(hf_layout.snapshot_file(MODEL, REVISION, "model.safetensors"), start=1_000, length=50) as stream:
        assert stream.read() == LARGE[1_000:1_050]


def test_the_token_goes_to_the_hub_and_to_no_other_origin(served: tuple[stand_in.Hub, Hub]) -> None:
    behind, hub = served
    with hub.store(MODEL, REVISION).open(hf_layout.snapshot_file(MODEL, REVISION, "model.safetensors")) as stream:
        stream.read()

    assert {seen.has_token for seen in behind.seen if seen.origin == behind.seen[0].origin} == {True}
    assert {seen.has_token for seen in behind.seen if seen.origin != behind.seen[0].origin} == {False}


def test_a_connection_cut_short_goes_on_where_it_stopped(served: tuple[stand_in.Hub, Hub], tmp_path: Path) -> None:
    behind, hub = served
    manifest = hub.manifest(MODEL, REVISION)
    behind.set_faults(
        Fault(FaultKind.TRUNCATE, match="*blobs*", times=1, after_bytes=150_000),
        Fault(FaultKind.TRUNCATE, match="*safetensors", times=1, after_bytes=150_000),
    )
    fetch_snapshot(hub.store(MODEL, REVISION), manifest, tmp_path / "snapshot")

    assert (tmp_path / "snapshot" / "model.safetensors").read_bytes() == LARGE


def test_errors_tell_missing_forbidden_and_failing_apart(served: tuple[stand_in.Hub, Hub]) -> None:
    behind, hub = served
    with pytest.raises(NotThere, match="answered 404 for `acme/other` at `main`"):
        hub.resolve(ModelId("acme/other"))
    with pytest.raises(NoPermission) as caught:
        Hub(hub.endpoint, token="hf_wrong").resolve(MODEL)
    assert "hf_wrong" not in str(caught.value)
    behind.set_faults(Fault(FaultKind.STATUS, status=503))
    with pytest.raises(Unreachable, match="answered 503"):
        hub.resolve(MODEL)


def test_a_gated_model_says_which_page_to_accept(served: tuple[stand_in.Hub, Hub]) -> None:
    behind, hub = served
    behind.set_faults(Fault(FaultKind.GATED))

    with pytest.raises(NoPermission) as caught:
        hub.store(MODEL, REVISION).open(hf_layout.snapshot_file(MODEL, REVISION, "config.json"))
    assert "accept the licence" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ({"path": "../../etc/passwd", "oid": "a" * 40}, "is not a relative path inside a repository"),
        ({"path": "/etc/passwd", "oid": "a" * 40}, "is not a relative path inside a repository"),
        ({"path": "config.json", "oid": "../" * 13 + "x"}, "has 5 bytes and the id `../"),
        ({"path": "model.safetensors", "lfs": {"oid": "/" * 64, "size": 5}}, "has 5 bytes and the id `///"),
        ({"path": "config.json", "oid": "a" * 40, "size": -1}, "has -1 bytes"),
    ],
)
def test_a_listing_that_cannot_be_is_refused_and_reaches_no_disk(listed: dict[str, object], said: str) -> None:
    with (
        serving(lambda request: json_answer([{"type": "file", "size": 5, **listed}])) as url,
        pytest.raises(TransferError, match="does not answer as a hub does") as caught,
    ):
        Hub(url).files(MODEL, REVISION)

    assert said in caught.value.message
    assert not caught.value.transient


def test_a_branch_is_no_commit_whatever_the_hub_says() -> None:
    with (
        serving(lambda request: json_answer({"sha": "main"})) as url,
        pytest.raises(TransferError, match="`main` is not a commit"),
    ):
        Hub(url).resolve(MODEL)


def test_what_lies_past_the_end_is_nothing(served: tuple[stand_in.Hub, Hub]) -> None:
    store = served[1].store(MODEL, REVISION)
    for path, data in FILES.items():
        name = hf_layout.snapshot_file(MODEL, REVISION, path)

        assert store.open(name, start=len(data), length=1).read() == b""
        assert store.open(name, start=1, length=0).read() == b""


def test_file_that_is_shorter_at_the_hub_is_told_with_both_lengths(
    served: tuple[stand_in.Hub, Hub], tmp_path: Path
) -> None:
    longer = FileEntry(path="config.json", digest=digest_of(b"{}" * 9), size_bytes=18)
    name = hf_layout.snapshot_file(MODEL, REVISION, "config.json")

    with pytest.raises(TrustError, match="another length") as caught:
        fetch_file(served[1].store(MODEL, REVISION), name, tmp_path / "config.json", longer)
    assert (caught.value.want, caught.value.have) == ("18 bytes", "2 bytes")


def test_token_from_a_file_loses_its_line_end_and_no_other_is_shown(served: tuple[stand_in.Hub, Hub]) -> None:
    assert Hub(served[1].endpoint, token="hf_right\n").resolve(MODEL) == REVISION
    with pytest.raises(ValueError, match="that no header can carry") as refused:
        Hub(served[1].endpoint, token="hf_\nhush")
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:application/json,[]"])
def test_hub_leads_nowhere_but_over_http(served: tuple[stand_in.Hub, Hub], url: str) -> None:
    with pytest.raises(Unreachable, match="unknown url type"):
        served[1].get(url if "://" in url else "data://" + url, repo=MODEL, what="the next page")


def test_a_hub_is_only_read(served: tuple[stand_in.Hub, Hub]) -> None:
    with pytest.raises(NoPermission):
        served[1].store(MODEL, REVISION).delete("x")


def test_pickled_weights_stay_behind_where_safetensors_are() -> None:
    every = ["model.safetensors", "pytorch_model.bin", "0_Transformer/pytorch_model.bin", "tf_model.h5", "config.json"]

    assert selected(every) == ("0_Transformer/pytorch_model.bin", "config.json", "model.safetensors")


def test_weights_are_carried_once() -> None:
    every = [
        *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"),
        *("pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json", "consolidated.safetensors"),
        *("adapter/adapter_model.safetensors", "adapter/adapter_model.bin", "openvino_model.bin"),
    ]

    assert selected(every) == (
        *("adapter/adapter_model.safetensors", "model-00001-of-00002.safetensors"),
        *("model-00002-of-00002.safetensors", "model.safetensors.index.json"),
    )


def test_a_base_is_carried_without_weights_in_any_form() -> None:
    every = [
        *("config.json", "spm.model", "sentencepiece.bpe.model", "tokenizer_config.json", "vocab.txt"),
        *("pytorch_model.bin", "pytorch_model.generator.bin", "model.safetensors", "model.safetensors.index.json"),
    ]

    assert without_weights(every) == tuple(every[:5])


def test_other_safetensors_do_not_stand_in_for_the_weights() -> None:
    """An adapter, or a head, beside weights that are only pickled."""
    every = ["adapter_model.safetensors", "head.safetensors", "pytorch_model.bin"]

    assert selected(every) == tuple(every)


def test_every_kind_of_tokenizer_and_module_is_carried() -> None:
    every = [
        *("2_Dense/config.json", "2_Dense/pytorch_model.bin", "adapter_config.json", "adapter_model.bin"),
        *("best.pt", "gliner_config.json", "merges.txt", "preprocessor_config.json"),
        *("sentencepiece.bpe.model", "spm.model", "tokenizer.model", "vocab.json", "vocab.txt"),
    ]

    assert selected(every) == tuple(every)


def test_heads_that_are_only_pickled_are_carried() -> None:
    assert selected(["sparse_linear.pt", "colbert_linear.pt", "model.safetensors", "onnx/model.onnx"]) == (
        "colbert_linear.pt",
        "model.safetensors",
        "sparse_linear.pt",
    )
