"""`POST /v1/embeddings` and `POST /v1/rerank`, as programs that know nothing of SIE call them."""

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sie_core.catalog.spec import DenseHead, ModelSpec, ScoreHead, SparseHead
from sie_server.api.openai import shortened
from sie_server.models.calls import Encode, LoadError, Tokens
from sie_testing.site import OTHER, TINY, Caller, Site
from sie_testing.tiny import FIRST, LAST, TinyModel

EMBEDDINGS, RERANK = "/v1/embeddings", "/v1/rerank"
BOTH = ModelSpec(id=TINY, dense=DenseHead(), score=ScoreHead("vectors"))
SPARSE = ModelSpec(id=OTHER, sparse=SparseHead("splade"))


@pytest.fixture
def site(sites: Any, model: TinyModel) -> Site:
    made: Site = sites(model, specs=(BOTH, SPARSE))
    made.load(BOTH)
    return made


def vector(given: str | Tokens) -> Any:
    model = TinyModel()
    return model.output(model.prepare(Encode((given,)))[0]).dense


def embedded(site: Site, given: Any, **more: Any) -> Any:
    reply = site.post(EMBEDDINGS, {"model": TINY, "input": given} | more)
    assert reply.status == 200, reply.json
    return reply.json


def test_a_text_is_embedded_as_openai_answers(site: Site) -> None:
    found = embedded(site, "hello world", user="someone")

    assert (found["object"], found["model"]) == ("list", TINY)
    (entry,) = found["data"]
    assert (entry["object"], entry["index"]) == ("embedding", 0)
    np.testing.assert_array_equal(np.float32(entry["embedding"]), vector("hello world"))


def test_several_texts_keep_their_order_and_their_tokens_are_counted(site: Site) -> None:
    """v0.3.1 guessed: four characters a token."""
    found = embedded(site, ["one", "two words", ""])

    assert [entry["index"] for entry in found["data"]] == [0, 1, 2]
    np.testing.assert_array_equal(np.float32(found["data"][1]["embedding"]), vector("two words"))
    assert found["usage"] == {"prompt_tokens": 3 + 4 + 2, "total_tokens": 9}


def test_token_ids_run_as_they_are(site: Site) -> None:
    """v0.3.1 turned them into text, or into a placeholder."""
    ids = [FIRST, 7, 8, LAST]
    one, several = embedded(site, ids), embedded(site, [ids, [5]])

    np.testing.assert_array_equal(np.float32(one["data"][0]["embedding"]), vector(Tokens((FIRST, 7, 8, LAST))))
    np.testing.assert_array_equal(np.float32(several["data"][1]["embedding"]), vector(Tokens((5,))))
    assert several["data"][0] == one["data"][0]
    assert several["usage"]["prompt_tokens"] == 5


def test_base64_holds_the_same_float32(site: Site) -> None:
    plain, packed = embedded(site, "a b"), embedded(site, "a b", encoding_format="base64")
    bits = base64.b64decode(packed["data"][0]["embedding"])

    np.testing.assert_array_equal(np.frombuffer(bits, "<f4"), np.float32(plain["data"][0]["embedding"]))


def test_dimensions_cut_and_the_length_is_one_again(site: Site) -> None:
    whole = np.array(embedded(site, "a b")["data"][0]["embedding"], np.float32)
    cut = np.array(embedded(site, "a b", dimensions=3)["data"][0]["embedding"], np.float32)

    np.testing.assert_allclose(cut, whole[:3] / np.linalg.norm(whole[:3]), rtol=1e-6)
    assert embedded(site, "a b", dimensions=8) == embedded(site, "a b")


@given(hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(-9, 9, width=32)), st.data())
def test_what_is_left_of_a_vector_points_where_it_did(found: Any, data: Any) -> None:
    dimensions = data.draw(st.integers(1, len(found)))
    cut = shortened(found, dimensions)

    assert cut.dtype == np.float32
    assert cut.shape == (dimensions,)
    if dimensions < len(found) and np.linalg.norm(found[:dimensions]) > 1e-3:
        assert np.linalg.norm(cut) == pytest.approx(1, abs=1e-5)
    if dimensions == len(found):
        assert cut is found


def test_answers_are_json_whatever_is_accepted(site: Site) -> None:
    headers = {"accept": "application/msgpack"}
    reply = site.post(EMBEDDINGS, {"model": TINY, "input": "a"}, headers)

    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-sie-model-revision"] == "1" * 40
    assert float(reply.headers["x-total-time"]) >= 0


def test_documents_are_ranked(site: Site) -> None:
    documents: list[Any] = ["one", {"text": "two words"}, "three small words"]
    scored = site.post(
        "/v1/score/acme/tiny",
        {"query": {"text": "what"}, "items": [{"text": "one"}, {"text": "two words"}, {"text": "three small words"}]},
    ).json["scores"]
    found = site.post(RERANK, {"model": TINY, "query": "what", "documents": documents}).json

    assert (found["model"], found["object"]) == (TINY, "list")
    assert [(f"item-{one['index']}", one["relevance_score"]) for one in found["results"]] == [
        (one["item_id"], one["score"]) for one in scored
    ]
    assert "document" not in found["results"][0]
    assert found["usage"]["total_tokens"] == 4 + 5 + 6


def test_the_best_few_come_with_their_texts_where_that_is_asked(site: Site) -> None:
    body = {"model": TINY, "query": {"text": "what"}, "documents": ["one", {"text": "two"}, "three"]}
    whole = site.post(RERANK, body).json["results"]
    found = site.post(RERANK, body | {"top_n": 2, "return_documents": True}).json["results"]

    assert [one["index"] for one in found] == [one["index"] for one in whole[:2]]
    assert [one["document"] for one in found] == [{"text": ["one", "two", "three"][one["index"]]} for one in found]
    assert len(site.post(RERANK, body | {"top_n": 9}).json["results"]) == 3


LONG_IDS = [5] * 17


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "words"),
    [
        (EMBEDDINGS, {"input": "a"}, 400, "INVALID_INPUT", "missing required field `model`"),
        (EMBEDDINGS, {"model": "a b", "input": "a"}, 400, "INVALID_INPUT", "in the body's `model`"),
        (EMBEDDINGS, {"model": "acme/tiney", "input": "a"}, 404, "MODEL_NOT_FOUND", "acme/tiney"),
        (EMBEDDINGS, {"model": TINY, "input": []}, 400, "INVALID_INPUT", "`input` is empty"),
        (EMBEDDINGS, {"model": TINY, "input": 7}, 400, "INVALID_INPUT", "$.input"),
        (EMBEDDINGS, {"model": TINY, "input": ["a", 7]}, 400, "INVALID_INPUT", "token ids beside texts"),
        (EMBEDDINGS, {"model": TINY, "input": ["a", [7]]}, 400, "INVALID_INPUT", "texts and lists of token ids"),
        (
            EMBEDDINGS,
            {"model": TINY, "input": [[7], []]},
            400,
            "INVALID_INPUT",
            "`input[1]` has 0 token ids",
        ),
        (EMBEDDINGS, {"model": TINY, "input": LONG_IDS}, 400, "INVALID_INPUT", "has 17 token ids, want 1 to 16"),
        (EMBEDDINGS, {"model": TINY, "input": "a", "dimensions": 9}, 400, "INVALID_INPUT", "`dimensions` is 9"),
        (EMBEDDINGS, {"model": TINY, "input": "a", "dimensions": 0}, 400, "INVALID_INPUT", "have 8"),
        (EMBEDDINGS, {"model": TINY, "input": "a", "encoding_format": "hex"}, 400, "INVALID_INPUT", "encoding_format"),
        (RERANK, {"model": TINY, "query": "a", "documents": []}, 400, "INVALID_INPUT", "`documents` is empty"),
        (RERANK, {"model": TINY, "query": "a", "documents": ["b"], "top_n": 0}, 400, "INVALID_INPUT", "`top_n` is 0"),
        (RERANK, {"model": TINY, "documents": ["b"]}, 400, "INVALID_INPUT", "`query`"),
        (RERANK, {"model": OTHER, "query": "a", "documents": ["b"]}, 400, "INVALID_INPUT", "the task `score`"),
    ],
)
def test_errors_are_read_by_clients_of_openai_and_of_v0_3_1(
    site: Site, path: str, body: Any, status: int, code: str, words: str
) -> None:
    reply = site.post(path, body)

    assert (reply.status, reply.error["code"], reply.headers["x-sie-error-code"]) == (status, code, code)
    assert words in reply.error["message"]
    assert reply.error["type"] == "invalid_request_error"
    assert reply.json["detail"]["error"]["message"] == reply.error["message"]
    assert reply.json["detail"]["error"]["type"] == "invalid_request_error"


def test_a_model_without_vectors_says_what_it_has_before_it_is_loaded(site: Site) -> None:
    reply = site.post(EMBEDDINGS, {"model": OTHER, "input": "a"})

    assert (reply.status, reply.error["code"]) == (400, "OUTPUT_UNSUPPORTED")
    assert (reply.error["hint"], reply.error["error"]["code"]) == ("it has `sparse`", "no_embedding")
    assert OTHER not in site.engine.residency.states()


def test_unknown_keys_are_reported(site: Site) -> None:
    reply = site.post(RERANK, {"model": TINY, "query": "a", "documents": ["b"], "max_chunks": 3})

    assert reply.headers["x-sie-warnings"] == "ignored unknown keys: max_chunks"


def test_calls_are_counted_by_their_route_and_their_model(site: Site) -> None:
    embedded(site, "a")
    site.post(EMBEDDINGS, {"model": "acme/none", "input": "a"})
    site.post(RERANK, b"{")
    page = site.get("/metrics").body.decode()

    assert 'sie_requests_total{model="acme/tiny",endpoint="embeddings",status="200"} 1' in page
    assert 'sie_requests_total{model="unknown",endpoint="embeddings",status="404"} 1' in page
    assert 'sie_requests_total{model="unknown",endpoint="rerank",status="400"} 1' in page


def test_a_call_waits_while_its_model_is_loaded(sites: Any) -> None:
    """OpenAI's clients take nothing but a result for an answer to come back to."""
    site: Site = sites(specs=(BOTH,))
    reply = site.post(EMBEDDINGS, {"model": TINY, "input": "a"})

    assert reply.status == 200
    assert site.post("/v1/encode/acme/tiny", {"items": [{"text": "a"}]}).status == 200


def test_a_load_that_fails_is_told_at_once(sites: Any) -> None:
    site: Site = sites(LoadError("no `config.json`"), specs=(BOTH,))
    reply = site.post(EMBEDDINGS, {"model": TINY, "input": "a"})

    assert (reply.status, reply.error["code"]) == (502, "MODEL_LOAD_FAILED")
    assert (reply.error["type"], reply.error["error"]["code"]) == ("server_error", "model_not_available")


def never_ends(site: Any) -> None:
    """Whatever is loaded from now on."""
    site.engine.residency.begin = lambda spec: None


def test_a_wait_ends_with_the_callers_deadline(sites: Any) -> None:
    site: Site = sites(specs=(BOTH,))
    never_ends(site)
    reply = site.post(EMBEDDINGS, {"model": TINY, "input": "a"}, {"x-sie-timeout-ms": "1"})

    assert (reply.status, reply.error["code"]) == (503, "MODEL_LOADING")
    assert reply.headers["retry-after"] == "5"


def test_a_wait_ends_when_the_caller_hangs_up_or_the_worker_stops(sites: Any) -> None:
    site: Site = sites(specs=(BOTH,))
    never_ends(site)
    body = b'{"model": "acme/tiny", "input": "a"}'
    caller = Caller([{"type": "http.request", "body": body, "more_body": False}])
    caller.hung_up.set()

    async def hung_up() -> None:
        scope = {"type": "http", "method": "POST", "path": EMBEDDINGS, "query_string": b"", "headers": []}
        await site.worker(scope, caller.receive, caller.send)

    site.run(hung_up())
    assert caller.sent == []
    site.drain.begun = True
    assert site.post(EMBEDDINGS, {"model": TINY, "input": "a"}).error["code"] == "MODEL_LOADING"
