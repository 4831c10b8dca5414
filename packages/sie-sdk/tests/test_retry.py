"""Which answers are waited for, how long, and what is raised at the end: one table, run three ways."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.wire.codec import Format, encode
from sie_core.wire.messages import (
    Dense,
    EncodedItem,
    EncodeResponse,
    ExtractedItem,
    ExtractResponse,
    ScoreEntry,
    ScoreResponse,
)
from sie_sdk import (
    GatedModelError,
    LoraLoadingError,
    ModelLoadFailedError,
    ModelLoadingError,
    ProvisioningError,
    RequestError,
    ResourceExhaustedError,
    ServerError,
    SIEConnectionError,
    SIEError,
    _flows,
)
from sie_sdk._drivers import AwaitingDriver, BlockingDriver, _passes
from sie_sdk._inputs import Caller, EncodeCall, ExtractCall, ScoreCall
from sie_sdk._steps import Flow, Lost, Reply, Send, Sleep, Woken
from sie_sdk._verdicts import Patience, memory_delay_s
from sie_testing.script import Answer, HangUp, Script

MODEL = "org/name"
OK = Answer(
    200,
    {"content-type": "application/msgpack"},
    encode(EncodeResponse(MODEL, [EncodedItem(dense=Dense(2, "float32", [1.0, 2.0]))]), Format.MSGPACK),
)


RESULTS = {
    "encode": OK.body,
    "score": encode(ScoreResponse(MODEL, [ScoreEntry("item-0", 1.0, 0)]), Format.MSGPACK),
    "extract": encode(ExtractResponse(MODEL, [ExtractedItem("item-0")]), Format.MSGPACK),
}


def said(status: int, code: str | None = None, after: str | None = None, /, **more: object) -> Answer:
    headers = {"content-type": "application/json"} | ({"retry-after": after} if after is not None else {})
    body = {"detail": {"code": code, "message": f"it is {code}", **more}} if code else {"message": "no"}
    return Answer(status, headers, msgspec.json.encode(body))


@dataclass(frozen=True)
class Row:
    """One line of the table: the answers, what is slept between them, and what is raised (None: a result)."""

    name: str
    answers: Sequence[Answer | HangUp]
    sleeps: Sequence[float] = ()
    raises: type[SIEError] | None = None
    wait: bool = True
    budget_s: float = 900.0
    oom: int = 3


LORA, OOM, LOADING = said(503, "LORA_LOADING"), said(503, "RESOURCE_EXHAUSTED"), said(503, "MODEL_LOADING", "7")
TABLE = [
    Row("an answer at once", [OK]),
    Row("202 waits as told", [said(202, None, "9"), OK], [9]),
    Row("202 without a time waits 5 s", [said(202), OK], [5]),
    Row("202 raises at once where waiting is not wanted", [said(202, None, "9")], [], ProvisioningError, wait=False),
    Row("202 to the end", [said(202, None, "30")] * 3, [30, 29], ProvisioningError, budget_s=60),
    Row("202 with a Retry-After beyond the budget has a last try", [said(202, None, "120"), OK], [19], budget_s=20),
    Row("a budget under a second has one try", [said(202, None, "1")], [], ProvisioningError, budget_s=0.5),
    Row("a model that cannot be loaded", [said(502, "MODEL_LOAD_FAILED")], [], ModelLoadFailedError),
    Row("a gated model", [said(502, "MODEL_LOAD_FAILED", error_class="GATED")], [], GatedModelError),
    Row("a loading model is waited for", [LOADING, LOADING, OK], [7, 7]),
    Row("a loading model is waited for in any case", [LOADING, OK], [7], wait=False),
    Row("a loading model to the end", [LOADING] * 3, [7, 2], ModelLoadingError, budget_s=10),
    Row("a LoRA is waited for", [LORA, said(503, "LORA_LOADING", "3"), OK], [1, 3], wait=False),
    Row("a LoRA is waited for ten times", [LORA] * 11, [1] * 10, LoraLoadingError),
    Row("memory: as told, then doubling", [OOM] * 3 + [OK], [5, 10, 20]),
    Row(
        "memory: three times",
        [said(503, "RESOURCE_EXHAUSTED", "2")] * 4,
        [2, 10, 20],
        ResourceExhaustedError,
        wait=False,
    ),
    Row("memory: as often as the caller says", [OOM], [], ResourceExhaustedError, oom=0),
    Row("memory: 30 s at the most", [OOM] * 6, [5, 10, 20, 30, 30], ResourceExhaustedError, oom=5),
    Row("a full queue", [said(503, "QUEUE_FULL", "1"), OK], [1]),
    Row("a full queue, not waited for", [said(503, "QUEUE_FULL", "1")], [], ServerError, wait=False),
    Row("a worker lost", [said(503, "WORKER_LOST", "1"), said(503, "SHUTTING_DOWN", "5"), OK], [1, 5]),
    Row("a bare 503 and a 504", [said(503), said(504), OK], [5, 5]),
    Row("a bare 504, not waited for", [said(504)], [], ServerError, wait=False),
    Row("a Retry-After that is a date", [said(503, None, "Wed, 21 Oct 2026 07:28:00 GMT"), OK], [5]),
    Row("a Retry-After that is no time", [said(503, None, "-3"), said(503, None, "nan"), OK], [5, 5]),
    Row(
        "a machine profile that v0.3.1 does not have",
        [Answer(503, {"content-type": "application/json"}, b'{"status":"gpu_not_configured","message":"no"}')],
        [],
        ServerError,
    ),
    Row("a machine profile that we do not have", [said(503, "GPU_NOT_CONFIGURED")], [], ServerError),
    Row("a connection cut", [HangUp(), OK], [5]),
    Row("a connection cut, not waited for", [HangUp()], [], SIEConnectionError, wait=False),
    Row("not found", [said(404, "MODEL_NOT_FOUND")], [], RequestError),
    Row("bad input", [said(400, "INVALID_INPUT")], [], RequestError),
    Row("a redirect", [Answer(307, {"location": "/elsewhere"})], [], RequestError),
    Row("a bug", [said(500, "INTERNAL_ERROR")], [], ServerError),
    Row("a proxy's 502", [Answer(502, {"content-type": "text/html"}, b"<h1>Bad Gateway</h1>")], [], ServerError),
    Row("an answer that is none", [Answer(200, {"content-type": "text/html"}, b"<h1>Welcome</h1>")], [], ServerError),
    Row("waits of different kinds add up", [said(202, None, "3"), LOADING, LORA, OOM, OK], [3, 7, 1, 5]),
]
table = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)


class Clock:
    """Stands still but for the sleeps."""

    def __init__(self) -> None:
        self.time_s = 1000.0
        self.slept: list[float] = []

    def now_s(self) -> float:
        return self.time_s

    def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        self.time_s += delay_s

    async def sleep_awaiting(self, delay_s: float) -> None:
        self.sleep(delay_s)


def flow(row: Row, url: str, started_s: float, verb: str = "encode") -> Flow[Any]:
    caller = Caller(url)
    patience = Patience(row.wait, row.budget_s, row.oom)
    match verb:
        case "score":
            score = ScoreCall(MODEL, {"text": "q"}, [{"text": "x"}])
            return _flows.score(caller, score, patience, started_s=started_s)
        case "extract":
            return _flows.extract(caller, ExtractCall(MODEL, {"text": "x"}), patience, started_s=started_s)
    return _flows.encode(caller, EncodeCall(MODEL, {"text": "x"}), patience, started_s=started_s)


def check(row: Row, clock: Clock, error: SIEError | None) -> None:
    assert clock.slept == list(row.sleeps)
    assert type(error) is (row.raises or type(None))


@table
@pytest.mark.parametrize("verb", list(RESULTS))
def test_flow_alone(row: Row, verb: str) -> None:
    clock, error, sent = Clock(), None, []
    answers = iter(replace(one, body=RESULTS[verb]) if one is OK else one for one in row.answers)
    steps = flow(row, "http://h:1", clock.now_s(), verb)
    try:
        step = next(steps)
        while True:
            if isinstance(step, Sleep):
                clock.sleep(step.delay_s)
                step = steps.send(Woken(clock.now_s()))
                continue
            sent.append(step)
            match next(answers):
                case Answer(status, headers, body):
                    step = steps.send(Reply(status, headers, body, clock.now_s()))
                case HangUp():
                    step = steps.send(Lost(OSError("cut"), passes=True, now_s=clock.now_s()))
    except StopIteration:
        pass
    except SIEError as raised:
        error = raised

    check(row, clock, error)
    assert len(sent) == len(row.answers) if error is None else len(sent) == len(row.sleeps) + 1
    assert all(0 < step.timeout_s <= 30 for step in sent)


@table
def test_blocking_driver(row: Row) -> None:
    clock, error = Clock(), None
    with Script(row.answers) as script:
        driver = BlockingDriver(script.url, clock=clock.now_s, sleep=clock.sleep)
        try:
            driver.run(flow(row, script.url, driver.now_s()))
        except SIEError as raised:
            error = raised
        finally:
            driver.close()

    check(row, clock, error)
    assert len(script.heard) == len(row.sleeps) + 1


@table
def test_awaiting_driver(row: Row) -> None:
    clock = Clock()

    async def run(url: str) -> SIEError | None:
        driver = AwaitingDriver(url, clock=clock.now_s, sleep=clock.sleep_awaiting)
        try:
            await driver.run(flow(row, url, driver.now_s()))
        except SIEError as raised:
            return raised
        finally:
            await driver.close()
        return None

    with Script(row.answers) as script:
        error = asyncio.run(run(script.url))

    check(row, clock, error)
    assert len(script.heard) == len(row.sleeps) + 1


def test_refused_connection_is_waited_for(unused_port: int) -> None:
    clock = Clock()
    driver = BlockingDriver(f"http://127.0.0.1:{unused_port}", clock=clock.now_s, sleep=clock.sleep)
    with pytest.raises(SIEConnectionError, match=r"got no answer"):
        driver.run(flow(Row("", [], budget_s=12), "http://h", clock.now_s()))
    driver.close()

    assert clock.slept == [5, 5, 1]


@pytest.mark.parametrize(
    ("cause", "passes"),
    [
        (ConnectionRefusedError(111, "refused"), True),
        (TimeoutError("silence"), True),
        (socket.gaierror(socket.EAI_AGAIN, "the resolver is not there"), True),
        (socket.gaierror(socket.EAI_NONAME, "nobody has that name"), False),
        (ssl.SSLCertVerificationError("self-signed"), False),
    ],
)
def test_what_passes_is_told_by_its_cause(cause: Exception, passes: bool) -> None:
    """However deep the transport has wrapped it."""
    error = httpx2.ConnectError("no")
    error.__cause__ = OSError("all attempts failed")
    error.__cause__.__context__ = cause

    assert _passes(error) is passes


def test_plain_http_server_asked_for_https_is_not_waited_for() -> None:
    clock = Clock()
    with Script([]) as script:
        driver = BlockingDriver(script.url.replace("http:", "https:"), clock=clock.now_s, sleep=clock.sleep)
        with pytest.raises(SIEConnectionError):
            driver.run(flow(Row("", []), script.url, clock.now_s()))
        driver.close()

    assert clock.slept == []


def test_server_is_told_how_long_the_client_will_wait() -> None:
    steps = flow(Row("", [], budget_s=20), "http://h", 100.0)
    first = next(steps)
    steps.send(Reply(503, {"retry-after": "14"}, b"", 101.0))
    second = steps.send(Woken(115.0))

    assert isinstance(first, Send)
    assert isinstance(second, Send)
    assert (first.timeout_s, first.headers["x-sie-timeout-ms"]) == (20, "20000")
    assert (second.timeout_s, second.headers["x-sie-timeout-ms"]) == (5, "5000")


@given(asked_s=st.none() | st.floats(0, 1e6), retries=st.integers(0, 60))
def test_memory_delays_are_bounded(asked_s: float | None, retries: int) -> None:
    """Only the server's own first word may make a wait longer than half a minute."""
    delay_s = memory_delay_s(asked_s, retries)

    assert delay_s == (5.0 if asked_s is None else asked_s) if retries == 0 else 10.0 <= delay_s <= 30.0


@given(
    answers=st.lists(st.sampled_from([said(202, None, "4"), LOADING, LORA, OOM, said(503), HangUp()]), max_size=40),
    budget_s=st.floats(0.001, 300),
    took_s=st.floats(0, 20),
)
def test_no_call_outlives_its_budget(answers: list[Answer | HangUp], budget_s: float, took_s: float) -> None:
    """Whatever the server says, sleeps end before the deadline and tries are told to."""
    now_s, deadline_s = 50.0, 50.0 + budget_s
    steps = flow(Row("", [], budget_s=budget_s), "http://h", now_s)
    step: Send | Sleep = next(steps)
    try:
        for answer in answers:
            assert isinstance(step, Send)
            assert now_s + step.timeout_s <= deadline_s + 1e-6
            now_s += min(took_s, step.timeout_s)
            outcome: Reply | Lost = Lost(OSError("cut"), True, now_s)
            if isinstance(answer, Answer):
                outcome = Reply(answer.status, answer.headers, answer.body, now_s)
            step = steps.send(outcome)
            assert isinstance(step, Sleep)
            now_s += step.delay_s
            assert now_s < deadline_s
            step = steps.send(Woken(now_s))
    except SIEError:
        pass
