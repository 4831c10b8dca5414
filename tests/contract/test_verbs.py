"""Score, extract and all of encode: the same through every door, over a tiny model that does everything."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sie_core.wire.codec import Format
from sie_sdk.images import to_jpeg_bytes
from sie_testing.doors import Array, Door, RawDoor, Refused, Scored, open_door
from sie_testing.tiny_worker import PLAIN, REVISION, WHOLE

QUERY = {"id": "q", "text": "what is it"}
ITEMS = [{"id": "a", "text": "one"}, {"text": "two words"}, {"id": "c", "text": "Ünïcödé ✓ 漢字"}, {"text": ""}]
RED = Image.new("RGB", (16, 8), (200, 10, 10))


def scored(door: Door, **params: Any) -> Scored:
    found = door.score(WHOLE, QUERY, ITEMS, **params)
    assert isinstance(found, Scored), found
    return found


def encoded(door: Door, items: Any, **params: Any) -> Any:
    found = door.encode(WHOLE, items, **params)
    assert not isinstance(found, Refused), found.text
    return found


@pytest.mark.parametrize("params", [{}, {"options": {"profile": "default"}}, {"instruction": "find"}])
def test_scores_are_the_same_through_every_door(tiny_door: Door, tiny_reference: Door, params: dict[str, Any]) -> None:
    found = scored(tiny_door, **params)

    assert found == scored(tiny_reference, **params)
    assert (found.model, found.query_id) == (WHOLE, "q")
    assert [entry["rank"] for entry in found.entries] == [0, 1, 2, 3]
    assert {entry["item_id"] for entry in found.entries} == {"a", "item-1", "c", "item-3"}
    values = [entry["score"] for entry in found.entries]
    assert values == sorted(values, reverse=True)


def test_what_is_extracted_is_the_same_through_every_door(tiny_door: Door, tiny_reference: Door) -> None:
    found = tiny_door.extract(WHOLE, ITEMS, labels=["words", "漢字"])

    assert found == tiny_reference.extract(WHOLE, ITEMS, labels=["words", "漢字"])
    assert not isinstance(found, Refused)
    assert [item["id"] for item in found] == ["a", "item-1", "c", "item-3"]
    assert [item["entities"] for item in found[:2]] == [
        [],
        [{"text": "words", "label": "words", "score": 1.0, "start": 4, "end": 9, "bbox": None}],
    ]
    assert found[2]["entities"][0]["text"] == "漢字"


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "binary", "ubinary"])
def test_all_outputs_at_once_in_every_dtype(tiny_door: Door, tiny_reference: Door, dtype: str) -> None:
    params = {"output_types": ["dense", "sparse", "multivector"], "output_dtype": dtype}
    found = encoded(tiny_door, ITEMS, **params)

    assert found == encoded(tiny_reference, ITEMS, **params)
    assert all(set(result.outputs) == {"dense", "sparse", "multivector"} for result in found)
    indices, values = found[1].outputs["sparse"]
    assert (indices.dtype, values.dtype) == ("int32", "float16" if dtype == "float16" else "float32")
    assert found[1].outputs["multivector"].shape == (4, 1 if "binary" in dtype else 8)


@pytest.mark.parametrize(
    "params",
    [
        {"options": {"profile": "sparse"}},
        {"options": {"profile": "raw"}},
        {"options": {"profile": "raw", "normalize": True}, "output_dtype": "float32"},
        {"options": {"is_query": True}},
        {"instruction": "find"},
    ],
)
def test_variants_options_and_instructions_are_kept_on_every_way(
    tiny_door: Door, tiny_reference: Door, params: dict[str, Any]
) -> None:
    """v0.3.1 lost all of them on the gateway's way."""
    found = encoded(tiny_door, ITEMS, **params)

    assert found == encoded(tiny_reference, ITEMS, **params)
    plain = encoded(tiny_reference, ITEMS)
    assert (found == plain) == ("normalize" in params.get("options", {}))


def png() -> bytes:
    buffer = io.BytesIO()
    RED.save(buffer, "PNG")
    return buffer.getvalue()


def test_bytes_of_a_picture_arrive_as_they_were_through_every_door(tiny_door: Door, tiny_reference: Door) -> None:
    items = [{"images": [{"data": png(), "format": "png"}]}, {"text": "a red one"}]
    found = encoded(tiny_door, items)

    assert found == encoded(tiny_reference, items)
    assert found != encoded(tiny_reference, [{"images": [{"data": png()[:-1]}]}, items[1]])


@pytest.fixture(params=["blocking", "awaiting"])
def client_door(request: pytest.FixtureRequest, tiny_url: str) -> Iterator[Door]:
    opened = open_door(request.param, tiny_url)
    yield opened
    opened.close()


def test_picture_that_the_client_encodes_is_that_jpeg(client_door: Door, tiny_reference: Door) -> None:
    sent = [{"images": [{"data": to_jpeg_bytes(RED), "format": "jpeg"}]}]

    for given in (RED, np.asarray(RED)):
        assert encoded(client_door, [{"images": [given]}]) == encoded(tiny_reference, sent)
        assert client_door.score(WHOLE, {"images": [given]}, ITEMS) == tiny_reference.score(WHOLE, sent[0], ITEMS)


@pytest.mark.parametrize(
    ("verb", "model", "given", "status", "code", "words"),
    [
        ("score", PLAIN, {}, 400, "INVALID_INPUT", "it declares `encode`, with `dense`"),
        ("extract", PLAIN, {}, 400, "INVALID_INPUT", "it declares `encode`, with `dense`"),
        ("score", "acme/whale", {}, 404, "MODEL_NOT_FOUND", "acme/whale"),
        ("score", WHOLE, {"items": []}, 400, "INVALID_INPUT", "`items` is empty"),
        ("extract", WHOLE, {"items": []}, 400, "INVALID_INPUT", "`items` is empty"),
        ("extract", WHOLE, {"items": [{"text": "a"}, {"id": "b"}]}, 400, "INVALID_INPUT", "items[1]"),
        ("extract", WHOLE, {"labels": []}, 400, "INVALID_INPUT", "`params.labels` is empty"),
        ("extract", WHOLE, {"labels": [7]}, 400, "INVALID_INPUT", "labels[0]"),
        ("score", WHOLE, {"query": {"id": "q"}}, 400, "INVALID_INPUT", "`query` has no `text` or `images`"),
        ("score", WHOLE, {"options": {"profile": "fat"}}, 400, "INVALID_INPUT", "`default`, `sparse`, `raw`"),
        ("encode", WHOLE, {"options": {"profile": "fat"}}, 400, "INVALID_INPUT", "`default`, `sparse`, `raw`"),
        ("encode", PLAIN, {"output_types": ["dense", "sparse"]}, 400, "OUTPUT_UNSUPPORTED", "it has `dense`"),
        ("encode", PLAIN, {"items": [{"images": [{"data": b"\xff"}]}]}, 400, "INVALID_INPUT", "`items[0].images`"),
    ],
)
def test_errors_are_the_same_through_every_door(
    tiny_door: Door, verb: str, model: str, given: dict[str, Any], status: int, code: str, words: str
) -> None:
    arguments = {"items": ITEMS} | ({"query": QUERY} if verb == "score" else {}) | given
    refused = getattr(tiny_door, verb)(model, **arguments)

    assert refused == Refused(status, code, "")
    assert words in refused.text


def test_models_say_all_that_they_do(tiny_url: str) -> None:
    door = RawDoor(tiny_url, Format.JSON)
    found = {entry["name"]: entry for entry in door.models()}
    door.close()

    assert found[WHOLE]["revision"] == REVISION
    assert found[WHOLE]["loaded"] is True


@pytest.fixture(params=list(Format))
def raw(request: pytest.FixtureRequest, tiny_url: str) -> Iterator[RawDoor]:
    opened = RawDoor(tiny_url, request.param)
    yield opened
    opened.close()


def test_embeddings_are_what_encode_gives(raw: RawDoor, tiny_reference: Door) -> None:
    texts = [str(item["text"]) for item in ITEMS]
    found = raw.send("/v1/embeddings", {"model": WHOLE, "input": texts}).json()
    dense = [result.outputs["dense"] for result in encoded(tiny_reference, ITEMS)]

    assert [Array.of(np.array(entry["embedding"], np.float32)) for entry in found["data"]] == dense
    assert found["usage"]["prompt_tokens"] == sum(len(text.split()) + 2 for text in texts)


def test_token_ids_are_embedded_as_they_are(raw: RawDoor) -> None:
    found = raw.send("/v1/embeddings", {"model": WHOLE, "input": [[101, 7, 102], [101, 7, 102], [101, 8, 102]]}).json()
    first, second, third = (entry["embedding"] for entry in found["data"])

    assert first == second != third
    assert found["usage"]["total_tokens"] == 9


def test_rerank_is_what_score_gives(raw: RawDoor, tiny_reference: Door) -> None:
    documents = [item["text"] for item in ITEMS]
    found = raw.send("/v1/rerank", {"model": WHOLE, "query": QUERY["text"], "documents": documents}).json()
    names = ["a", "item-1", "c", "item-3"]

    assert [(names[one["index"]], one["relevance_score"]) for one in found["results"]] == [
        (entry["item_id"], entry["score"]) for entry in scored(tiny_reference).entries
    ]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/embeddings", {"model": "acme/whale", "input": "a"}, 404, "MODEL_NOT_FOUND"),
        ("/v1/embeddings", {"model": WHOLE, "input": []}, 400, "INVALID_INPUT"),
        ("/v1/embeddings", {"input": "a"}, 400, "INVALID_INPUT"),
        ("/v1/rerank", {"model": PLAIN, "query": "a", "documents": ["b"]}, 400, "INVALID_INPUT"),
        ("/v1/rerank", {"model": WHOLE, "query": "a" * (1 << 20), "documents": ["b"]}, 413, "BODY_TOO_LARGE"),
    ],
)
def test_errors_of_foreign_routes_are_the_same_on_every_way(
    raw: RawDoor, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    reply = raw.send(path, body)

    assert (reply.status_code, reply.headers["x-sie-error-code"]) == (status, code)
    assert (reply.json()["error"]["code"], reply.json()["error"]["type"]) == (code, "invalid_request_error")
