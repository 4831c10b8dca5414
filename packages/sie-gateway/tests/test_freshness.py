"""How far what was heard of a worker can be trusted, and when it is forgotten; demand and rate beside it."""

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.settings import SettingsError
from sie_core.wire.messages import WorkerStatus
from sie_gateway.capacity import ELSEWHERE, MOST_PLACES, REMEMBERED_S, Demand, Place, Rate
from sie_gateway.discovery import parse_targets, resolve
from sie_gateway.routing import Wait
from sie_gateway.workers import FRESH_S, GONE_S, Address, Freshness, Worker, WorkerTable

HERE, THERE = Address("10.0.0.1", 80), Address("10.0.0.2", 80)
STATUS = WorkerStatus("w", True, "l4", "l4", "default", [], [], 0, "", "0.3.1")


def table(*addresses: Address) -> WorkerTable:
    made = WorkerTable()
    made.list_addresses(addresses)
    return made


def freshness(of: WorkerTable, now_s: float, address: Address = HERE) -> Freshness:
    return next(worker for worker in of.all() if worker.address == address).freshness(now_s)


@pytest.mark.parametrize(
    ("unheard_s", "expected"),
    [
        (0.0, Freshness.FRESH),
        (FRESH_S, Freshness.FRESH),
        (FRESH_S + 0.1, Freshness.STALE),
        (GONE_S, Freshness.STALE),
        (GONE_S + 0.1, Freshness.GONE),
    ],
)
def test_freshness_follows_from_when_it_was_heard(unheard_s: float, expected: Freshness) -> None:
    workers = table(HERE)
    workers.hear(HERE, STATUS, 50.0)

    assert freshness(workers, 50.0 + unheard_s) is expected


def test_never_heard_is_unknown_however_long() -> None:
    assert freshness(table(HERE), 1e6) is Freshness.UNKNOWN


def test_lost_is_stale_until_heard_again() -> None:
    workers = table(HERE)
    workers.hear(HERE, STATUS, 1.0)
    workers.lose(HERE, 1.5)
    before = freshness(workers, 1.6)
    workers.hear(HERE, STATUS, 2.0)

    assert (before, freshness(workers, 2.0)) == (Freshness.STALE, Freshness.FRESH)


def test_heartbeat_replaces_the_guess_of_what_was_sent() -> None:
    workers = table(HERE)
    workers.hear(HERE, STATUS, 1.0)
    workers.send(HERE, 5)
    workers.send(HERE, 7)
    guessed = workers.all()[0].backlog_tokens
    workers.hear(HERE, STATUS, 2.0)

    assert (guessed, workers.all()[0].backlog_tokens) == (12, 0)


def test_unlisted_worker_stays_while_it_answers_and_goes_when_it_does_not() -> None:
    workers = table(HERE, THERE)
    workers.hear(HERE, STATUS, 1.0)
    workers.list_addresses([])
    first = workers.forget_gone(2.0), [worker.address for worker in workers.all()]
    second = workers.forget_gone(2.0 + GONE_S), workers.all()

    assert first == ((), [HERE])
    assert second == ((HERE,), ())


def test_listed_worker_that_is_gone_is_told_and_kept() -> None:
    workers = table(HERE)
    workers.hear(HERE, STATUS, 1.0)

    assert workers.forget_gone(2.0 + GONE_S) == (HERE,)
    assert freshness(workers, 2.0 + GONE_S) is Freshness.GONE


def test_heartbeat_of_a_forgotten_worker_changes_nothing() -> None:
    workers = table()
    workers.hear(HERE, STATUS, 1.0)

    assert workers.all() == ()


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_freshness_only_falls_with_time(heard_s: float, first_s: float, later_s: float) -> None:
    worker = Worker(HERE, STATUS, heard_s)
    ranks = list(Freshness)

    assert ranks.index(worker.freshness(heard_s + first_s)) <= ranks.index(
        worker.freshness(heard_s + first_s + later_s)
    )


def test_demand_is_remembered_for_a_minute() -> None:
    demand = Demand()
    wait = Wait(gpu="l4", bundle="default", pool=None, estimated_wait_s=5, message="")
    demand.note(wait, 0.0)
    demand.note(wait, 10.0)
    place = Place("default", "l4", "")

    assert demand.waiting(10.0) == {place: 2}
    assert demand.waiting(REMEMBERED_S + 5) == {place: 1}
    assert demand.waiting(REMEMBERED_S + 11) == {}


def test_demand_that_nobody_looks_at_is_forgotten_all_the_same() -> None:
    """It is read by whoever scrapes metrics; without one every 202 was remembered for ever."""
    demand = Demand()
    for now_s in range(1000):
        demand.note(Wait(gpu="l4", bundle="default", pool=None, estimated_wait_s=5, message=""), now_s)

    assert sum(len(times) for times in demand._asked.values()) <= REMEMBERED_S + 1


def test_callers_cannot_multiply_the_places_of_demand() -> None:
    demand = Demand()
    waits = [Wait(gpu=f"gpu{n}", bundle="b", pool=None, estimated_wait_s=5, message="") for n in range(3 * MOST_PLACES)]
    places = {demand.note(wait, 0.0) for wait in waits}

    assert places == {Place("b", f"gpu{n}", "") for n in range(MOST_PLACES)} | {ELSEWHERE}
    assert demand.waiting(0.0)[ELSEWHERE] == 2 * MOST_PLACES


def test_rate_is_over_the_last_whole_seconds() -> None:
    rate = Rate()
    for _ in range(20):
        rate.count(5.5)

    assert (rate.per_s(5.9), rate.per_s(6.0), rate.per_s(30.0)) == (0.0, 2.0, 0.0)


@pytest.mark.parametrize(
    "url",
    [
        "worker:8080",
        "https://w:1",
        "http://w",
        "http://w:x",
        "http://w:80/path",
        "http://:80",
        "http://a..b:80",
        f"http://{'a' * 64}:80",
    ],
)
def test_worker_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="`SIE_GATEWAY_WORKERS` has"):
        parse_targets([url])


def test_every_address_of_a_name_is_a_worker_and_an_address_is_itself() -> None:
    found = asyncio.run(resolve(parse_targets(["http://localhost:81", "http://127.0.0.2:82/"])))

    assert found.addresses == {Address("127.0.0.1", 81), Address("127.0.0.2", 82)}


def test_name_that_does_not_exist_has_no_workers_and_a_failing_lookup_says_nothing() -> None:
    async def lookup(host: str, port: int) -> list[tuple[int, str]]:
        raise socket.gaierror(socket.EAI_NONAME if host == "gone" else socket.EAI_AGAIN, "no")

    found = asyncio.run(resolve(parse_targets(["http://gone:1", "http://failing:1"]), lookup=lookup))

    assert found.addresses == frozenset()
    assert list(found.failed) == ["failing"]


def test_name_that_cannot_be_looked_up_hides_no_worker_of_another() -> None:
    """A name server that fails for one name used to leave a gateway without any worker."""

    async def lookup(host: str, port: int) -> list[tuple[int, str]]:
        if host == "failing":
            raise socket.gaierror(socket.EAI_AGAIN, "no")
        return [(socket.AF_INET, HERE.host)]

    found = asyncio.run(resolve(parse_targets(["http://failing:1", f"http://good:{HERE.port}"]), lookup=lookup))

    assert found.addresses == {HERE}


def test_what_could_not_be_looked_up_stays_listed() -> None:
    workers = table(HERE, THERE)
    workers.list_addresses([HERE], is_whole=False)
    listed_meanwhile = {worker.address for worker in workers.all() if worker.listed}
    workers.list_addresses([HERE])

    assert listed_meanwhile == {HERE, THERE}
    assert {worker.address for worker in workers.all() if worker.listed} == {HERE}


def test_ipv6_authority_has_brackets() -> None:
    assert Address("::1", 80).url == "http://[::1]:80"
