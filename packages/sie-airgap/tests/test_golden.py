"""Grades: a right model passes on any CPU, a wrong one never does."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.golden import Answer, Golden, GoldenModel, compare, compared, decode_golden, encode_golden, record
from sie_airgap.grading import Grade, Vector, grade, ranks_hold, tells_apart
from sie_core.artifacts.digest import digest_of
from sie_core.ids import ModelId, Revision
from sie_core.wire import arrays
from sie_testing.carried import locked_model
from sie_testing.web import Answer as Answered
from sie_testing.web import Request, json_answer, serving

DIMS = 384
seeds = st.integers(0, 1000)


def unit(seed: int, dims: int = DIMS) -> Vector:
    vector = np.random.default_rng(seed).standard_normal(dims)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def as_bf16(vector: Vector) -> Vector:
    """Each number cut to bfloat16's eight bits of mantissa."""
    return (vector.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def model(vectors: list[Vector], precision: str | None = "f32") -> GoldenModel:
    answers = tuple(Answer(f"t{n}", f"text {n}", dense=vector.tobytes()) for n, vector in enumerate(vectors))
    return GoldenModel(ModelId("org/model"), Revision("ab" * 20), answers, precision, "a CPU")


@given(seeds)
def test_an_answer_is_identical_to_itself(seed: int) -> None:
    assert grade(unit(seed), unit(seed), in_bf16=False).grade is Grade.IDENTICAL


@given(seeds, st.floats(1e-8, 1e-5))
def test_rounding_of_float32_stays_within_float32(seed: int, amount: float) -> None:
    moved = unit(seed)
    moved[seed % DIMS] += np.float32(amount * 0.9)

    assert grade(unit(seed), moved, in_bf16=False).grade <= Grade.WITHIN_F32


@given(seeds)
def test_bfloat16_is_not_taken_for_float32(seed: int) -> None:
    assert grade(unit(seed), as_bf16(unit(seed)), in_bf16=True).grade is Grade.WITHIN_BF16
    assert grade(unit(seed), as_bf16(unit(seed)), in_bf16=False).grade is Grade.DIFFERENT


@given(seeds)
def test_another_vector_is_different(seed: int) -> None:
    assert grade(unit(seed), unit(seed + 1), in_bf16=True).grade is Grade.DIFFERENT


@pytest.mark.parametrize("wrong", [np.zeros(DIMS), np.full(DIMS, np.nan), np.ones(DIMS - 1), -unit(3)])
def test_what_is_no_answer_is_different(wrong: Vector) -> None:
    assert grade(unit(3), wrong.astype(np.float32), in_bf16=True).grade is Grade.DIFFERENT


@pytest.mark.parametrize(
    ("recorded", "now", "expected"),
    [
        ("f32", "f32", Grade.DIFFERENT),
        ("f32", "bf16", Grade.WITHIN_BF16),
        ("bf16", "f32", Grade.WITHIN_BF16),
        ("f32", "bf16,f32", Grade.WITHIN_BF16),
        (None, None, Grade.DIFFERENT),
    ],
)
def test_the_envelope_of_bfloat16_is_for_bfloat16(recorded: str | None, now: str | None, expected: Grade) -> None:
    """Between two float32 runs a difference of that size is another model: a converted checkpoint, above all."""
    vectors = [unit(seed) for seed in range(4)]
    found = compared(model(vectors, recorded), model([as_bf16(one) for one in vectors]).answers, precision=now)

    assert found.grade is expected
    assert f"; {recorded or 'unknown precision'} recorded, {now or 'unknown precision'} here)" in next(found.lines())


def test_a_perturbed_tensor_is_caught() -> None:
    """Every answer moved a little, in a direction of its own: each still near, all together another model."""
    recorded = model([unit(seed) for seed in range(8)])
    rng = np.random.default_rng(0)
    moved = [unit(seed) + 0.1 * rng.standard_normal(DIMS).astype(np.float32) / 20 for seed in range(8)]

    now = model([vector.astype(np.float32) for vector in moved]).answers
    assert compared(recorded, now, precision="bf16").grade is Grade.DIFFERENT


def test_answers_in_another_order_are_caught() -> None:
    vectors = [unit(seed) for seed in range(4)]

    assert compared(model(vectors), model(vectors[::-1]).answers, precision="bf16").grade is Grade.DIFFERENT


def test_a_text_refused_on_one_side_only_is_a_difference() -> None:
    recorded = model([unit(1), unit(2)])
    now = (recorded.answers[0], Answer("t1", "text 1", error="INVALID_INPUT"))

    found = compared(recorded, now, precision="f32")
    assert found.grade is Grade.DIFFERENT
    assert "t1: was a vector, is INVALID_INPUT" in "\n".join(found.lines())


def test_a_swapped_ranking_is_caught() -> None:
    base, near, far = np.eye(3, dtype=np.float32)
    recorded = [base, base * 0.9 + near * 0.1, far]

    assert ranks_hold(recorded, recorded)
    assert not ranks_hold(recorded, [base, far, base * 0.9 + near * 0.1])


def test_a_model_that_says_the_same_to_everything_is_void() -> None:
    assert tells_apart([unit(1), unit(2), unit(3)])
    assert not tells_apart([unit(1), unit(1), unit(2)])
    assert not tells_apart([unit(1)])


def test_golden_answers_come_back_as_they_were() -> None:
    golden = Golden(1, digest_of(b"lock"), {"machine": "x"}, (model([unit(1), unit(2)]),))

    assert decode_golden(encode_golden(golden)) == golden
    with pytest.raises(ValueError, match="version 2"):
        decode_golden(encode_golden(golden).replace(b'"version":1', b'"version":2'))


def test_a_recording_keeps_what_it_was_made_in_and_the_same_texts_are_asked_again() -> None:
    """Also texts that a toolkit of another version would not ask by itself."""
    asked: list[str] = []

    def answer(request: Request) -> Answered:
        if request.method == "GET":
            return json_answer({"name": "org/model", "revision": "ab" * 20, "precision": "bf16", "device": "a CPU"})
        (item,) = msgspec.msgpack.decode(request.body.read())["items"]
        asked.append(item["text"])
        dense = {"dims": DIMS, "dtype": "float32", "values": arrays.to_wire(unit(len(item["text"])))}
        body = msgspec.msgpack.encode({"model": "org/model", "items": [{"dense": dense}]})
        return Answered(200, {"Content-Type": "application/msgpack"}, body)

    with serving(answer) as url:
        (recorded,) = record([locked_model("org/model", {"x": b""})], digest_of(b"lock"), url).models
        texts, asked = asked, []
        answers = (*recorded.answers, msgspec.structs.replace(recorded.answers[0], name="own", text="hello w0rld"))
        carried = Golden(1, digest_of(b"lock"), {}, (msgspec.structs.replace(recorded, answers=answers),))
        (found,) = compare(carried, url)

    assert (recorded.precision, recorded.device) == ("bf16", "a CPU")
    assert asked == [*texts, "hello w0rld"]
    assert found.grade is Grade.IDENTICAL
