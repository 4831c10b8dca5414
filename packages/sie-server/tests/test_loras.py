"""Variants with a LoRA: the first call has it fetched and added, and others are answered meanwhile."""

import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from sie_core.artifacts.errors import NotThere, Unreachable
from sie_core.catalog.spec import DenseHead, ModelSpec, Variant
from sie_core.catalog.spec import Lora as LoraSource
from sie_core.errors import ApiError
from sie_core.ids import ModelId
from sie_server.engine import loras
from sie_server.engine.residency import NETWORK_S, Made, Resident
from sie_server.engine.room import Claim, Room
from sie_server.engine.scheduler import Scheduler
from sie_server.models.adapting import AdaptingNetwork
from sie_server.models.calls import Precision, Take
from sie_server.models.ops.adapted import Factors, Lora, Loras
from sie_server.models.ops.plan import Plan, plan_batch
from sie_server.models.tokens import pack
from sie_testing.tiny import TinyModel

SPEC = ModelSpec(
    id=ModelId("acme/base"),
    dense=DenseHead(),
    variants={"banking": Variant(lora=LoraSource(ModelId("acme/lora"))), "plain": Variant()},
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Books:
    """A budget, with a model in it; `evicted` are the claims that were told to go."""

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.clock = Clock()
        self.evicted: list[Claim] = []
        self.room = Room(budget_bytes, evict=self.evicted.extend, clock=self.clock)

    def hold(self, one: Resident, *, used_s: float | None = None) -> Resident:
        claim = self.room.open(one.spec.id, pinned=False)
        self.room.take(claim, one.memory_bytes, wanted=lambda: True, say=lambda note: None)
        self.room.loaded(claim, one)
        one.used_s = used_s
        return one

    def held(self) -> list[tuple[str, int]]:
        return [(one.phase, one.size_bytes) for one in self.room.claims()]


def resident(add: Callable[[str, Take], object], *, model: TinyModel | None = None) -> Resident:
    model = model or TinyModel()

    def add_lora(variant: str, take: Take) -> None:
        add(variant, take)

    made = Made(model, "f" * 40, True, add_lora)
    return Resident(SPEC, made, Scheduler(SPEC.id, model, budget_tokens=64), load_s=0.0)


def nothing(variant: str, take: Take) -> None: ...


def ended() -> None:
    for thread in threading.enumerate():
        if thread.name == "lora-banking":
            thread.join(30)


def refused(one: Resident, books: Books, variant: str = "banking") -> ApiError:
    with pytest.raises(ApiError) as answer:
        loras.look(one, variant, books.room, books.clock)
    return answer.value


def test_the_first_call_begins_and_later_ones_run() -> None:
    gate, added = threading.Event(), list[str]()

    def add(variant: str, take: Take) -> None:
        assert gate.wait(30)
        added.append(variant)

    one, books = resident(add), Books()

    assert [refused(one, books).code for _ in range(3)] == ["LORA_LOADING"] * 3
    loras.look(one, None, books.room, books.clock)
    loras.look(one, "plain", books.room, books.clock)
    gate.set()
    ended()
    loras.look(one, "banking", books.room, books.clock)
    assert added == ["banking"]


@pytest.mark.parametrize(("error", "permanent"), [(NotThere("no acme/lora"), True), (Unreachable("no network"), False)])
def test_a_failure_is_told_with_its_reason_and_heals(error: Exception, permanent: bool) -> None:
    failures = [error]

    def add(variant: str, take: Take) -> None:
        if failures:
            raise failures.pop()

    one, books = resident(add), Books()
    refused(one, books)
    ended()
    answer = refused(one, books)

    assert answer.code == "MODEL_LOAD_FAILED"
    assert answer.message == f"LoRA `acme/lora` of variant `banking` could not be loaded: {error}"
    assert answer.extra["permanent"] is permanent
    books.clock.now_s += 2 * NETWORK_S
    assert refused(one, books).code == "LORA_LOADING"
    ended()
    loras.look(one, "banking", books.room, books.clock)


def test_models_share_no_loras() -> None:
    one, other, books = resident(nothing), resident(nothing), Books()
    refused(one, books)
    ended()
    loras.look(one, "banking", books.room, books.clock)

    assert refused(other, books).code == "LORA_LOADING"
    ended()


def test_a_model_that_is_unloaded_while_its_lora_comes_is_closed_after_it() -> None:
    """Adding one may have made its network anew, after it was closed."""
    gate = threading.Event()

    def add(variant: str, take: Take) -> None:
        assert gate.wait(30)

    one, books = resident(add), Books()
    refused(one, books)
    one.retired = True
    gate.set()
    ended()

    assert isinstance(one.model, TinyModel)
    assert one.model.closed


def test_what_adding_one_takes_is_claimed_and_given_back() -> None:
    taken, gate = threading.Event(), threading.Event()

    def add(variant: str, take: Take) -> None:
        take(700)
        taken.set()
        assert gate.wait(30)

    books = Books(2_000)
    one = books.hold(resident(add))
    refused(one, books)
    assert taken.wait(30)
    during = books.held()
    gate.set()
    ended()

    assert during == [("loaded", 1024), ("loading", 700)]
    assert books.held() == [("loaded", 1024)]
    loras.look(one, "banking", books.room, books.clock)


def test_a_model_never_goes_for_its_own_lora_and_both_numbers_are_said() -> None:
    """It would be loaded again for the next call, and go again."""
    books = Books(2_000)
    one = books.hold(resident(lambda variant, take: take(1_000)), used_s=0.0)
    refused(one, books)
    ended()
    answer = refused(one, books)

    assert answer.extra["error_class"] == "OOM"
    assert "it takes about 1 kB, and models may have 976 bytes, less `acme/base`" in answer.message
    assert books.evicted == []
    assert books.held() == [("loaded", 1024)]


def test_an_idle_model_goes_for_a_lora_and_callers_are_told_what_it_waits_for() -> None:
    books = Books(2_500)
    one = books.hold(resident(lambda variant, take: take(1_000)), used_s=0.0)
    idle = books.hold(resident(nothing), used_s=0.0)
    refused(one, books)
    while not books.evicted:
        assert refused(one, books).code == "LORA_LOADING"
    went = [claim.use is idle for claim in books.evicted]
    books.room.gone(idle)
    ended()

    assert went == [True]
    loras.look(one, "banking", books.room, books.clock)
    assert books.held() == [("loaded", 1024)]


def test_a_model_that_is_evicted_while_its_lora_comes_has_that_memory_counted_until_it_is_back() -> None:
    """Its own claim ends when it is closed, and the network that is being made for the LoRA is there still."""
    taken, gate = threading.Event(), threading.Event()

    def add(variant: str, take: Take) -> None:
        take(900)
        taken.set()
        assert gate.wait(30)

    books = Books(2_000)
    one = books.hold(resident(add))
    refused(one, books)
    assert taken.wait(30)
    one.retired = True
    books.room.gone(one)
    between = books.held()
    gate.set()
    ended()

    assert between == [("loading", 900)]
    assert books.held() == []


def test_a_lora_that_waits_for_memory_is_given_up_when_its_model_goes() -> None:
    books = Books(2_500)
    busy = books.hold(resident(nothing))
    busy.calls = 1
    one = books.hold(resident(lambda variant, take: take(1_000)))
    refused(one, books)
    while "waiting for memory" not in (answer := refused(one, books)).message:
        assert answer.code == "LORA_LOADING"
    one.retired = True
    books.room.gone(one)
    ended()

    assert books.held() == [("loaded", 1024)]
    assert books.room.waiting == 0


@dataclass(eq=False)
class TinyNetwork:
    """See `model.Network`; a pass begins by saying so and lasts until `gate` is open."""

    layers: frozenset[str]
    precision: Precision = "f32"
    memory_bytes: int = 500
    began: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)

    def run(self, plan: Plan, *, stream: int) -> Mapping[str, Any]:
        self.began.set()
        assert self.gate.wait(30)
        return {}

    def settle(self) -> None: ...

    def close(self) -> None: ...


def lora(name: str, *layers: str) -> Lora:
    return Lora(name, {layer: Factors(np.zeros((2, 8), np.float32), np.zeros((8, 2), np.float32)) for layer in layers})


def test_a_second_network_is_claimed_only_for_layers_that_have_no_place_yet() -> None:
    made: list[frozenset[str]] = []

    def make(loras: Loras) -> TinyNetwork:
        made.append(loras.layers)
        return TinyNetwork(loras.layers)

    network, taken = AdaptingNetwork(make), list[int]()
    for one in (lora("a", "x", "y"), lora("b", "x"), lora("c", "z")):
        network.add(one, taken.append)

    assert made == [frozenset(), {"x", "y"}, {"x", "y", "z"}]
    assert taken == [500 + 2 * 128, 128, 500 + 128]
    assert network.memory_bytes == 500 + 4 * 128


def test_a_network_is_given_back_when_its_last_pass_has_ended() -> None:
    made = list[weakref.ref[TinyNetwork]]()

    def make(loras: Loras) -> TinyNetwork:
        one = TinyNetwork(loras.layers)
        made.append(weakref.ref(one))
        return one

    network = AdaptingNetwork(make)
    first = made[0]()
    assert first is not None
    began, gate = first.began, first.gate
    del first
    plan = plan_batch(pack([np.zeros(1, np.int32)]))
    passing = threading.Thread(target=network.run, args=(plan,), kwargs={"stream": 0})
    passing.start()
    assert began.wait(30)
    adding = threading.Thread(target=network.add, args=(lora("a", "x"), lambda size_bytes: None))
    adding.start()
    while len(made) < 2:
        assert adding.is_alive()
    still = made[0]() is not None and adding.is_alive()
    gate.set()
    adding.join(30)

    assert still
    assert not adding.is_alive()
    assert made[0]() is None
    passing.join()
