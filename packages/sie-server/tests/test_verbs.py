"""`POST /v1/score` and `/v1/extract`, and what a call of any verb may say: variants, outputs, media."""

import base64
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_core.catalog.spec import (
    DenseHead,
    ExtractHead,
    ModelSpec,
    MultivectorHead,
    ScoreHead,
    SparseHead,
    Variant,
)
from sie_core.errors import ApiError
from sie_core.wire import messages as wire
from sie_server.api.reading import Asked, read_call
from sie_server.api.writing import ranking, response
from sie_server.models.calls import Encode, Extract, Extracted, Picture, Score
from sie_testing.site import OTHER, TINY, Site
from sie_testing.site import spec as plain_spec
from sie_testing.tiny import VOCABULARY, TinyModel

SCORE, EXTRACT, ENCODE = (f"/v1/{verb}/acme/tiny" for verb in ("score", "extract", "encode"))
MSGPACK = {"content-type": "application/msgpack", "accept": "application/msgpack"}
WHOLE = ModelSpec(
    id=TINY,
    dense=DenseHead(dim=8),
    sparse=SparseHead("lexical", dim=VOCABULARY),
    multivector=MultivectorHead(dim=8),
    score=ScoreHead("vectors"),
    extract=ExtractHead("spans"),
    max_tokens=16,
    variants={
        "thin": Variant(outputs=("sparse",)),
        "raw": Variant(options={"normalize": False, "output_dtype": "float16"}),
        "odd": Variant(options={"output_dtype": "float8"}),
    },
)
ITEMS = [{"id": "a", "text": "one"}, {"text": "two words"}, {"id": "c", "text": "three small words"}]


@pytest.fixture
def whole(sites: Any) -> Site:
    """A worker whose `acme/tiny` does everything; `acme/other` encodes only and is not loaded."""
    site: Site = sites(
        TinyModel(outputs=("dense", "sparse", "multivector")), specs=(WHOLE, plain_spec(OTHER, max_tokens=7))
    )
    site.load(WHOLE)
    return site


def logit(query: str, text: str) -> float:
    model = TinyModel()
    (prepared,) = model.prepare(Score(query, (text,)))
    logits = model.output(prepared).logits
    assert logits is not None
    return float(logits[0])


def test_scores_come_best_first_with_ids_and_ranks(whole: Site) -> None:
    reply = whole.post(SCORE, {"query": {"id": "q", "text": "what"}, "items": ITEMS})
    found = reply.json

    scores = {name: logit("what", item["text"]) for name, item in zip(("a", "item-1", "c"), ITEMS, strict=True)}
    assert (reply.status, found["model"], found["query_id"]) == (200, "acme/tiny", "q")
    assert [entry["rank"] for entry in found["scores"]] == [0, 1, 2]
    assert [entry["item_id"] for entry in found["scores"]] == sorted(scores, key=lambda name: -scores[name])
    assert all(entry["score"] == scores[entry["item_id"]] for entry in found["scores"])


@pytest.mark.parametrize("path", [SCORE, EXTRACT])
def test_every_verb_says_where_its_time_went_and_who_answered(whole: Site, path: str) -> None:
    body = {"query": {"text": "?"}, "items": ITEMS, "colour": 1}
    body = body if path == SCORE else {"items": ITEMS, "params": {"labels": ["two"]}, "colour": 1}
    reply = whole.post(path, body, {"x-request-id": "call-7"})
    phases = ("total", "queue", "tokenization", "inference", "postprocessing")

    assert set(reply.json["timing"]) == {f"{phase}_ms" for phase in phases}
    assert all(float(reply.headers[f"x-{phase}-time"]) >= 0 for phase in phases)
    assert reply.headers["x-sie-model-revision"] == "1" * 40
    assert reply.headers["x-sie-warnings"] == "ignored unknown keys: colour"
    assert reply.headers["x-request-id"] == "call-7"


def test_both_formats_hold_the_same_scores(whole: Site) -> None:
    body = {"query": {"text": "what"}, "items": ITEMS}
    packed = whole.post(SCORE, msgspec.msgpack.encode(body), MSGPACK).msgpack

    assert packed["scores"] == whole.post(SCORE, body).json["scores"]


def test_what_is_extracted_stands_in_the_items_order(whole: Site) -> None:
    reply = whole.post(EXTRACT, {"items": ITEMS, "params": {"labels": ["words", "one"]}})
    first, second, third = reply.json["items"]

    assert [item["id"] for item in reply.json["items"]] == ["a", "item-1", "c"]
    assert first["entities"] == [{"text": "one", "label": "one", "score": 1.0, "start": 0, "end": 3, "bbox": None}]
    assert (second["entities"][0]["start"], third["entities"][0]["start"]) == (4, 12)
    assert (first["relations"], first["classifications"], first["objects"], first["data"]) == ([], [], [], {})
    assert "error" not in first


def test_labels_that_a_model_needs_and_has_not_are_asked_for(whole: Site) -> None:
    reply = whole.post(EXTRACT, {"items": ITEMS})

    assert (reply.status, reply.error["code"]) == (400, "INVALID_INPUT")
    assert "`params.labels` is empty" in reply.error["message"]


def test_several_outputs_come_at_once_each_with_its_size(whole: Site) -> None:
    params = {"output_types": ["sparse", "dense", "multivector", "dense"], "output_dtype": "int8"}
    body = msgspec.msgpack.encode({"items": [{"text": "two words"}], "params": params})
    (item,) = whole.post(ENCODE, body, MSGPACK).msgpack["items"]

    assert (item["dense"]["dims"], item["dense"]["dtype"], item["dense"]["values"].dtype) == (8, "int8", np.int8)
    assert (item["multivector"]["num_tokens"], item["multivector"]["token_dims"]) == (4, 8)
    assert item["multivector"]["values"].dtype == np.int8
    assert (item["sparse"]["dims"], item["sparse"]["dtype"]) == (VOCABULARY, "float32")
    assert item["sparse"]["indices"].dtype == np.int32


def test_options_of_a_variant_come_after_the_calls_own(whole: Site) -> None:
    def encoded(**params: Any) -> Any:
        return whole.post(ENCODE, {"items": [{"text": "a"}], "params": params}).json["items"][0]

    raw = encoded(options={"profile": "raw"})["dense"]
    assert raw["dtype"] == "float16"
    assert np.linalg.norm(raw["values"]) != pytest.approx(1, abs=1e-2)
    mine = encoded(options={"profile": "raw", "normalize": True}, output_dtype="float32")["dense"]
    assert mine == encoded()["dense"] == encoded(options={"profile": "default"})["dense"]
    assert set(encoded(options={"profile": "thin"}, output_types=["dense"])) == {"sparse"}


@pytest.mark.parametrize(
    ("path", "body", "code", "message", "hint"),
    [
        (
            ENCODE,
            {"params": {"options": {"profile": "fat"}}},
            "INVALID_INPUT",
            "model `acme/tiny` has no variant `fat`",
            "`params.options.profile` may be `default`, `thin`, `raw`, `odd`",
        ),
        (
            SCORE,
            {"query": {"text": "q"}, "options": {"profile": ["thin"]}},
            "INVALID_INPUT",
            "model `acme/tiny` has no variant `['thin']`",
            "`options.profile` may be `default`, `thin`, `raw`, `odd`",
        ),
        (
            ENCODE,
            {"params": {"options": {"profile": "odd"}}},
            "INVALID_INPUT",
            "variant `odd` of model `acme/tiny` has `output_dtype: float8`",
            "name one in `params.output_dtype`: `float32`, `float16`, `int8`, `uint8`, `binary`, `ubinary`",
        ),
        (
            SCORE,
            {},
            "INVALID_INPUT",
            "the json body is not what was expected: object missing required field `query`",
            None,
        ),
        (SCORE, {"query": {"id": "q"}}, "INVALID_INPUT", "`query` has no `text`", "model `acme/tiny` takes text"),
        (
            SCORE,
            {"query": {"multivector": [[1.0]]}},
            "INVALID_INPUT",
            "`query` has a `multivector` alone, and no model takes one",
            "`sie_sdk.scoring.maxsim` compares multivectors that are at hand already",
        ),
        (
            EXTRACT,
            {"params": {"labels": "person"}},
            "INVALID_INPUT",
            "the json body is not what was expected: expected `array | null`, got `str` - at `$.params.labels`",
            None,
        ),
        (
            EXTRACT,
            {"items": [{"text": "a"}, {"document": {"data": "AAAA"}}]},
            "INVALID_INPUT",
            "`items[1].document` is there, and model `acme/tiny` takes text only",
            None,
        ),
    ],
)
def test_what_cannot_be_meant_is_named_with_what_can(
    whole: Site, path: str, body: dict[str, Any], code: str, message: str, hint: str | None
) -> None:
    reply = whole.post(path, {"items": [{"text": "a"}]} | body)

    assert (reply.status, reply.error["code"], reply.error["message"]) == (400, code, message)
    assert reply.error.get("hint") == hint


@pytest.mark.parametrize(
    ("path", "body", "hint"),
    [
        (ENCODE, {"params": {"output_types": ["thick"]}}, "want `dense`, `multivector`, `sparse`"),
        (
            ENCODE,
            {"params": {"output_dtype": "float8"}},
            "want `binary`, `float16`, `float32`, `int8`, `ubinary`, `uint8`",
        ),
        (ENCODE, {"items": ["a"]}, 'an item is an object, `{"text": "…"}`'),
        (SCORE, {"query": "a"}, 'an item is an object, `{"text": "…"}`'),
        (EXTRACT, {"labels": ["a"], "params": {"label": ["b"]}}, "ignored unknown keys: `labels`, `params.label`"),
        (
            ENCODE,
            {"outputs": ["dense"], "params": {"options": {"profile": "fat"}}},
            "`params.options.profile` may be `default`, `thin`, `raw`, `odd`; ignored unknown keys: `outputs`",
        ),
    ],
)
def test_common_mistakes_are_told_what_was_wanted(whole: Site, path: str, body: dict[str, Any], hint: str) -> None:
    reply = whole.post(path, {"items": [{"text": "a"}]} | body)

    assert (reply.status, reply.error["hint"]) == (400, hint)


@pytest.mark.parametrize("path", [SCORE, EXTRACT, ENCODE])
def test_no_items_are_refused_before_the_model_is_looked_for(whole: Site, path: str) -> None:
    reply = whole.post(path.replace("tiny", "nobody"), {"query": {"text": "a"}, "items": []})

    assert reply.error["message"] == "`items` is empty, want at least one item"


def test_a_task_that_is_not_declared_is_refused_before_a_model_is_loaded(whole: Site) -> None:
    reply = whole.post("/v1/extract/acme/other", {"items": ITEMS})

    assert reply.error["message"] == "model `acme/other` does not declare the task `extract`"
    assert reply.error["hint"] == "it declares `encode`, with `dense`"
    assert OTHER not in whole.engine.residency.states()


def test_models_are_listed_with_all_that_the_spec_says_before_they_are_loaded(sites: Any) -> None:
    site: Site = sites(specs=(WHOLE,))
    entry = site.get("/v1/models/acme/tiny").json

    assert (entry["state"], entry["loaded"]) == ("available", False)
    assert (entry["inputs"], entry["max_sequence_length"]) == (["text"], 16)
    assert entry["outputs"] == ["dense", "sparse", "multivector", "score", "json"]
    assert entry["dims"] == {"dense": 8, "sparse": VOCABULARY, "multivector": 8}
    assert entry["profiles"] == {
        "default": {"is_default": True},
        "thin": {"is_default": False},
        "raw": {"is_default": False},
        "odd": {"is_default": False},
    }


@pytest.fixture
def reranker() -> ModelSpec:
    return ModelSpec(id=TINY, score=ScoreHead("classify"))


def test_a_reranker_that_encodes_nothing_says_so(sites: Any, reranker: ModelSpec) -> None:
    reply = sites(specs=(reranker,)).post(ENCODE, {"items": ITEMS})

    assert reply.error["message"] == "model `acme/tiny` does not declare the task `encode`"
    assert reply.error["hint"] == "it declares `score`"


def test_a_model_without_a_dense_output_gives_what_it_has(sites: Any) -> None:
    sparse = ModelSpec(id=TINY, sparse=SparseHead("splade"))
    asked = read_call(wire.EncodeRequest([wire.Item(text="a")]), sparse)

    assert isinstance(asked.call, Encode)
    assert asked.call.outputs == ("sparse",)


def test_a_fixed_dimensional_encoding_is_the_dense_output_of_a_multivector_model() -> None:
    muvera = Variant(options={"muvera": {"num_repetitions": 20}})
    colbert = ModelSpec(id=TINY, multivector=MultivectorHead(), variants={"muvera": muvera})

    def outputs(**params: Any) -> tuple[str, ...]:
        call = read_call(wire.EncodeRequest([wire.Item(text="a")], wire.EncodeParams(**params)), colbert).call
        assert isinstance(call, Encode)
        return call.outputs

    assert outputs() == ("multivector",)
    assert outputs(options={"profile": "muvera"}) == ("dense",)
    assert outputs(options={"muvera": {}}, output_types=["multivector", "dense"]) == ("multivector", "dense")
    assert outputs(options={"profile": "muvera", "muvera": None}) == ("multivector",)
    for options in ({"muvera": None}, {"profile": "muvera", "muvera": None}):
        with pytest.raises(ApiError, match="has no `dense` output"):
            outputs(options=options, output_types=["dense"])


def test_a_null_profile_is_none_and_a_null_option_takes_the_variants_away() -> None:
    variant = Variant(options={"normalize": False, "muvera": {}})
    spec = ModelSpec(id=TINY, multivector=MultivectorHead(), variants={"plain": variant})

    def call(**options: Any) -> Encode:
        params = wire.EncodeParams(options=options)
        found = read_call(wire.EncodeRequest([wire.Item(text="a")], params), spec).call
        assert isinstance(found, Encode)
        return found

    assert call(profile=None).variant is None
    assert call(profile="plain", normalize=None).options == {"muvera": {}}
    assert call(profile="plain", normalize=True).options == {"muvera": {}, "normalize": True}


PICTURES = ModelSpec(id=TINY, dense=DenseHead(), inputs=("text", "image"))


def read_items(*items: wire.Item) -> Encode | Score | Extract:
    return read_call(wire.EncodeRequest(list(items)), PICTURES).call


def test_pictures_and_texts_go_to_a_model_that_takes_both() -> None:
    call = read_items(wire.Item(images=[wire.Media(b"\xff\xd8")]), wire.Item(text="a", images=[]))

    assert call.inputs == (Picture(b"\xff\xd8"), "a")


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (wire.Item(text="a", images=[wire.Media(b"x")]), "has `text` and `images`"),
        (wire.Item(images=[wire.Media(b"x"), wire.Media(b"y")]), "has 2 pictures"),
        (wire.Item(images=[wire.Media(b"")]), "data` is empty"),
        (wire.Item(), "has no `text` or `images`"),
        (wire.Item(audio=wire.Media(b"x")), "takes text or pictures only"),
    ],
)
def test_pictures_that_cannot_be_taken_are_named_with_their_item(item: wire.Item, said: str) -> None:
    with pytest.raises(ApiError, match=rf"`items\[1\].*{said}"):
        read_items(wire.Item(text="good"), item)


def test_pictures_are_base64_in_json(sites: Any) -> None:
    site: Site = sites(TinyModel(), specs=(PICTURES,))
    site.load(PICTURES)
    data = base64.b64encode(b"\xff\xd8\xff").decode()

    assert site.post(ENCODE, {"items": [{"images": [{"data": data}]}]}).status == 200
    reply = site.post(ENCODE, {"items": [{"images": [{"data": "no base64"}]}]})
    assert "$.items[0].images[0].data" in reply.error["message"]


FAILED = ApiError("INFERENCE_ERROR", "broken", "send another")
scores = st.lists(st.floats(width=32) | st.just(FAILED), min_size=1, max_size=8)


@given(scores)
def test_ranking_has_every_item_once_and_the_failed_ones_last(results: list[Any]) -> None:
    ranked = ranking(results)
    good = [score for _, score in ranked if not isinstance(score, ApiError)]

    assert sorted(index for index, _ in ranked) == list(range(len(results)))
    assert good == sorted(good, reverse=True)
    assert all(isinstance(score, ApiError) for _, score in ranked[len(good) :])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=6))
def test_equal_scores_stay_in_the_items_order(found: list[float]) -> None:
    doubled = [*found, *found]
    order = [index for index, _ in ranking(doubled)]

    assert all(order.index(index) < order.index(index + len(found)) for index in range(len(found)))


def test_failed_items_stand_in_their_place_with_the_reason() -> None:
    timing = wire.Timing(1, 1, 1, 1)
    extract = Asked(Extract(("a", "b")), ids=["x", None])
    answer = response("m", extract, [Extracted(), FAILED], timing)
    score = Asked(Score("q", ("a", "b")), ids=[None, None])
    scored = response("m", score, [FAILED, 0.5], timing)

    assert isinstance(answer, wire.ExtractResponse)
    assert answer.items[1].error == wire.ItemError("INFERENCE_ERROR", "broken", "send another")
    assert isinstance(scored, wire.ScoreResponse)
    assert [(entry.item_id, entry.score, entry.rank) for entry in scored.scores] == [
        ("item-1", 0.5, 0),
        ("item-0", None, 1),
    ]
    assert scored.scores[1].error == wire.ItemError("INFERENCE_ERROR", "broken", "send another")
