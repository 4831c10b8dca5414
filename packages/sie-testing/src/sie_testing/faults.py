"""What a stand-in does wrong on purpose. Pure: which fault meets a request, and what it makes of an answer."""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import replace
from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec
from msgspec import Struct

from sie_testing.web import Answer, Request


class FaultKind(StrEnum):
    """What goes wrong."""

    TRUNCATE = "truncate"
    """The body ends after `after_bytes`, under a length that promises more."""
    STATUS = "status"
    """`status` instead of an answer, with `Retry-After: <retry_after_s>` when given."""
    SLOW = "slow"
    """The body comes at `bytes_per_s`."""
    GATED = "gated"
    """Files need a permission that nobody has: 401 without a token, 403 with one. The listing stays open."""
    ETAG = "etag"
    """The content is called by another ETag than before; `If-Range` gets the whole of it."""
    STALL = "stall"
    """After `after_bytes` of the body nothing comes any more, and the connection stays open."""
    WHOLE = "whole"
    """A range is answered with the whole."""
    FLIP = "flip"
    """One bit of the content's byte `after_bytes` is another."""


class Fault(Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that goes wrong.

    Attributes:
        match: the paths it meets, as a shell pattern where `*` takes slashes too.
        times: how many requests it meets; None is all of them.
        methods: which requests; empty is every one.
    """

    kind: FaultKind
    match: str = "*"
    times: int | None = None
    methods: tuple[str, ...] = ()
    after_bytes: int = 0
    status: int = 503
    retry_after_s: int | None = None
    bytes_per_s: int = 1 << 20


def due(faults: Iterable[Fault], *, method: str, path: str) -> list[Fault]:
    """Those that meet this request, in the order they were set."""
    return [
        fault
        for fault in faults
        if fault.times != 0 and fnmatchcase(path, fault.match) and (not fault.methods or method in fault.methods)
    ]


def spent(faults: Iterable[Fault], met: Iterable[Fault]) -> list[Fault]:
    """The faults with one time less on those that were met."""
    used = {id(fault) for fault in met}
    return [
        msgspec.structs.replace(fault, times=fault.times - 1)
        if id(fault) in used and fault.times is not None
        else fault
        for fault in faults
    ]


def asked(request: Request, met: Sequence[Fault]) -> Request:
    """The request as a server with these faults understands it."""
    kinds = {fault.kind for fault in met}
    if FaultKind.WHOLE in kinds or (FaultKind.ETAG in kinds and "If-Range" in request.headers):
        headers = copy(request.headers)
        del headers["Range"]
        return replace(request, headers=headers)
    return request


def answered(right: Callable[[], Answer], met: Sequence[Fault], *, has_token: bool, is_file: bool) -> Answer:
    """The answer after the faults it met. Under a status nothing was done, so that the call can be made again."""
    answer = Answer(200) if any(fault.kind is FaultKind.STATUS for fault in met) else right()
    for fault in met:
        answer = _spoilt(answer, fault, has_token=has_token, is_file=is_file)
    return answer


def _spoilt(answer: Answer, fault: Fault, *, has_token: bool, is_file: bool) -> Answer:
    """What a fault makes of a right answer."""
    match fault.kind:
        case FaultKind.TRUNCATE:
            return replace(answer, cut_after_bytes=fault.after_bytes) if answer.status in (200, 206) else answer
        case FaultKind.STALL:
            return replace(answer, stall_after_bytes=fault.after_bytes) if answer.status in (200, 206) else answer
        case FaultKind.FLIP:
            return replace(answer, flip_at=fault.after_bytes)
        case FaultKind.WHOLE:
            return answer
        case FaultKind.SLOW:
            return replace(answer, bytes_per_s=fault.bytes_per_s)
        case FaultKind.STATUS:
            headers = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
            return Answer(fault.status, headers)
        case FaultKind.GATED:
            return _gated(has_token) if is_file else answer
        case FaultKind.ETAG:
            names = {name: _other_etag(value) for name, value in answer.headers.items() if name.endswith("ETag")}
            return replace(answer, headers={**answer.headers, **names})


def _other_etag(etag: str) -> str:
    return etag[::-1]


def _gated(has_token: bool) -> Answer:
    message = "Access to this model is restricted and you are not in the authorized list."
    return Answer(403 if has_token else 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": message})
