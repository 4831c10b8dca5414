"""Every call as a flow: what to send, how long to wait, when to give up. Once, for both clients.

A flow has no clock and no sockets. It is told when it starts, asks its driver to send and to sleep, and
hears the time with each answer. Which answers are worth waiting for is decided in `_verdicts`.
"""

from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass

from sie_core.wire.codec import CONTENT_TYPES, Format
from sie_core.wire.envelope import Verb
from sie_sdk import _inputs, _results
from sie_sdk._inputs import Call, Caller, EncodeCall, ExtractCall, ScoreCall
from sie_sdk._steps import Flow, Lost, Reply, Send, Sleep, Woken
from sie_sdk._verdicts import Asked, Patience, Reason, judge
from sie_sdk.types import EncodeResult, ExtractResult, ModelInfo, ScoreResult

LAST_TRY_S = 1.0
"""Kept of the budget for one more try, however long the server would have us wait."""

ONE_TRY = Patience(for_capacity=False)


@dataclass(frozen=True)
class _Request:
    """What stays the same from try to try."""

    caller: Caller
    method: str
    path: str
    fmt: Format
    body: bytes | None = None
    gpu: str | None = None

    def send(self, left_s: float) -> Send:
        """One try, which may take no longer than what is left; the server is told how long that is."""
        timeout_s = min(self.caller.timeout_s, left_s)
        timeout_ms = None if self.body is None else max(1, int(timeout_s * 1000))
        said = _inputs.headers(self.caller, self.fmt, gpu=self.gpu, timeout_ms=timeout_ms)
        if self.body is not None:
            said["content-type"] = CONTENT_TYPES[self.fmt]
        return Send(self.method, self.path, said, self.body, timeout_s)


def encode(
    caller: Caller, call: EncodeCall, patience: Patience, *, started_s: float
) -> Flow[EncodeResult | list[EncodeResult]]:
    """One result for one item, a list in the items' order for a list.

    Raises:
        SIEError: as `_verdicts.judge` says; for one item alone also where that item failed.
    """
    items = _inputs.item_list(call.items)
    reply = yield from _called("encode", caller, call, patience, started_s)
    results = _results.encoded(reply, want=len(items))
    return results if not isinstance(call.items, Mapping) else _results.alone(results[0])


def score(caller: Caller, call: ScoreCall, patience: Patience, *, started_s: float) -> Flow[ScoreResult]:
    """Every item with its score, best first.

    Raises:
        SIEError: as `_verdicts.judge` says.
    """
    reply = yield from _called("score", caller, call, patience, started_s)
    return _results.scored(reply, want=len(call.items))


def extract(
    caller: Caller, call: ExtractCall, patience: Patience, *, started_s: float
) -> Flow[ExtractResult | list[ExtractResult]]:
    """As `encode`."""
    items = _inputs.item_list(call.items)
    reply = yield from _called("extract", caller, call, patience, started_s)
    results = _results.extracted(reply, want=len(items))
    return results if not isinstance(call.items, Mapping) else _results.alone(results[0])


def list_models(caller: Caller, *, started_s: float) -> Flow[list[ModelInfo]]:
    reply = yield from _asked_once(caller, "/v1/models", started_s)
    return _results.model_list(reply)


def get_model(caller: Caller, model: str, *, started_s: float) -> Flow[ModelInfo]:
    reply = yield from _asked_once(caller, _inputs.model_path("/v1/models/", model), started_s)
    return _results.model(reply)


def _called(verb: Verb, caller: Caller, call: Call, patience: Patience, started_s: float) -> Flow[Reply]:
    path = _inputs.model_path(f"/v1/{verb}/", call.model)
    gpu = call.gpu or caller.gpu
    request = _Request(caller, "POST", path, Format.MSGPACK, _inputs.body(caller, call), gpu)
    lora = _inputs.merged_options(caller, call).get("lora_id")
    asked = Asked("POST", caller.base_url + path, model=call.model, gpu=gpu, lora=lora)
    return (yield from _until_answered(request, asked, patience, started_s))


def _asked_once(caller: Caller, path: str, started_s: float) -> Flow[Reply]:
    request = _Request(caller, "GET", path, Format.JSON)
    asked = Asked("GET", caller.base_url + path)
    return (yield from _until_answered(request, asked, ONE_TRY, started_s))


def _until_answered(request: _Request, asked: Asked, patience: Patience, started_s: float) -> Flow[Reply]:
    """Try, and wait, and try again, until there is a result, an error, or no time left."""
    deadline_s, now_s = started_s + patience.budget_s, started_s
    waits: Counter[Reason] = Counter()
    while True:
        outcome = yield request.send(deadline_s - now_s)
        assert isinstance(outcome, Reply | Lost)
        now_s = outcome.now_s
        wait = judge(outcome, asked, patience, waits)
        if wait is None:
            assert isinstance(outcome, Reply)
            return outcome
        left_s = deadline_s - now_s - LAST_TRY_S
        if left_s <= 0:
            raise wait.error
        waits[wait.reason] += 1
        now_s = yield from _slept(min(wait.delay_s, left_s))


def _slept(delay_s: float) -> Generator[Sleep, Reply | Lost | Woken, float]:
    woken = yield Sleep(delay_s)
    assert isinstance(woken, Woken)
    return woken.now_s
