"""Who leaves a local cache so that another fits: never what is held, none without need, and all or nothing."""

from hypothesis import assume, given
from hypothesis import strategies as st

from sie_server.eviction import MOST_RESERVED_BYTES, Evict, Kept, Refuse, Space, decide, room_bytes

LARGE = 1 << 40
"""A disk that is no limit."""


def kept(name: str, size_bytes: int, *, used_s: float | None = None, came_s: float = 0.0, held: bool = False) -> Kept:
    return Kept(f"models--acme--{name}/snapshots/1", f"acme/{name}", size_bytes, came_s, used_s, held)


def budget(size_bytes: int, *, coming_bytes: int = 0) -> Space:
    return Space(LARGE, LARGE, coming_bytes, size_bytes)


def names(decision: Evict | Refuse) -> list[str]:
    assert isinstance(decision, Evict)
    return [one.name.removeprefix("acme/") for one in decision.going]


def test_what_fits_sends_nobody_away() -> None:
    assert names(decide(40, budget(100), [kept("a", 60)])) == []


def test_never_loaded_goes_first_then_what_was_loaded_longest_ago() -> None:
    there = [kept("new", 10, used_s=9), kept("old", 10, used_s=3), kept("never", 10, came_s=50)]

    assert names(decide(10, budget(30), there)) == ["never"]
    assert names(decide(20, budget(30), there)) == ["never", "old"]
    assert names(decide(30, budget(30), there)) == ["never", "old", "new"]


def test_of_those_never_loaded_the_one_that_came_first_goes() -> None:
    assert names(decide(10, budget(20), [kept("late", 10, came_s=2), kept("early", 10, came_s=1)])) == ["early"]


def test_a_small_one_stays_where_the_next_is_enough_alone() -> None:
    assert names(decide(100, budget(110), [kept("small", 5, used_s=1), kept("large", 105, used_s=2)])) == ["large"]


def test_what_is_held_stays_and_is_named_where_it_would_have_to_go() -> None:
    there = [kept("used", 50, used_s=1, held=True), kept("idle", 20, used_s=2), kept("also", 30, used_s=3, held=True)]

    assert decide(60, budget(100), there) == Refuse(20, (there[0],))
    assert decide(100, budget(100), there) == Refuse(20, (there[0], there[2]))
    assert decide(101, budget(100), there) == Refuse(20, ())


def test_what_other_downloads_will_take_is_not_given_twice() -> None:
    assert names(decide(50, budget(100, coming_bytes=40), [kept("a", 10)])) == []
    assert names(decide(51, budget(100, coming_bytes=40), [kept("a", 10)])) == ["a"]


def test_without_a_budget_the_disk_decides_and_some_of_it_stays_free() -> None:
    small = Space(free_bytes=1_000, disk_bytes=10_000)

    assert names(decide(900, small, [kept("a", 1)])) == []
    assert names(decide(901, small, [kept("a", 1)])) == ["a"]
    assert decide(902, small, [kept("a", 1)]) == Refuse(901, ())
    assert Space(LARGE, LARGE).reserved_bytes == MOST_RESERVED_BYTES


def test_a_budget_beyond_the_disk_is_no_more_than_the_disk() -> None:
    assert decide(901, Space(1_000, 10_000, budget_bytes=LARGE), []) == Refuse(900, ())


SIZES = st.integers(0, 50)
KEPT = st.lists(
    st.builds(
        Kept,
        path=st.integers(0, 10_000).map(lambda number: f"models--acme--{number}/snapshots/1"),
        name=st.just("acme/x"),
        size_bytes=SIZES,
        came_s=st.integers(0, 5),
        used_s=st.none() | st.integers(0, 5),
        held=st.booleans(),
    ),
    unique_by=lambda one: one.path,
    max_size=12,
)
SPACES = st.builds(
    Space,
    free_bytes=st.integers(0, 200),
    disk_bytes=st.integers(0, 10_000),
    coming_bytes=SIZES,
    budget_bytes=st.none() | st.integers(0, 400),
)


def after(space: Space, there: list[Kept], gone: list[Kept]) -> int:
    """The room once they have gone."""
    freed = Space(
        space.free_bytes + sum(one.size_bytes for one in gone), space.disk_bytes, space.coming_bytes, space.budget_bytes
    )
    return room_bytes(freed, [one for one in there if one not in gone])


@given(needed_bytes=st.integers(1, 300), space=SPACES, there=KEPT)
def test_it_fits_afterwards_and_not_with_one_fewer(needed_bytes: int, space: Space, there: list[Kept]) -> None:
    decision = decide(needed_bytes, space, there)
    assume(isinstance(decision, Evict))
    assert isinstance(decision, Evict)
    going = list(decision.going)

    assert not any(one.held for one in going)
    assert after(space, there, going) >= needed_bytes
    for one in going:
        assert after(space, there, [other for other in going if other != one]) < needed_bytes


@given(needed_bytes=st.integers(1, 300), space=SPACES, there=KEPT)
def test_it_is_refused_only_where_all_that_may_go_is_too_little(
    needed_bytes: int, space: Space, there: list[Kept]
) -> None:
    decision = decide(needed_bytes, space, there)
    free = [one for one in there if not one.held]
    assert isinstance(decision, Refuse) == (after(space, there, free) < needed_bytes)
    if isinstance(decision, Refuse):
        assert decision.room_bytes == max(0, after(space, there, free))
        enough = after(space, there, there) >= needed_bytes
        assert bool(decision.in_use) == enough
        assert not enough or after(space, there, [*free, *decision.in_use]) >= needed_bytes
