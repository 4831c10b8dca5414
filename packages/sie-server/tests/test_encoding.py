"""`POST /v1/encode/{model}` when all is well: both formats, every dtype, order, headers."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sie_core.wire.messages import OUTPUT_DTYPES, OutputDtype
from sie_server.engine.quantise import quantised
from sie_server.models.calls import Encode, Output, Prepared
from sie_testing.site import spec
from sie_testing.tiny import TinyModel

ENCODE = "/v1/encode/acme/tiny"
MSGPACK = {"content-type": "application/msgpack", "accept": "application/msgpack"}


def expected(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    model = TinyModel()
    dense = model.output(model.prepare(Encode((text,)))[0]).dense
    assert dense is not None
    return dense


def test_a_text_becomes_its_vector(site: Any) -> None:
    reply = site.post(ENCODE, {"items": [{"id": "a", "text": "hello world"}]})

    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json["model"] == "acme/tiny"
    (item,) = reply.json["items"]
    assert item["id"] == "a"
    assert item["dense"]["dims"] == 8
    assert item["dense"]["dtype"] == "float32"
    np.testing.assert_array_equal(np.float32(item["dense"]["values"]), expected("hello world"))


class Overflowing(TinyModel):
    """One text becomes no number."""

    def output(self, item: Prepared) -> Output:
        found = super().output(item)
        assert found.dense is not None
        return replace(found, dense=found.dense * np.float32("nan")) if item.item == 1 else found


def test_a_vector_that_is_no_number_is_an_error_in_its_place(sites: Any) -> None:
    made = sites(Overflowing())
    made.load(spec())
    first, second = made.post(ENCODE, {"items": [{"text": "hello"}, {"text": "world"}]}).json["items"]

    assert first["dense"]["dims"] == 8
    assert "dense" not in second
    assert second["error"]["code"] == "INFERENCE_ERROR"
    assert second["error"]["message"] == "the `dense` output has a NaN or an infinity in it"


def test_messagepack_holds_the_same_numbers_bit_for_bit(site: Any) -> None:
    body = msgspec.msgpack.encode({"items": [{"text": "hello world"}]})
    (item,) = site.post(ENCODE, body, MSGPACK).msgpack["items"]

    assert item["dense"]["values"].dtype == np.float32
    np.testing.assert_array_equal(item["dense"]["values"], expected("hello world"))


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/json", "application/json"),
        ("application/x-msgpack", "application/msgpack"),
        ("*/*", "application/json"),
        ("", "application/json"),
    ],
)
def test_the_answer_is_in_the_format_that_was_asked_for(site: Any, accept: str, content_type: str) -> None:
    reply = site.post(ENCODE, {"items": [{"text": "a"}]}, {"accept": accept})

    assert reply.headers["content-type"] == content_type


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(alphabet="ab \n", max_size=120), min_size=1, max_size=40))
def test_results_stand_in_the_order_of_the_items_however_they_were_batched(site: Any, texts: list[str]) -> None:
    reply = site.post(ENCODE, {"items": [{"id": str(number), "text": text} for number, text in enumerate(texts)]})

    assert [item["id"] for item in reply.json["items"]] == [str(number) for number in range(len(texts))]
    for text, item in zip(texts, reply.json["items"], strict=True):
        np.testing.assert_array_equal(np.float32(item["dense"]["values"]), expected(text))


def test_the_headers_say_who_answered_from_which_commit_and_where_the_time_went(site: Any) -> None:
    reply = site.post(ENCODE, {"items": [{"text": "a"}]}, {"x-request-id": "call-7"})

    assert reply.headers["x-sie-server-version"] == "0.3.1"
    assert reply.headers["x-sie-model-revision"] == "1" * 40
    assert reply.headers["x-request-id"] == "call-7"
    phases = ("total", "queue", "tokenization", "inference", "postprocessing")
    assert all(float(reply.headers[f"x-{phase}-time"]) >= 0 for phase in phases)
    assert set(reply.json["timing"]) == {f"{phase}_ms" for phase in phases}


def test_items_that_were_too_long_are_named_in_a_header(site: Any) -> None:
    items = [{"text": "short"}, {"text": "word " * 100}, {"text": "short"}, {"text": "word " * 15}]
    reply = site.post(ENCODE, {"items": items})

    assert reply.status == 200
    assert reply.headers["x-sie-truncated"] == "1,3"


def test_when_nothing_was_too_long_there_is_no_such_header(site: Any) -> None:
    assert "x-sie-truncated" not in site.post(ENCODE, {"items": [{"text": "short"}]}).headers


def test_very_many_truncated_items_do_not_make_an_endless_header(site: Any) -> None:
    reply = site.post(ENCODE, {"items": [{"text": "word " * 20}] * 150})

    assert reply.headers["x-sie-truncated"].endswith(",98,99,+50")


def test_unknown_keys_are_ignored_and_said(site: Any) -> None:
    reply = site.post(ENCODE, {"items": [{"text": "a"}], "modle": 1, "params": {"outputs": ["dense"]}})

    assert reply.status == 200
    assert reply.headers["x-sie-warnings"] == "ignored unknown keys: modle, params.outputs"


def test_an_unknown_key_cannot_smuggle_a_line_into_the_headers(site: Any) -> None:
    reply = site.post(ENCODE, {"items": [{"text": "a"}], "x\r\nset-cookie: a": 1, "ключ": 1})

    assert reply.status == 200
    assert "\n" not in reply.headers["x-sie-warnings"]
    assert "\r" not in reply.headers["x-sie-warnings"]


def test_query_and_instruction_reach_the_model(site: Any) -> None:
    params = {"instruction": "find", "options": {"is_query": True}}
    (item,) = site.post(ENCODE, {"items": [{"text": "a"}], "params": params}).json["items"]

    np.testing.assert_array_equal(np.float32(item["dense"]["values"]), expected("find a ?"))


@pytest.mark.parametrize("dtype", OUTPUT_DTYPES)
def test_every_output_dtype_is_served_and_named(site: Any, dtype: OutputDtype) -> None:
    body = msgspec.msgpack.encode({"items": [{"text": "hello"}], "params": {"output_dtype": dtype}})
    (item,) = site.post(ENCODE, body, MSGPACK).msgpack["items"]

    stored = "uint8" if dtype in ("binary", "ubinary") else dtype
    assert item["dense"]["dtype"] == dtype
    assert item["dense"]["dims"] == 8
    assert item["dense"]["values"].dtype == np.dtype(stored)
    np.testing.assert_array_equal(
        item["dense"]["values"], quantised(expected("hello")[None, :], dtype, constant=128)[0]
    )


rows = st.lists(st.floats(-10, 10, width=32), min_size=9, max_size=9).map(lambda row: np.array([row], np.float32))


@given(rows)
@example(np.array([[0, 1e-40, -1.4e-37]], np.float32))
def test_int8_keeps_the_direction(row: Any) -> None:
    (small,) = quantised(row, "int8", constant=0).astype(np.int16)

    assert np.abs(small).max() == (127 if np.abs(row).max() > 0 else 0)
    assert np.all(np.sign(small) * np.sign(row[0]) >= 0)


@given(rows)
def test_uint8_spans_the_rows_own_range_and_keeps_its_order(row: Any) -> None:
    (small,) = quantised(row, "uint8", constant=128).astype(np.int16)

    if row.min() == row.max():
        assert set(small) == {128}
    else:
        assert (small.min(), small.max()) == (0, 255)
        assert np.all(np.diff(small[np.argsort(row[0], kind="stable")]) >= 0)


@given(rows)
def test_binary_is_one_bit_for_each_positive_number(row: Any) -> None:
    (packed,) = quantised(row, "ubinary", constant=0)

    assert packed.shape == (2,)
    np.testing.assert_array_equal(np.unpackbits(packed)[:9], row[0] > 0)
