"""What callers pass, as requests: paths, headers and bodies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from sie_core.wire import envelope
from sie_core.wire.codec import CONTENT_TYPES, Format, encode
from sie_sdk._version import __version__
from sie_sdk.types import Item, OutputDType, OutputType, PoolSpec


@dataclass(frozen=True)
class Caller:
    """What all calls of one client have in common.

    Attributes:
        timeout_s: the longest silence of one try.
        gpu: `profile` or `pool/profile`; None for any machine.
        options: sent with every call; a call's own come before them, key by key.
    """

    base_url: str
    timeout_s: float = 30.0
    api_key: str | None = None
    gpu: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    pool: str | None = None


@dataclass(frozen=True)
class EncodeCall:
    """One call of `encode`, as it was made. `items` is one item or a list of them."""

    model: str
    items: Item | Sequence[Item]
    output_types: Sequence[OutputType] | None = None
    instruction: str | None = None
    output_dtype: OutputDType | None = None
    is_query: bool | None = None
    options: Mapping[str, Any] | None = None
    gpu: str | None = None


@dataclass(frozen=True)
class ScoreCall:
    """One call of `score`, as it was made."""

    model: str
    query: Item
    items: Sequence[Item]
    instruction: str | None = None
    options: Mapping[str, Any] | None = None
    gpu: str | None = None


@dataclass(frozen=True)
class ExtractCall:
    """One call of `extract`, as it was made. `items` is one item or a list of them."""

    model: str
    items: Item | Sequence[Item]
    labels: Sequence[str] | None = None
    output_schema: Mapping[str, Any] | None = None
    instruction: str | None = None
    options: Mapping[str, Any] | None = None
    gpu: str | None = None


Call = EncodeCall | ScoreCall | ExtractCall


def caller(
    base_url: str,
    *,
    timeout_s: float,
    api_key: str | None,
    gpu: str | None,
    options: Mapping[str, Any] | None,
    pool: PoolSpec | None,
) -> Caller:
    """A client's arguments, checked.

    Raises:
        ValueError: a base URL that is not one, a time that is not one, or a pool that would have to be created.
    """
    _check_url(base_url)
    if timeout_s <= 0:
        raise ValueError(f"timeout_s is {timeout_s}, want more than 0 seconds")
    return Caller(
        base_url=base_url.rstrip("/"),
        timeout_s=timeout_s,
        api_key=api_key.strip() if api_key else None,
        gpu=gpu,
        options=dict(options or {}),
        pool=_pool_name(pool),
    )


def headers(caller: Caller, fmt: Format, *, gpu: str | None = None, timeout_ms: int | None = None) -> dict[str, str]:
    """Everything a request says outside its path and body; `gpu` comes before the client's own."""
    said = {
        "accept": CONTENT_TYPES[fmt],
        "user-agent": f"sie-sdk/{__version__}",
        envelope.SDK_VERSION: __version__,
    }
    pool, profile = _split_gpu(gpu or caller.gpu)
    if pool or caller.pool:
        said[envelope.POOL] = str(pool or caller.pool)
    if profile:
        said[envelope.MACHINE_PROFILE] = profile
    if timeout_ms is not None:
        said[envelope.TIMEOUT_MS] = str(timeout_ms)
    if caller.api_key:
        said["authorization"] = f"Bearer {caller.api_key}"
    return said


def model_path(prefix: str, model: str) -> str:
    """The path of a call about a model; the slashes in an id are part of the path.

    Raises:
        ValueError: an id that would make another path: empty, or with `..` in it.
    """
    if any(part in ("", ".", "..") for part in model.split("/")):
        raise ValueError(f"model is `{model}`, want `org/name`")
    return prefix + quote(model, safe="/:")


def merged_options(caller: Caller, call: Call) -> dict[str, Any]:
    options = {**caller.options, **(call.options or {})}
    if isinstance(call, EncodeCall) and call.is_query is not None:
        options["is_query"] = call.is_query
    return options


def item_list(items: Item | Sequence[Item]) -> list[Item]:
    """The items as a list, one alone too.

    Raises:
        TypeError: an item that is not a mapping; a bare text is the usual one.
    """
    found = [items] if isinstance(items, Mapping) else list(items)
    for position, item in enumerate(found):
        _check_item(item, f"item {position}")
    return found


def body(caller: Caller, call: Call) -> bytes:
    """The request as MessagePack. Keys of items that we do not know travel too: the server says what it ignored.

    Raises:
        TypeError: an item, an option or metadata that has no form on the wire.
    """
    match call:
        case EncodeCall():
            said = _encode_params(call) | _shared_params(caller, call)
            return encode(_with_params(item_list(call.items), said), Format.MSGPACK)
        case ScoreCall():
            asked = {"query": call.query, "items": _scored_items(call)}
            return encode(asked | _given(_shared_params(caller, call)), Format.MSGPACK)
        case ExtractCall():
            said = _extract_params(call) | _shared_params(caller, call)
            return encode(_with_params(item_list(call.items), said), Format.MSGPACK)


def _encode_params(call: EncodeCall) -> dict[str, object]:
    types = list(call.output_types) if call.output_types is not None else None
    return {"output_types": types, "output_dtype": call.output_dtype}


def _extract_params(call: ExtractCall) -> dict[str, object]:
    if isinstance(call.labels, str):
        raise TypeError(f"labels is the text `{call.labels}`, want a list of texts")
    labels = list(call.labels) if call.labels is not None else None
    return {"labels": labels, "output_schema": call.output_schema}


def _shared_params(caller: Caller, call: Call) -> dict[str, object]:
    return {"instruction": call.instruction, "options": merged_options(caller, call) or None}


def _with_params(items: list[Item], params: Mapping[str, object]) -> dict[str, object]:
    said = _given(params)
    return {"items": items, "params": said} if said else {"items": items}


def _given(params: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in params.items() if value is not None}


def _scored_items(call: ScoreCall) -> list[Item]:
    _check_item(call.query, "query")
    if isinstance(call.items, Mapping):
        raise TypeError("items is one item, want a list of them")
    return item_list(call.items)


def _check_item(item: object, named: str) -> None:
    if not isinstance(item, Mapping):
        raise TypeError(f"{named} is a {type(item).__name__}, want a dict like {{'text': '…'}}")


def _check_url(base_url: str) -> None:
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"base_url is `{base_url}`, want `http://HOST:PORT` or `https://HOST`")


def _split_gpu(gpu: str | None) -> tuple[str | None, str | None]:
    """`pool/profile` in two; a plain `profile` names no pool."""
    if not gpu:
        return None, None
    pool, slash, profile = gpu.partition("/")
    return (pool or None, profile or None) if slash else (None, gpu)


def _pool_name(pool: PoolSpec | None) -> str | None:
    if pool is None:
        return None
    if set(pool) != {"name"}:
        raise ValueError(
            f"pool has {sorted(pool)}, want {{'name': …}}: this client uses pools that exist, it does not create them"
        )
    return pool["name"]
