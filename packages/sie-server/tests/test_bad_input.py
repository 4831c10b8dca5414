"""What callers get wrong, and what they are told: the status, the code, the place, both values, the next step."""

from typing import Any

import msgspec
import pytest

from sie_core.http.asgi import Message
from sie_testing.site import Caller, spec

ENCODE = "/v1/encode/acme/tiny"
GOOD = {"items": [{"text": "a"}]}


def test_an_unknown_model_is_404_with_the_nearest_ids(site: Any) -> None:
    reply = site.post("/v1/encode/acme/tiney", GOOD)

    assert reply.status == 404
    assert reply.headers["x-sie-error-code"] == "MODEL_NOT_FOUND"
    assert reply.error["message"] == "model `acme/tiney` is not in the catalog"
    assert reply.error["nearest"][0] == "acme/tiny"
    assert "`acme/tiny`" in reply.error["hint"]
    assert reply.json["detail"] == reply.json["error"]


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        (ENCODE, {"items": [{"text": ""}] * 65_537}, "items"),
        ("/v1/embeddings", {"model": "acme/tiny", "input": [""] * 65_537}, "input"),
    ],
)
def test_more_items_than_a_call_may_have_are_refused_with_both_counts(
    sites: Any, path: str, body: Any, name: str
) -> None:
    made = sites(max_body_bytes=10_000_000)
    made.load(spec())
    reply = made.post(path, body)

    assert reply.status == 400
    assert reply.error["message"] == f"`{name}` has 65537 items, and a call may have 65536"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"items": []}, "INVALID_INPUT", "`items` is empty, want at least one item"),
        ({"items": [{"text": "a"}, {"id": "b"}]}, "INVALID_INPUT", "`items[1]` has no `text`"),
        (
            {"items": [{"text": "a"}, {"images": [{"data": "AAAA"}]}]},
            "INVALID_INPUT",
            "`items[1].images` is there, and model `acme/tiny` takes text only",
        ),
        (
            {"items": [{"text": "a"}, {"text": 7}]},
            "INVALID_INPUT",
            "the json body is not what was expected: expected `str | null`, got `int` - at `$.items[1].text`",
        ),
        (
            {"items": "a"},
            "INVALID_INPUT",
            "the json body is not what was expected: expected `array`, got `str` - at `$.items`",
        ),
        (
            {"text": "a"},
            "INVALID_INPUT",
            "the json body is not what was expected: object missing required field `items`",
        ),
        (
            GOOD | {"params": {"output_types": ["dense", "sparse"]}},
            "OUTPUT_UNSUPPORTED",
            "model `acme/tiny` has no `sparse` output",
        ),
        (
            GOOD | {"params": {"options": {"is_query": "yes"}}},
            "INVALID_INPUT",
            "`params.options.is_query` is 'yes', want true or false",
        ),
        (GOOD | {"params": {"options": {"profile": "x"}}}, "INVALID_INPUT", "model `acme/tiny` has no variant `x`"),
    ],
)
def test_what_cannot_be_meant_is_400_and_says_where(site: Any, body: object, code: str, message: str) -> None:
    reply = site.post(ENCODE, body)

    assert reply.status == 400
    assert reply.headers["x-sie-error-code"] == code
    assert (reply.error["code"], reply.error["message"]) == (code, message)


def test_an_unsupported_output_names_what_the_model_has(site: Any) -> None:
    reply = site.post(ENCODE, GOOD | {"params": {"output_types": ["sparse"]}})

    assert reply.error["hint"] == "it has `dense`"


def test_an_unknown_dtype_is_refused_with_the_place(site: Any) -> None:
    reply = site.post(ENCODE, GOOD | {"params": {"output_dtype": "float8"}})

    assert reply.status == 400
    assert "'float8'" in reply.error["message"]
    assert "$.params.output_dtype" in reply.error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'"items"', b'{"items": [{"text": "\xff"}]}'])
@pytest.mark.parametrize("content_type", ["application/json", "application/msgpack", "text/plain"])
def test_bytes_that_are_no_request_are_400(site: Any, body: bytes, content_type: str) -> None:
    reply = site.post(ENCODE, body, {"content-type": content_type})

    assert (reply.status, reply.error["code"]) == (400, "INVALID_INPUT")


@pytest.mark.parametrize("verb", ["score", "extract"])
def test_a_task_that_the_model_does_not_declare_is_400(site: Any, verb: str) -> None:
    query = {"query": {"text": "a"}} if verb == "score" else {}
    reply = site.post(f"/v1/{verb}/acme/tiny", query | {"items": [{"text": "b"}]})

    assert (reply.status, reply.error["code"]) == (400, "INVALID_INPUT")
    assert reply.error["message"] == f"model `acme/tiny` does not declare the task `{verb}`"
    assert reply.error["hint"] == "it declares `encode`, with `dense`"


def test_an_announced_body_over_the_limit_is_413_before_a_byte_of_it_is_read(site: Any) -> None:
    caller = Caller([{"type": "http.request", "body": b"x" * 1000, "more_body": True}])
    headers = {"content-type": "application/json", "content-length": "100001"}
    reply = site.run(site.asking(caller, "POST", ENCODE, headers))

    assert (reply.status, reply.error["code"]) == (413, "BODY_TOO_LARGE")
    assert (reply.error["size_bytes"], reply.error["limit_bytes"]) == (100_001, 100_000)
    assert caller.read == 0


def test_a_body_in_chunks_is_413_as_soon_as_it_is_over_the_limit(site: Any) -> None:
    parts: list[Message] = [{"type": "http.request", "body": b"x" * 60_000, "more_body": True} for _ in range(10)]
    caller = Caller(parts)
    reply = site.run(site.asking(caller, "POST", ENCODE, {"content-type": "application/json"}))

    assert reply.status == 413
    assert caller.read == 2


def test_a_call_for_another_machine_is_refused_with_both_profiles(sites: Any) -> None:
    reply = sites(machine_profile="l4").post(ENCODE, GOOD, {"x-sie-machine-profile": "a100"})

    assert (reply.status, reply.error["code"]) == (400, "INVALID_INPUT")
    assert (reply.error["requested_profile"], reply.error["worker_identity"]) == ("a100", "l4")


def test_a_worker_that_was_told_no_profile_takes_calls_for_any(site: Any) -> None:
    assert site.post(ENCODE, GOOD, {"x-sie-machine-profile": "l4"}).status == 200


def test_the_machine_is_checked_before_the_body(sites: Any) -> None:
    caller = Caller([])
    headers = {"x-sie-machine-profile": "a100", "content-length": "999999999"}
    reply = sites_reply(sites, caller, headers)

    assert reply.error["worker_identity"] == "l4"


def sites_reply(sites: Any, caller: Caller, headers: dict[str, str]) -> Any:
    site = sites(machine_profile="l4")
    return site.run(site.asking(caller, "POST", ENCODE, headers))


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", ENCODE, 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/v1/models", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/nothing", 404, "NOT_FOUND"),
        ("GET", "/v1/models/acme/none", 404, "MODEL_NOT_FOUND"),
        ("GET", "/v1/embeddings", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/ws/status", 501, "NOT_IMPLEMENTED"),
        ("POST", "/v1/encode/../etc/passwd", 400, "INVALID_INPUT"),
    ],
)
def test_routes_that_are_not_there_say_so(site: Any, method: str, path: str, status: int, code: str) -> None:
    reply = site.run(site.asking(Caller([]), method, path, {}))

    assert (reply.status, reply.error["code"]) == (status, code)


def test_a_token_is_wanted_where_one_is_set(sites: Any) -> None:
    from sie_core.http.auth import configure

    site = sites(auth=configure("token", ["s3cret"]))

    assert site.post(ENCODE, GOOD).error["code"] == "UNAUTHORIZED"
    assert site.post(ENCODE, GOOD, {"authorization": "Bearer s3cret"}).error["code"] == "MODEL_LOADING"
    assert site.get("/healthz").status == 200


def test_what_the_caller_sent_is_not_in_a_bugs_answer(sites: Any, caplog: Any) -> None:
    site = sites(machine_profile="l4")
    site.engine.residency.look = lambda spec: 1 / 0
    reply = site.post(ENCODE, {"items": [{"text": "secret words"}]}, {"x-request-id": "call-8"})

    assert (reply.status, reply.error["code"]) == (500, "INTERNAL_ERROR")
    assert "call-8" in reply.error["message"]
    assert "secret words" not in caplog.text
    assert msgspec.json.decode(reply.body)["detail"]["code"] == "INTERNAL_ERROR"
