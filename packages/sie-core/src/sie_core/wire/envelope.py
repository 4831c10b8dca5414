"""What a call says outside its body: the path and the headers.

The gateway routes on nothing else, and the worker reads the same, so both come from here. Two routes, whose
interface is not ours, name their model inside the body: theirs is read by `named`. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote

from sie_core.errors import ApiError
from sie_core.ids import (
    BundleName,
    MachineProfile,
    ModelId,
    PoolName,
    parse_bundle_name,
    parse_machine_profile,
    parse_model_id,
    parse_pool_name,
)

Verb = Literal["encode", "score", "extract"]
VERBS: tuple[Verb, ...] = ("encode", "score", "extract")
PREFIXES: dict[str, Verb] = {f"/v1/{verb}/": verb for verb in VERBS}
NAMED_IN_BODY: dict[str, Verb] = {"/v1/embeddings": "encode", "/v1/rerank": "score"}
"""Routes whose body says the model, and what they are beside ours."""

MACHINE_PROFILE = "x-sie-machine-profile"
POOL = "x-sie-pool"
TIMEOUT_MS = "x-sie-timeout-ms"
REQUEST_ID = "x-request-id"
SDK_VERSION = "x-sie-sdk-version"
ERROR_CODE = "x-sie-error-code"
SERVER_VERSION = "x-sie-server-version"
MODEL_REVISION = "x-sie-model-revision"
TRUNCATED = "x-sie-truncated"
WARNINGS = "x-sie-warnings"

_READ = {
    name.encode(): name
    for name in (MACHINE_PROFILE, POOL, TIMEOUT_MS, REQUEST_ID, SDK_VERSION, "accept", "content-type")
}


@dataclass(frozen=True)
class Envelope:
    """One call, body aside.

    Attributes:
        machine_profile: the kind of machine asked for (the SDK's `gpu=`), or None for any.
        timeout_ms: what is left of the caller's patience, or None for as long as it stays on the line.
    """

    verb: Verb
    model: ModelId
    bundle: BundleName | None = None
    machine_profile: MachineProfile | None = None
    pool: PoolName | None = None
    timeout_ms: int | None = None
    request_id: str | None = None
    sdk_version: str | None = None
    accept: str | None = None
    content_type: str | None = None


def read(path: str, headers: Iterable[tuple[bytes, bytes]]) -> Envelope | None:
    """The envelope of a call to `/v1/{verb}/{model}`; None for any other path.

    Args:
        path: as it came, percent-encoded or not; the model is `org/name`, with `bundle:/` before it or not.
        headers: raw, names in lower case, as ASGI gives them.

    Raises:
        ApiError: INVALID_INPUT, naming the header or part of the path and what it holds.
    """
    for prefix, verb in PREFIXES.items():
        if path.startswith(prefix):
            return _read(verb, _split_path(unquote(path[len(prefix) :])), headers)
    return None


def named(path: str, model: str, headers: Iterable[tuple[bytes, bytes]]) -> Envelope:
    """The envelope of a call to a route of `NAMED_IN_BODY`; `model` is what the body says.

    Raises:
        ApiError: as `read`.
    """
    try:
        split = _split_model(model)
    except ValueError as error:
        raise ApiError("INVALID_INPUT", f"in the body's `model`: {error}", hint="want `ORG/NAME`") from error
    return _read(NAMED_IN_BODY[path], split, headers)


def timeout_ms(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """As `Envelope.timeout_ms`, before the rest is known. Raises `ApiError` INVALID_INPUT."""
    said = next((value for name, value in headers if name == TIMEOUT_MS.encode()), b"")
    return _timeout_ms(said.decode("latin-1").strip())


def _read(verb: Verb, split: tuple[BundleName | None, ModelId], headers: Iterable[tuple[bytes, bytes]]) -> Envelope:
    said = {_READ[name]: value.decode("latin-1").strip() for name, value in headers if name in _READ}
    bundle, model = split
    pool, profile = _split_profile(said.get(MACHINE_PROFILE), said.get(POOL))
    return Envelope(
        verb=verb,
        model=model,
        bundle=bundle,
        machine_profile=profile,
        pool=pool,
        timeout_ms=_timeout_ms(said.get(TIMEOUT_MS)),
        request_id=said.get(REQUEST_ID) or None,
        sdk_version=said.get(SDK_VERSION) or None,
        accept=said.get("accept") or None,
        content_type=said.get("content-type") or None,
    )


def _split_path(spec: str) -> tuple[BundleName | None, ModelId]:
    try:
        return _split_model(spec)
    except ValueError as error:
        raise ApiError("INVALID_INPUT", f"in the path: {error}", hint="the path is `/v1/encode/ORG/NAME`") from error


@lru_cache(maxsize=1024)  # callers name few models, and a gateway reads every call's
def _split_model(spec: str) -> tuple[BundleName | None, ModelId]:
    bundle, separator, model = spec.partition(":/")
    if separator:
        return parse_bundle_name(bundle), parse_model_id(model)
    return None, parse_model_id(spec)


@lru_cache(maxsize=1024)
def _split_profile(profile: str | None, pool: str | None) -> tuple[PoolName | None, MachineProfile | None]:
    try:
        if profile and "/" in profile:
            named_pool, _, profile = profile.partition("/")
            pool = pool or named_pool
        return parse_pool_name(pool) if pool else None, parse_machine_profile(profile) if profile else None
    except ValueError as error:
        raise ApiError("INVALID_INPUT", f"in the headers: {error}", hint="`gpu` is `l4` or `pool/l4`") from error


def _timeout_ms(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise ApiError("INVALID_INPUT", f"`X-SIE-Timeout-Ms` is `{text[:40]}`, want a whole number of milliseconds")
    return int(text)
