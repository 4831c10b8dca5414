"""Variants with a LoRA: the first call has it fetched and added, and others are answered meanwhile."""

import threading
from collections.abc import Callable

import pytest

from sie_core.artifacts.errors import NotThere, Unreachable
from sie_core.catalog.spec import DenseHead, Lora, ModelSpec, Variant
from sie_core.errors import ApiError
from sie_core.ids import ModelId
from sie_server.engine import loras
from sie_server.engine.residency import NETWORK_S, Made, Resident
from sie_server.engine.scheduler import Scheduler
from sie_testing.tiny import TinyModel

SPEC = ModelSpec(
    id=ModelId("acme/base"),
    dense=DenseHead(),
    variants={"banking": Variant(lora=Lora(ModelId("acme/lora"))), "plain": Variant()},
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def resident(add: Callable[[str], None]) -> Resident:
    model = TinyModel()
    made = Made(model, "f" * 40, True, add)
    return Resident(SPEC, made, Scheduler(SPEC.id, model, budget_tokens=64), load_s=0.0)


def ended() -> None:
    for thread in threading.enumerate():
        if thread.name == "lora-banking":
            thread.join(30)


def refused(one: Resident, clock: Clock, variant: str = "banking") -> ApiError:
    with pytest.raises(ApiError) as answer:
        loras.look(one, variant, clock)
    return answer.value


def test_the_first_call_begins_and_later_ones_run() -> None:
    gate, added = threading.Event(), list[str]()

    def add(variant: str) -> None:
        assert gate.wait(30)
        added.append(variant)

    one, clock = resident(add), Clock()

    assert [refused(one, clock).code for _ in range(3)] == ["LORA_LOADING"] * 3
    loras.look(one, None, clock)
    loras.look(one, "plain", clock)
    gate.set()
    ended()
    loras.look(one, "banking", clock)
    assert added == ["banking"]


@pytest.mark.parametrize(("error", "permanent"), [(NotThere("no acme/lora"), True), (Unreachable("no network"), False)])
def test_a_failure_is_told_with_its_reason_and_heals(error: Exception, permanent: bool) -> None:
    failures = [error]

    def add(variant: str) -> None:
        if failures:
            raise failures.pop()

    one, clock = resident(add), Clock()
    refused(one, clock)
    ended()
    answer = refused(one, clock)

    assert answer.code == "MODEL_LOAD_FAILED"
    assert answer.message == f"LoRA `acme/lora` of variant `banking` could not be loaded: {error}"
    assert answer.extra["permanent"] is permanent
    clock.now_s += 2 * NETWORK_S
    assert refused(one, clock).code == "LORA_LOADING"
    ended()
    loras.look(one, "banking", clock)


def test_models_share_no_loras() -> None:
    one, other, clock = resident(lambda variant: None), resident(lambda variant: None), Clock()
    refused(one, clock)
    ended()
    loras.look(one, "banking", clock)

    assert refused(other, clock).code == "LORA_LOADING"
    ended()


def test_a_model_that_is_unloaded_while_its_lora_comes_is_closed_after_it() -> None:
    """Adding one may have made its network anew, after it was closed."""
    gate = threading.Event()

    def add(variant: str) -> None:
        assert gate.wait(30)

    one, clock = resident(add), Clock()
    refused(one, clock)
    one.retired = True
    gate.set()
    ended()

    assert isinstance(one.model, TinyModel)
    assert one.model.closed
