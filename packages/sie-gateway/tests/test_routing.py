"""Which worker gets a call: tables for each answer, and what must hold whatever the workers are."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.catalog.catalog import Bundle, Catalog
from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.ids import BundleName, ModelId
from sie_core.wire import envelope
from sie_core.wire.messages import WorkerStatus
from sie_gateway.routing import Decision, Forward, Refuse, Wait, route
from sie_gateway.workers import Address, Freshness, Worker, WorkerTable

ONE, TWO = ModelId("org/one"), ModelId("org/two")
CATALOG = Catalog.of(
    [ModelSpec(id=model, dense=DenseHead()) for model in (ONE, TWO)],
    [Bundle(name=BundleName("default"), models="all"), Bundle(name=BundleName("small"), models=(ONE,), priority=1)],
)
NOW_S = 100.0


def worker(
    name: str, *, heard_s: float | None = NOW_S, lost_s: float | None = None, sent: int = 0, **said: Any
) -> Worker:
    facts: dict[str, Any] = {
        "ready": True,
        "machine_profile": "l4",
        "pool": "l4",
        "bundle": "default",
        "loaded": [],
        "models": [ONE, TWO],
        "queued_tokens": 0,
        "fingerprint": CATALOG.fingerprint,
        "version": "0.3.1",
    }
    status = WorkerStatus(name=name, **(facts | said)) if heard_s is not None else None
    return known(Address(name, 80), status, heard_s, lost_s, sent)


def known(
    address: Address, status: WorkerStatus | None, heard_s: float | None, lost_s: float | None, sent: int
) -> Worker:
    """As the table holds it."""
    table = WorkerTable()
    table.list_addresses([address])
    if status is not None and heard_s is not None:
        table.hear(address, status, heard_s)
    if lost_s is not None:
        table.lose(address, lost_s)
    table.send(address, sent)
    return table.all()[0]


def call(model: str = ONE, *, gpu: str | None = None, pool: str | None = None) -> envelope.Envelope:
    headers = [(b"x-sie-machine-profile", gpu.encode())] if gpu else []
    headers += [(b"x-sie-pool", pool.encode())] if pool else []
    read = envelope.read(f"/v1/encode/{model}", headers)
    assert read is not None
    return read


def routed(*workers: Worker, to: envelope.Envelope | None = None, configured: tuple[str, ...] = ()) -> Decision:
    return route(to or call(), workers, CATALOG, configured=configured, now_s=NOW_S)


def order(*workers: Worker, to: envelope.Envelope | None = None) -> list[str]:
    decision = routed(*workers, to=to)
    assert isinstance(decision, Forward)
    return [decision.worker.name] + ([decision.second.name] if decision.second else [])


def test_loaded_comes_first_then_fewest_tokens_then_name() -> None:
    a, b, c, d = worker("a"), worker("b", queued_tokens=1), worker("c", loaded=[ONE], queued_tokens=9), worker("d")

    assert order(a, b, c, d) == ["c", "a"]
    assert order(d, b, a) == ["a", "d"]
    assert order(b, d) == ["d", "b"]


def test_tokens_sent_since_the_last_heartbeat_count_as_waiting() -> None:
    assert order(worker("a", sent=10), worker("b", queued_tokens=9)) == ["b", "a"]


@pytest.mark.parametrize(
    "unfit",
    [
        worker("x", heard_s=None),
        worker("x", heard_s=NOW_S - 3.1),
        worker("x", lost_s=NOW_S + 0.1),
        worker("x", ready=False),
        worker("x", bundle="other"),
        worker("x", machine_profile="a100"),
        worker("x", pool="other"),
        worker("x", models=[TWO]),
    ],
    ids=["never heard", "stale", "lost", "not ready", "bundle", "profile", "pool", "model"],
)
def test_worker_that_is_not_eligible_gets_no_call(unfit: Worker) -> None:
    assert order(unfit, worker("z"), to=call(gpu="l4", pool="l4")) == ["z"]


def test_spot_meets_the_bare_profile_and_not_the_other_way() -> None:
    spot = worker("spot", machine_profile="l4-spot")

    assert order(spot, to=call(gpu="l4")) == ["spot"]
    assert isinstance(routed(worker("plain"), to=call(gpu="l4-spot")), Wait)


def test_worker_without_a_profile_takes_calls_for_any() -> None:
    assert order(worker("laptop", machine_profile=""), to=call(gpu="l4")) == ["laptop"]


def test_pool_stands_before_the_profile() -> None:
    assert order(worker("a", pool="night"), worker("b"), to=call(gpu="night/l4")) == ["a"]


def test_bundle_in_the_path_keeps_to_its_workers() -> None:
    both = (worker("a"), worker("b", bundle="small", queued_tokens=5))

    assert order(*both, to=call(f"small:/{ONE}")) == ["b"]
    assert order(*both) == ["a", "b"]


def refused(decision: Decision) -> tuple[str, str]:
    assert isinstance(decision, Refuse)
    return decision.error.code, f"{decision.error.message} {decision.error.hint}"


def test_unknown_model_is_refused_with_the_nearest() -> None:
    code, said = refused(routed(worker("a"), to=call("org/tow")))

    assert code == "MODEL_NOT_FOUND"
    assert "`org/two`" in said


def test_model_that_only_a_worker_knows_is_served() -> None:
    assert order(worker("a", models=["org/new"]), to=call("org/new")) == ["a"]


def test_unknown_bundle_and_one_without_the_model_are_told_apart() -> None:
    assert refused(routed(to=call(f"none:/{ONE}")))[0] == "NOT_FOUND"
    code, said = refused(routed(to=call(f"small:/{TWO}")))
    assert (code, "`default`" in said) == ("CONFLICT", True)


def test_pool_that_nobody_is_in_is_refused_with_those_there_are() -> None:
    code, said = refused(routed(worker("a"), worker("b", pool="night"), to=call(pool="nihgt")))

    assert (code, "`l4`, `night`" in said) == ("NOT_FOUND", True)


@pytest.mark.parametrize(
    ("workers", "configured"),
    [
        ([], ()),
        ([worker("a"), worker("new", heard_s=None)], ()),
        ([worker("a")], ("l4", "night")),
        ([worker("a"), worker("stale", pool="night", heard_s=NOW_S - 20)], ()),
    ],
    ids=["nobody is there", "an address has not answered", "named as a machine profile", "its worker is stale"],
)
def test_pool_whose_workers_may_be_on_their_way_is_waited_for(workers: list[Worker], configured: Any) -> None:
    assert isinstance(routed(*workers, to=call(pool="night"), configured=configured), Wait)


def test_profile_that_is_not_configured_is_refused_with_those_that_are() -> None:
    decision = routed(worker("a"), to=call(gpu="h100"), configured=("l4", "cpu"))

    code, said = refused(decision)
    assert (code, "`l4`, `cpu`" in said) == ("GPU_NOT_CONFIGURED", True)
    assert isinstance(decision, Refuse)
    assert decision.also["status"] == "gpu_not_configured"


@pytest.mark.parametrize(("gpu", "configured"), [("l4", ("l4-spot",)), ("l4", ()), ("l4", ("l4",))])
def test_profile_that_may_come_is_waited_for(gpu: str, configured: tuple[str, ...]) -> None:
    assert isinstance(routed(to=call(gpu=gpu), configured=configured), Wait)


def test_waiting_names_the_spot_profile_that_is_configured() -> None:
    decision = routed(to=call(gpu="l4"), configured=("l4", "l4-spot"))

    assert isinstance(decision, Wait)
    assert (decision.gpu, decision.bundle) == ("l4-spot", "small")


def test_estimate_is_short_when_somebody_is_there_and_long_when_nobody_is() -> None:
    estimates = []
    for workers in ([worker("a", ready=False)], [worker("a", heard_s=None)], []):
        decision = routed(*workers)
        assert isinstance(decision, Wait)
        estimates.append(decision.estimated_wait_s)

    assert estimates == [5.0, 10.0, 30.0]


def test_workers_started_for_other_models_refuse_for_good_once_they_hold_the_same_catalog() -> None:
    others = worker("a", models=[TWO])

    assert refused(routed(others))[0] == "MODEL_NOT_FOUND"
    assert isinstance(routed(worker("a", models=[TWO], fingerprint="older")), Wait)


STATUSES = st.builds(
    WorkerStatus,
    name=st.sampled_from("abcdef"),
    ready=st.booleans(),
    machine_profile=st.sampled_from(["l4", "l4-spot", "cpu", ""]),
    pool=st.sampled_from(["l4", "other"]),
    bundle=st.sampled_from(["default", "small", "strange"]),
    loaded=st.lists(st.sampled_from([ONE, TWO]), unique=True),
    models=st.lists(st.sampled_from([ONE, TWO]), unique=True),
    queued_tokens=st.integers(0, 5),
    fingerprint=st.sampled_from(["", CATALOG.fingerprint]),
    version=st.just("0.3.1"),
)
TIMES = st.one_of(st.none(), st.floats(NOW_S - 40, NOW_S))
WORKERS = st.lists(
    st.builds(
        lambda number, status, heard_s, lost_s, sent: known(
            Address(f"10.0.0.{number}", 80), status, heard_s, lost_s, sent
        ),
        st.integers(0, 255),
        STATUSES,
        TIMES,
        TIMES,
        st.integers(0, 5),
    ),
    max_size=6,
    unique_by=lambda one: one.address,
)
CALLS = st.builds(
    lambda model, gpu, pool: call(model, gpu=gpu, pool=pool),
    st.sampled_from([ONE, TWO, f"small:/{ONE}", f"small:/{TWO}", "org/none"]),
    st.sampled_from([None, "l4", "l4-spot", "h100"]),
    st.sampled_from([None, "l4"]),
)
CONFIGURED = st.sampled_from([(), ("l4",), ("l4-spot", "cpu")])


@given(WORKERS, CALLS, CONFIGURED, st.randoms(use_true_random=False))
def test_answer_does_not_depend_on_the_order_of_workers(
    workers: list[Worker], to: envelope.Envelope, configured: tuple[str, ...], random: Any
) -> None:
    shuffled = list(workers)
    random.shuffle(shuffled)

    assert routed(*workers, to=to, configured=configured) == routed(*shuffled, to=to, configured=configured)


@given(WORKERS, CALLS, CONFIGURED)
def test_whoever_gets_a_call_can_serve_it(
    workers: list[Worker], to: envelope.Envelope, configured: tuple[str, ...]
) -> None:
    decision = routed(*workers, to=to, configured=configured)

    if not isinstance(decision, Forward):
        return
    assert decision.worker != decision.second
    for chosen in (decision.worker, decision.second):
        if chosen is not None:
            assert chosen.freshness(NOW_S) is Freshness.FRESH
            assert chosen.status is not None
            assert chosen.status.ready
            assert to.model in chosen.status.models
            assert to.pool in (None, chosen.status.pool)
            assert chosen.status.machine_profile in ("", to.machine_profile, f"{to.machine_profile}-spot") or not (
                to.machine_profile
            )


@given(WORKERS, CALLS)
def test_nobody_better_is_passed_over(workers: list[Worker], to: envelope.Envelope) -> None:
    decision = routed(*workers, to=to)

    if not isinstance(decision, Forward):
        return
    others = [one for one in workers if one != decision.worker]
    best = routed(decision.worker, *others, to=to)
    alone = [one for one in others if isinstance(routed(one, to=to), Forward)]
    assert best == decision
    assert decision.worker.status is not None
    if to.model not in decision.worker.status.loaded:
        assert not any(one.status is not None and to.model in one.status.loaded for one in alone)


@given(WORKERS, CALLS, CONFIGURED)
def test_waits_are_between_5_and_30_seconds(
    workers: list[Worker], to: envelope.Envelope, configured: tuple[str, ...]
) -> None:
    decision = routed(*workers, to=to, configured=configured)

    assert not isinstance(decision, Wait) or 5 <= decision.estimated_wait_s <= 30
