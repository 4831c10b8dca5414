"""What the batcher promises, over every queue that Hypothesis can think of."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_server.engine.batcher import GRID, Batcher


@dataclass(frozen=True)
class Waiting:
    number: int
    tokens: int


lengths = st.lists(st.integers(min_value=1, max_value=600), max_size=60)
budgets = st.integers(min_value=1, max_value=2_000)
shares = st.integers(min_value=1, max_value=4)


def filled(tokens: list[int], budget_tokens: int) -> Batcher[Waiting]:
    batcher: Batcher[Waiting] = Batcher(budget_tokens)
    batcher.add(Waiting(number, count) for number, count in enumerate(tokens))
    return batcher


@given(lengths, budgets, shares)
def test_every_job_is_taken_exactly_once(tokens: list[int], budget_tokens: int, share: int) -> None:
    batcher = filled(tokens, budget_tokens)

    taken: list[Waiting] = []
    while batch := batcher.take(share=share):
        taken += batch

    assert sorted(job.number for job in taken) == list(range(len(tokens)))
    assert len(batcher) == 0
    assert batcher.tokens == 0


@given(lengths, budgets, shares)
def test_no_batch_is_over_the_budget_unless_it_is_one_job(tokens: list[int], budget_tokens: int, share: int) -> None:
    batcher = filled(tokens, budget_tokens)

    while batch := batcher.take(share=share):
        assert len(batch) == 1 or sum(job.tokens for job in batch) <= budget_tokens


@given(lengths, budgets, shares)
def test_no_grid_is_over_its_limit_unless_it_is_one_job(tokens: list[int], budget_tokens: int, share: int) -> None:
    """Attention is paid for every cell of items × longest item, whether it has a token or not."""
    batcher = filled(tokens, budget_tokens)

    while batch := batcher.take(share=share):
        assert len(batch) == 1 or len(batch) * max(job.tokens for job in batch) <= GRID * budget_tokens


def test_a_long_text_among_many_short_ones_takes_a_few_of_them_along() -> None:
    batcher = filled([512, *[1] * 500], 1024)

    assert len(batcher.take()) == 8
    assert len(batcher.take()) == 493


@given(
    st.lists(st.tuples(st.booleans(), st.integers(min_value=1, max_value=600)), max_size=80),
    budgets,
    shares,
)
def test_the_oldest_waiting_job_is_in_the_next_batch(
    steps: list[tuple[bool, int]], budget_tokens: int, share: int
) -> None:
    """Also while jobs keep coming: nobody starves."""
    batcher: Batcher[Waiting] = Batcher(budget_tokens)
    waiting: list[int] = []
    for number, (is_take, tokens) in enumerate(steps):
        if not is_take:
            batcher.add([Waiting(number, tokens)])
            waiting.append(number)
            continue
        batch = batcher.take(share=share)
        assert [job.number for job in batch][:1] == waiting[:1]
        waiting = [left for left in waiting if left not in {job.number for job in batch}]

    assert len(batcher) == len(waiting)


@given(
    st.lists(st.lists(st.integers(min_value=1, max_value=600), max_size=6), min_size=1, max_size=40),
    budgets,
    shares,
)
def test_no_job_waits_longer_than_those_before_it(rounds: list[list[int]], budget_tokens: int, share: int) -> None:
    """However many come after it, and however well they would fit together: a take for each older job at most."""
    batcher: Batcher[Waiting] = Batcher(budget_tokens)
    takes_left: dict[int, int] = {}
    number = 0
    for coming in [*rounds, *[[]] * sum(map(len, rounds))]:
        for tokens in coming:
            takes_left[number] = len(batcher) + 1
            batcher.add([Waiting(number, tokens)])
            number += 1
        for job in batcher.take(share=share):
            del takes_left[job.number]
        takes_left = {waiting: left - 1 for waiting, left in takes_left.items()}
        assert all(left > 0 for left in takes_left.values())

    assert takes_left == {}


@given(lengths, budgets, shares)
def test_a_job_left_behind_is_no_nearer_in_length_than_all_that_were_taken(
    tokens: list[int], budget_tokens: int, share: int
) -> None:
    """A batch is a run of the lengths that wait: whoever lies strictly between two of its lengths is in it."""
    batcher = filled(tokens, budget_tokens)
    left = dict(enumerate(tokens))

    while batch := batcher.take(share=share):
        for job in batch:
            del left[job.number]
        low, high = min(job.tokens for job in batch), max(job.tokens for job in batch)
        assert not [count for count in left.values() if low < count < high]


@given(lengths, budgets)
def test_tokens_is_the_sum_of_what_waits(tokens: list[int], budget_tokens: int) -> None:
    batcher = filled(tokens, budget_tokens)
    before = batcher.tokens

    batch = batcher.take()

    assert before == sum(tokens)
    assert batcher.tokens == before - sum(job.tokens for job in batch)


def test_lengths_near_the_oldest_come_before_older_ones_of_other_lengths() -> None:
    batcher = filled([10, 500, 11, 9, 500, 12], 45)

    assert [job.number for job in batcher.take()] == [0, 2, 3, 5]


def test_the_nearer_length_is_taken_first_whichever_side_it_is_on() -> None:
    assert [job.number for job in filled([10, 14, 9], 24).take()] == [0, 2]
    assert [job.number for job in filled([10, 11, 6], 21).take()] == [0, 1]


def test_a_budget_that_cannot_hold_the_next_longer_job_is_filled_with_shorter_ones() -> None:
    batcher = filled([10, 90, 3], 20)

    assert [job.number for job in batcher.take()] == [0, 2]


def test_a_small_queue_is_shared_between_idle_devices() -> None:
    batcher = filled([10] * 8, 1_000)

    assert [len(batcher.take(share=2)), len(batcher.take(share=1))] == [4, 4]


def test_one_job_over_the_budget_runs_alone() -> None:
    batcher = filled([600, 600], 512)

    assert [[job.number for job in batcher.take()] for _ in range(3)] == [[0], [1], []]


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="the budget is 0 tokens"):
        Batcher(0)
