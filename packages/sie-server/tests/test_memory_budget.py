"""Who goes when a model does not fit, who stays, who waits and who is refused."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.ids import ModelId
from sie_server.engine.memory import (
    GRACE_S,
    PATIENCE_S,
    Evict,
    Held,
    NoRoom,
    Refuse,
    Start,
    Wait,
    decide,
    is_out_of_memory,
    stale,
    surplus,
)
from sie_server.engine.room import Abandoned, Claim, Room, size

NOW_S = 1_000.0
BUDGET = 100

sizes = st.integers(min_value=0, max_value=60)
held = st.builds(
    Held,
    number=st.just(0),
    model_id=st.just(ModelId("acme/one")),
    size_bytes=sizes,
    phase=st.sampled_from(["waiting", "loading", "loaded", "loaded", "loaded", "leaving"]),
    pinned=st.booleans(),
    calls=st.integers(min_value=0, max_value=1),
    used_s=st.one_of(st.none(), st.floats(min_value=NOW_S - 100, max_value=NOW_S)),
    since_s=st.floats(min_value=NOW_S - 100, max_value=NOW_S),
)
others = st.lists(held, max_size=8).map(
    lambda made: [
        Held(number, ModelId(f"acme/{number}"), *[getattr(one, name) for name in Held.__struct_fields__[2:]])
        for number, one in enumerate(made)
    ]
)


def wanted(size_bytes: int, *, number: int = 99, since_s: float = NOW_S, pinned: bool = False) -> Held:
    return Held(number, ModelId("acme/wanted"), size_bytes, "waiting", pinned, since_s=since_s)


def loaded(number: int, size_bytes: int, *, used_s: float = NOW_S - 50, calls: int = 0, pinned: bool = False) -> Held:
    return Held(number, ModelId(f"acme/{number}"), size_bytes, "loaded", pinned, calls, used_s, NOW_S - 60)


def taken(books: list[Held]) -> int:
    return sum(one.size_bytes for one in books)


@given(others, sizes)
def test_pinned_and_expected_models_never_go_and_busy_ones_not_before_the_patience_ends(
    books: list[Held], size_bytes: int
) -> None:
    for since_s in (NOW_S, NOW_S - PATIENCE_S):
        decision = decide(wanted(size_bytes, since_s=since_s), books, budget_bytes=BUDGET, now_s=NOW_S)
        going = [books[number] for number in decision.numbers] if isinstance(decision, Evict) else []
        assert not any(one.pinned or one.phase != "loaded" for one in going)
        assert not any(one.used_s is None and not one.calls and one.since_s + GRACE_S > NOW_S for one in going)
        assert since_s < NOW_S or not any(one.calls for one in going)


idle_models = st.lists(st.tuples(st.integers(5, 40), st.integers(1, 90)), min_size=2, max_size=6).map(
    lambda made: [
        loaded(number, size_bytes, used_s=NOW_S - ago_s)
        for number, (size_bytes, ago_s) in enumerate(made)
        if sum(before[0] for before in made[: number + 1]) <= BUDGET
    ]
)


@given(st.one_of(others, idle_models), sizes)
def test_what_goes_is_enough_and_no_more_than_that_and_the_oldest(books: list[Held], size_bytes: int) -> None:
    decision = decide(wanted(size_bytes), books, budget_bytes=BUDGET, now_s=NOW_S)
    if not isinstance(decision, Evict):
        return
    going = [books[number] for number in decision.numbers]
    staying = [one for one in books if one.phase != "leaving" and one not in going]

    def last_used(one: Held) -> tuple[float, int]:
        return (one.since_s if one.used_s is None else one.used_s, one.number)

    assert taken(staying) + size_bytes <= BUDGET
    for one in going:
        assert taken([*staying, one]) + size_bytes > BUDGET, "it could have stayed"
    newest = max(going, key=last_used)
    idle_before = [one for one in staying if one.idle(NOW_S) and last_used(one) < last_used(newest)]
    without_older = [one for one in staying if one not in idle_before]
    assert taken([*without_older, newest]) + size_bytes > BUDGET, "older ones would have been enough"


@given(others, sizes)
def test_it_starts_when_it_fits_and_is_refused_when_it_never_will(books: list[Held], size_bytes: int) -> None:
    decision = decide(wanted(size_bytes), books, budget_bytes=BUDGET, now_s=NOW_S)

    stays = taken([one for one in books if one.pinned and one.phase != "leaving"])
    assert isinstance(decision, Refuse) == (size_bytes > BUDGET - stays)
    if not isinstance(decision, Refuse):
        assert isinstance(decision, Start) == (taken(books) + size_bytes <= BUDGET)


def test_the_least_recently_used_goes_first() -> None:
    books = [loaded(0, 40, used_s=NOW_S - 20), loaded(1, 40, used_s=NOW_S - 30)]

    assert decide(wanted(50), books, budget_bytes=BUDGET, now_s=NOW_S) == Evict((1,))


def test_a_small_model_is_spared_when_a_large_one_has_to_go_anyway() -> None:
    books = [loaded(0, 5, used_s=NOW_S - 40), loaded(1, 90, used_s=NOW_S - 30)]

    assert decide(wanted(80), books, budget_bytes=BUDGET, now_s=NOW_S) == Evict((1,))


def test_nothing_more_goes_for_what_is_already_on_its_way_out() -> None:
    books = [Held(0, ModelId("acme/0"), 60, "leaving"), loaded(1, 40)]

    assert isinstance(decide(wanted(60), books, budget_bytes=BUDGET, now_s=NOW_S), Wait)


def test_a_model_that_is_never_idle_is_drained_when_the_patience_ends() -> None:
    books = [loaded(0, 90, calls=3)]

    assert decide(wanted(50), books, budget_bytes=BUDGET, now_s=NOW_S) == Wait(NOW_S + PATIENCE_S)
    assert decide(wanted(50, since_s=NOW_S - PATIENCE_S), books, budget_bytes=BUDGET, now_s=NOW_S) == Evict((0,))


def test_a_model_stays_for_the_caller_it_was_loaded_for_however_long_somebody_has_waited() -> None:
    fresh = Held(0, ModelId("acme/0"), 90, since_s=NOW_S - 5)
    impatient = wanted(50, since_s=NOW_S - 1000)

    assert decide(impatient, [fresh], budget_bytes=BUDGET, now_s=NOW_S) == Wait(NOW_S - 5 + GRACE_S)
    assert decide(impatient, [fresh], budget_bytes=BUDGET, now_s=NOW_S - 5 + GRACE_S) == Evict((0,))


def test_first_come_first_served() -> None:
    """A small load does not pass a large one that has waited longer: it would never have its turn."""
    large, small = wanted(80, number=1), wanted(20, number=2)
    books = [loaded(0, 50, calls=1)]

    assert isinstance(decide(small, [*books, large], budget_bytes=BUDGET, now_s=NOW_S), Wait)
    assert isinstance(decide(large, [*books, small], budget_bytes=BUDGET, now_s=NOW_S), Wait)
    assert isinstance(decide(large, [small], budget_bytes=BUDGET, now_s=NOW_S), Start)


def test_two_loads_at_once_do_not_count_on_the_same_bytes() -> None:
    loading = Held(0, ModelId("acme/0"), 60, "loading")

    assert isinstance(decide(wanted(60), [loading], budget_bytes=BUDGET, now_s=NOW_S), Wait)


def test_what_pinned_models_leave_is_said_with_their_names() -> None:
    books = [loaded(1, 30, pinned=True), loaded(0, 40, pinned=True), loaded(2, 20)]

    refusal = decide(wanted(31), books, budget_bytes=BUDGET, now_s=NOW_S)
    assert refusal == Refuse(30, (ModelId("acme/0"), ModelId("acme/1")))


@given(others)
def test_models_that_took_more_than_was_said_push_idle_ones_out_and_no_others(books: list[Held]) -> None:
    going = [books[number] for number in surplus(books, budget_bytes=BUDGET, now_s=NOW_S)]
    idle = [one for one in books if one.idle(NOW_S)]
    left = [one for one in books if one not in going and one.phase not in ("waiting", "leaving")]

    assert all(one in idle for one in going)
    assert taken(left) <= BUDGET or len(going) == len(idle)
    assert all(taken([*left, one]) > BUDGET for one in going) or taken(left) > BUDGET


def test_a_model_that_nobody_used_for_long_enough_is_stale() -> None:
    books = [
        loaded(0, 1, used_s=NOW_S - 60),
        loaded(1, 1, used_s=NOW_S - 59),
        loaded(2, 1, used_s=NOW_S - 99, pinned=True),
        loaded(3, 1, used_s=NOW_S - 99, calls=1),
    ]

    assert stale(books, idle_s=60, now_s=NOW_S) == (0,)


@dataclass
class World:
    """Loads that come, calls that never stop, and time that goes by in seconds."""

    books: list[Held] = field(default_factory=list)
    started_s: dict[int, float] = field(default_factory=dict)
    began_s: dict[int, float] = field(default_factory=dict)
    now_s: float = 0.0

    def replaced(self, number: int, **changes: object) -> None:
        at = next(index for index, one in enumerate(self.books) if one.number == number)
        fields = {name: getattr(self.books[at], name) for name in Held.__struct_fields__}
        self.books[at] = Held(**(fields | changes))

    def turn(self) -> None:
        """One second: what is leaving has gone, what is loading is there, everything that is there is called."""
        self.books = [one for one in self.books if one.phase != "leaving"]
        for one in list(self.books):
            if one.phase == "loading":
                self.replaced(one.number, phase="loaded", since_s=self.now_s)
            elif one.phase == "loaded":
                self.replaced(one.number, calls=1, used_s=self.now_s)
        for one in sorted(self.books, key=lambda held: held.number):
            if one.phase == "waiting":
                self.decide(one)
        assert taken([one for one in self.books if one.phase != "waiting"]) <= BUDGET
        self.now_s += 1

    def decide(self, one: Held) -> None:
        others = [other for other in self.books if other.number != one.number]
        match decide(one, others, budget_bytes=BUDGET, now_s=self.now_s):
            case Start():
                self.replaced(one.number, phase="loading")
                self.started_s[one.number] = self.now_s
            case Evict(numbers):
                for number in numbers:
                    self.replaced(number, phase="leaving")
            case Refuse():
                raise AssertionError("it fits when everybody else has gone")


@given(st.lists(st.tuples(st.integers(min_value=1, max_value=BUDGET), st.integers(0, 5)), min_size=1, max_size=12))
def test_every_load_has_its_turn_and_the_budget_always_holds(loads: list[tuple[int, int]]) -> None:
    """Even when every loaded model is called all the time. Each load waits for those before it, and for each of them
    the patience or the grace, an unloading and a loading at most."""
    world = World()
    for number, (size_bytes, pause_s) in enumerate(loads):
        for _ in range(pause_s):
            world.turn()
        world.books.append(Held(number, ModelId(f"acme/{number}"), size_bytes, "waiting", since_s=world.now_s))
        world.began_s[number] = world.now_s
    for _ in range(int(len(loads) * (max(PATIENCE_S, GRACE_S) + 4))):
        world.turn()

    assert sorted(world.started_s) == list(range(len(loads)))


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Model:
    """A loaded model as `Room` sees it."""

    calls: int = 0
    used_s: float | None = NOW_S
    memory_bytes: int = 0


def always() -> bool:
    return True


def filled(room: Room, name: str, size_bytes: int, *, pinned: bool = False, model: Model | None = None) -> Model:
    claim = room.open(ModelId(name), pinned=pinned)
    room.take(claim, size_bytes, wanted=always, say=lambda note: None)
    use = model or Model()
    room.loaded(claim, use)
    return use


def in_thread(action: Callable[[], None]) -> tuple[threading.Thread, list[Exception]]:
    raised: list[Exception] = []

    def run() -> None:
        try:
            action()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def test_a_load_waits_in_its_own_thread_until_the_memory_is_back_and_says_so() -> None:
    evicted: list[Claim] = []
    notes: list[str] = []
    told, waits = threading.Event(), threading.Event()

    def evict(claims: Sequence[Claim]) -> None:
        evicted.extend(claims)
        told.set()

    def say(note: str) -> None:
        notes.append(note)
        waits.set()

    room = Room(BUDGET, evict=evict, clock=Clock())
    first = filled(room, "acme/first", 60)
    claim = room.open(ModelId("acme/second"), pinned=False)
    thread, raised = in_thread(lambda: room.take(claim, 70, wanted=always, say=say))

    assert told.wait(30)
    assert waits.wait(30)
    assert [one.model_id for one in evicted] == ["acme/first"]
    assert thread.is_alive()
    room.gone(first)
    thread.join(30)
    assert not thread.is_alive()
    assert raised == []
    assert notes == ["waiting for memory: it takes about 70 bytes of the 100 bytes for models"]
    assert [(one.model_id, one.phase) for one in room.claims()] == [("acme/second", "loading")]


def test_what_can_never_fit_is_refused_with_both_numbers_and_what_stays() -> None:
    room = Room(3_000_000_000, evict=lambda claims: None, clock=Clock())
    filled(room, "acme/pinned", 1_000_000_000, pinned=True)
    claim = room.open(ModelId("acme/large"), pinned=False)

    with pytest.raises(NoRoom, match=r"it takes about 2\.27 GB, and models may have 2 GB, less `acme/pinned`"):
        room.take(claim, 2_270_000_000, wanted=always, say=lambda note: None)
    assert [one.model_id for one in room.claims()] == ["acme/pinned"]


def test_a_load_that_nobody_wants_any_more_stops_waiting() -> None:
    room = Room(BUDGET, evict=lambda claims: None, clock=Clock())
    filled(room, "acme/busy", 90, model=Model(calls=1))
    wanted_still = [True]
    waits = threading.Event()
    claim = room.open(ModelId("acme/second"), pinned=False)
    thread, raised = in_thread(
        lambda: room.take(claim, 70, wanted=lambda: wanted_still[0], say=lambda note: waits.set())
    )

    assert waits.wait(30)
    wanted_still[0] = False
    room.look_again()
    thread.join(30)
    assert [type(error) for error in raised] == [Abandoned]
    assert room.waiting == 0


def test_a_process_that_stops_does_not_wait_for_memory() -> None:
    room = Room(BUDGET, evict=lambda claims: None, clock=Clock())
    filled(room, "acme/busy", 90, model=Model(calls=1))
    waits = threading.Event()
    claim = room.open(ModelId("acme/second"), pinned=False)
    thread, raised = in_thread(lambda: room.take(claim, 70, wanted=always, say=lambda note: waits.set()))

    assert waits.wait(30)
    room.close()
    thread.join(30)
    assert [type(error) for error in raised] == [Abandoned]


def test_what_a_load_took_replaces_what_was_predicted() -> None:
    grown = [1_000]
    room = Room(10_000, evict=lambda claims: None, measure=lambda: grown[0], clock=Clock())
    claim = room.open(ModelId("acme/one"), pinned=False)
    room.take(claim, 500, wanted=always, say=lambda note: None)
    grown[0] += 700
    room.loaded(claim, Model())

    assert (claim.predicted_bytes, claim.measured_bytes, claim.size_bytes) == (500, 700, 700)


def test_nothing_is_measured_while_two_load_at_once() -> None:
    grown = [1_000]
    room = Room(10_000, evict=lambda claims: None, measure=lambda: grown[0], clock=Clock())
    claims = [room.open(ModelId(f"acme/{name}"), pinned=False) for name in ("one", "two")]
    for claim in claims:
        room.take(claim, 500, wanted=always, say=lambda note: None)
    grown[0] += 5_000
    for claim in claims:
        room.loaded(claim, Model())

    assert [claim.measured_bytes for claim in claims] == [None, None]
    assert [claim.size_bytes for claim in claims] == [500, 500]


def test_a_model_that_grows_after_its_load_counts_for_what_it_says() -> None:
    """And for what was measured beside it: a second copy of the weights is not the tokenizer's memory."""
    grown = [0]
    room = Room(10_000, evict=lambda claims: None, measure=lambda: grown[0], clock=Clock())
    model = Model(memory_bytes=500)
    claim = room.open(ModelId("acme/one"), pinned=False)
    room.take(claim, 450, wanted=always, say=lambda note: None)
    grown[0] += 600
    room.loaded(claim, model)
    before = claim.size_bytes
    model.memory_bytes = 1_000

    assert (before, claim.size_bytes) == (600, 1_100)


def test_a_load_that_took_more_than_was_predicted_has_an_idle_model_go() -> None:
    evicted: list[Claim] = []
    grown = [0]
    room = Room(BUDGET, evict=evicted.extend, measure=lambda: grown[0], clock=Clock())
    filled(room, "acme/old", 40, model=Model(memory_bytes=40))
    claim = room.open(ModelId("acme/greedy"), pinned=False)
    room.take(claim, 50, wanted=always, say=lambda note: None)
    grown[0] += 80
    room.loaded(claim, Model())

    assert [one.model_id for one in evicted] == ["acme/old"]


def test_without_a_budget_everything_fits() -> None:
    room = Room(None, evict=lambda claims: None, clock=Clock())

    filled(room, "acme/one", 10**15)


def test_sizes_are_said_for_people() -> None:
    assert [size(count) for count in (12, 43_000, 43_000_000, 2_271_000_000)] == [
        "12 bytes",
        "43 kB",
        "43 MB",
        "2.27 GB",
    ]


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("Exception from src/inference/src/cpp/infer_request.cpp:245:\nstd::bad_alloc"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("std::bad_alloc"), False),
    ],
)
def test_an_engine_that_is_out_of_memory_is_known_by_its_type_or_its_words(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) == is_one
