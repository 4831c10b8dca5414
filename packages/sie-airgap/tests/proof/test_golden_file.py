"""The file of golden answers: what is read is what was written, and nothing else is read."""

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.proof.golden_file import (
    GOLDEN_VERSION,
    Answer,
    Extraction,
    Found,
    Golden,
    GoldenModel,
    Multivector,
    Series,
    Sparse,
    decode_golden,
    dense,
    encode_golden,
    extraction,
    multivector,
    score,
    sparse,
)
from sie_core.artifacts.digest import digest_of
from sie_core.ids import ModelId, Revision

f32 = st.floats(width=32, allow_nan=False)
names = st.text(min_size=1, max_size=5)


def some_found() -> st.SearchStrategy[Found]:
    spans = st.builds(lambda label, text, start: Found(label, text, start, start + len(text)), names, names, st.just(3))
    return st.one_of(st.builds(Found, names), spans)


def of_one_kind() -> st.SearchStrategy[Series]:
    vectors = st.lists(f32, max_size=6).map(np.array)
    dictionaries = st.dictionaries(st.integers(0, 2**31 - 1), f32, max_size=6).map(lambda one: sorted(one.items()))
    weights = dictionaries.map(lambda one: sparse(np.array([key for key, _ in one]), np.array([v for _, v in one])))
    matrices = st.lists(st.tuples(f32, f32), max_size=4).map(lambda rows: multivector(np.array(rows)))
    return st.one_of(
        vectors.map(lambda one: Series("dense", (Answer("a", "x", said=dense(one)),))),
        weights.map(lambda one: Series("sparse", (Answer("a", "x", said=one),))),
        matrices.map(lambda one: Series("multivector", (Answer("a", "x", said=one),))),
        f32.map(lambda one: Series("score", (Answer("a", "x", said=score(one)),), query="q")),
        st.dictionaries(some_found(), f32, max_size=4).map(
            lambda one: Series("extract", (Answer("a", "x", said=extraction(one)),), labels=("l",), threshold=0.3)
        ),
        st.just(Series("dense", (Answer("a", "x", error="INVALID_INPUT"),))),
    )


def golden(*series: Series) -> Golden:
    model = GoldenModel(ModelId("org/model"), Revision("ab" * 20), series, "f32", "a CPU")
    return Golden(GOLDEN_VERSION, digest_of(b"lock"), {"machine": "x"}, (model,))


@given(st.lists(of_one_kind(), max_size=4))
def test_golden_answers_come_back_as_they_were(series: list[Series]) -> None:
    written = encode_golden(golden(*series))

    assert decode_golden(written) == golden(*series)
    assert encode_golden(decode_golden(written)) == written


def test_numbers_come_back_bit_for_bit() -> None:
    values = np.array([0.1, -0.0, 1e-45, 3.4e38], np.float32)
    found = extraction({Found("city", "Bern", 5, 9): 0.1, Found("person", "Ada", 0, 3): 0.7})

    assert dense(values).vector.tobytes() == values.tobytes()
    assert sparse(np.array([3, 9]), values[:2]).ids.tolist() == [3, 9]
    assert multivector(values.reshape(2, 2)).matrix.shape == (2, 2)
    assert score(0.1).score == float(np.float32(0.1))
    assert [one.label for one in found.found] == ["person", "city"]
    assert found.values.tolist() == [float(np.float32(0.7)), float(np.float32(0.1))]


def test_what_was_found_is_written_in_one_order_whatever_order_it_came_in() -> None:
    scored = {Found("b", "x", 4, 5): 0.5, Found("a", "x", 4, 5): 0.6, Found("c", "y", 0, 1): 0.7, Found("whole"): 0.8}

    assert extraction(scored) == extraction(dict(reversed(scored.items())))


def test_an_array_is_little_endian_floats_in_base64() -> None:
    (answer,) = json.loads(encode_golden(golden(Series("dense", (Answer("a", "x", said=dense(np.ones(2))),)))))[
        "models"
    ][0]["series"][0]["answers"]

    assert answer == {
        "name": "a",
        "text": "x",
        "said": {"kind": "dense", "values": base64.b64encode(b"\0\0\x80\x3f\0\0\x80\x3f").decode()},
    }


@pytest.mark.parametrize("version", [1, 3])
def test_another_version_is_refused_by_its_number_whatever_is_in_it(version: int) -> None:
    with pytest.raises(ValueError, match=f"of version {version}, this toolkit reads {GOLDEN_VERSION}"):
        decode_golden(json.dumps({"version": version, "models": [{"answers": 1}]}).encode())


def wrong(change: Callable[[dict[str, Any]], object], series: Series) -> bytes:
    loaded = json.loads(encode_golden(golden(series)))
    change(loaded["models"][0]["series"][0])
    return json.dumps(loaded).encode()


DENSE = Series("dense", (Answer("a", "x", said=dense(np.ones(2))),))
SCORE = Series("score", (Answer("a", "x", said=score(1)),), query="q")


@pytest.mark.parametrize(
    ("change", "series", "says"),
    [
        (lambda one: one["answers"][0]["said"].update(values="AAAA"), DENSE, "3 bytes are no numbers of 4"),
        (lambda one: one.update(kind="sparse"), DENSE, "`a` is of the kind `dense`, among `sparse`"),
        (lambda one: one.update(kind="colbert"), DENSE, "colbert"),
        (lambda one: one["answers"][0].pop("said"), DENSE, "`a` wants an answer or an error"),
        (lambda one: one["answers"][0].update(error="INVALID_INPUT"), DENSE, "`a` wants an answer or an error"),
        (lambda one: one.update(query="q"), DENSE, "a query belongs to scores"),
        (lambda one: one.pop("query"), SCORE, "a query belongs to scores"),
        (lambda one: one.update(mood="good"), DENSE, "mood"),
    ],
)
def test_what_no_recording_wrote_is_refused(change: Callable[[Any], object], series: Series, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decode_golden(wrong(change, series))


def test_numbers_that_do_not_fit_together_are_refused() -> None:
    four = b"\0\0\0\0"
    with pytest.raises(ValueError, match="8 bytes of indices and 4 of values"):
        Sparse(four * 2, four)
    with pytest.raises(ValueError, match="indices do not ascend"):
        sparse(np.array([4, 4]), np.ones(2))
    with pytest.raises(ValueError, match="12 bytes are no 2 rows"):
        Multivector(2, four * 3)
    with pytest.raises(ValueError, match="4 bytes of scores, for 2 found"):
        Extraction((Found("a"), Found("b")), four)
    with pytest.raises(ValueError, match="found twice"):
        Extraction((Found("a"), Found("a")), four * 2)
