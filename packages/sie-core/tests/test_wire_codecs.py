import base64
import json
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sie_core.errors import ApiError
from sie_core.wire import codec
from sie_core.wire.arrays import from_wire, is_wire_array, to_wire
from sie_core.wire.codec import Format
from sie_core.wire.messages import (
    Classification,
    Dense,
    DetectedObject,
    EmbeddingsRequest,
    EncodedItem,
    EncodeRequest,
    EncodeResponse,
    Entity,
    ExtractedItem,
    ExtractParams,
    ExtractRequest,
    ExtractResponse,
    Item,
    ItemError,
    Media,
    Named,
    Relation,
    RerankRequest,
    RerankText,
    ScoreEntry,
    ScoreRequest,
    ScoreResponse,
    Timing,
)

DTYPES = ("<f4", "<f2", "|i1", "|u1", "<i4", ">f4", "<i8")
arrays = hnp.arrays(
    dtype=st.sampled_from([np.dtype(name) for name in DTYPES]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)


words = st.text(max_size=8)
counts = st.integers(0, 1 << 40)
numbers = st.floats(allow_nan=False, allow_infinity=False)
maybe_words = st.none() | words
options = st.none() | st.dictionaries(words, st.none() | st.booleans() | st.integers(-9, 9) | words, max_size=3)
media = st.builds(Media, data=st.binary(max_size=20), format=maybe_words, sample_rate=st.none() | counts)
items = st.builds(
    Item,
    id=maybe_words,
    text=maybe_words,
    images=st.none() | st.lists(media, max_size=2),
    document=st.none() | media,
    metadata=options,
)
labels = st.none() | st.lists(words, max_size=3)
boxes = st.lists(counts, min_size=4, max_size=4)
failures = st.just(msgspec.UNSET) | st.builds(ItemError, code=words, message=words, hint=maybe_words)
timings = st.none() | st.builds(Timing, numbers, numbers, numbers, numbers)
places = st.none() | counts
extracted = st.builds(
    ExtractedItem,
    id=words,
    entities=st.lists(st.builds(Entity, words, words, numbers, places, places, st.none() | boxes), max_size=2),
    relations=st.lists(st.builds(Relation, words, words, words, numbers), max_size=2),
    classifications=st.lists(st.builds(Classification, words, numbers), max_size=2),
    objects=st.lists(st.builds(DetectedObject, words, numbers, boxes), max_size=2),
    data=st.dictionaries(words, words, max_size=2),
    error=failures,
)
entries = st.builds(ScoreEntry, item_id=words, score=st.none() | numbers, rank=counts, error=failures)
texts = words | st.builds(RerankText, words)
bodies = st.one_of(
    st.builds(ScoreRequest, query=items, items=st.lists(items, max_size=2), instruction=maybe_words, options=options),
    st.builds(ScoreResponse, model=words, scores=st.lists(entries), query_id=maybe_words, timing=timings),
    st.builds(
        ExtractRequest,
        items=st.lists(items, max_size=2),
        params=st.none() | st.builds(ExtractParams, labels=labels, output_schema=options, options=options),
    ),
    st.builds(ExtractResponse, model=words, items=st.lists(extracted, max_size=2), timing=timings),
    st.builds(
        EmbeddingsRequest,
        model=words,
        input=words | st.lists(words, max_size=2) | st.lists(counts) | st.lists(st.lists(counts), max_size=2),
        encoding_format=st.sampled_from(["float", "base64"]),
        dimensions=st.none() | counts,
    ),
    st.builds(RerankRequest, model=words, query=texts, documents=st.lists(texts, max_size=2), top_n=places),
)


@given(bodies, st.sampled_from(Format))
def test_body_comes_back_from_the_wire_as_it_went(body: msgspec.Struct, fmt: Format):
    assert codec.decode_as(codec.encode(body, fmt), fmt, type(body)) == body


@given(bodies, st.sampled_from(Format))
def test_nothing_that_we_send_is_an_unknown_key(body: msgspec.Struct, fmt: Format):
    assert codec.unknown_keys(codec.encode(body, fmt), fmt, type(body)) == []


@given(bodies, st.sampled_from(Format))
def test_model_is_read_out_of_any_body_that_has_one(body: msgspec.Struct, fmt: Format):
    data = codec.encode(body, fmt)
    if "model" in type(body).__struct_fields__:
        assert codec.decode_as(data, fmt, Named).model == body.model  # type: ignore[attr-defined]
    else:
        with pytest.raises(ApiError, match="missing required field `model`"):
            codec.decode_as(data, fmt, Named)


@given(arrays)
def test_array_comes_back_from_the_wire_as_it_went(array: "np.ndarray[Any, Any]"):
    sent = msgspec.msgpack.decode(codec.encode({"v": array}, Format.MSGPACK))
    back = codec.arrays_decoded(sent)["v"]

    assert back.shape == array.shape
    assert back.dtype == array.dtype.newbyteorder("<")
    assert back.astype(array.dtype).tobytes() == array.tobytes()


def test_keys_of_an_array_are_bytes_as_msgpack_numpy_writes_them():
    raw = codec.encode(np.zeros(2, dtype=np.float32), Format.MSGPACK)

    decoded = msgspec.msgpack.decode(raw)
    assert set(decoded) == {b"nd", b"type", b"kind", b"shape", b"data"}
    assert decoded[b"type"] == "<f4"
    assert decoded[b"kind"] == b""


def test_array_with_text_keys_is_read_too():
    value = {"nd": True, "type": "<f4", "shape": [1], "data": np.float32(3).tobytes()}

    assert is_wire_array(value)
    assert from_wire(value).tolist() == [3.0]


def test_numpy_scalar_is_read_as_an_array_without_dimensions():
    assert from_wire({b"nd": False, b"type": "<f4", b"data": np.float32(2).tobytes()}).item() == 2.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({b"type": "|O"}, "not a plain number"),
        ({b"type": "<f3"}, "not one numpy has"),
        ({b"type": 7}, "not a plain number"),
        ({b"shape": [3]}, "wants 12 bytes, has 8"),
        ({b"shape": [-1]}, "whole number from 0"),
        ({b"shape": [0, 1 << 63], b"data": b""}, "whole number from 0"),
        ({b"shape": [1] * 9}, "at most 8"),
        ({b"data": "text"}, "want bytes"),
    ],
)
def test_map_that_cannot_be_an_array_is_refused_with_both_values(change: dict[bytes, object], said: str):
    with pytest.raises(ValueError, match=said):
        from_wire({**to_wire(np.zeros(2, dtype=np.float32)), **change})


@given(st.binary(max_size=200))
def test_bytes_that_are_no_request_are_refused_and_never_raise_anything_else(data: bytes):
    for kind in ("application/msgpack", "application/json"):
        for struct in (EncodeRequest, ScoreRequest, ExtractRequest, EmbeddingsRequest, RerankRequest, Named):
            with suppress(ApiError):
                codec.decode(data, kind, struct)


def test_wrong_type_is_named_with_its_place_in_the_body():
    with pytest.raises(ApiError) as refused:
        codec.decode(b'{"items":[{"text":7}]}', "application/json", EncodeRequest)

    assert "$.items[0].text" in refused.value.message
    assert "`str | null`, got `int`" in refused.value.message


def test_bytes_are_base64_in_json():
    picture = base64.b64encode(b"\xff\xd8").decode()
    body = json.dumps({"items": [{"images": [{"data": picture}]}]}).encode()

    request = codec.decode(body, "application/json", EncodeRequest)

    assert request.items[0].images is not None
    assert request.items[0].images[0].data == b"\xff\xd8"


def test_json_reply_has_nested_lists():
    reply = EncodeResponse(model="m", items=[EncodedItem(dense=Dense(2, "float32", np.ones(2, dtype=np.float32)))])

    assert json.loads(codec.encode(reply, Format.JSON))["items"][0]["dense"]["values"] == [1.0, 1.0]


def test_unknown_keys_are_found_at_the_top_and_in_params():
    body = codec.encode({"items": [], "colour": 1, "params": {"speed": 2, "instruction": "x"}}, Format.MSGPACK)

    assert codec.unknown_keys(body, Format.MSGPACK, EncodeRequest) == ["colour", "params.speed"]


@pytest.mark.parametrize(
    ("accept", "content_type", "fmt"),
    [
        (None, None, Format.JSON),
        ("*/*", "application/json", Format.JSON),
        ("*/*", "application/msgpack", Format.MSGPACK),
        (None, "application/x-msgpack", Format.MSGPACK),
        ("application/json", "application/msgpack", Format.JSON),
        ("application/msgpack", "application/json", Format.MSGPACK),
        ("application/json, application/msgpack", None, Format.MSGPACK),
    ],
)
def test_reply_is_in_the_format_accepted_and_else_in_that_of_the_request(accept, content_type, fmt):
    assert codec.reply_format(accept, content_type) is fmt


def test_empty_fields_of_an_item_are_not_sent():
    assert codec.encode(Item(text="a"), Format.JSON) == b'{"text":"a"}'


def test_multivector_of_an_item_is_an_array_of_its_own_and_no_unknown_key():
    sent = {"items": [{"text": "a", "multivector": np.ones((2, 3), np.float32)}]}
    request = codec.decode(codec.encode(sent, Format.MSGPACK), "application/msgpack", EncodeRequest)

    assert codec.arrays_decoded(request.items[0].multivector).shape == (2, 3)


def test_bytes_that_are_not_base64_are_named_with_their_place():
    with pytest.raises(ApiError, match=r"base64.*\$\.items\[0\]\.images\[0\]\.data"):
        codec.decode(b'{"items":[{"images":[{"data":"%%%"}]}]}', "application/json", EncodeRequest)


@pytest.mark.parametrize(
    ("body", "struct", "hint"),
    [
        (
            b'{"items":[],"params":{"output_types":["dense","thin"]}}',
            EncodeRequest,
            "want `dense`, `multivector`, `sparse`",
        ),
        (b'{"model":"m","input":"a","encoding_format":"hex"}', EmbeddingsRequest, "want `base64`, `float`"),
        (b'{"items":[],"params":{"output_dtype":7}}', EncodeRequest, None),
        (b'{"items":7}', EncodeRequest, None),
    ],
)
def test_value_that_is_none_of_several_is_answered_with_those(body: bytes, struct: type[Any], hint: str | None):
    with pytest.raises(ApiError) as refused:
        codec.decode(body, "application/json", struct)

    assert refused.value.hint == hint
