"""The one error table: what each code means to a caller, on every door.

Server, gateway and config service raise `ApiError`; the SDK reads the same table to decide whether
to wait and try again. A code that is not here cannot be raised.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class ErrorKind:
    """What a code means.

    Attributes:
        code: as on the wire.
        status: the HTTP status.
        retry_after_s: the `Retry-After` sent when the raiser names none; None sends no header.
        passes: true when the same call may succeed later without anybody doing anything.
        meaning: one sentence for the reference page.
    """

    code: str
    status: int
    retry_after_s: float | None
    passes: bool
    meaning: str


def _kind(
    code: str, status: int, meaning: str, *, retry_after_s: float | None = None, passes: bool = False
) -> ErrorKind:
    return ErrorKind(code=code, status=status, retry_after_s=retry_after_s, passes=passes, meaning=meaning)


KINDS: Final[Mapping[str, ErrorKind]] = {
    kind.code: kind
    for kind in (
        _kind("INVALID_INPUT", 400, "The request cannot be understood, or asks for what the model does not take."),
        _kind("OUTPUT_UNSUPPORTED", 400, "The model does not have the output asked for."),
        _kind("UNAUTHORIZED", 401, "No token, or a token that is not known."),
        _kind("FORBIDDEN", 403, "The token does not allow this."),
        _kind("MODEL_NOT_FOUND", 404, "No model of that id is in the catalog; the hint names the nearest ids."),
        _kind("NOT_FOUND", 404, "No such route, pool or bundle."),
        _kind("METHOD_NOT_ALLOWED", 405, "The route exists and takes another method."),
        _kind("CONFLICT", 409, "The request contradicts what is already there."),
        _kind("BODY_TOO_LARGE", 413, "The body is over the limit; nothing of it was kept."),
        _kind("UNSUPPORTED_MEDIA_TYPE", 415, "The body is in a format this route does not read."),
        _kind("HEADERS_TOO_LARGE", 431, "The request's headers are over the limit; nothing of it was kept."),
        _kind("INFERENCE_ERROR", 500, "The model failed on this input."),
        _kind("INTERNAL_ERROR", 500, "A bug of ours."),
        _kind("NOT_IMPLEMENTED", 501, "The route is part of the interface and this version does not serve it yet."),
        _kind(
            "MODEL_LOAD_FAILED", 502, "The model cannot be loaded; the message says why and whether a person must act."
        ),
        _kind(
            "GPU_NOT_CONFIGURED",
            503,
            "No pool of this cluster has the machine profile asked for; waiting does not help.",
        ),
        _kind(
            "PROVISIONING",
            503,
            "No worker can serve the call yet; routes of SIE's own answer 202 instead.",
            retry_after_s=5,
            passes=True,
        ),
        _kind("WORKER_LOST", 503, "The worker went away before it answered.", retry_after_s=1, passes=True),
        _kind("MODEL_NOT_LOADED", 503, "The model is being unloaded.", retry_after_s=5, passes=True),
        _kind("MODEL_LOADING", 503, "The model is being loaded.", retry_after_s=5, passes=True),
        _kind("LORA_LOADING", 503, "The LoRA is being loaded.", retry_after_s=1, passes=True),
        _kind("RESOURCE_EXHAUSTED", 503, "Out of memory, after the batch was split.", retry_after_s=5, passes=True),
        _kind("QUEUE_FULL", 503, "Too many tokens are waiting.", retry_after_s=1, passes=True),
        _kind("SHUTTING_DOWN", 503, "The process is stopping and takes no new calls.", retry_after_s=5, passes=True),
        _kind("NO_CATALOG", 503, "The catalog has not been read yet.", retry_after_s=2, passes=True),
        _kind("DEADLINE_EXCEEDED", 504, "The caller's own deadline passed."),
    )
}


@dataclass
class ApiError(Exception):
    """An error that a caller sees.

    Attributes:
        code: a key of `KINDS`.
        message: what and where, both values; literals in backticks; no full stop on one sentence.
        hint: what to do next.
        retry_after_s: overrides the kind's own.
        extra: more keys of the error body (`error_class`, `attempts`, `permanent`, …).
    """

    code: str
    message: str
    hint: str | None = None
    retry_after_s: float | None = None
    extra: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.code not in KINDS:
            raise KeyError(f"`{self.code}` is not in the error table")
        super().__init__(self.message)

    @property
    def kind(self) -> ErrorKind:
        return KINDS[self.code]

    @property
    def delay_s(self) -> float | None:
        """What `Retry-After` says; None for no header."""
        return self.kind.retry_after_s if self.retry_after_s is None else self.retry_after_s

    def body(self) -> dict[str, object]:
        """`{"detail": {...}, "error": {the same}}`, so that every client of v0.3.1 and every OpenAI client finds it."""
        said: dict[str, object] = {"code": self.code, "message": self.message}
        if self.hint is not None:
            said["hint"] = self.hint
        said.update(self.extra)
        return {"detail": said, "error": said}
