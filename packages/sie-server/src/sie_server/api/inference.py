"""`POST /v1/encode/{model}`, and what `score` and `extract` say: one call from its bytes to its bytes.

The order of the checks is the interface's: the machine asked for, the body, the model, its task, whether it
is loaded, the options.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from sie_core.errors import ApiError
from sie_core.http.asgi import Header, Receive, Scope, Send
from sie_core.http.respond import read_body, send_bytes
from sie_core.wire import codec
from sie_core.wire.envelope import Envelope
from sie_core.wire.messages import EncodedItem, EncodeRequest, EncodeResponse, ItemError, Timing
from sie_server import __version__
from sie_server.api.offer import Offer
from sie_server.api.reading import EncodeCall, encode_call, no_such_task, refuse_empty
from sie_server.engine import quantise
from sie_server.engine.engine import Answer, Engine
from sie_server.engine.jobs import Stamps, Ticket
from sie_server.engine.residency import Resident
from sie_server.models.calls import Output, Result

WATCH_AFTER_S = 0.05
"""A call still unanswered after this is watched for a caller that hangs up; most are over before."""

MOST_INDICES = 100
"""Truncated items are named in a header up to this many; headers have limits of their own."""

MOST_WARNINGS = 20

SERVER_VERSION: Header = (b"x-sie-server-version", __version__.encode())


@dataclass(frozen=True)
class Identity:
    """Who this worker is.

    Attributes:
        machine_profile: None where it was not told, and calls for any kind of machine are taken.
        device: what its models run on, as people call it.
        hardware: the same, as the machine calls it.
    """

    name: str
    pool: str
    bundle: str
    machine_profile: str | None
    device: str = "cpu"
    hardware: str = ""


class Inference:
    """Answers calls on models."""

    def __init__(self, engine: Engine, *, identity: Identity, max_body_bytes: int) -> None:
        self.engine = engine
        self.identity = identity
        self.max_body_bytes = max_body_bytes

    async def answer(
        self, envelope: Envelope, offer: Offer, scope: Scope, receive: Receive, send: Send, *, request_id: str
    ) -> None:
        """Raises `ApiError`, and `CallerGone` when there is nobody to answer."""
        arrived_s = self.engine.clock()
        self._refuse_other_machine(envelope)
        body = await read_body(scope, receive, limit_bytes=self.max_body_bytes)
        if envelope.verb != "encode":
            raise no_such_task(envelope.verb, offer.spec(envelope.model))
        fmt = codec.body_format(envelope.content_type)
        request = codec.decode_as(body, fmt, EncodeRequest)
        refuse_empty(request.items)
        spec = offer.spec(envelope.model)
        resident = self.engine.residency.look(spec)
        asked = encode_call(request, spec)
        timeout_s = None if envelope.timeout_ms is None else envelope.timeout_ms / 1000
        ticket = self.engine.ticket(arrived_s=arrived_s, timeout_s=timeout_s)
        answer = await self._watched(resident, asked, ticket, receive)
        reply = codec.reply_format(envelope.accept, envelope.content_type)
        encoded, timing = self._encoded(envelope.model, asked, answer, reply)
        warnings = codec.unknown_keys(body, fmt, EncodeRequest)
        headers = [
            SERVER_VERSION,
            (b"x-request-id", request_id.encode()),
            *_about(resident, answer, timing, warnings),
        ]
        await send_bytes(send, 200, encoded, content_type=codec.CONTENT_TYPES[reply].encode(), headers=headers)

    def _refuse_other_machine(self, envelope: Envelope) -> None:
        mine = self.identity.machine_profile
        if envelope.machine_profile is not None and mine is not None and envelope.machine_profile != mine:
            raise ApiError(
                "INVALID_INPUT",
                f"the call is for machine profile `{envelope.machine_profile}`, this worker runs on `{mine}`",
                extra={"requested_profile": envelope.machine_profile, "worker_identity": mine},
            )
        if envelope.bundle is not None and envelope.bundle != self.identity.bundle:
            raise ApiError(
                "CONFLICT",
                f"the call is for bundle `{envelope.bundle}`, this worker serves `{self.identity.bundle}`",
            )

    async def _watched(self, resident: Resident, asked: EncodeCall, ticket: Ticket, receive: Receive) -> Answer:
        """Runs the call; a caller that hangs up meanwhile abandons it."""
        watch: list[asyncio.Task[None]] = []
        timer = self.engine.loop.call_later(
            WATCH_AFTER_S, lambda: watch.append(self.engine.loop.create_task(_abandon_when_gone(receive, ticket)))
        )
        try:
            return await self.engine.run(resident, asked.call, ticket)
        finally:
            timer.cancel()
            for task in watch:
                task.cancel()

    def _encoded(self, model: str, asked: EncodeCall, answer: Answer, reply: codec.Format) -> tuple[bytes, Timing]:
        """The body, and the timing that stands in it."""
        items = [_item(result, item_id, asked) for result, item_id in zip(answer.results, asked.ids, strict=True)]
        timing = _timing(answer.stamps, self.engine.clock())
        for phase, milliseconds in (
            ("total", timing.total_ms),
            ("queue", timing.queue_ms),
            ("tokenization", timing.tokenization_ms),
            ("inference", timing.inference_ms),
            ("postprocessing", timing.postprocessing_ms or 0.0),
        ):
            self.engine.metrics.seconds.observe(milliseconds / 1000, model, "encode", phase)
        return codec.encode(EncodeResponse(model=model, items=items, timing=timing), reply), timing


async def _abandon_when_gone(receive: Receive, ticket: Ticket) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    ticket.abandon()


def _item(result: Result, item_id: str | None, asked: EncodeCall) -> EncodedItem:
    if isinstance(result, ApiError):
        return EncodedItem(id=item_id, error=ItemError(code=result.code, message=result.message, hint=result.hint))
    assert isinstance(result, Output)
    dtype = asked.dtype
    return EncodedItem(
        id=item_id,
        dense=None if result.dense is None else quantise.dense(result.dense, dtype),
        sparse=None if result.sparse is None else quantise.sparse(result.sparse, dtype),
        multivector=None if result.multivector is None else quantise.multivector(result.multivector, dtype),
    )


def _timing(stamps: Stamps, now_s: float) -> Timing:
    return Timing(
        total_ms=_ms(now_s - stamps.arrived_s),
        queue_ms=_ms(stamps.queue_s),
        tokenization_ms=_ms(stamps.tokenization_s),
        inference_ms=_ms(stamps.inference_s),
        postprocessing_ms=_ms(now_s - stamps.ended_s),
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _about(resident: Resident, answer: Answer, timing: Timing, warnings: Sequence[str]) -> list[Header]:
    """What the answer says outside its body."""
    revision = resident.made.revision if resident.made.verified else f"{resident.made.revision}; unverified"
    headers: list[Header] = [
        (b"x-sie-model-revision", revision.encode()),
        (b"x-total-time", b"%.2f" % timing.total_ms),
        (b"x-queue-time", b"%.2f" % timing.queue_ms),
        (b"x-tokenization-time", b"%.2f" % timing.tokenization_ms),
        (b"x-inference-time", b"%.2f" % timing.inference_ms),
        (b"x-postprocessing-time", b"%.2f" % (timing.postprocessing_ms or 0.0)),
    ]
    if answer.truncated:
        headers.append((b"x-sie-truncated", truncated_header(answer.truncated).encode()))
    if warnings:
        said = "ignored unknown keys: " + ", ".join(_header_safe(key) for key in warnings[:MOST_WARNINGS])
        headers.append((b"x-sie-warnings", said.encode()))
    return headers


def _header_safe(key: str) -> str:
    """A caller's own key, fit for a header: a line end in it would begin a header of the caller's choosing."""
    return ascii(key)[1:-1][:64]


def truncated_header(indices: Sequence[int]) -> str:
    """`0,4,7`; after the first hundred, how many more there are: `0,…,99,+23`."""
    shown = [str(index) for index in indices[:MOST_INDICES]]
    more = len(indices) - len(shown)
    return ",".join([*shown, f"+{more}"] if more else shown)
