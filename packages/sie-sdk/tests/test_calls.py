"""What a call sends and what its answer becomes, the same for both clients."""

import asyncio
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sie_core.wire.codec import Format, encode
from sie_core.wire.messages import (
    Classification,
    Dense,
    EncodedItem,
    EncodeResponse,
    Entity,
    ExtractedItem,
    ExtractResponse,
    ItemError,
    Multivector,
    ScoreEntry,
    ScoreResponse,
    Sparse,
    Timing,
)
from sie_sdk import RequestError, ServerError, SIEAsyncClient, SIEClient
from sie_sdk._results import encoded, extracted, scored
from sie_sdk._steps import Reply
from sie_testing.script import Answer, Heard, Script

ROOT = Path(__file__).resolve().parents[3]
ONE = EncodeResponse("m", [EncodedItem(dense=Dense(2, "float32", np.array([1, 2], np.float32)))])
Call = Callable[..., tuple[Any, Heard]]


def answer(response: object, fmt: Format = Format.MSGPACK) -> Answer:
    return Answer(200, {"content-type": f"application/{fmt.value}"}, encode(response, fmt))


def blocking(method: str, line: Answer, *args: Any, client: dict[str, Any] | None = None, **more: Any) -> Any:
    with Script([line]) as script, SIEClient(script.url + "/", **(client or {})) as sie:
        assert sie.base_url == script.url
        return getattr(sie, method)(*args, **more), script.heard[0]


def awaiting(method: str, line: Answer, *args: Any, client: dict[str, Any] | None = None, **more: Any) -> Any:
    async def run(url: str) -> Any:
        async with SIEAsyncClient(url + "/", **(client or {})) as sie:
            assert sie.base_url == url
            return await getattr(sie, method)(*args, **more)

    with Script([line]) as script:
        return asyncio.run(run(script.url)), script.heard[0]


@pytest.fixture(params=[blocking, awaiting])
def call(request: pytest.FixtureRequest) -> Call:
    chosen: Call = request.param
    return chosen


def test_plain_call_sends_what_v0_3_1_sent(call: Call) -> None:
    _, heard = call("encode", answer(ONE), "BAAI/bge-m3", {"text": "hello"})

    assert (heard.method, heard.path) == ("POST", "/v1/encode/BAAI/bge-m3")
    assert msgspec.msgpack.decode(heard.body) == {"items": [{"text": "hello"}]}
    assert heard.headers["content-type"] == heard.headers["accept"] == "application/msgpack"
    assert heard.headers["x-sie-sdk-version"] == "0.3.1"
    assert heard.headers["x-sie-timeout-ms"] == "30000"
    assert not {"authorization", "x-sie-machine-profile", "x-sie-pool"} & set(heard.headers)


def test_every_argument_travels(call: Call) -> None:
    _, heard = call(
        "encode",
        answer(EncodeResponse("m", [])),
        "b1:/o/a model",
        [],
        client={"api_key": " secret\n", "options": {"a": 1, "b": 1}, "gpu": "l4", "timeout_s": 7.5},
        output_types=["dense", "sparse"],
        instruction="say",
        output_dtype="int8",
        is_query=False,
        options={"b": 2},
        gpu="eval/a100",
        provision_timeout_s=600,
    )

    assert heard.path == "/v1/encode/b1:/o/a%20model"
    assert msgspec.msgpack.decode(heard.body) == {
        "items": [],
        "params": {
            "output_types": ["dense", "sparse"],
            "output_dtype": "int8",
            "instruction": "say",
            "options": {"a": 1, "b": 2, "is_query": False},
        },
    }
    assert heard.headers["authorization"] == "Bearer secret"
    assert (heard.headers["x-sie-pool"], heard.headers["x-sie-machine-profile"]) == ("eval", "a100")
    assert heard.headers["x-sie-timeout-ms"] == "7500"


@pytest.mark.parametrize(
    ("client", "gpu", "pool", "profile"),
    [
        ({}, "l4", None, "l4"),
        ({"gpu": "eval/l4"}, None, "eval", "l4"),
        ({"gpu": "eval/l4"}, "a100", None, "a100"),
        ({"pool": {"name": "eval"}}, "l4", "eval", "l4"),
        ({"pool": {"name": "eval"}}, "other/l4", "other", "l4"),
        ({}, "eval/", "eval", None),
    ],
)
def test_gpu_names_a_profile_and_perhaps_a_pool(
    client: dict[str, Any], gpu: str | None, pool: str | None, profile: str | None
) -> None:
    _, heard = blocking("encode", answer(ONE), "o/m", {"text": "x"}, client=client, gpu=gpu)

    assert heard.headers.get("x-sie-pool") == pool
    assert heard.headers.get("x-sie-machine-profile") == profile


@pytest.mark.parametrize("fmt", list(Format))
def test_results_are_arrays_in_either_format(call: Call, fmt: Format) -> None:
    """The clients of v0.3.1 could not read a peer that answers in JSON; ours can."""
    item = EncodedItem(
        id="a",
        dense=Dense(3, "float32", np.array([0.1, 0.2, 0.3], np.float32)),
        sparse=Sparse(9, "float32", np.array([1, 5], np.int32), np.array([0.5, 0.25], np.float32)),
        multivector=Multivector(2, 2, "float16", np.array([[1, 2], [3, 4]], np.float16)),
    )
    response = EncodeResponse("m", [item], Timing(4, 1, 1, 2))
    result, _ = call("encode", answer(response, fmt), "o/m", {"id": "a", "text": "x"})

    assert (result["id"], result["timing"]["inference_ms"]) == ("a", 2)
    np.testing.assert_array_equal(result["dense"], np.array([0.1, 0.2, 0.3], np.float32))
    np.testing.assert_array_equal(result["sparse"]["values"], [0.5, 0.25])
    assert result["dense"].dtype == np.float32
    assert result["sparse"]["indices"].dtype == np.int32
    assert (result["multivector"].dtype, result["multivector"].shape) == (np.float16, (2, 2))
    assert result["dense"].flags.writeable


@pytest.mark.parametrize("fmt", list(Format))
def test_packed_bits_stay_bytes(fmt: Format) -> None:
    dense = Dense(16, "binary", np.array([3, 255], np.uint8))
    result, _ = blocking("encode", answer(EncodeResponse("m", [EncodedItem(dense=dense)]), fmt), "o/m", {"text": "x"})

    assert result["dense"].dtype == np.uint8
    assert result["dense"].tolist() == [3, 255]


def test_failed_item_keeps_its_place_in_a_list(call: Call) -> None:
    failed = EncodedItem(id="b", error=ItemError("INVALID_INPUT", "no text"))
    response = EncodeResponse("m", [ONE.items[0], failed])
    results, _ = call("encode", answer(response), "o/m", [{"text": "x"}, {"id": "b"}])

    assert "error" not in results[0]
    assert results[1] == {"id": "b", "error": {"code": "INVALID_INPUT", "message": "no text"}}


@pytest.mark.parametrize(("code", "kind"), [("INVALID_INPUT", RequestError), ("INFERENCE_ERROR", ServerError)])
def test_failed_item_alone_raises(call: Call, code: str, kind: type[Exception]) -> None:
    response = EncodeResponse("m", [EncodedItem(error=ItemError(code, "no text", "give it one"))])

    with pytest.raises(kind, match="no text\n\nhint: give it one"):
        call("encode", answer(response), "o/m", {"text": ""})


def test_another_number_of_results_is_an_error(call: Call) -> None:
    with pytest.raises(ServerError, match="2 items were sent and 1 results came"):
        call("encode", answer(ONE), "o/m", [{"text": "x"}, {"text": "y"}])


SCORED = ScoreResponse("m", [ScoreEntry("b", 0.9, 0), ScoreEntry("item-0", 0.1, 1)], "q", Timing(4, 1, 1, 2))
FOUND = ExtractedItem("a", [Entity("Ada", "person", 0.75, 0, 3)], [], [Classification("news", 0.5)])


def test_score_sends_what_v0_3_1_sent(call: Call) -> None:
    items = [{"text": "x"}, {"id": "b", "text": "y"}]
    _, plain = call("score", answer(SCORED), "o/m", {"id": "q", "text": "what"}, items)
    _, full = call(
        "score",
        answer(SCORED),
        "o/m",
        {"text": "what"},
        items,
        client={"options": {"a": 1}},
        instruction="say",
        options={"b": 2},
        gpu="eval/l4",
    )

    assert (plain.method, plain.path) == ("POST", "/v1/score/o/m")
    assert msgspec.msgpack.decode(plain.body) == {"query": {"id": "q", "text": "what"}, "items": items}
    assert msgspec.msgpack.decode(full.body) == {
        "query": {"text": "what"},
        "items": items,
        "instruction": "say",
        "options": {"a": 1, "b": 2},
    }
    assert (full.headers["x-sie-pool"], full.headers["x-sie-machine-profile"]) == ("eval", "l4")


@pytest.mark.parametrize("fmt", list(Format))
def test_scores_come_as_they_were_ranked(call: Call, fmt: Format) -> None:
    result, _ = call("score", answer(SCORED, fmt), "o/m", {"id": "q", "text": "?"}, [{"text": "x"}, {"id": "b"}])

    assert (result["model"], result["query_id"], result["timing"]["inference_ms"]) == ("m", "q", 2)
    assert result["scores"] == [
        {"item_id": "b", "score": 0.9, "rank": 0},
        {"item_id": "item-0", "score": 0.1, "rank": 1},
    ]


def test_item_that_could_not_be_scored_says_why_in_its_entry(call: Call) -> None:
    failed = ScoreEntry("item-1", None, 1, ItemError("INFERENCE_ERROR", "no number"))
    response = ScoreResponse("m", [ScoreEntry("item-0", 0.5, 0), failed])
    result, _ = call("score", answer(response), "o/m", {"text": "?"}, [{"text": "x"}, {"text": "y"}])

    assert result["scores"][1] == {
        "item_id": "item-1",
        "score": None,
        "rank": 1,
        "error": {"code": "INFERENCE_ERROR", "message": "no number"},
    }


def test_another_number_of_scores_is_an_error(call: Call) -> None:
    with pytest.raises(ServerError, match="1 items were sent and 2 results came"):
        call("score", answer(SCORED), "o/m", {"text": "?"}, [{"text": "x"}])


def test_extract_sends_what_v0_3_1_sent(call: Call) -> None:
    _, plain = call("extract", answer(ExtractResponse("m", [FOUND])), "o/m", {"text": "Ada"})
    _, full = call(
        "extract",
        answer(ExtractResponse("m", [FOUND])),
        "o/m",
        [{"text": "Ada"}],
        labels=("person",),
        output_schema={"type": "object"},
        instruction="say",
        options={"threshold": 0.5},
    )

    assert (plain.method, plain.path) == ("POST", "/v1/extract/o/m")
    assert msgspec.msgpack.decode(plain.body) == {"items": [{"text": "Ada"}]}
    assert msgspec.msgpack.decode(full.body) == {
        "items": [{"text": "Ada"}],
        "params": {
            "labels": ["person"],
            "output_schema": {"type": "object"},
            "instruction": "say",
            "options": {"threshold": 0.5},
        },
    }


@pytest.mark.parametrize("fmt", list(Format))
def test_extractions_have_every_key_and_their_places(call: Call, fmt: Format) -> None:
    result, _ = call("extract", answer(ExtractResponse("m", [FOUND]), fmt), "o/m", {"text": "Ada"})

    assert result == {
        "id": "a",
        "entities": [{"text": "Ada", "label": "person", "score": 0.75, "start": 0, "end": 3, "bbox": None}],
        "relations": [],
        "classifications": [{"label": "news", "score": 0.5}],
        "objects": [],
    }


def test_extraction_that_failed_keeps_its_place_and_alone_raises(call: Call) -> None:
    failed = ExtractedItem("item-1", error=ItemError("INVALID_INPUT", "no text"))
    results, _ = call("extract", answer(ExtractResponse("m", [FOUND, failed])), "o/m", [{"text": "a"}, {"text": ""}])

    assert "error" not in results[0]
    assert results[1]["error"] == {"code": "INVALID_INPUT", "message": "no text"}
    with pytest.raises(RequestError, match="no text"):
        call("extract", answer(ExtractResponse("m", [failed])), "o/m", {"text": ""})


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("score", ("o/m", "what", [{"text": "x"}]), "query is a str, want a dict"),
        ("score", ("o/m", {"text": "?"}, {"text": "x"}), "items is one item, want a list"),
        ("score", ("o/m", {"text": "?"}, ["x"]), "item 0 is a str, want a dict"),
        ("extract", ("o/m", ["x"]), "item 0 is a str, want a dict"),
    ],
)
def test_what_cannot_be_sent_is_named(method: str, arguments: tuple[Any, ...], message: str) -> None:
    with Script([]) as script, SIEClient(script.url) as client, pytest.raises(TypeError, match=message):
        getattr(client, method)(*arguments)

    assert script.heard == []


def test_labels_that_are_one_text_are_not_taken_for_letters() -> None:
    with SIEClient("http://127.0.0.1:1") as client, pytest.raises(TypeError, match="labels is the text `person`"):
        client.extract("o/m", {"text": "Ada"}, labels="person")


def test_models_are_listed(call: Call) -> None:
    entry = {"name": "o/m", "loaded": True, "a later key": 1}
    models, heard = call("list_models", answer({"models": [entry]}, Format.JSON))
    model, asked = call("get_model", answer(entry, Format.JSON), "o/m")

    assert (models, model) == ([entry], entry)
    assert (heard.path, asked.path) == ("/v1/models", "/v1/models/o/m")
    assert heard.headers["accept"] == "application/json"
    assert "x-sie-timeout-ms" not in heard.headers


def test_listing_is_tried_once(call: Call) -> None:
    with pytest.raises(ServerError) as caught:
        call("list_models", Answer(503, {"content-type": "text/plain"}, b"later"))

    assert caught.value.status_code == 503


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base_url": "localhost:8080"}, "want `http://HOST:PORT`"),
        ({"base_url": "http://"}, "want `http://HOST:PORT`"),
        ({"base_url": "http://host:port"}, "want `http://HOST:PORT`"),
        ({"base_url": "http://h", "timeout_s": 0}, "more than 0 seconds"),
        ({"base_url": "http://h", "pool": {"name": "p", "gpus": {"l4": 1}}}, "does not create"),
    ],
)
@pytest.mark.parametrize("kind", [SIEClient, SIEAsyncClient])
def test_constructor_refuses_what_it_cannot_use(kind: type, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


@pytest.mark.parametrize(
    ("items", "more", "message"),
    [
        (["hello"], {}, "item 0 is a str"),
        ([{"text": "a"}, None], {}, "item 1 is a NoneType"),
        ({"text": "a"}, {"provision_timeout_s": 0}, "more than 0 seconds"),
        ({"text": "a", "metadata": {"x": object()}}, {}, "no form on the wire"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_sending(items: Any, more: dict[str, Any], message: str) -> None:
    with (
        Script([]) as script,
        SIEClient(script.url) as client,
        pytest.raises((TypeError, ValueError), match=message),
    ):
        client.encode("o/m", items, **more)

    assert script.heard == []


@pytest.mark.parametrize("model", ["", "/", "org/", "../models", "org/../../healthz", "org/./name"])
def test_model_that_would_be_another_path_is_refused(model: str) -> None:
    with Script([]) as script, SIEClient(script.url) as client:
        with pytest.raises(ValueError, match="want `org/name`"):
            client.encode(model, {"text": "a"})
        with pytest.raises(ValueError, match="want `org/name`"):
            client.get_model(model)

    assert script.heard == []


def test_both_clients_have_the_same_methods() -> None:
    """But for `max_connections` and `max_concurrency`, which only the awaiting one has."""

    def public(kind: type) -> dict[str, list[str]]:
        named = {name: value for name, value in vars(kind).items() if not name.startswith("_")}
        return {n: list(inspect.signature(v).parameters) for n, v in named.items() if inspect.isfunction(v)}

    assert public(SIEClient) == public(SIEAsyncClient)
    blocking_takes = list(inspect.signature(SIEClient).parameters)
    assert list(inspect.signature(SIEAsyncClient).parameters) == [*blocking_takes, "max_connections", "max_concurrency"]


def test_blocking_client_is_generated_from_the_awaiting_one() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools/unasync.py", "--check"], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_more_calls_than_connections_are_all_answered() -> None:

    async def run(url: str) -> list[Any]:
        async with SIEAsyncClient(url, max_concurrency=2, max_connections=2) as sie:
            return list(await asyncio.gather(*(sie.encode("o/m", {"text": "x"}) for _ in range(12))))

    with Script([answer(ONE)] * 12) as script:
        results = asyncio.run(run(script.url))

    assert len(results) == 12
    assert all(result["dense"].tolist() == [1, 2] for result in results)


def test_importing_the_clients_imports_no_numpy() -> None:
    code = "import sys, sie_sdk; sys.exit('numpy' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_names_of_v0_3_1_are_where_they_were() -> None:
    code = """
from sie_sdk import LoraLoadingError, ModelLoadFailedError, ModelLoadingError, PoolError, ProvisioningError
from sie_sdk import RequestError, ServerError, SIEAsyncClient, SIEClient, SIEConnectionError, SIEError
from sie_sdk.client import SIEAsyncClient, SIEClient, SIEError
from sie_sdk.client.async_ import SIEAsyncClient
from sie_sdk.client.sync import SIEClient
from sie_sdk.client.errors import ResourceExhaustedError
from sie_sdk.exceptions import GatedModelError
from sie_sdk.encoding import dense_embedding, multivector_embedding, normalize_sparse_vector, sparse_embedding
from sie_sdk.encoding import SparseVector, sparse_embedding_dict
from sie_sdk.scoring import maxsim, maxsim_batch
from sie_sdk.images import DEFAULT_JPEG_QUALITY, ImageLike, convert_item_images, to_jpeg_bytes
from sie_sdk.documents import DocumentLike, convert_item_document, infer_document_format, to_document_bytes
from sie_sdk import Entity, ExtractResult, ScoreResult
from sie_sdk.types import EncodeResult, Item, ModelInfo, OutputDType, OutputType, PoolSpec, SparseResult, TimingInfo
from sie_sdk.types import AudioInput, DocumentInput, ImageInput, VideoInput, ModelDims
from sie_sdk.types import Classification, DetectedObject, Entity, Relation, ScoreEntry, ScoreResult, ExtractResult
from sie_sdk.types import ClassificationResult, EntityResult, ObjectResult, RelationResult
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


@given(
    hnp.arrays(st.sampled_from([np.float32, np.float16, np.int8, np.uint8]), hnp.array_shapes(max_dims=1, min_side=0))
)
def test_arrays_come_back_bit_for_bit(array: Any) -> None:
    item = EncodedItem(dense=Dense(array.size, array.dtype.name, array))
    body = encode(EncodeResponse("m", [item]), Format.MSGPACK)
    (result,) = encoded(Reply(200, {"content-type": "application/msgpack"}, body, 0.0), want=1)

    assert result["dense"].dtype == array.dtype
    assert result["dense"].tobytes() == array.tobytes()


@given(st.binary(max_size=60))
def test_answer_of_any_bytes_is_read_or_refused(body: bytes) -> None:
    reply = Reply(200, {"content-type": "application/msgpack"}, body, 0.0)
    for read in (encoded, scored, extracted):
        with pytest.raises(ServerError):
            read(reply, want=1)
