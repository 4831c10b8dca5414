"""Which levels are true, by what was written down and what is seen now; and what to run next."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.verifying.advice import advice
from sie_airgap.verifying.checks import LEVELS, Check, Kind, Level, after
from sie_airgap.verifying.ladder import Ladder, Look, Rung, Sight, State, ladder
from sie_core.artifacts.digest import digest_of

LOCK, OTHER = digest_of(b"this lock"), digest_of(b"another lock")
NOW_S = 1_800_000_000
DAY_S = 86_400
BOTH: Mapping[Level, Sequence[str]] = {Level.RUNNING: (Kind.PODS, Kind.WORKER)}
EVERYTHING = (
    *(Kind.LOCK, Kind.INDEX, Kind.MEDIA, Kind.REGISTRY, Kind.BUCKET, Kind.MANIFESTS),
    *(Kind.PODS, Kind.WORKER, Kind.ANSWERS, Kind.EGRESS),
)


def check(kind: Kind, **said: Any) -> Check:
    facts: dict[str, Any] = {
        "level": LEVELS[kind],
        "kind": kind,
        "lock": LOCK,
        "place": f"the {kind}",
        "at_s": NOW_S - 3 * DAY_S,
        "since_s": NOW_S - 12 * DAY_S,
        "exit_code": 0,
        "said": "as locked",
        "by": "0.3.1",
        "again": ("verify", f"the {kind}"),
    }
    return Check(**{**facts, **said})


def climbed(
    checks: Iterable[Check],
    sights: Mapping[Kind, Sight] | None = None,
    wanted: Mapping[Level, Sequence[str]] = BOTH,
) -> Ladder:
    known = list(checks)
    seen = {one.of: sights[Kind(one.kind)] for one in known if sights and one.kind in sights}
    return ladder(LOCK, known, seen, wanted=wanted, now_s=NOW_S)


def rung(found: Ladder, level: Level) -> Rung:
    return found.rungs[level]


def test_everything_that_was_checked_and_not_touched_since_is_true() -> None:
    found = climbed(check(kind) for kind in EVERYTHING)

    assert found.highest is Level.EGRESS
    assert found.next is None
    assert found.open(Level.EGRESS) == []
    assert {one.state for one in found.rungs} == {State.HELD}


def test_nothing_is_known_where_nothing_was_checked() -> None:
    found = climbed([])

    assert found.highest is None
    assert found.next is not None
    assert found.next.level is Level.SIGNATURE
    assert found.open(None) == []
    assert [one.level for one in found.open(Level.MEDIA)] == [Level.SIGNATURE, Level.INDEX, Level.MEDIA]


@pytest.mark.parametrize(
    ("sight", "state", "code"),
    [
        (Sight(Look.SAME), State.HOLDS, 0),
        (Sight(Look.SO), State.HELD, 0),
        (Sight(Look.UNSEEN), State.HELD, 0),
        (Sight(Look.AWAY), State.AWAY, 5),
        (Sight(Look.AWAY, "403", 6), State.AWAY, 6),
        (Sight(Look.CHANGED), State.CHANGED, 12),
        (Sight(Look.WRONG, "another lock", 8), State.FAILS, 8),
    ],
)
def test_what_is_seen_now_decides_over_what_was_written_down(sight: Sight, state: State, code: int) -> None:
    found = climbed((check(kind) for kind in EVERYTHING), {Kind.BUCKET: sight})

    bucket = rung(found, Level.BUCKET)
    assert bucket.state is state
    assert [one.exit_code for one in found.open(None)] == ([code] if code else [])
    assert found.highest is (Level.REGISTRY if code else Level.EGRESS)


def test_a_check_that_failed_fails_until_it_is_made_again_whatever_shows_at_once() -> None:
    found = climbed([check(Kind.LOCK), check(Kind.STORE, exit_code=3)], {Kind.STORE: Sight(Look.SAME)})

    assert rung(found, Level.MEDIA).state is State.FAILS
    assert found.open(None)[0].exit_code == 3
    assert found.highest is Level.SIGNATURE


def test_what_held_for_another_lock_does_not_count_and_is_told() -> None:
    checks = [check(Kind.LOCK), check(Kind.MEDIA), check(Kind.BUCKET, lock=OTHER), check(Kind.REGISTRY, exit_code=3)]
    found = climbed(checks)

    bucket = rung(found, Level.BUCKET)
    assert bucket.state is State.UNKNOWN
    assert bucket.other is not None
    assert bucket.other.lock == OTHER
    assert found.highest is Level.MEDIA


def test_media_that_nobody_checked_stop_nothing_once_what_arrived_was_held_against_the_lock() -> None:
    arrived = climbed([check(Kind.LOCK), check(Kind.REGISTRY), check(Kind.BUCKET)])
    on_the_way = climbed([check(Kind.LOCK)])
    damaged = climbed([check(Kind.LOCK), check(Kind.MEDIA, exit_code=3), check(Kind.REGISTRY), check(Kind.BUCKET)])

    assert arrived.highest is Level.BUCKET
    assert [one.level for one in arrived.rungs if one.is_passed] == [Level.INDEX, Level.MEDIA]
    assert arrived.open(Level.BUCKET) == []
    assert [one.level for one in on_the_way.open(Level.INDEX)] == [Level.INDEX]
    assert damaged.highest is Level.SIGNATURE


def test_a_registry_that_nobody_checked_stops_the_ladder() -> None:
    found = climbed([check(Kind.LOCK), check(Kind.MEDIA), check(Kind.BUCKET)])

    assert found.highest is Level.MEDIA
    assert found.next is not None
    assert found.next.level is Level.REGISTRY


def test_a_level_that_the_lock_has_nothing_of_stops_nothing_and_raises_nothing() -> None:
    wanted: Mapping[Level, Sequence[str]] = {Level.REGISTRY: (), Level.BUCKET: ()}
    found = climbed([check(Kind.LOCK), check(Kind.MEDIA)], wanted=wanted)

    assert rung(found, Level.REGISTRY).state is State.NOTHING
    assert found.highest is Level.MEDIA
    assert climbed([check(Kind.LOCK), check(Kind.MEDIA), check(Kind.MANIFESTS)], wanted=wanted).highest == 5


def test_what_is_running_is_images_and_files() -> None:
    below = [check(kind) for kind in EVERYTHING[:6]]
    images, files = check(Kind.PODS), check(Kind.WORKER)

    assert climbed([*below, images]).highest is Level.MANIFESTS
    assert rung(climbed([*below, images]), Level.RUNNING).lacking == (Kind.WORKER,)
    assert climbed([*below, files]).highest is Level.MANIFESTS
    assert climbed([*below, images, files]).highest is Level.RUNNING
    assert rung(climbed([*below, images, files], {Kind.WORKER: Sight(Look.AWAY)}), Level.RUNNING).state is State.AWAY


def test_what_was_asked_of_pods_before_they_were_started_is_not_known_of_those_that_run_now() -> None:
    checks = [check(kind) for kind in EVERYTHING if kind is not Kind.PODS]
    pods = check(Kind.PODS, at_s=NOW_S, began_s=NOW_S - DAY_S)
    found = climbed([*checks, pods])

    assert rung(found, Level.ANSWERS).state is State.CHANGED
    assert rung(found, Level.RUNNING).state is State.CHANGED
    assert rung(climbed([*checks, pods], {Kind.WORKER: Sight(Look.SAME)}), Level.RUNNING).state is State.HELD
    assert rung(climbed([*checks, check(Kind.PODS, began_s=NOW_S - 4 * DAY_S)]), Level.ANSWERS).state is State.HELD


def test_a_check_of_the_future_was_dated_by_a_wrong_clock() -> None:
    found = climbed([check(Kind.LOCK), check(Kind.MEDIA, at_s=NOW_S + 1)])

    assert rung(found, Level.MEDIA).state is State.CHANGED


def test_one_place_that_fails_is_enough_and_one_that_is_away_is_not() -> None:
    good, other = check(Kind.BUCKET), check(Kind.BUCKET, place="the old bucket")
    failing = check(Kind.BUCKET, place="the old bucket", exit_code=3)
    away = ladder(LOCK, [good, other], {other.of: Sight(Look.AWAY)}, wanted={}, now_s=NOW_S)

    assert rung(climbed([good, failing]), Level.BUCKET).state is State.FAILS
    assert rung(away, Level.BUCKET).state is State.HELD


def test_the_lowest_that_is_not_true_gives_the_code() -> None:
    checks = [check(kind, exit_code={Kind.REGISTRY: 4, Kind.ANSWERS: 9}.get(kind, 0)) for kind in EVERYTHING]

    assert [one.exit_code for one in climbed(checks).open(None)] == [4, 9]
    assert climbed(checks).open(Level.MEDIA) == []


def test_holding_is_since_the_first_of_an_unbroken_row() -> None:
    first = check(Kind.BUCKET, at_s=10, since_s=10)
    second = after(first, check(Kind.BUCKET, at_s=20, since_s=20))
    failed = after(second, check(Kind.BUCKET, at_s=30, since_s=30, exit_code=3))
    mended = after(failed, check(Kind.BUCKET, at_s=40, since_s=40))
    clock_went_back = after(second, check(Kind.BUCKET, at_s=5, since_s=5))

    assert [one.since_s for one in (second, failed, mended, clock_went_back)] == [10, 30, 40, 5]
    assert after(None, first) == first


kinds = st.sampled_from(list(Kind))
codes = st.sampled_from([0, 0, 0, 3, 8])
made = st.builds(
    lambda kind, code, lock, place, at_s: check(kind, exit_code=code, lock=lock, place=place, at_s=at_s),
    kinds,
    codes,
    st.sampled_from([LOCK, LOCK, OTHER]),
    st.sampled_from(["a", "b"]),
    st.integers(NOW_S - DAY_S, NOW_S + 1),
)
looks = st.builds(Sight, st.sampled_from(list(Look)))
wants = st.dictionaries(st.sampled_from(list(Level)), st.lists(st.sampled_from(list(Kind)), max_size=2))


@given(st.lists(made, max_size=25), st.data(), wants)
def test_the_highest_level_is_never_above_one_that_is_not_true(
    checks: list[Check], data: st.DataObject, wanted: dict[Level, list[Kind]]
) -> None:
    sights = {one.of: data.draw(looks) for one in checks}
    found = ladder(LOCK, checks, sights, wanted=wanted, now_s=NOW_S)

    assert [one.level for one in found.rungs] == list(Level)
    below = [one for one in found.rungs if found.highest is not None and one.level <= found.highest]
    assert all(one.state.is_true or one.state is State.NOTHING or one.is_passed for one in below)
    assert all(place.state.is_true or place.state is State.AWAY for one in below for place in one.places)
    assert not any(one.is_passed and one.level not in (Level.INDEX, Level.MEDIA) for one in found.rungs)
    if found.highest is not None:
        top = rung(found, found.highest)
        assert top.state.is_true
        assert any(place.check.lock == LOCK and not place.check.exit_code for place in top.places)
    for one in found.open(None):
        assert one.exit_code > 0
        assert found.highest is None or one.level > found.highest


@given(st.lists(made, max_size=25), wants)
def test_there_is_something_to_run_for_every_level_that_is_not_true(
    checks: list[Check], wanted: dict[Level, list[Kind]]
) -> None:
    for one in climbed(checks, wanted=wanted).open(Level.EGRESS):
        assert "sie-airgap " in advice(one, "airgap.lock")


def test_the_next_command_is_the_one_that_checked_the_place_before_for_the_lock_that_is_asked_about() -> None:
    again = ("verify", "s3://b/w/", "--lock", "old.lock", "--endpoint", "https://minio.example.com")
    found = climbed([check(Kind.LOCK), check(Kind.REGISTRY), check(Kind.BUCKET, lock=OTHER, again=again)])

    want = "sie-airgap verify s3://b/w/ --lock 'my store/airgap.lock' --endpoint https://minio.example.com"
    assert advice(rung(found, Level.BUCKET), "my store/airgap.lock") == want
    failing = rung(climbed([check(Kind.REGISTRY, exit_code=4)]), Level.REGISTRY)
    assert advice(failing, "a") == "sie-airgap verify 'the registry'"
    pods = "kubectl get pods -n prod -o json | sie-airgap status --pods -"
    assert advice(rung(climbed([check(Kind.PODS, place="pods in prod", exit_code=8)]), Level.RUNNING), "a") == pods
    assert "kubectl get pods -n sie" in advice(rung(climbed([]), Level.RUNNING), "a")


def test_a_store_is_named_where_nothing_carried_was_checked() -> None:
    index = rung(climbed([check(Kind.LOCK)]), Level.INDEX)

    assert advice(index, "airgap.lock") == "sie-airgap verify MEDIA"
    assert advice(index, "airgap.lock", store="far store") == "sie-airgap verify 'far store'"
