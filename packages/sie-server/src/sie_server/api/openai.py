"""`POST /v1/embeddings` and `POST /v1/rerank`: encode and score for programs that were not written for SIE.

The model stands in the body, answers are JSON, and a call waits while its model is loaded: these clients know of no
other answer to a call than its result. What neither interface can say (a failed item among good ones) fails the call.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sie_core.catalog.spec import ModelSpec
from sie_core.errors import ApiError
from sie_core.http.asgi import Receive, Scope, Send, header
from sie_core.http.respond import JSON, CallerGone, read_body, send_bytes
from sie_core.wire import codec, envelope
from sie_core.wire.envelope import Envelope
from sie_core.wire.messages import (
    Embedding,
    EmbeddingsRequest,
    EmbeddingsResponse,
    EncodeParams,
    EncodeRequest,
    Item,
    RerankRequest,
    RerankResponse,
    RerankResult,
    RerankText,
    ScoreRequest,
    Usage,
)
from sie_server.api.inference import Inference, about
from sie_server.api.offer import Offer
from sie_server.api.reading import read_call, refuse_count, refuse_undeclared
from sie_server.api.writing import ranking
from sie_server.engine.engine import Answer
from sie_server.engine.jobs import Ticket
from sie_server.engine.residency import Resident
from sie_server.models.calls import Call, Encode, Model, Output, Result, Tokens

LOOKED_AGAIN_S: Final = 0.1
"""How often a call that waits for its model looks whether it is there."""

Foreign = EmbeddingsRequest | RerankRequest
REQUESTS: Final[dict[str, type[Any]]] = {"/v1/embeddings": EmbeddingsRequest, "/v1/rerank": RerankRequest}


@dataclass(frozen=True)
class ForeignCall:
    """A call to one of the two routes.

    Attributes:
        endpoint: `embeddings` or `rerank`.
        envelope: what it would be as a call of SIE's own.
        unknown: keys of the body that are ignored.
    """

    endpoint: str
    envelope: Envelope
    request: Foreign
    unknown: Sequence[str]
    arrived_s: float


class OpenAi:
    """Answers the two routes. `is_stopping`: whether the process is; a load is not waited for then."""

    def __init__(self, inference: Inference, *, is_stopping: Callable[[], bool]) -> None:
        self._inference = inference
        self._is_stopping = is_stopping

    async def read(self, scope: Scope, receive: Receive) -> ForeignCall:
        """The call, its model not yet looked up. Raises `ApiError`, and `CallerGone`."""
        arrived_s, path = self._inference.engine.clock(), scope["path"]
        body = await read_body(scope, receive, limit_bytes=self._inference.max_body_bytes)
        fmt, struct = codec.body_format(header(scope["headers"], b"content-type")), REQUESTS[path]
        request: Foreign = codec.decode_as(body, fmt, struct)
        return ForeignCall(
            endpoint=path.removeprefix("/v1/"),
            envelope=envelope.named(path, request.model, scope["headers"]),
            request=request,
            unknown=codec.unknown_keys(body, fmt, struct),
            arrived_s=arrived_s,
        )

    async def answer(self, call: ForeignCall, offer: Offer, receive: Receive, send: Send, *, request_id: str) -> None:
        """Raises as `Inference.answer`."""
        request, verb = call.request, call.envelope.verb
        self._inference.refuse_other_machine(call.envelope)
        _refuse_empty(request)
        spec = offer.spec(call.envelope.model)
        refuse_undeclared(verb, spec)
        asked = _asked(request, spec)
        ticket = self._inference.ticket(call.envelope, arrived_s=call.arrived_s)
        resident = await self._loaded(spec, ticket, receive)
        _refuse_sizes(request, asked, resident.model)
        answer = await self._inference.run(resident, asked, ticket, receive)
        _refuse_failed("input" if verb == "encode" else "documents", answer.results)
        made = _embeddings(request, answer) if isinstance(request, EmbeddingsRequest) else _reranked(request, answer)
        timing = self._inference.timed(spec.id, call.endpoint, answer)
        headers = about(resident, answer, timing, call.unknown, request_id=request_id)
        await send_bytes(send, 200, codec.encode(made, codec.Format.JSON), content_type=JSON, headers=headers)

    async def _loaded(self, spec: ModelSpec, ticket: Ticket, receive: Receive) -> Resident:
        """The model, once it is loaded; a load that fails raises what `Residency.look` says."""
        gone: asyncio.Task[None] | None = None
        try:
            while True:
                try:
                    return self._inference.engine.residency.look(spec)
                except ApiError as error:
                    is_over = not ticket.wanted(self._inference.engine.clock()) or self._is_stopping()
                    if error.code != "MODEL_LOADING" or is_over:
                        raise
                gone = gone or asyncio.ensure_future(_until_gone(receive))
                await asyncio.wait({gone}, timeout=LOOKED_AGAIN_S)
                if gone.done():
                    raise CallerGone
        finally:
            if gone is not None:
                gone.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _refuse_empty(request: Foreign) -> None:
    match request:
        case EmbeddingsRequest(input=[]):
            raise ApiError("INVALID_INPUT", "`input` is empty, want at least one text")
        case RerankRequest(documents=[]):
            raise ApiError("INVALID_INPUT", "`documents` is empty, want at least one")


def _asked(request: Foreign, spec: ModelSpec) -> Call:
    """The call as one of SIE's own, so that variants, templates and refusals are the same."""
    if isinstance(request, RerankRequest):
        if request.top_n is not None and request.top_n < 1:
            raise ApiError("INVALID_INPUT", f"`top_n` is {request.top_n}, want at least 1")
        refuse_count(request.documents, "documents")
        items = [Item(text=_text(document)) for document in request.documents]
        return read_call(ScoreRequest(query=Item(text=_text(request.query)), items=items), spec).call
    inputs = _inputs(request.input)
    refuse_count(inputs, "input")
    texts = [Item(text=one if isinstance(one, str) else "") for one in inputs]
    call = read_call(EncodeRequest(items=texts, params=EncodeParams(output_types=["dense"])), spec).call
    assert isinstance(call, Encode)
    return replace(call, inputs=inputs)


def _inputs(given: str | list[str | int | list[int]]) -> tuple[str | Tokens, ...]:
    """One text, or one list of token ids, is one input; a list of either is several."""
    if isinstance(given, str):
        return (given,)
    ids = [one for one in given if isinstance(one, int)]
    if len(ids) == len(given):
        return (Tokens(tuple(ids)),)
    if ids:
        said = "`input` has token ids beside texts or lists, want one list of ids, or several"
        raise ApiError("INVALID_INPUT", said)
    texts = tuple(one for one in given if isinstance(one, str))
    lists = tuple(Tokens(tuple(one)) for one in given if isinstance(one, list))
    if texts and lists:
        raise ApiError("INVALID_INPUT", "`input` has texts and lists of token ids, want one or the other")
    return texts or lists


def _refuse_sizes(request: Foreign, asked: Call, model: Model) -> None:
    """What only a loaded model can tell. Token ids cannot be cut, as texts are: the last one is the model's own."""
    most_tokens, dims = model.max_tokens, model.dims.get("dense", 0)
    for index, one in enumerate(asked.inputs):
        if isinstance(one, Tokens) and not 1 <= len(one.ids) <= most_tokens:
            said = f"`input[{index}]` has {len(one.ids)} token ids, want 1 to {most_tokens}"
            raise ApiError("INVALID_INPUT", said, hint="texts are cut; ids run as they are")
    wanted = request.dimensions if isinstance(request, EmbeddingsRequest) else None
    if wanted is not None and not 1 <= wanted <= dims:
        said = f"`dimensions` is {wanted}, and vectors of model `{request.model}` have {dims}"
        raise ApiError("INVALID_INPUT", said, hint=f"want 1 to {dims}")


def _embeddings(request: EmbeddingsRequest, answer: Answer) -> EmbeddingsResponse:
    data = [Embedding(_written(vector, request), index) for index, vector in enumerate(map(_dense, answer.results))]
    return EmbeddingsResponse(data=data, model=request.model, usage=Usage(answer.tokens, answer.tokens))


def _dense(result: Result) -> NDArray[np.float32]:
    assert isinstance(result, Output)
    assert result.dense is not None
    return result.dense


def _written(vector: NDArray[np.float32], request: EmbeddingsRequest) -> object:
    """Numbers, or bytes, which JSON has as base64."""
    cut = shortened(vector, request.dimensions)
    return cut.astype("<f4").tobytes() if request.encoding_format == "base64" else cut


def shortened(vector: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    """The first so many numbers, of length 1 again; all of them as they are where none are left out.

    Args:
        vector: (dims,).
        dimensions: 1 to dims; None for dims.
    """
    if dimensions is None or dimensions == len(vector):
        return vector
    kept = vector[:dimensions]
    length = np.linalg.norm(kept)
    scaled: NDArray[np.float32] = kept / length if length > 0 else kept
    return scaled


def _reranked(request: RerankRequest, answer: Answer) -> RerankResponse:
    results = []
    for index, score in ranking(answer.results)[: request.top_n]:
        if isinstance(score, ApiError):
            raise _failed("documents", index, score)
        result = RerankResult(index=index, relevance_score=score)
        if request.return_documents:
            result.document = RerankText(_text(request.documents[index]))
        results.append(result)
    return RerankResponse(model=request.model, results=results, usage=Usage(answer.tokens, answer.tokens))


def _text(given: str | RerankText) -> str:
    return given if isinstance(given, str) else given.text


def _refuse_failed(name: str, results: Sequence[Result]) -> None:
    for index, result in enumerate(results):
        if isinstance(result, ApiError):
            raise _failed(name, index, result)


def _failed(name: str, index: int, error: ApiError) -> ApiError:
    return ApiError(error.code, f"`{name}[{index}]`: {error.message}", hint=error.hint, extra=error.extra)
