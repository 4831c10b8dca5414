"""Grades: a right model passes on any CPU, a wrong one never does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.golden import Answer, Golden, GoldenModel, compared, decode_golden, encode_golden
from sie_airgap.grading import Grade, Vector, grade, ranks_hold, tells_apart
from sie_core.artifacts.digest import digest_of
from sie_core.ids import ModelId, Revision

DIMS = 384
seeds = st.integers(0, 1000)


def unit(seed: int, dims: int = DIMS) -> Vector:
    vector = np.random.default_rng(seed).standard_normal(dims)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def as_bf16(vector: Vector) -> Vector:
    """Each number cut to bfloat16's eight bits of mantissa."""
    return (vector.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def model(vectors: list[Vector]) -> GoldenModel:
    answers = tuple(Answer(f"t{n}", f"text {n}", dense=vector.tobytes()) for n, vector in enumerate(vectors))
    return GoldenModel(ModelId("org/model"), Revision("ab" * 20), answers)


@given(seeds)
def test_an_answer_is_identical_to_itself(seed: int) -> None:
    assert grade(unit(seed), unit(seed)).grade is Grade.IDENTICAL


@given(seeds, st.floats(1e-8, 1e-5))
def test_rounding_of_float32_stays_within_float32(seed: int, amount: float) -> None:
    moved = unit(seed)
    moved[seed % DIMS] += np.float32(amount * 0.9)

    assert grade(unit(seed), moved).grade <= Grade.WITHIN_F32


@given(seeds)
def test_bfloat16_is_not_taken_for_float32(seed: int) -> None:
    assert grade(unit(seed), as_bf16(unit(seed))).grade is Grade.WITHIN_BF16


@given(seeds)
def test_another_vector_is_different(seed: int) -> None:
    assert grade(unit(seed), unit(seed + 1)).grade is Grade.DIFFERENT


@pytest.mark.parametrize("wrong", [np.zeros(DIMS), np.full(DIMS, np.nan), np.ones(DIMS - 1), -unit(3)])
def test_what_is_no_answer_is_different(wrong: Vector) -> None:
    assert grade(unit(3), wrong.astype(np.float32)).grade is Grade.DIFFERENT


def test_a_perturbed_tensor_is_caught() -> None:
    """Every answer moved a little, in a direction of its own: each still near, all together another model."""
    recorded = model([unit(seed) for seed in range(8)])
    rng = np.random.default_rng(0)
    moved = [unit(seed) + 0.1 * rng.standard_normal(DIMS).astype(np.float32) / 20 for seed in range(8)]

    assert compared(recorded, model([vector.astype(np.float32) for vector in moved]).answers).grade is Grade.DIFFERENT


def test_answers_in_another_order_are_caught() -> None:
    vectors = [unit(seed) for seed in range(4)]

    assert compared(model(vectors), model(vectors[::-1]).answers).grade is Grade.DIFFERENT


def test_a_text_refused_on_one_side_only_is_a_difference() -> None:
    recorded = model([unit(1), unit(2)])
    now = (recorded.answers[0], Answer("t1", "text 1", error="INVALID_INPUT"))

    found = compared(recorded, now)
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
