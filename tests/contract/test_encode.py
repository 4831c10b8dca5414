"""Every door gives the same results, bit for bit, and the same errors."""

from typing import Any

import httpx2
import msgspec
import numpy as np
import pytest

from sie_core.wire.codec import Format
from sie_testing.cluster import MINILM
from sie_testing.doors import Array, Door, Encoded, RawDoor, Refused, open_door

TEXTS = ["hello world", "", "Ünïcödé ✓ 漢字", "a " * 40, "the quick brown fox jumps over the lazy dog"]
LONG = "many words make a text too long " * 200
DTYPES = ["float32", "float16", "int8", "uint8", "binary", "ubinary"]
SEEN_DTYPES = {"binary": "uint8", "ubinary": "uint8"}


def dense(result: Encoded) -> Array:
    found = result.outputs["dense"]
    assert isinstance(found, Array)
    return found


def results(door: Door, items: Any, **params: Any) -> list[Encoded]:
    found = door.encode(MINILM, items, **params)
    assert not isinstance(found, Refused), found.text
    return found


@pytest.mark.parametrize("text", TEXTS)
def test_one_text_is_the_same_through_every_door(door: Door, reference: Door, text: str) -> None:
    (result,) = results(door, [{"text": text}])

    assert result == results(reference, [{"text": text}])[0]
    assert dense(result).dtype == "float32"
    assert dense(result).shape == (384,)
    assert np.linalg.norm(dense(result).numpy()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_the_same_through_every_door(door: Door, reference: Door, dtype: str) -> None:
    """v0.3.1 lost the dtype on the gateway's way."""
    (result,) = results(door, [{"text": TEXTS[0]}], output_dtype=dtype)

    assert result == results(reference, [{"text": TEXTS[0]}], output_dtype=dtype)[0]
    assert dense(result).dtype == SEEN_DTYPES.get(dtype, dtype)
    assert dense(result).shape == ((48,) if dtype in SEEN_DTYPES else (384,))


def test_list_comes_back_in_its_order_with_its_ids(door: Door, reference: Door) -> None:
    items = [{"id": f"item {n}", "text": text} for n, text in enumerate(TEXTS)] + [{"text": "no id"}]
    found = results(door, items)

    assert found == results(reference, items)
    assert [result.id for result in found] == [*(item["id"] for item in items[:-1]), None]


def test_options_that_change_nothing_are_taken(door: Door, reference: Door) -> None:
    params = {"output_types": ["dense"], "options": {"is_query": True, "profile": "default"}}

    assert results(door, [{"text": TEXTS[0]}], **params) == results(reference, [{"text": TEXTS[0]}])


def test_too_long_a_text_is_truncated(door: Door, reference: Door) -> None:
    assert results(door, [{"text": LONG}]) == results(reference, [{"text": LONG + "and longer still"}])


@pytest.mark.parametrize(
    ("model", "items", "params", "status", "code", "words"),
    [
        ("all-MiniLM-L6-v2", [{"text": "a"}], {}, 404, "MODEL_NOT_FOUND", MINILM),
        ("sentence-transformers/all-MiniLM-L12", [{"text": "a"}], {}, 404, "MODEL_NOT_FOUND", MINILM),
        (MINILM, [], {}, 400, "INVALID_INPUT", "items"),
        (MINILM, [{"text": 5}], {}, 400, "INVALID_INPUT", "text"),
        (MINILM, [{"text": "a"}, {"id": "b"}], {}, 400, "INVALID_INPUT", "items[1]"),
        (MINILM, [{"text": "a"}], {"output_types": ["sparse"]}, 400, "OUTPUT_UNSUPPORTED", "`dense`"),
        (MINILM, [{"text": "a"}], {"output_types": ["thick"]}, 400, "INVALID_INPUT", "thick"),
        (MINILM, [{"text": "a"}], {"output_dtype": "float64"}, 400, "INVALID_INPUT", "float64"),
        (MINILM, [{"text": "a"}], {"options": {"profile": "fast"}}, 400, "INVALID_INPUT", "fast"),
        (MINILM, [{"text": "a" * (1 << 20)}], {}, 413, "BODY_TOO_LARGE", str(1 << 20)),
        ("org/a name", [{"text": "a"}], {}, 400, "INVALID_INPUT", "org/a name"),
    ],
)
def test_errors_are_the_same_through_every_door(
    door: Door, model: str, items: list[Any], params: dict[str, Any], status: int, code: str, words: str
) -> None:
    refused = door.encode(model, items, **params)

    assert refused == Refused(status, code, "")
    assert isinstance(refused, Refused)
    assert words in refused.text


def test_models_are_listed_with_their_dimensions(door: Door) -> None:
    (entry,) = [entry for entry in door.models() if entry["name"] == MINILM]

    assert entry["dims"] == {"dense": 384}
    assert (entry["inputs"], entry["outputs"]) == (["text"], ["dense"])
    assert (entry["state"], entry["loaded"]) == ("loaded", True)
    assert len(entry["revision"]) == 40
    assert door.model(MINILM) == entry
    assert door.model("all-MiniLM-L6") == Refused(404, "MODEL_NOT_FOUND", "")


def test_no_door_says_of_a_model_what_its_worker_does_not(door: Door, reference: Door) -> None:
    """A gateway may say less, and adds who serves it; what it says of the model itself is the same."""
    (known,) = [entry for entry in reference.models() if entry["name"] == MINILM]
    (entry,) = [entry for entry in door.models() if entry["name"] == MINILM]
    added = ("bundles", "workers", "worker_count")
    said = {key: value for key, value in entry.items() if key not in added and value is not None}

    assert said == {key: known.get(key) for key in said}
    assert (known["max_sequence_length"], known["verified"]) == (256, True)


@pytest.fixture(scope="session")
def raw(url: str) -> Any:
    opened = RawDoor(url, Format.JSON)
    yield opened
    opened.close()


def embeddings(raw: RawDoor, **body: Any) -> httpx2.Response:
    return raw.send("/v1/embeddings", {"model": MINILM} | body)


def test_models_own_token_ids_are_embedded_as_the_text_is(raw: RawDoor, reference: Door) -> None:
    """101 and 102 are the special tokens, which a caller that sends ids sends itself."""
    reply = embeddings(raw, input=[[101, 7592, 2088, 102], [7592, 2088]]).json()
    first, second = (np.array(entry["embedding"], np.float32) for entry in reply["data"])

    assert Array.of(first) == dense(results(reference, [{"text": "hello world"}])[0])
    assert not np.allclose(first, second, atol=1e-2)
    assert reply["usage"] == {"prompt_tokens": 6, "total_tokens": 6}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([101, 30522, 102], "`input[0]` has the token id 30522"),
        ([[101, 102], [-1]], "`input[1]` has the token id -1"),
        ([101] * 257, "`input[0]` has 257 token ids, want 1 to 256"),
    ],
)
def test_token_ids_that_the_model_has_not_are_refused(raw: RawDoor, given: list[Any], words: str) -> None:
    reply = embeddings(raw, input=given)

    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "INVALID_INPUT")
    assert words in reply.json()["error"]["message"]


def test_tokens_of_a_text_that_is_cut_are_counted_as_they_ran(raw: RawDoor) -> None:
    reply = embeddings(raw, input=[LONG, "hello world"])

    assert reply.json()["usage"]["prompt_tokens"] == 256 + 4
    assert reply.headers["x-sie-truncated"] == "0"


def test_truncated_items_are_named_in_a_header(raw: RawDoor) -> None:
    reply = raw.post(MINILM, {"items": [{"text": "short"}, {"text": LONG}, {"text": LONG}]})

    assert reply.headers["x-sie-truncated"] == "1,2"
    assert "x-sie-truncated" not in raw.post(MINILM, {"items": [{"text": "short"}]}).headers


def test_commit_that_answered_is_named_in_a_header(raw: RawDoor) -> None:
    reply = raw.post(MINILM, {"items": [{"text": "short"}]})

    (revision,) = [entry["revision"] for entry in raw.models() if entry["name"] == MINILM]
    assert reply.headers["x-sie-model-revision"] == revision


def test_unknown_keys_are_ignored_and_reported(raw: RawDoor) -> None:
    reply = raw.post(MINILM, {"items": [{"text": "a"}], "parms": {}, "params": {"dtype": "int8"}})

    assert reply.status_code == 200
    assert "params.dtype" in reply.headers["x-sie-warnings"]
    assert "parms" in reply.headers["x-sie-warnings"]


@pytest.mark.parametrize(
    ("content_type", "accept", "answered"),
    [
        ("application/json", "", "application/json"),
        ("application/json", "*/*", "application/json"),
        ("application/json", "application/msgpack", "application/msgpack"),
        ("application/msgpack", "*/*", "application/msgpack"),
        ("application/x-msgpack", "application/json", "application/json"),
        ("text/plain", "*/*", "application/json"),
    ],
)
def test_reply_is_in_the_format_asked_for(raw: RawDoor, content_type: str, accept: str, answered: str) -> None:
    pack = msgspec.msgpack.encode if "msgpack" in content_type else msgspec.json.encode
    reply = raw.post(MINILM, pack({"items": [{"text": "a"}]}), content_type=content_type, accept=accept)

    assert reply.status_code == 200
    assert reply.headers["content-type"] == answered


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"items": {}}', b'{"items": [1]}', b"\x81", b"\xff" * 9])
@pytest.mark.parametrize("content_type", ["application/json", "application/msgpack"])
def test_broken_body_is_bad_input(raw: RawDoor, content_type: str, body: bytes) -> None:
    reply = raw.post(MINILM, body, content_type=content_type)

    assert reply.status_code == 400
    assert reply.json()["detail"]["code"] == "INVALID_INPUT"
    assert reply.json()["error"] == reply.json()["detail"]


def test_call_for_another_machine_is_not_served(raw: RawDoor) -> None:
    """A worker says which it is; a gateway says which there are."""
    reply = raw.post(MINILM, {"items": [{"text": "a"}]}, x_sie_machine_profile="h100")

    assert reply.status_code in (400, 503)
    assert "l4" in reply.text
    assert raw.post(MINILM, {"items": [{"text": "a"}]}, x_sie_machine_profile="l4").status_code == 200


def test_guides_call_works(fronted: Any) -> None:
    """The call that the offline guide ends with, with a model that is here."""
    from sie_sdk import SIEClient

    client = SIEClient(fronted.url)
    result = client.encode(MINILM, {"text": "hello world"}, gpu="l4", wait_for_capacity=True, provision_timeout_s=600)

    assert result["dense"].shape == (384,)
    client.close()


def test_many_callers_at_once_get_their_own_results(url: str, reference: Door) -> None:
    """Batched together or alone, each gets what belongs to its text, within float32's own noise."""
    import asyncio

    from sie_sdk import SIEAsyncClient

    texts = [f"text number {n} " + "word " * (n % 23) for n in range(48)]

    async def all_at_once() -> list[Any]:
        async with SIEAsyncClient(url) as client:
            return list(await asyncio.gather(*(client.encode(MINILM, {"text": text}) for text in texts)))

    found = asyncio.run(all_at_once())
    alone = [results(reference, [{"text": text}])[0] for text in texts]
    for got, expected in zip(found, alone, strict=True):
        np.testing.assert_allclose(got["dense"], dense(expected).numpy(), atol=2e-6)


def test_doors_are_named() -> None:
    with pytest.raises(KeyError, match="there are msgpack, json, blocking, awaiting"):
        open_door("window", "http://127.0.0.1:1")
