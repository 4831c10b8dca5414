"""Grades: a right model passes on any CPU, a wrong one never does."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.proof.comparison import Comparison, compared
from sie_airgap.proof.golden_file import (
    Answer,
    Found,
    GoldenModel,
    Kind,
    Said,
    Series,
    Vector,
    dense,
    extraction,
    multivector,
    score,
    sparse,
)
from sie_airgap.proof.grading import Grade, Graded, Terms, grade, ranks_hold, tells_apart
from sie_core.ids import ModelId, Revision

DIMS = 384
IN_F32, IN_BF16 = Terms(in_16_bits=False), Terms(in_16_bits=True)
seeds = st.integers(0, 1000)
ADA, LONDON = Found("person", "Ada", 0, 3), Found("city", "London", 13, 19)


def unit(seed: int, dims: int = DIMS) -> Vector:
    vector = np.random.default_rng(seed).standard_normal(dims)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def rows(seed: int, count: int = 5) -> Vector:
    return np.stack([unit(1000 * seed + row) for row in range(count)])


def as_bf16(vector: Vector) -> Vector:
    """Each number cut to bfloat16's eight bits of mantissa."""
    return (vector.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def weights(seed: int, shift: int = 0) -> tuple[Vector, Vector]:
    """Ids and their weights, as a sparse output has them."""
    random = np.random.default_rng(seed)
    ids = np.sort(random.choice(30_000, 40, replace=False)) + shift
    return ids.astype(np.int32), random.uniform(0.1, 2.5, 40).astype(np.float32)


def model(vectors: list[Vector], precision: str | None = "f32") -> GoldenModel:
    return recorded("dense", [dense(vector) for vector in vectors], precision)


def recorded(kind: Kind, said: list[Said], precision: str | None = "f32") -> GoldenModel:
    answers = tuple(Answer(f"t{n}", f"text {n}", said=one) for n, one in enumerate(said))
    threshold = 0.3 if kind == "extract" else None
    series = Series(kind, answers, query="q" if kind == "score" else None, threshold=threshold)
    return GoldenModel(ModelId("org/model"), Revision("ab" * 20), (series,), precision, "a CPU")


def held(before: GoldenModel, after: GoldenModel) -> Comparison:
    now: Mapping[Kind, tuple[Answer, ...]] = {one.kind: one.answers for one in after.series}
    return compared(before, now, precision=after.precision)


def found(ada: float | None = None, london: float | None = None) -> Said:
    scored = {ADA: ada, LONDON: london}
    return extraction({one: value for one, value in scored.items() if value is not None})


def extracted(before: Said, now: Said, terms: Terms = IN_F32) -> Graded:
    return grade(before, now, Terms(terms.in_16_bits, threshold=0.3))


def anything() -> st.SearchStrategy[Said]:
    """An answer of any kind."""
    numbers = st.floats(-8, 8, width=32)
    return st.one_of(
        st.builds(lambda seed: dense(unit(seed)), seeds),
        st.builds(lambda seed: sparse(*weights(seed)), seeds),
        st.builds(lambda seed, count: multivector(rows(seed, count)), seeds, st.integers(1, 6)),
        st.builds(score, numbers),
        st.builds(lambda a, b: found(a, b), st.floats(0.3125, 1, width=32), st.floats(0.3125, 1, width=32)),
    )


@given(anything(), st.booleans())
def test_an_answer_is_identical_to_itself(said: Said, in_16_bits: bool) -> None:
    assert grade(said, said, Terms(in_16_bits)).grade is Grade.IDENTICAL


@given(anything(), anything(), st.booleans())
def test_a_grade_is_the_same_whichever_side_was_recorded(a: Said, b: Said, in_16_bits: bool) -> None:
    terms = Terms(in_16_bits, threshold=0.3)

    assert grade(a, b, terms).grade is grade(b, a, terms).grade


@given(anything(), anything())
def test_sixteen_bits_forgive_more_and_never_less(a: Said, b: Said) -> None:
    assert grade(a, b, IN_BF16).grade <= grade(a, b, IN_F32).grade


@given(anything(), anything(), st.booleans())
def test_what_is_different_is_told_with_both_values(a: Said, b: Said, in_16_bits: bool) -> None:
    graded = grade(a, b, Terms(in_16_bits))

    assert bool(graded.drift) == (graded.grade is Grade.DIFFERENT)
    assert all(" recorded, " in line and line.endswith(" here") for line in graded.drift)


@given(seeds, st.floats(1e-8, 1e-5))
def test_rounding_of_float32_stays_within_float32(seed: int, amount: float) -> None:
    moved = unit(seed)
    moved[seed % DIMS] += np.float32(amount * 0.9)
    ids, values = weights(seed)
    moved_values = values + np.float32(amount * 5)

    assert grade(dense(unit(seed)), dense(moved), IN_F32).grade <= Grade.WITHIN_F32
    assert grade(multivector(unit(seed)[None]), multivector(moved[None]), IN_F32).grade <= Grade.WITHIN_F32
    assert grade(sparse(ids, values), sparse(ids, moved_values), IN_F32).grade <= Grade.WITHIN_F32
    assert grade(score(1.5), score(1.5 + 5 * amount), IN_F32).grade <= Grade.WITHIN_F32
    assert extracted(found(0.5), found(0.5 + 5 * amount)).grade <= Grade.WITHIN_F32


@given(seeds)
def test_bfloat16_is_not_taken_for_float32(seed: int) -> None:
    ids, values = weights(seed)
    for before, now in (
        (dense(unit(seed)), dense(as_bf16(unit(seed)))),
        (multivector(rows(seed)), multivector(as_bf16(rows(seed)))),
        (sparse(ids, values), sparse(ids, as_bf16(values))),
        (score(0.913), score(0.917)),
        (found(0.913), found(0.917)),
    ):
        assert grade(before, now, IN_BF16).grade is Grade.WITHIN_BF16
        assert grade(before, now, IN_F32).grade is Grade.DIFFERENT


@given(seeds)
def test_another_answer_is_different(seed: int) -> None:
    ids, values = weights(seed)
    for before, now in (
        (dense(unit(seed)), dense(unit(seed + 1))),
        (multivector(rows(seed)), multivector(rows(seed + 1))),
        (sparse(ids, values), sparse(ids + 1, values)),
        (sparse(ids, values), sparse(ids, values[::-1])),
        (score(0.9), score(0.8)),
        (found(ada=0.9), found(london=0.9)),
        (found(ada=0.9), found(ada=0.8)),
        (dense(unit(seed)), score(0.9)),
    ):
        assert grade(before, now, IN_BF16).grade is Grade.DIFFERENT


@pytest.mark.parametrize("wrong", [np.zeros(DIMS), np.full(DIMS, np.nan), np.ones(DIMS - 1), -unit(3)])
def test_what_is_no_answer_is_different(wrong: Vector) -> None:
    wrong = wrong.astype(np.float32)

    assert grade(dense(unit(3)), dense(wrong), IN_BF16).grade is Grade.DIFFERENT
    assert grade(multivector(unit(3)[None]), multivector(wrong[None]), IN_BF16).grade is Grade.DIFFERENT


def test_a_score_that_is_no_number_is_different() -> None:
    assert grade(score(0.5), score(float("nan")), IN_BF16).grade is Grade.DIFFERENT
    assert extracted(found(0.5, 0.5), found(0.5, float("nan")), IN_BF16).grade is Grade.DIFFERENT
    assert grade(dense(unit(3)), dense(unit(3) * np.float32("nan")), IN_BF16).max_abs == float("inf")


def test_one_wrong_row_among_many_right_ones_is_caught() -> None:
    """Though the mean of all their cosines is within bfloat16."""
    moved = rows(1, 50)
    moved[17] += unit(5) / 3

    graded = grade(multivector(rows(1, 50)), multivector(moved), IN_BF16)
    assert graded.grade is Grade.DIFFERENT
    assert graded.cosine == pytest.approx(0.95, abs=0.02)
    assert graded.drift[0].startswith("row 17, number ")


def test_a_row_more_or_fewer_is_caught() -> None:
    graded = grade(multivector(rows(1, 5)), multivector(rows(1, 4)), IN_BF16)

    assert graded.drift == ("5 rows of 384 recorded, 4 rows of 384 here",)


def test_weights_next_to_zero_may_come_and_go_in_bfloat16() -> None:
    ids, values = weights(1)
    tiny = np.append(values, np.float32(0.01))
    now = sparse(np.append(ids, np.int32(40_000)), tiny)

    assert grade(sparse(ids, values), now, IN_BF16).grade is Grade.WITHIN_BF16
    assert grade(sparse(ids, values), now, IN_F32).drift == ("id 40000: 0 recorded, 0.01 here",)


def test_a_text_without_weights_is_no_text_with_some() -> None:
    ids, values = weights(1)

    assert grade(sparse(ids[:0], values[:0]), sparse(ids[:0], values[:0]), IN_F32).grade is Grade.IDENTICAL
    assert grade(sparse(ids[:0], values[:0]), sparse(ids, values), IN_BF16).grade is Grade.DIFFERENT


def test_a_span_may_come_and_go_next_to_the_threshold_and_nowhere_else() -> None:
    assert extracted(found(0.9, 0.30004), found(0.9)).grade is Grade.WITHIN_F32
    assert extracted(found(0.9), found(0.9, 0.34), IN_BF16).grade is Grade.WITHIN_BF16
    assert extracted(found(0.9), found(0.9, 0.34)).drift == ("city `London` at 13 to 19: nothing recorded, 0.34 here",)
    assert extracted(found(0.9, 0.8), found(0.9), IN_BF16).drift == (
        "city `London` at 13 to 19: 0.8 recorded, nothing here",
    )


def test_a_comparison_knows_the_threshold_that_was_asked_for() -> None:
    before, now = (
        recorded("extract", [found(0.9), found(0.9, 0.8)]),
        recorded("extract", [found(0.9, 0.30002), found(0.9, 0.8)]),
    )

    assert held(before, now).grade is Grade.WITHIN_F32


def test_without_a_threshold_nothing_may_come_or_go() -> None:
    assert grade(found(0.9, 0.3), found(0.9), IN_BF16).grade is Grade.DIFFERENT


def test_a_moved_span_is_named_on_both_sides() -> None:
    moved = extraction({Found("person", "Ada L", 0, 5): 0.9})

    assert extracted(found(0.9), moved, IN_BF16).drift == (
        "person `Ada` at 0 to 3: 0.9 recorded, nothing here",
        "person `Ada L` at 0 to 5: nothing recorded, 0.9 here",
    )


def test_logits_may_move_with_their_size_in_bfloat16_only() -> None:
    before = recorded("score", [score(-11.2), score(8.0)])

    assert held(before, recorded("score", [score(-11.0), score(8.2)], "bf16")).grade is Grade.WITHIN_BF16
    assert held(before, recorded("score", [score(-11.0), score(8.2)])).grade is Grade.DIFFERENT
    assert held(before, recorded("score", [score(-11.0), score(9.0)], "bf16")).grade is Grade.DIFFERENT


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ("f32", "f32", Grade.DIFFERENT),
        ("f32", "bf16", Grade.WITHIN_BF16),
        ("bf16", "f32", Grade.WITHIN_BF16),
        ("f32", "f16", Grade.WITHIN_BF16),
        ("f32", "bf16,f32", Grade.WITHIN_BF16),
        (None, None, Grade.DIFFERENT),
    ],
)
def test_the_envelope_of_bfloat16_is_for_sixteen_bits(before: str | None, now: str | None, expected: Grade) -> None:
    """Between two float32 runs a difference of that size is another model: a converted checkpoint, above all."""
    vectors = [unit(seed) for seed in range(4)]
    compared = held(model(vectors, before), model([as_bf16(one) for one in vectors], now))

    assert compared.grade is expected
    assert f"; {before or 'unknown precision'} recorded, {now or 'unknown precision'} here)" in next(compared.lines())


def test_a_perturbed_tensor_is_caught() -> None:
    """Every answer moved a little, in a direction of its own: each still near, all together another model."""
    rng = np.random.default_rng(0)
    moved = [unit(seed) + 0.1 * rng.standard_normal(DIMS).astype(np.float32) / 20 for seed in range(8)]
    now = model([vector.astype(np.float32) for vector in moved], "bf16")

    assert held(model([unit(seed) for seed in range(8)]), now).grade is Grade.DIFFERENT


def test_answers_in_another_order_are_caught() -> None:
    vectors = [unit(seed) for seed in range(4)]

    assert held(model(vectors), model(vectors[::-1], "bf16")).grade is Grade.DIFFERENT


def test_a_text_refused_on_one_side_only_is_a_difference() -> None:
    before = model([unit(1), unit(2)])
    (series,) = before.series
    now = (series.answers[0], Answer("t1", "text 1", error="INVALID_INPUT"))

    found = compared(before, {"dense": now}, precision="f32")
    assert found.grade is Grade.DIFFERENT
    assert "org/model dense `t1`: was an answer, is INVALID_INPUT" in "\n".join(found.lines())


def test_a_drift_names_model_answer_and_both_values() -> None:
    compared = held(
        recorded("score", [score(0.75), score(0.25)]),
        recorded("score", [score(0.75), score(0.5)]),
    )

    assert list(compared.lines()) == [
        "org/model: 2 score answers different (largest difference 2.5e-01; f32 recorded, f32 here)",
        "  org/model score `t1`, score: 0.25 recorded, 0.5 here",
    ]


def test_a_model_is_as_good_as_its_worst_kind() -> None:
    vectors, scores = model([unit(1), unit(2)]), recorded("score", [score(0.1), score(0.9)])
    both = GoldenModel(vectors.id, vectors.revision, vectors.series + scores.series, "f32")
    swapped = recorded("score", [score(0.9), score(0.1)])
    wrong = GoldenModel(vectors.id, vectors.revision, vectors.series + swapped.series, "f32")

    assert held(both, both).grade is Grade.IDENTICAL
    assert held(both, wrong).grade is Grade.DIFFERENT


def test_a_swapped_ranking_is_caught() -> None:
    base, near, far = np.eye(3, dtype=np.float32)
    before = [base, base * 0.9 + near * 0.1, far]

    assert ranks_hold(before, before)
    assert not ranks_hold(before, [base, far, base * 0.9 + near * 0.1])


def test_a_model_that_says_the_same_to_everything_is_void() -> None:
    assert tells_apart([dense(unit(1)), dense(unit(2)), dense(unit(3))])
    assert not tells_apart([dense(unit(1)), dense(unit(1)), dense(unit(2))])
    assert not tells_apart([dense(unit(1))])
    assert tells_apart([sparse(*weights(1)), sparse(*weights(2))])
    assert not tells_apart([sparse(*weights(1)), sparse(*weights(1))])


def test_texts_of_words_that_a_vocabulary_lacks_do_not_make_a_model_void() -> None:
    ids, values = weights(1)
    nothing = sparse(ids[:0], values[:0])

    assert tells_apart([sparse(ids, values), nothing, nothing, sparse(*weights(2))])
    assert not tells_apart([sparse(ids, values), nothing, nothing])
    assert not tells_apart([nothing, nothing])


def test_as_many_rows_as_tokens_tell_no_model_from_another() -> None:
    same = [multivector(np.stack([unit(1)] * count)) for count in (3, 4, 5)]

    assert not tells_apart(same)
    assert tells_apart([multivector(rows(seed, count)) for seed, count in enumerate((3, 4, 5))])


def test_scores_must_differ_somewhere_by_more_than_bfloat16_forgives() -> None:
    assert tells_apart([score(0.01), score(0.01), score(0.9)])
    assert not tells_apart([score(0.50), score(0.51), score(0.52)])
    assert not tells_apart([score(9.9), score(10.0), score(9.7)])
    assert not tells_apart([score(0.9)])


def test_a_model_that_finds_nothing_or_next_to_nothing_is_void() -> None:
    nothing = found()

    assert tells_apart([found(0.9), nothing], threshold=0.3)
    assert not tells_apart([nothing, nothing], threshold=0.3)
    assert not tells_apart([found(0.32), nothing], threshold=0.3)
    assert not tells_apart([found(0.9), found(0.9)], threshold=0.3)


def test_nothing_at_all_is_void() -> None:
    assert not tells_apart([])
