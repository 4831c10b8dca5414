"""From what came of a call to the body of its answer: one entry an item, a failed item's error in its place. Pure."""

import math
from collections.abc import Iterable, Sequence

from sie_core.errors import ApiError
from sie_core.wire import messages as wire
from sie_server.api.reading import Asked
from sie_server.engine import quantise
from sie_server.models.calls import Encode, Extract, Extracted, Output, Result, Score

Response = wire.EncodeResponse | wire.ScoreResponse | wire.ExtractResponse


def response(model: str, asked: Asked, results: Sequence[Result], timing: wire.Timing) -> Response:
    """The answer to a call of any task; `results` are in the order of its items."""
    match asked.call:
        case Encode():
            encoded = [_encoded(result, asked, index) for index, result in enumerate(results)]
            return wire.EncodeResponse(model=model, items=encoded, timing=timing)
        case Score():
            scores = _ranked(results, asked.ids)
            return wire.ScoreResponse(model=model, scores=scores, query_id=asked.query_id, timing=timing)
        case Extract():
            extracted = [_extracted(result, _item_id(asked.ids, index)) for index, result in enumerate(results)]
            return wire.ExtractResponse(model=model, items=extracted, timing=timing)


def ranking(results: Iterable[Result]) -> list[tuple[int, float | ApiError]]:
    """(index, score) of each item, best first, equal ones in their order; those that failed last, with their error."""
    scores = [(index, _score(result)) for index, result in enumerate(results)]
    return sorted(scores, key=lambda pair: math.inf if isinstance(pair[1], ApiError) else -pair[1])


def _score(result: Result) -> float | ApiError:
    if isinstance(result, ApiError):
        return result
    assert isinstance(result, float)
    if math.isfinite(result):
        return result
    return ApiError("INFERENCE_ERROR", f"the score is {result}, which is no number to rank by")


def _ranked(results: Iterable[Result], ids: Sequence[str | None]) -> list[wire.ScoreEntry]:
    entries = []
    for rank, (index, score) in enumerate(ranking(results)):
        entry = wire.ScoreEntry(item_id=_item_id(ids, index), score=None, rank=rank)
        if isinstance(score, ApiError):
            entry.error = _error(score)
        else:
            entry.score = score
        entries.append(entry)
    return entries


def _encoded(result: Result, asked: Asked, index: int) -> wire.EncodedItem:
    item_id = asked.ids[index]
    if isinstance(result, ApiError):
        return wire.EncodedItem(id=item_id, error=_error(result))
    assert isinstance(result, Output)
    dtype = asked.dtype
    return wire.EncodedItem(
        id=item_id,
        dense=None if result.dense is None else quantise.dense(result.dense, dtype),
        sparse=None if result.sparse is None else quantise.sparse(result.sparse, dtype),
        multivector=None if result.multivector is None else quantise.multivector(result.multivector, dtype),
    )


def _extracted(result: Result, item_id: str) -> wire.ExtractedItem:
    if isinstance(result, ApiError):
        return wire.ExtractedItem(id=item_id, error=_error(result))
    assert isinstance(result, Extracted)
    return wire.ExtractedItem(
        id=item_id,
        entities=[wire.Entity(one.text, one.label, one.score, one.start, one.end) for one in result.entities],
        relations=[wire.Relation(one.head, one.tail, one.relation, one.score) for one in result.relations],
        classifications=[wire.Classification(one.label, one.score) for one in result.classifications],
    )


def _item_id(ids: Sequence[str | None], index: int) -> str:
    found = ids[index]
    return f"item-{index}" if found is None else found


def _error(error: ApiError) -> wire.ItemError:
    return wire.ItemError(code=error.code, message=error.message, hint=error.hint)
