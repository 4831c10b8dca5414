"""The two routes whose body names the model: routed on that name, and forwarded like any other call."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROUTES = ["/v1/embeddings", "/v1/rerank"]
JSON = {"Content-Type": "application/json"}
WIDE = b'{ "input" :  ["a", 7, {"never": "looked into"}],\n "model":"org/two" , "top_n": 1e3 }  '


@pytest.mark.parametrize("path", ROUTES)
def test_bytes_arrive_as_they_were_sent_at_a_worker_that_has_the_model(world: Any, path: str) -> None:
    other = world.worker("w1", models=["org/one"])
    worker = world.worker("w2", models=["org/two"])
    answer = world.gateway(other, worker).ask("POST", path, WIDE, JSON | {"X-Mine": "1"})

    assert (answer.status, answer.body) == (200, WIDE)
    assert answer.headers["X-SIE-Worker"] == "w2"
    assert (worker.calls[0].target, worker.calls[0].body, worker.calls[0].headers["X-Mine"]) == (path, WIDE, "1")
    assert other.calls == []


def test_a_messagepack_body_is_read_too(world: Any) -> None:
    body = msgspec.msgpack.encode({"input": "a", "model": "default:/org/one"})
    answer = world.gateway(world.worker()).ask("POST", ROUTES[0], body, {"Content-Type": "application/msgpack"})

    assert (answer.status, answer.body) == (200, body)


@pytest.fixture
def shared(world: Any) -> Any:
    return world.gateway(world.worker())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60), path=st.sampled_from(ROUTES))
def test_body_of_any_bytes_is_forwarded_or_refused(shared: Any, data: bytes, path: str) -> None:
    for content_type in ("application/json", "application/msgpack"):
        answer = shared.ask("POST", path, data, {"Content-Type": content_type})

        assert (answer.status, answer.code) == (400, "INVALID_INPUT")


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        (b"{", 400, "INVALID_INPUT", "the json body"),
        (b"{}", 400, "INVALID_INPUT", "missing required field `model`"),
        (b'{"model": 7}', 400, "INVALID_INPUT", "$.model"),
        (b'{"model": "../one"}', 400, "INVALID_INPUT", "in the body's `model`"),
        (b'{"model": "org/onne"}', 404, "MODEL_NOT_FOUND", "org/onne"),
        (b'{"model": "fast:/org/one"}', 404, "NOT_FOUND", "bundle `fast`"),
        (b'{"model": "' + b"x" * 2000 + b'"}', 413, "BODY_TOO_LARGE", "1000"),
    ],
)
@pytest.mark.parametrize("path", ROUTES)
def test_errors_have_openais_type(world: Any, path: str, body: bytes, status: int, code: str, words: str) -> None:
    answer = world.gateway(world.worker(), max_body_bytes=1000).ask("POST", path, body, JSON)

    assert (answer.status, answer.code) == (status, code)
    assert words in answer.json["error"]["message"]
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert answer.json["detail"] == answer.json["error"]


@pytest.mark.parametrize("path", ROUTES)
def test_nobody_yet_is_an_error_that_passes_and_no_202(world: Any, path: str) -> None:
    """OpenAI's clients would take a 202 for a result and fail on its body; a 503 they send again."""
    answer = world.open().ask("POST", path, b'{"model": "org/one"}', JSON)

    assert (answer.status, answer.code) == (503, "PROVISIONING")
    assert int(answer.headers["Retry-After"]) >= 5
    assert answer.json["error"]["error"]["code"] == "model_not_available"


def test_machine_profile_and_deadline_are_heeded(world: Any) -> None:
    worker = world.worker()
    door = world.gateway(worker, configured_gpus=("l4",))
    refused = door.ask("POST", ROUTES[0], b'{"model": "org/one"}', JSON | {"X-SIE-Machine-Profile": "h100"})
    answer = door.ask("POST", ROUTES[0], b'{"model": "org/one"}', JSON | {"X-SIE-Timeout-Ms": "60000"})

    assert (refused.status, refused.code) == (503, "GPU_NOT_CONFIGURED")
    assert answer.status == 200
    assert 0 < int(worker.calls[0].headers["X-SIE-Timeout-Ms"]) <= 60000


@pytest.mark.parametrize("path", ROUTES)
def test_only_post_is_taken_and_calls_are_counted_by_route(world: Any, path: str) -> None:
    door = world.gateway(world.worker())
    door.ask("POST", path, b'{"model": "org/one"}', JSON)

    assert door.ask("GET", path).code == "METHOD_NOT_ALLOWED"
    page = door.ask("GET", "/metrics").body.decode()
    assert f'sie_gateway_requests_total{{endpoint="{path.removeprefix("/v1/")}",status="200"}} 1' in page
