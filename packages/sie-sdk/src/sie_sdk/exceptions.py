"""What a call can raise: one class per thing that a caller would do differently.

`SIEError` is the root. `RequestError` is the caller's to mend, `ServerError` the operator's, and
`SIEConnectionError` is neither's answer: nothing came. The rest say what was waited for in vain.
The names and the keyword arguments are those of SIE v0.3.1, so that its `except` clauses still work.
"""


class SIEError(Exception):
    """The root of everything the clients raise on purpose."""


class SIEConnectionError(SIEError):
    """No answer came: refused, reset, timed out, a name that does not resolve, a certificate that is not trusted."""


class RequestError(SIEError):
    """The answer was 4xx: the same call will fail again.

    Attributes:
        code: a code of the error table (`MODEL_NOT_FOUND`, …); None where the answer named none.
        status_code: the HTTP status; None where the request was never sent.
    """

    def __init__(self, message: str, code: str | None = None, status_code: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status_code = status_code


class ServerError(SIEError):
    """The answer was 5xx, or could not be read.

    Attributes:
        code: a code of the error table; None where the answer named none.
        status_code: the HTTP status.
    """

    def __init__(self, message: str, code: str | None = None, status_code: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status_code = status_code


class ProvisioningError(SIEError):
    """No worker could serve the call, and the caller's patience ended first.

    Attributes:
        gpu: the machine profile asked for, as the caller wrote it.
        retry_after: seconds until the gateway expects capacity; None where it did not say.
    """

    def __init__(self, message: str, *, gpu: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.gpu = gpu
        self.retry_after = retry_after


class PoolError(SIEError):
    """The pool asked for is not there or not usable."""

    def __init__(self, message: str, *, pool_name: str | None = None, state: str | None = None) -> None:
        super().__init__(message)
        self.pool_name = pool_name
        self.state = state


class LoraLoadingError(SIEError):
    """The LoRA was still being loaded after ten tries."""

    def __init__(self, message: str, *, lora: str | None = None, model: str | None = None) -> None:
        super().__init__(message)
        self.lora = lora
        self.model = model


class ModelLoadingError(SIEError):
    """The model was still being loaded when the caller's patience ended."""

    def __init__(self, message: str, *, model: str | None = None) -> None:
        super().__init__(message)
        self.model = model


class ModelLoadFailedError(ServerError):
    """The worker cannot load the model; waiting does not help.

    Attributes:
        error_class: GATED, NOT_FOUND, DEPENDENCY, OOM, NETWORK or UNKNOWN; None where the answer did not say.
        permanent: false where the worker will try again by itself after a while.
        attempts: how often the worker has tried.
    """

    def __init__(
        self,
        message: str,
        *,
        model: str | None = None,
        error_class: str | None = None,
        permanent: bool = True,
        attempts: int = 1,
    ) -> None:
        super().__init__(message, "MODEL_LOAD_FAILED", 502)
        self.model = model
        self.error_class = error_class
        self.permanent = permanent
        self.attempts = attempts


class GatedModelError(ModelLoadFailedError):
    """The hub wants a licence accepted, or a token, before it hands out the model's files."""


class ResourceExhaustedError(ServerError):
    """The worker ran out of memory on this call each time it was tried.

    Attributes:
        retries: how often the call was sent again.
    """

    def __init__(self, message: str, *, model: str | None = None, retries: int = 0) -> None:
        super().__init__(message, "RESOURCE_EXHAUSTED", 503)
        self.model = model
        self.retries = retries


__all__ = [
    "GatedModelError",
    "LoraLoadingError",
    "ModelLoadFailedError",
    "ModelLoadingError",
    "PoolError",
    "ProvisioningError",
    "RequestError",
    "ResourceExhaustedError",
    "SIEConnectionError",
    "SIEError",
    "ServerError",
]
