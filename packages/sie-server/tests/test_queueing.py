"""The engine under load: what runs with what, who is dropped, who is turned away, what fails alone."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sie_server.engine.engine import Limits
from sie_server.engine.executor import Executor
from sie_server.engine.jobs import Job, Ticket
from sie_server.engine.scheduler import Scheduler
from sie_server.models.calls import Encode, Extract, Output, Picture, Prepared, Score
from sie_testing.site import TINY, Caller, spec
from sie_testing.tiny import TinyModel

ENCODE = "/v1/encode/acme/tiny"
ONE_STREAM = Limits(queue_tokens=10_000, batch_tokens=64, streams=1, tokenizer_threads=1)


class Gate:
    """Holds the device at its first batch until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, batch: Sequence[Prepared]) -> None:
        self.reached.set()
        assert self.opened.wait(30)

    async def until_reached(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.reached.wait, 30)


def text(words: int) -> dict[str, str]:
    return {"text": " ".join(["word"] * words)}


def test_calls_that_arrive_while_the_device_is_busy_run_together_by_length(sites: Any) -> None:
    gate = Gate()
    model = TinyModel(before_run=gate, max_tokens=64)
    site = sites(model, limits=ONE_STREAM)
    site.load(spec())

    async def scenario() -> list[int]:
        first = asyncio.create_task(site.posting(ENCODE, {"items": [text(1)]}))
        await gate.until_reached()
        others = [asyncio.create_task(site.posting(ENCODE, {"items": [text(words)]})) for words in (8, 40, 9, 8)]
        await until(lambda: len(site.engine.residency.look(spec()).scheduler) == 4)
        gate.opened.set()
        return [(await task).status for task in (first, *others)]

    assert site.run(scenario()) == [200] * 5
    assert [sorted(batch) for batch in model.batches] == [[3], [10, 10, 11], [42]]


@pytest.mark.parametrize(
    ("call", "inline"),
    [
        (Encode(("a few words", "and more")), True),
        (Encode(("word " * 1000,)), False),
        (Encode(("",) * 1000), False),
        (Encode(("a",), instruction="word " * 1000), False),
        (Encode((Picture(b""),)), False),
        (Score("a", ("b", "c")), True),
        (Score("word " * 1000, ("b",)), False),
        (Extract(("a",), labels=("b", "c")), True),
        (Extract(("a",), labels=("word " * 1000,)), False),
    ],
)
def test_only_a_few_words_are_tokenised_where_every_other_call_is_answered(
    sites: Any, call: Encode | Score | Extract, inline: bool
) -> None:
    """Whatever the model's own estimate, which ends where it cuts texts off."""
    threads: list[str] = []

    class Noting(TinyModel):
        def estimate_tokens(self, call: Any) -> int:
            return 1

        def prepare(self, call: Any) -> list[Prepared]:
            threads.append(threading.current_thread().name)
            return super().prepare(Encode(("a",)))

        def finish(self, call: Any, prepared: Any, outputs: Any) -> Any:
            return list(outputs)

    site = sites(Noting(), limits=ONE_STREAM)
    site.load(spec())

    async def scenario() -> None:
        resident = site.engine.residency.look(spec())
        await site.engine.run(resident, call, site.engine.ticket(arrived_s=0.0))

    site.run(scenario())
    assert [name.startswith("tokenizer") for name in threads] == [not inline]


def test_the_device_threads_are_the_only_ones_that_run_the_model(site: Any, model: TinyModel) -> None:
    site.post(ENCODE, {"items": [text(5)] * 40})

    assert model.threads <= {"device-0", "device-1"}
    assert model.streams <= {0, 1}


def test_one_call_on_an_idle_worker_is_shared_between_the_streams(sites: Any) -> None:
    both = threading.Barrier(2)

    def meet(batch: Sequence[Prepared]) -> None:
        both.wait(30)

    model = TinyModel(before_run=meet)
    site = sites(model)
    site.load(spec())

    async def scenario() -> Any:
        await until(lambda: site.engine._executor._idle == 2)
        return await site.posting(ENCODE, {"items": [text(4)] * 8})

    assert site.run(scenario()).status == 200
    assert sorted(len(batch) for batch in model.batches) == [4, 4]


def test_a_retired_model_is_closed_when_its_last_batch_has_ended_and_not_before() -> None:
    """Also where nobody waits for that batch any more."""
    model = TinyModel()
    scheduler = Scheduler(TINY, model, budget_tokens=64)
    loop = asyncio.new_event_loop()
    ticket = Ticket(loop, arrived_s=0.0)
    loop.close()
    scheduler.add([Job(item, ticket, 0, item.tokens) for item in model.prepare(Encode(("a",)))])

    assert len(scheduler.take(0.0, share=1).batch) == 1
    scheduler.retire()
    assert not model.closed
    scheduler.ran()
    assert model.closed


def test_a_caller_that_hung_up_is_dropped_when_its_job_is_met(sites: Any) -> None:
    gate = Gate()
    model = TinyModel(before_run=gate)
    site = sites(model, limits=ONE_STREAM)
    site.load(spec())

    async def scenario() -> None:
        first = asyncio.create_task(site.posting(ENCODE, {"items": [text(1)]}))
        await gate.until_reached()
        caller = Caller([{"type": "http.request", "body": b'{"items": [{"text": "a b c"}]}', "more_body": False}])
        gone = asyncio.create_task(site.asking(caller, "POST", ENCODE, {"content-type": "application/json"}))
        await until(lambda: len(site.engine.residency.look(spec()).scheduler) == 1)
        caller.hung_up.set()
        await asyncio.wait([gone])
        assert caller.sent == []
        gate.opened.set()
        await first
        await site.posting(ENCODE, {"items": [text(2)]})

    site.run(scenario())
    assert model.batches == [[3], [4]]
    assert 'sie_jobs_dropped_total{model="acme/tiny"} 1' in site.get("/metrics").body.decode()
    assert 'status="499"} 1' in site.get("/metrics").body.decode()
    assert site.engine.queued_tokens == 0


def test_a_call_whose_deadline_passes_in_the_queue_is_504_and_never_runs(sites: Any) -> None:
    gate = Gate()
    model = TinyModel(before_run=gate)
    site = sites(model, limits=ONE_STREAM)
    site.load(spec())

    async def scenario() -> Any:
        first = asyncio.create_task(site.posting(ENCODE, {"items": [text(1)]}))
        await gate.until_reached()
        late = await site.posting(ENCODE, {"items": [text(3)]}, {"x-sie-timeout-ms": "5"})
        gate.opened.set()
        await first
        return late

    late = site.run(scenario())
    assert (late.status, late.error["code"]) == (504, "DEADLINE_EXCEEDED")
    site.post(ENCODE, {"items": [text(2)]})
    assert model.batches == [[3], [4]]


def test_a_call_without_time_left_is_504_at_once(site: Any, model: TinyModel) -> None:
    reply = site.post(ENCODE, {"items": [text(1)]}, {"x-sie-timeout-ms": "0"})

    assert reply.status == 504
    assert model.batches == []


def test_a_full_queue_is_503_with_a_delay_and_both_numbers(sites: Any) -> None:
    gate = Gate()
    site = sites(TinyModel(before_run=gate), limits=Limits(20, 64, 1, 1))
    site.load(spec())

    async def scenario() -> Any:
        first = asyncio.create_task(site.posting(ENCODE, {"items": [text(10)]}))
        await gate.until_reached()
        refused = await site.posting(ENCODE, {"items": [text(10)]})
        gate.opened.set()
        await first
        return refused

    refused = site.run(scenario())
    assert (refused.status, refused.error["code"]) == (503, "QUEUE_FULL")
    assert refused.headers["retry-after"] == "1"
    assert refused.error["message"] == "12 tokens are waiting and the call adds about 14; the limit is 20"
    assert site.engine.queued_tokens == 0
    assert site.post(ENCODE, {"items": [text(10)]}).status == 200


def test_a_call_larger_than_the_whole_queue_is_taken_when_nothing_waits(sites: Any) -> None:
    site = sites(limits=Limits(20, 64, 1, 1))
    site.load(spec())

    assert site.post(ENCODE, {"items": [text(10)] * 50}).status == 200


def test_an_item_that_breaks_the_model_fails_alone(sites: Any) -> None:
    def refuse_long(batch: Sequence[Prepared]) -> None:
        if any(item.tokens == 9 for item in batch):
            raise RuntimeError("boom")

    site = sites(TinyModel(before_run=refuse_long))
    site.load(spec())
    reply = site.post(ENCODE, {"items": [text(6), text(7), text(6)]})

    assert reply.status == 200
    assert ["dense" in item for item in reply.json["items"]] == [True, False, True]
    assert reply.json["items"][1]["error"]["code"] == "INFERENCE_ERROR"


def test_a_model_that_gives_too_few_outputs_fails_the_call_and_not_the_queue(sites: Any) -> None:
    """An answer that never comes would hold its caller, and its tokens, for ever."""

    class Forgetful(TinyModel):
        def run(self, batch: Sequence[Prepared], *, stream: int) -> list[Output]:
            return super().run(batch, stream=stream)[1:]

    site = sites(Forgetful())
    site.load(spec())

    assert site.post(ENCODE, {"items": [text(2)] * 3}).error["code"] == "INFERENCE_ERROR"
    assert site.engine.queued_tokens == 0


def test_a_call_whose_items_all_fail_alike_fails_as_a_whole(sites: Any) -> None:
    def out_of_memory(batch: Sequence[Prepared]) -> None:
        raise MemoryError

    site = sites(TinyModel(before_run=out_of_memory))
    site.load(spec())
    reply = site.post(ENCODE, {"items": [text(6), text(7)]})

    assert (reply.status, reply.error["code"]) == (503, "RESOURCE_EXHAUSTED")
    assert reply.headers["retry-after"] == "5"


def test_a_batch_that_does_not_fit_in_memory_is_run_in_halves(sites: Any) -> None:
    def only_two(batch: Sequence[Prepared]) -> None:
        if len(batch) > 2:
            raise MemoryError

    model = TinyModel(before_run=only_two)
    site = sites(model, limits=ONE_STREAM)
    site.load(spec())
    reply = site.post(ENCODE, {"items": [text(4)] * 8})

    assert all("dense" in item for item in reply.json["items"])
    assert all(len(batch) <= 2 for batch in model.batches)
    page = site.get("/metrics").body.decode()
    assert 'sie_oom_batch_splits{model="acme/tiny"} 3' in page
    assert 'sie_device_seconds_total{model="acme/tiny"} ' in page


def test_many_calls_at_once_each_get_their_own_answer(site: Any) -> None:
    model = TinyModel()
    texts = [" ".join([f"w{number}"] * (number % 13 + 1)) for number in range(200)]

    async def scenario() -> list[Any]:
        return await asyncio.gather(*(site.posting(ENCODE, {"items": [{"text": one}]}) for one in texts))

    for one, reply in zip(texts, site.run(scenario()), strict=True):
        wanted = model.output(model.prepare(Encode((one,)))[0]).dense
        np.testing.assert_array_equal(np.float32(reply.json["items"][0]["dense"]["values"]), wanted)
    assert site.engine.queued_tokens == 0


def test_a_model_with_long_batches_leaves_one_with_short_ones_as_much_of_the_device() -> None:
    """Ten batches of a second each wait before a hundred of a tenth: by age all of the first would come before."""
    clock = Clock()
    order: list[str] = []

    def costing(name: str, seconds: float) -> TinyModel:
        def run(batch: Sequence[Prepared]) -> None:
            order.append(name)
            clock.now_s += seconds

        return TinyModel(before_run=run)

    long, short = costing("long", 1.0), costing("short", 0.1)
    all_ran = threading.Semaphore(0)
    executor = Executor(streams=1, deliver=lambda finished: all_ran.release(), clock=clock)
    loop = asyncio.new_event_loop()
    for model, batches in ((long, 10), (short, 100)):
        ticket = Ticket(loop, arrived_s=0.0)
        scheduler = Scheduler(TINY, model, budget_tokens=1)
        items = model.prepare(Encode(("a",) * batches))
        executor.submit(scheduler, [Job(item, ticket, index, item.tokens) for index, item in enumerate(items)])
    loop.close()
    executor.start()
    for _ in range(110):
        assert all_ran.acquire(timeout=30)
    executor.close()

    for turn in range(len(order)):
        had = {name: order[:turn].count(name) for name in ("long", "short")}
        if had["long"] < 10 and had["short"] < 100:
            assert abs(had["long"] * 1.0 - had["short"] * 0.1) <= 1.1 + 1e-6


def test_a_caller_that_hung_up_while_its_call_waited_for_a_tokenizer_is_not_tokenised(sites: Any) -> None:
    gate = Gate()
    prepared: list[int] = []

    class Slow(TinyModel):
        def prepare(self, call: Any) -> list[Prepared]:
            gate([])
            prepared.append(len(call.inputs[0].split()))
            return super().prepare(call)

    site = sites(Slow(max_tokens=2_000), limits=ONE_STREAM)
    site.load(spec())
    tickets: list[Ticket] = []
    made = site.engine.ticket

    def ticket(**when: Any) -> Ticket:
        tickets.append(made(**when))
        return tickets[-1]

    site.engine.ticket = ticket

    async def scenario() -> None:
        first = asyncio.create_task(site.posting(ENCODE, {"items": [text(300)]}))
        await gate.until_reached()
        body = b'{"items": [{"text": "' + b"gone " * 500 + b'"}]}'
        caller = Caller([{"type": "http.request", "body": body, "more_body": False}])
        gone = asyncio.create_task(site.asking(caller, "POST", ENCODE, {"content-type": "application/json"}))
        await until(lambda: site.engine.residency.look(spec()).calls == 2)
        caller.hung_up.set()
        await until(lambda: tickets[1].done.done())
        gate.opened.set()
        await asyncio.wait([first, gone])
        assert caller.sent == []

    site.run(scenario())

    assert prepared == [300]
    assert site.engine.queued_tokens == 0


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def until(holds: Any) -> None:
    """Lets the event loop turn until something holds."""
    while not holds():  # noqa: ASYNC110 - what is awaited has no event, and inventing one would bend the code
        await asyncio.sleep(0)
