"""Settings: environment variables and flags to frozen dataclasses, each value's source kept.

A product declares its settings as dataclasses whose fields are made by `setting`, with a string under
each field; that string is the `--help`, the reference page and the comment in the chart. A flag comes
before the environment, the environment before the default; a flag that is left out erases nothing, and
an empty variable is one that is not set.

`NAMES` is the one table of every `SIE_*` variable: a variable that no program of ours knows stops the
process and names the nearest known one, and a name that SIE v0.3.1 had and we dropped is refused with
what replaces it.
"""

import ast
import dataclasses
import inspect
import itertools
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sie_core.ids import nearest

S = TypeVar("S")

_SERVER, _GATEWAY, _CONFIG = "sie-server", "sie-gateway", "sie-config"
_ALL = f"{_SERVER}, {_GATEWAY}, {_CONFIG}"

NAMES: Final[Mapping[str, str]] = {
    "SIE_LOG_LEVEL": _ALL,
    "SIE_LOG_JSON": _ALL,
    "SIE_AUTH_MODE": _ALL,
    "SIE_AUTH_TOKEN": _ALL,
    "SIE_AUTH_TOKENS": _ALL,
    "SIE_AUTH_EXEMPT_OPERATIONAL": _GATEWAY,
    "SIE_ADMIN_TOKEN": f"{_GATEWAY}, {_CONFIG}",
    "SIE_MAX_BODY_BYTES": f"{_SERVER}, {_GATEWAY}",
    "SIE_CONFIG_SERVICE_URL": f"{_SERVER}, {_GATEWAY}",
    "SIE_SERVER_HOST": _SERVER,
    "SIE_SERVER_PORT": _SERVER,
    "SIE_DEVICE": _SERVER,
    "SIE_PRECISION": _SERVER,
    "SIE_PRELOAD_MODELS": _SERVER,
    "SIE_BUNDLE": _SERVER,
    "SIE_POOL": _SERVER,
    "SIE_MACHINE_PROFILE": _SERVER,
    "SIE_GPU_TYPE": _SERVER,
    "SIE_WORKER_NAME": _SERVER,
    "SIE_LOCAL_CACHE": _SERVER,
    "SIE_LOCAL_CACHE_BYTES": _SERVER,
    "SIE_CLUSTER_CACHE": _SERVER,
    "SIE_CLUSTER_CACHE_LOCK": _SERVER,
    "SIE_CLUSTER_CACHE_REQUIRE_VERIFIED": _SERVER,
    "SIE_CLUSTER_CACHE_PATH_STYLE": _SERVER,
    "SIE_HF_FALLBACK": _SERVER,
    "SIE_QUEUE_TOKENS": _SERVER,
    "SIE_BATCH_TOKENS": _SERVER,
    "SIE_TOKENIZER_THREADS": _SERVER,
    "SIE_MODEL_MEMORY_BYTES": _SERVER,
    "SIE_IDLE_EVICT_S": _SERVER,
    "SIE_GATEWAY_HOST": _GATEWAY,
    "SIE_GATEWAY_PORT": _GATEWAY,
    "SIE_GATEWAY_WORKERS": _GATEWAY,
    "SIE_GATEWAY_REQUEST_TIMEOUT": _GATEWAY,
    "SIE_GATEWAY_CONFIGURED_GPUS": _GATEWAY,
    "SIE_CONFIG_HOST": _CONFIG,
    "SIE_CONFIG_PORT": _CONFIG,
}
"""Every variable that one of our programs reads, and which."""

_BROKER = "there is no message broker: the gateway forwards calls to the workers it finds in `SIE_GATEWAY_WORKERS`"
_TELEMETRY = "there is no telemetry to switch off"
_BATCHING = "batches are built without a timer, within `SIE_BATCH_TOKENS`"
_DISCOVERY = "name the workers' headless Service in `SIE_GATEWAY_WORKERS`"

DROPPED: Final[Mapping[str, str]] = {
    "SIE_NATS_URL": _BROKER,
    "SIE_NATS_FETCH_BUDGET": _BROKER,
    "SIE_NAK_DELAY_S": _BROKER,
    "SIE_OOM_NAK_DELAY_S": _BROKER,
    "SIE_MAX_DELIVER": _BROKER,
    "SIE_STREAM_MAX_AGE_S": _BROKER,
    "SIE_CLUSTER_ROUTING": _BROKER,
    "SIE_PAYLOAD_STORE_URL": _BROKER,
    "SIE_TELEMETRY_DISABLED": _TELEMETRY,
    "SIE_TELEMETRY_URL": _TELEMETRY,
    "SIE_DEPLOYMENT_ENV": _TELEMETRY,
    "SIE_ADAPTIVE_TARGET_P50_MS": _BATCHING,
    "SIE_MAX_BATCH_REQUESTS": _BATCHING,
    "SIE_MAX_BATCH_WAIT_MS": _BATCHING,
    "SIE_MAX_CONCURRENT_REQUESTS": "what waits is bounded in tokens: `SIE_QUEUE_TOKENS`",
    "SIE_PREPROCESSOR_WORKERS": "use `SIE_TOKENIZER_THREADS`",
    "SIE_MEMORY_PRESSURE_THRESHOLD_PERCENT": "what a load takes is known beforehand: `SIE_MODEL_MEMORY_BYTES`",
    "SIE_DISABLE_OOM_RECOVERY": "a batch that does not fit in memory is always run again in halves",
    "SIE_MODELS_DIR": "specs are shipped with the programs and served by sie-config",
    "SIE_BUNDLES_DIR": "bundles are shipped with the programs and served by sie-config",
    "SIE_MODEL_FILTER": "name the models in `SIE_PRELOAD_MODELS`",
    "SIE_GATEWAY_KUBERNETES": _DISCOVERY,
    "SIE_GATEWAY_K8S_NAMESPACE": _DISCOVERY,
    "SIE_GATEWAY_K8S_SERVICE": _DISCOVERY,
    "SIE_GATEWAY_K8S_PORT": _DISCOVERY,
}
"""Variables of SIE v0.3.1 that mean nothing here, and what to do instead."""


class SettingsError(Exception):
    """A setting that cannot be meant: its name, its value and what was wanted. The exit code is 2."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Secret:
    """A value that is never shown: its `repr` and `str` are `***`; `reveal()` is the one way in."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True)
class Loaded(Generic[S]):
    """Settings with where each value came from: `flag --port`, `environment SIE_SERVER_PORT` or `default`."""

    value: S
    sources: Mapping[str, str]


def setting(name: str, default: Any, *, least: float | None = None, most: float | None = None) -> Any:
    """A dataclass field that is read from the environment variable `name`; a number may have a `least` and a `most`."""
    return dataclasses.field(default=default, metadata={"name": name, "least": least, "most": most})


def load(cls: type[S], *, env: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Loaded[S]:
    """The settings `cls` from flags, environment and defaults.

    Args:
        flags: by field name; None means that the flag was left out. Text is parsed like a variable's.

    Raises:
        SettingsError: a value that does not parse, or any `SIE_*` variable that no program of ours knows.
    """
    check_names(env)
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        name = field.metadata["name"]
        flag = (flags or {}).get(field.name)
        if flag is not None:
            shown = "--" + field.name.replace("_", "-")
            value = _parsed(flag, hints[field.name], shown) if isinstance(flag, str) else flag
            sources[field.name] = f"flag {shown}"
        elif env.get(name):
            shown, value = name, _parsed(env[name], hints[field.name], name)
            sources[field.name] = f"environment {name}"
        else:
            sources[field.name] = "default"
            continue
        _check_bounds(value, shown, least=field.metadata["least"], most=field.metadata["most"])
        values[field.name] = value
    return Loaded(value=cls(**values), sources=sources)


def check_names(env: Mapping[str, str]) -> None:
    """Raises `SettingsError` for the first `SIE_*` variable that no program of ours knows."""
    for name in sorted(env):
        if not name.startswith("SIE_") or name in NAMES:
            continue
        if name in DROPPED:
            raise SettingsError(f"`{name}` means nothing here: {DROPPED[name]}", hint=f"remove `{name}`")
        near = nearest(name, NAMES, most=1)
        hint = f"did you mean `{near[0]}`?" if near else "`sie-server settings` lists every setting"
        raise SettingsError(f"`{name}` is no setting of any SIE program", hint=hint)


@cache
def field_docs(cls: type[Any]) -> Mapping[str, str]:
    """The string under each field of a settings class, its lines joined."""
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    docs: dict[str, str] = {}
    for statement, below in itertools.pairwise(body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            said = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
            docs[statement.target.id] = " ".join(str(said).split())
    return docs


def field_names(cls: type[Any]) -> Mapping[str, str]:
    """Field to environment variable."""
    return {field.name: field.metadata["name"] for field in dataclasses.fields(cls)}


def _check_bounds(value: Any, shown: str, *, least: float | None, most: float | None) -> None:
    if least is not None and value < least:
        raise SettingsError(f"`{shown}` is `{value}`, want {least} or more")
    if most is not None and value > most:
        raise SettingsError(f"`{shown}` is `{value}`, want {most} or less")


def _parsed(text: str, kind: Any, shown: str) -> Any:
    """`text` as `kind`: str, int, float, bool, Path, Secret, a Literal, a tuple of str, or one of these or None."""
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = [arg for arg in get_args(kind) if arg is not type(None)]
    if get_origin(kind) is Literal:
        if text in get_args(kind):
            return text
        raise SettingsError(f"`{shown}` is `{text}`, want one of {', '.join(f'`{arg}`' for arg in get_args(kind))}")
    if get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind is bool:
        return _parsed_bool(text, shown)
    try:
        value = kind(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(text)
        return value
    except ValueError as error:
        wanted = {int: "a whole number", float: "a number", Path: "a path"}.get(kind, str(kind))
        raise SettingsError(f"`{shown}` is `{text}`, want {wanted}") from error


def _parsed_bool(text: str, shown: str) -> bool:
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off"):
        return False
    raise SettingsError(f"`{shown}` is `{text}`, want `true` or `false`")
