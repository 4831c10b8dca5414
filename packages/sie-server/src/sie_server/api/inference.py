"""`POST /v1/encode|score|extract/{model}`: one call from its bytes to its bytes.

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
from sie_core.wire.messages import Timing
from sie_server import __version__
from sie_server.api.offer import Offer
from sie_server.api.reading import Asked, Request, decoded, noted, read_call, refuse_count, refuse_undeclared
from sie_server.api.writing import response
from sie_server.engine.engine import Answer, Engine
from sie_server.engine.jobs import Stamps, Ticket
from sie_server.engine.residency import Resident
from sie_server.models.calls import Call

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
        self.refuse_other_machine(envelope)
        body = await read_body(scope, receive, limit_bytes=self.max_body_bytes)
        fmt = codec.body_format(envelope.content_type)
        request = decoded(body, fmt, envelope.verb)
        unknown = codec.unknown_keys(body, fmt, type(request))
        try:
            resident, asked, answer = await self._answered(request, envelope, offer, receive, arrived_s=arrived_s)
        except ApiError as error:
            raise noted(error, unknown) from error
        timing = self.timed(envelope.model, envelope.verb, answer)
        reply = codec.reply_format(envelope.accept, envelope.content_type)
        encoded = codec.encode(response(envelope.model, asked, answer.results, timing), reply)
        headers = about(resident, answer, timing, unknown, request_id=request_id)
        await send_bytes(send, 200, encoded, content_type=codec.CONTENT_TYPES[reply].encode(), headers=headers)

    async def _answered(
        self, request: Request, envelope: Envelope, offer: Offer, receive: Receive, *, arrived_s: float
    ) -> tuple[Resident, Asked, Answer]:
        refuse_count(request.items)
        spec = offer.spec(envelope.model)
        refuse_undeclared(envelope.verb, spec)
        resident = self.engine.residency.look(spec)
        asked = read_call(request, spec)
        ticket = self.ticket(envelope, arrived_s=arrived_s)
        return resident, asked, await self.run(resident, asked.call, ticket, receive)

    def ticket(self, envelope: Envelope, *, arrived_s: float) -> Ticket:
        timeout_s = None if envelope.timeout_ms is None else envelope.timeout_ms / 1000
        return self.engine.ticket(arrived_s=arrived_s, timeout_s=timeout_s)

    def refuse_other_machine(self, envelope: Envelope) -> None:
        """Raises `ApiError` where the call is for another kind of machine, or another bundle."""
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

    async def run(self, resident: Resident, call: Call, ticket: Ticket, receive: Receive) -> Answer:
        """Runs the call; a caller that hangs up meanwhile abandons it."""
        watch: list[asyncio.Task[None]] = []
        timer = self.engine.loop.call_later(
            WATCH_AFTER_S, lambda: watch.append(self.engine.loop.create_task(_abandon_when_gone(receive, ticket)))
        )
        try:
            return await self.engine.run(resident, call, ticket)
        finally:
            timer.cancel()
            for task in watch:
                task.cancel()

    def timed(self, model: str, endpoint: str, answer: Answer) -> Timing:
        """Where the call's time went until now, which the metrics are told too."""
        timing = _timing(answer.stamps, self.engine.clock())
        for phase, milliseconds in (
            ("total", timing.total_ms),
            ("queue", timing.queue_ms),
            ("tokenization", timing.tokenization_ms),
            ("inference", timing.inference_ms),
            ("postprocessing", timing.postprocessing_ms or 0.0),
        ):
            self.engine.metrics.seconds.observe(milliseconds / 1000, model, endpoint, phase)
        return timing


async def _abandon_when_gone(receive: Receive, ticket: Ticket) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    ticket.abandon()


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


def about(
    resident: Resident, answer: Answer, timing: Timing, warnings: Sequence[str], *, request_id: str
) -> list[Header]:
    """What the answer says outside its body."""
    made = resident.made
    revision = made.revision if made.verified else f"{made.revision}; {made.standing}"
    headers: list[Header] = [
        SERVER_VERSION,
        (b"x-request-id", request_id.encode()),
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
