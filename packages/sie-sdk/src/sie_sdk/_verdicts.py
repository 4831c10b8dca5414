"""What an answer means: a result, a wait, or an error. The retry rules, as decisions without time.

`judge` is given what came of one try and what the caller is prepared to wait for. It returns a `Wait`
for what passes, None for a result, and raises for what does not pass. `_flows.py` does the waiting.

 answer                          waiting allowed            waiting not allowed
 202                             wait                       ProvisioningError
 502 MODEL_LOAD_FAILED           ModelLoadFailedError       same
 503 MODEL_LOADING               wait                       wait
 503 LORA_LOADING                wait, 10 times             same
 503 RESOURCE_EXHAUSTED          wait longer, 3 times       same
 503 machine profile not there   ServerError                same
 other 503, 504                  wait                       ServerError
 no answer                       wait, unless it is TLS     SIEConnectionError
 other                           RequestError, ServerError  same
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from sie_core.errors import KINDS
from sie_core.wire.codec import Format, body_format
from sie_core.wire.envelope import ERROR_CODE
from sie_sdk._steps import Lost, Reply
from sie_sdk.exceptions import (
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
)

RETRY_DELAY_S = 5.0
LORA_DELAY_S = 1.0
LORA_RETRIES = 10
OOM_MAX_DELAY_S = 30.0

Reason = Literal["capacity", "model", "lora", "memory", "server", "connection"]


@dataclass(frozen=True)
class Patience:
    """What a caller is prepared to wait for.

    Attributes:
        for_capacity: wait while nobody can serve the call, or nobody answers.
        budget_s: the call's whole time, waits and tries together.
        memory_retries: how often a call is sent again that the worker had no memory for.
    """

    for_capacity: bool = True
    budget_s: float = 900.0
    memory_retries: int = 3

    def __post_init__(self) -> None:
        if self.budget_s <= 0:
            raise ValueError(f"provision_timeout_s is {self.budget_s}, want more than 0 seconds")


@dataclass(frozen=True)
class Asked:
    """What a try asked for, as its errors name it."""

    method: str
    url: str
    model: str | None = None
    gpu: str | None = None
    lora: str | None = None


@dataclass(frozen=True)
class Wait:
    """Try again after `delay_s`; `error` is what to raise where patience ends first."""

    reason: Reason
    delay_s: float
    error: SIEError


@dataclass(frozen=True)
class Said:
    """What an error's body says, from whichever of the known shapes it has."""

    code: str | None
    message: str
    fields: Mapping[str, Any]


def judge(outcome: Reply | Lost, asked: Asked, patience: Patience, waits: Mapping[Reason, int]) -> Wait | None:
    """None for a result; `waits` counts the waits of this call so far, by reason.

    Raises:
        SIEError: waiting is of no use, or not wanted, or was done often enough.
    """
    if isinstance(outcome, Lost):
        return _judge_lost(outcome, asked, patience)
    if outcome.status == 202:
        return _judge_provisioning(outcome, asked, patience)
    if 200 <= outcome.status < 300:
        return None
    said = read_error(outcome)
    if outcome.status == 503:
        return _judge_unavailable(outcome, said, asked, patience, waits)
    if outcome.status == 504:
        return _passing(outcome, _plain_error(outcome, said, asked), patience)
    raise _plain_error(outcome, said, asked)


def read_error(reply: Reply) -> Said:
    """The code and the message, from `detail`, from `error`, or from the top level of the body."""
    body = _loosely_decoded(reply)
    places = [place for place in _places(body) if isinstance(place, Mapping)]
    fields = {key: value for place in reversed(places) for key, value in place.items()}
    code = reply.headers.get(ERROR_CODE) or _first_text(places, "code") or _nested_code(body)
    message = _first_text(places, "message") or _bare_text(body, reply)
    return Said(code=code, message=message or f"HTTP {reply.status}", fields=fields)


def retry_after_s(reply: Reply) -> float | None:
    """The seconds of `Retry-After`; None where it is missing, a date, or no time at all."""
    try:
        delay_s = float(reply.headers.get("retry-after", ""))
    except ValueError:
        return None
    return delay_s if 0 <= delay_s < float("inf") else None


def memory_delay_s(asked_s: float | None, retries: int) -> float:
    """As asked the first time, then doubled each time from 5 s at the least to 30 at the most."""
    first_s = RETRY_DELAY_S if asked_s is None else asked_s
    if retries == 0:
        return first_s
    return min(max(RETRY_DELAY_S, first_s) * 2.0**retries, OOM_MAX_DELAY_S)


def _judge_lost(lost: Lost, asked: Asked, patience: Patience) -> Wait:
    error = SIEConnectionError(
        f"{asked.method} {asked.url} got no answer: {str(lost.cause) or type(lost.cause).__name__}"
    )
    error.__cause__ = lost.cause
    if lost.passes and patience.for_capacity:
        return Wait("connection", RETRY_DELAY_S, error)
    raise error


def _judge_provisioning(reply: Reply, asked: Asked, patience: Patience) -> Wait:
    wanted_s = retry_after_s(reply)
    said = read_error(reply)
    told = said.message if said.fields.get("message") else "no worker can serve this call yet"
    error = ProvisioningError(_located(told, reply, said, asked), gpu=asked.gpu, retry_after=wanted_s)
    if patience.for_capacity:
        return Wait("capacity", RETRY_DELAY_S if wanted_s is None else wanted_s, error)
    raise error


def _judge_unavailable(reply: Reply, said: Said, asked: Asked, patience: Patience, waits: Mapping[Reason, int]) -> Wait:
    text, wanted_s = _located(said.message, reply, said, asked), retry_after_s(reply)
    match said.code:
        case "MODEL_LOADING":
            delay_s = RETRY_DELAY_S if wanted_s is None else wanted_s
            return Wait("model", delay_s, ModelLoadingError(text, model=asked.model))
        case "LORA_LOADING":
            lora = LoraLoadingError(text, lora=asked.lora, model=asked.model)
            delay_s = LORA_DELAY_S if wanted_s is None else wanted_s
            return _limited(Wait("lora", delay_s, lora), waits, LORA_RETRIES)
        case "RESOURCE_EXHAUSTED":
            retries = waits.get("memory", 0)
            memory = ResourceExhaustedError(text, model=asked.model, retries=retries)
            return _limited(Wait("memory", memory_delay_s(wanted_s, retries), memory), waits, patience.memory_retries)
    error = _plain_error(reply, said, asked)
    if not _may_pass(said):
        raise error
    return _passing(reply, error, patience)


def _may_pass(said: Said) -> bool:
    """By the error table where it has the code; a gateway of v0.3.1 tells of an unknown machine profile in `status`."""
    kind = KINDS.get(said.code or "")
    return said.fields.get("status") != "gpu_not_configured" and (kind is None or kind.passes)


def _passing(reply: Reply, error: SIEError, patience: Patience) -> Wait:
    wanted_s = retry_after_s(reply)
    if patience.for_capacity:
        return Wait("server", RETRY_DELAY_S if wanted_s is None else wanted_s, error)
    raise error


def _limited(wait: Wait, waits: Mapping[Reason, int], most: int) -> Wait:
    if waits.get(wait.reason, 0) >= most:
        raise wait.error
    return wait


def _plain_error(reply: Reply, said: Said, asked: Asked) -> SIEError:
    text = _located(said.message, reply, said, asked)
    if said.code == "MODEL_LOAD_FAILED":
        return _load_failed(text, said.fields, asked)
    kind = ServerError if reply.status >= 500 else RequestError
    return kind(text, said.code, reply.status)


def _load_failed(text: str, fields: Mapping[str, Any], asked: Asked) -> ModelLoadFailedError:
    error_class, attempts = fields.get("error_class"), fields.get("attempts")
    kind = GatedModelError if error_class == "GATED" else ModelLoadFailedError
    return kind(
        text,
        model=asked.model,
        error_class=error_class if isinstance(error_class, str) else None,
        permanent=fields.get("permanent") is not False,
        attempts=attempts if isinstance(attempts, int) else 1,
    )


def _located(message: str, reply: Reply, said: Said, asked: Asked) -> str:
    """The server's own words, then where they came from, then its hint."""
    text = f"{message}\n  at    {asked.method} {asked.url}\n  have  {reply.status} {said.code or ''}".rstrip()
    hint = said.fields.get("hint")
    return f"{text}\n\nhint: {hint}" if isinstance(hint, str) else text


def _loosely_decoded(reply: Reply) -> Any:
    try:
        if body_format(reply.headers.get("content-type")) is Format.MSGPACK:
            return msgspec.msgpack.decode(reply.body)
        return msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _places(body: Any) -> list[Any]:
    """Where a code or a message may stand, the most telling first."""
    if not isinstance(body, Mapping):
        return []
    detail, error = body.get("detail"), body.get("error")
    inner = detail.get("error") if isinstance(detail, Mapping) else None
    return [detail, inner, error, body]


def _first_text(places: list[Mapping[str, Any]], key: str) -> str | None:
    return next((place[key] for place in places if isinstance(place.get(key), str) and place[key]), None)


def _nested_code(body: Any) -> str | None:
    """The config service's shape: `{"detail": {"error": CODE}}`."""
    detail = body.get("detail") if isinstance(body, Mapping) else None
    code = detail.get("error") if isinstance(detail, Mapping) else None
    return code if isinstance(code, str) else None


def _bare_text(body: Any, reply: Reply) -> str | None:
    """A message that stands alone: `{"detail": TEXT}`, `{"error": TEXT}`, or a body of plain text."""
    if isinstance(body, Mapping):
        return next((body[key] for key in ("detail", "error") if isinstance(body.get(key), str)), None)
    if "text/plain" in reply.headers.get("content-type", ""):
        return reply.body[:200].decode("utf-8", "replace").strip() or None
    return None
