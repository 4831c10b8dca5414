"""What an error says, whichever of the known shapes its body has."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.errors import ApiError
from sie_sdk import ModelLoadFailedError, ProvisioningError, RequestError, ServerError, SIEError
from sie_sdk._steps import Reply
from sie_sdk._verdicts import Asked, Patience, judge, read_error

ASKED = Asked("POST", "http://h:8080/v1/encode/org/name", model="org/name", gpu="l4", lora=None)


def reply(status: int, body: object, content_type: str = "application/json", **headers: str) -> Reply:
    packed = msgspec.msgpack.encode(body) if "msgpack" in content_type else msgspec.json.encode(body)
    return Reply(status, {"content-type": content_type, **headers}, packed, 0.0)


def raised(answer: Reply) -> SIEError:
    with pytest.raises(SIEError) as caught:
        judge(answer, ASKED, Patience(for_capacity=False), {})
    return caught.value


SHAPES: list[tuple[object, str | None, str]] = [
    (ApiError("MODEL_NOT_FOUND", "no such", hint="try `a/b`").body(), "MODEL_NOT_FOUND", "no such"),
    ({"detail": {"code": "X", "message": "m"}}, "X", "m"),
    ({"error": {"code": "X", "message": "m"}}, "X", "m"),
    ({"detail": {"error": {"code": "x", "message": "m", "type": "t"}}}, "x", "m"),
    ({"detail": {"error": "content_conflict", "message": "m"}}, "content_conflict", "m"),
    ({"message": "m"}, None, "m"),
    ({"detail": "m"}, None, "m"),
    ({"error": "m", "details": []}, None, "m"),
    ({"detail": [{"loc": ["body"], "msg": "m"}]}, None, "HTTP 404"),
    ({}, None, "HTTP 404"),
    ([1, 2], None, "HTTP 404"),
]


@pytest.mark.parametrize("content_type", ["application/json", "application/msgpack", "application/x-msgpack"])
@pytest.mark.parametrize(("body", "code", "message"), SHAPES)
def test_code_and_message_are_found(body: object, code: str | None, message: str, content_type: str) -> None:
    said = read_error(reply(404, body, content_type))

    assert (said.code, said.message) == (code, message)


def test_code_in_the_header_comes_first() -> None:
    answer = reply(404, {"message": "m"}, **{"x-sie-error-code": "MODEL_NOT_FOUND"})

    assert read_error(answer).code == "MODEL_NOT_FOUND"


def test_message_says_what_where_and_the_next_step() -> None:
    body = ApiError(
        "MODEL_NOT_FOUND", "model `org/name` is not in the catalog", hint="the nearest is `org/names`"
    ).body()
    error = raised(reply(404, body))

    assert str(error) == (
        "model `org/name` is not in the catalog\n"
        "  at    POST http://h:8080/v1/encode/org/name\n"
        "  have  404 MODEL_NOT_FOUND\n"
        "\n"
        "hint: the nearest is `org/names`"
    )
    assert isinstance(error, RequestError)
    assert (error.code, error.status_code) == ("MODEL_NOT_FOUND", 404)


def test_plain_text_is_a_message() -> None:
    error = raised(Reply(500, {"content-type": "text/plain"}, b"upstream gone\n", 0.0))

    assert isinstance(error, ServerError)
    assert str(error).startswith("upstream gone\n  at    POST")


def test_load_failure_says_whether_a_person_must_act() -> None:
    detail = {"code": "MODEL_LOAD_FAILED", "message": "m", "error_class": "OOM", "attempts": 4, "permanent": False}
    error = raised(reply(502, {"detail": detail}))

    assert isinstance(error, ModelLoadFailedError)
    assert (error.model, error.error_class, error.attempts, error.permanent) == ("org/name", "OOM", 4, False)
    assert (error.code, error.status_code) == ("MODEL_LOAD_FAILED", 502)


def test_provisioning_error_says_for_what_and_how_long() -> None:
    error = raised(reply(202, {"status": "provisioning"}, **{"retry-after": "12"}))

    assert isinstance(error, ProvisioningError)
    assert (error.gpu, error.retry_after) == ("l4", 12.0)
    assert str(error).startswith("no worker can serve this call yet")


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["detail", "error", "code", "message", "hint", "status"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(status=st.sampled_from([202, 300, 400, 404, 429, 500, 502, 503, 504]), body=json_like)
def test_no_body_confuses_the_reader(status: int, body: Any) -> None:
    """A body of any shape becomes one of our errors with a message, never a `TypeError` of our own."""
    patience = Patience(for_capacity=False)
    try:
        wait = judge(reply(status, body), ASKED, patience, {})
    except SIEError as error:
        assert str(error)
    else:
        assert wait is not None


@given(st.binary(max_size=40), st.sampled_from(["application/json", "application/msgpack", "text/plain", ""]))
def test_no_bytes_confuse_the_reader(body: bytes, content_type: str) -> None:
    assert read_error(Reply(500, {"content-type": content_type}, body, 0.0)).message
