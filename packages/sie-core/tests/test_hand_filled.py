"""What is told of a model that somebody copied into a bucket by hand: what it is, and what is missing."""

import hashlib
import json
import struct
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.artifacts import handfilled, survey
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.handfilled import Piece, Pieces, header_bytes, hub_ids, parts_of, read_tree, whole_bytes
from sie_core.artifacts.hf_layout import git_blob_id
from sie_core.artifacts.stores.memory import MemoryStore
from sie_core.ids import ModelId, Revision

MODEL = ModelId("acme/tiny")
COMMIT = Revision("1" * 40)
OTHER = Revision("2" * 40)
FOLDER = "models--acme--tiny"


def safetensors(count: int) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(count)


FILES = {
    "README.md": b"# tiny",
    "config.json": b"{}",
    "model.safetensors": safetensors(1_000),
    "onnx/model.onnx": b"again",
    "tokenizer.json": b'{"model": 1}',
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def hub_id(path: str, data: bytes) -> str:
    return sha256(data) if path.endswith(".safetensors") else git_blob_id(data)


def tree(files: Mapping[str, bytes]) -> bytes:
    entries = {
        path: {"size": len(data), "blob_id": git_blob_id(data)}
        | ({"lfs_sha256": sha256(data)} if path.endswith(".safetensors") else {})
        for path, data in files.items()
    }
    return json.dumps({"format_version": 1, "files": entries}).encode()


def bucket(
    files: Mapping[str, bytes] = FILES,
    *,
    ref: bytes | None = COMMIT.encode(),
    blobs: bool = True,
    snapshots: bool = True,
    listed: Mapping[str, bytes] | None = None,
) -> MemoryStore:
    store = MemoryStore("s3://models/")
    store.files[f".locks/{FOLDER}/{'a' * 40}.lock"] = b""
    for path, data in files.items():
        if snapshots:
            store.files[f"{FOLDER}/snapshots/{COMMIT}/{path}"] = data
        if blobs:
            store.files[f"{FOLDER}/blobs/{hub_id(path, data)}"] = data
    if ref is not None:
        store.files[f"{FOLDER}/refs/main"] = ref
    if listed is not None:
        store.files[f"{FOLDER}/trees/{COMMIT}.json"] = tree(listed)
    return store


def found(store: MemoryStore, expected: Revision | None = None) -> Pieces:
    pieces = survey.pieces_of(store, MODEL, expected=expected)
    assert pieces is not None
    return pieces


CARRIED = ["README.md", "config.json", "model.safetensors", "tokenizer.json"]


@pytest.mark.parametrize("ref", [COMMIT.encode(), COMMIT.encode() + b"\n", None])
def test_the_commit_is_the_refs_or_the_only_one(ref: bytes | None) -> None:
    store = bucket(ref=ref)
    pieces = found(store)

    assert (pieces.revision, [piece.path for piece in pieces.files]) == (COMMIT, CARRIED)
    assert survey.lacking(store, pieces) == ()


def test_of_several_commits_without_a_ref_the_expected_one_is_taken_or_none() -> None:
    store = bucket(ref=None)
    store.files[f"{FOLDER}/snapshots/{OTHER}/config.json"] = b"{}"

    assert found(store, OTHER).revision == OTHER
    with pytest.raises(NotThere, match=f"files of 2 commits and no `refs/main`: {COMMIT}, {OTHER}"):
        survey.pieces_of(store, MODEL)


def test_where_links_were_skipped_blobs_are_read_through_the_tree() -> None:
    store = bucket(snapshots=False, listed=FILES)
    pieces = found(store)

    assert [piece.path for piece in pieces.files] == CARRIED
    assert pieces.files[1].name == f"{FOLDER}/blobs/{git_blob_id(b'{}')}"
    assert survey.lacking(store, pieces) == ()


def test_where_links_were_skipped_and_no_tree_is_there_it_says_how_to_copy() -> None:
    with pytest.raises(NotThere, match="links were skipped") as caught:
        survey.pieces_of(bucket(snapshots=False), MODEL)
    assert "rclone` with `--copy-links`" in (caught.value.hint or "")


def test_a_plain_folder_says_its_commit_in_the_hub_clients_notes() -> None:
    store = MemoryStore("s3://models/")
    for path, data in FILES.items():
        store.files[f"{MODEL}/{path}"] = data
        note = f"{COMMIT}\n{hub_id(path, data)}\n1795476324.7\n".encode()
        store.files[f"{MODEL}/.cache/huggingface/download/{path}.metadata"] = note
    store.files[f"{MODEL}/.cache/huggingface/trees/{COMMIT}.json"] = tree(FILES)
    pieces = found(store)

    assert (pieces.revision, [piece.path for piece in pieces.files]) == (COMMIT, CARRIED)
    assert pieces.files[2] == Piece(
        "model.safetensors",
        f"{MODEL}/model.safetensors",
        len(FILES["model.safetensors"]),
        pieces.files[2].tag,
        sha256(FILES["model.safetensors"]),
    )
    assert survey.lacking(store, pieces) == ()

    for name in [name for name in store.files if name.endswith(".metadata")]:
        del store.files[name]
    with pytest.raises(NotThere, match="plain folder, and nothing there says of which commit"):
        survey.pieces_of(store, MODEL)


def test_of_nothing_there_is_nothing() -> None:
    assert survey.pieces_of(MemoryStore(), MODEL) is None


def test_a_name_that_leaves_the_folder_is_refused() -> None:
    store = bucket()
    store.files[f"{FOLDER}/snapshots/{COMMIT}/../../config.json"] = b"{}"

    with pytest.raises(TrustError, match="has a name that is refused"):
        survey.pieces_of(store, MODEL)


def test_a_ref_that_is_no_commit_is_refused() -> None:
    with pytest.raises(TrustError, match="a ref is not a commit"):
        survey.pieces_of(bucket(ref=b"main"), MODEL)


def without(*paths: str, **changed: bytes) -> dict[str, bytes]:
    return {path: data for path, data in FILES.items() if path not in paths} | changed


SHARDS = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model-00001-of-00002.safetensors": safetensors(10),
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
}


@pytest.mark.parametrize(
    ("files", "listed", "said"),
    [
        (without("config.json"), None, ["there is no `config.json`"]),
        (without("tokenizer.json"), None, ["there is no tokenizer"]),
        (without("model.safetensors"), None, ["there are no weights"]),
        (without("tokenizer.json"), FILES, ["`tokenizer.json` is missing, and the repository has it", "there is no"]),
        (without("README.md", "onnx/model.onnx"), FILES, []),
        (
            without(**{"model.safetensors": safetensors(1_000)[:-1]}),
            None,
            ["`model.safetensors` has 1,073 bytes, and its header describes 1,074"],
        ),
        (without(**{"model.safetensors": safetensors(9)[:20]}), None, ["`model.safetensors`: it ends inside its head"]),
        (without(**{"model.safetensors": b"<html>error"}), None, ["`model.safetensors`: its first 8 bytes are not"]),
        (without(**{"config.json": b"{"}), FILES, ["`config.json` has 1 bytes, and the repository's has 2"]),
        (SHARDS, None, ["`model-00002-of-00002.safetensors` is missing, and `model.safetensors.index.json` names it"]),
        (
            SHARDS | {"model.safetensors.index.json": b"[]"},
            None,
            ["`model.safetensors.index.json`: it is not an index"],
        ),
    ],
)
def test_what_is_missing_or_cut_short_is_named(
    files: dict[str, bytes], listed: dict[str, bytes] | None, said: list[str]
) -> None:
    store = bucket(files, listed=listed)
    lacking = survey.lacking(store, found(store))

    assert len(lacking) == len(said), lacking
    assert all(line.startswith(start) for line, start in zip(lacking, said, strict=True)), lacking


@pytest.mark.parametrize("own", [{"adapter_config.json": b"{}"}, {"gliner_config.json": b"{}"}])
def test_a_lora_and_a_gliner_need_no_tokenizer_of_their_own(own: dict[str, bytes]) -> None:
    store = bucket({"adapter_model.safetensors": safetensors(3), **own})

    assert survey.lacking(store, found(store)) == ()


def ids_of(files: Mapping[str, bytes]) -> dict[str, frozenset[str]]:
    return {path: hub_ids(digest_of(data), data) for path, data in files.items()}


@pytest.mark.parametrize("listed", [None, FILES])
def test_a_file_that_is_not_what_the_hubs_client_noted_is_told_from_the_rest(
    listed: dict[str, bytes] | None,
) -> None:
    store = bucket(listed=listed)
    pieces = found(store)
    assert handfilled.contradictions(pieces, ids_of(FILES)) == ()

    altered = FILES | {"model.safetensors": safetensors(1_000)[:-1] + b"\1"}
    ((piece, noted),) = handfilled.contradictions(pieces, ids_of(altered))
    assert (piece.path, noted) == ("model.safetensors", sha256(FILES["model.safetensors"]))


def test_blobs_of_other_commits_contradict_nothing() -> None:
    store = bucket(blobs=False)
    store.files[f"{FOLDER}/blobs/{git_blob_id(b'another length')}"] = b"another length"

    assert handfilled.contradictions(found(store), ids_of(FILES)) == ()


def test_the_listings_digest_changes_with_any_file_that_is_carried_and_no_other() -> None:
    store = bucket()
    before = found(store).listing
    store.files[f"{FOLDER}/snapshots/{COMMIT}/onnx/model.onnx"] = b"other"
    assert found(store).listing == before

    store.files[f"{FOLDER}/snapshots/{COMMIT}/config.json"] = b"[]"
    assert found(store).listing != before


@given(st.binary(max_size=400))
def test_bytes_that_are_no_header_no_index_and_no_tree_are_refused_and_not_followed(data: bytes) -> None:
    for parse in (whole_bytes, parts_of, header_bytes):
        try:
            parse(data)
        except ValueError:
            continue
    read_tree(data)
