"""How the clients of OpenAI's interface read an error: under `error`, with a `type` of theirs.

For the routes whose interface is not ours (`envelope.NAMED_IN_BODY`). What every error of ours says stays beside it,
and so does `detail.error`, where v0.3.1 had it. Pure.
"""

from typing import Final

from sie_core.errors import ApiError

_TYPES: Final = {401: "authentication_error", 403: "permission_error"}

_OLD_CODES: Final = {
    "MODEL_NOT_FOUND": "model_not_found",
    "MODEL_LOADING": "model_not_available",
    "MODEL_NOT_LOADED": "model_not_available",
    "MODEL_LOAD_FAILED": "model_not_available",
    "PROVISIONING": "model_not_available",
    "OUTPUT_UNSUPPORTED": "no_embedding",
    "QUEUE_FULL": "server_overloaded",
    "RESOURCE_EXHAUSTED": "server_overloaded",
}


def as_openai(error: ApiError) -> ApiError:
    """The same error with `type`, and with v0.3.1's shape of it under `error`."""
    status = error.kind.status
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    code = _OLD_CODES.get(error.code, "inference_error" if status >= 500 else "invalid_request")
    old = {"code": code, "message": error.message, "type": kind}
    return ApiError(
        error.code,
        error.message,
        hint=error.hint,
        retry_after_s=error.retry_after_s,
        extra={**error.extra, "type": kind, "error": old},
    )
