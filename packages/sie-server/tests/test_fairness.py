"""Models that share the device: what each gets of its time, over every load that Hypothesis can think of."""

from hypothesis import given
from hypothesis import strategies as st

from sie_server.engine.fairness import Shares

NAMES = "abcd"


def run(shares: Shares[str], key: str, tokens: int, took_s: float) -> None:
    shares.end(key, charged_s=shares.begin(key, tokens), tokens=tokens, took_s=took_s)


costs = st.lists(st.floats(min_value=0.001, max_value=10), min_size=1, max_size=20)


@given(st.lists(costs, min_size=2, max_size=4), st.integers(min_value=2, max_value=100))
def test_two_models_that_both_have_work_get_the_same_time_up_to_a_batch_of_each(
    batches: list[list[float]], turns: int
) -> None:
    """Whatever their batches cost, over every stretch of time."""
    shares: Shares[str] = Shares()
    models = NAMES[: len(batches)]
    for key in models:
        shares.wake(key)
    had_s = dict.fromkeys(models, 0.0)
    history = [dict(had_s)]
    for turn in range(turns):
        key = shares.order((one, 0.0) for one in models)[0]
        costs_of = batches[models.index(key)]
        took_s = costs_of[turn % len(costs_of)]
        run(shares, key, 10, took_s)
        had_s[key] += took_s
        history.append(dict(had_s))

    for before in history:
        for a in range(len(models)):
            for b in range(a):
                got = [had_s[models[index]] - before[models[index]] for index in (a, b)]
                assert abs(got[0] - got[1]) <= max(batches[a]) + max(batches[b]) + 1e-6


@given(st.integers(min_value=1, max_value=50), st.integers(min_value=1, max_value=200))
def test_a_model_that_slept_has_saved_nothing_up_and_lost_nothing(turns_before: int, turns_after: int) -> None:
    shares: Shares[str] = Shares()
    shares.wake("busy")
    for _ in range(turns_before):
        run(shares, "busy", 10, 1.0)
    shares.wake("sleeper")

    taken = []
    for _ in range(turns_after):
        key = shares.order([("busy", 0.0), ("sleeper", 1.0)])[0]
        taken.append(key)
        run(shares, key, 10, 1.0)

    assert "sleeper" in taken[:2]
    assert abs(taken.count("sleeper") - taken.count("busy")) <= 2


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 5), st.floats(min_value=0.1, max_value=2.0)), max_size=60)
)
def test_nobody_waits_longer_than_it_takes_everybody_else_to_catch_up(
    arrivals: list[tuple[str, int, float]],
) -> None:
    """While a model has work, no other has more than so many turns as fill the longest batch and one more."""
    shares: Shares[str] = Shares()
    queues: dict[str, list[float]] = {key: [] for key in NAMES}
    passed: dict[str, dict[str, int]] = {key: dict.fromkeys(NAMES, 0) for key in NAMES}
    for key, batches, cost_s in [*arrivals, *[("", 0, 0.0)] * 400]:
        if batches:
            if not queues[key]:
                shares.wake(key)
                passed[key] = dict.fromkeys(NAMES, 0)
            queues[key] += [cost_s] * batches
        waiting = [(one, 0.0) for one in NAMES if queues[one]]
        if not waiting:
            continue
        turn = shares.order(waiting)[0]
        run(shares, turn, 10, queues[turn].pop(0))
        passed[turn] = dict.fromkeys(NAMES, 0)
        for other, _ in waiting:
            if other != turn:
                passed[other][turn] += 1
                assert passed[other][turn] <= 2 * 2.0 / 0.1 + 2

    assert not any(queues.values())


def test_a_second_thread_does_not_pick_the_same_model_while_the_first_runs_it() -> None:
    shares: Shares[str] = Shares()
    for key in "ab":
        shares.wake(key)
        run(shares, key, 100, 1.0)
    both = [("a", 0.0), ("b", 0.0)]
    first = shares.order(both)[0]
    shares.begin(first, 100)

    assert shares.order(both)[0] != first


def test_what_a_batch_was_thought_to_take_is_put_right_when_it_has_ended() -> None:
    shares: Shares[str] = Shares()
    for key in "ab":
        shares.wake(key)
        run(shares, key, 100, 1.0)
    charged_s = shares.begin("a", 100)
    shares.end("a", charged_s=charged_s, tokens=100, took_s=0.1)
    run(shares, "b", 100, 0.2)

    assert charged_s == 1.0
    assert shares.order([("b", 0.0), ("a", 1.0)])[0] == "a"


def test_between_models_that_had_the_same_the_older_job_decides() -> None:
    shares: Shares[str] = Shares()
    for key in "ab":
        shares.wake(key)

    assert shares.order([("a", 5.0), ("b", 4.0)]) == ["b", "a"]


def test_a_model_that_was_forgotten_in_the_middle_of_a_batch_is_not_remembered_by_its_end() -> None:
    shares: Shares[str] = Shares()
    shares.wake("a")
    charged_s = shares.begin("a", 10)
    shares.forget("a")
    shares.end("a", charged_s=charged_s, tokens=10, took_s=1.0)

    assert shares._had_s == {}
    assert shares._per_token_s == {}
