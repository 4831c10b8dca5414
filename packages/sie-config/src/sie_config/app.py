"""The config service as a raw ASGI application: the catalog by parts, whole, and by ETag.

Reading is all there is in this version; writes are answered 405 and say so.
"""

import logging
import time
from typing import Any

import msgspec
import yaml
from msgspec import Struct

from sie_config import __version__
from sie_config.ledger import Ledger
from sie_core.catalog.export import EXPORT_PATH
from sie_core.catalog.spec import dump_spec
from sie_core.errors import ApiError
from sie_core.http import metrics as prometheus
from sie_core.http import respond
from sie_core.http.asgi import Header, Receive, Scope, Send, header
from sie_core.http.auth import Auth
from sie_core.http.metrics import Counter, Gauge, Histogram
from sie_core.http.respond import CallerGone
from sie_core.http.serve import Drain

YAML = b"application/x-yaml"
CONFIGS, MODELS, BUNDLES = "/v1/configs", "/v1/configs/models/", "/v1/configs/bundles/"
RESOLVE = "/v1/configs/resolve"
RESOLVE_LIMIT_BYTES = 64 << 10
READ_METHODS = ("GET", "HEAD")

logger = logging.getLogger("sie.config")


class ResolveRequest(Struct):
    model: str
    bundle: str | None = None


class ConfigService:
    """Serves one ledger."""

    def __init__(self, ledger: Ledger, *, auth: Auth, drain: Drain) -> None:
        self._ledger = ledger
        self._auth = auth
        self._drain = drain
        self._requests = Counter("sie_config_http_requests_total", "Requests answered.", ("route", "status"))
        self._seconds = Histogram("sie_config_http_request_duration_seconds", "Time to answer.", ("route",))
        self._epoch = Gauge("sie_config_epoch", "The epoch that is served.")
        self._models = Gauge("sie_config_models_total", "Models in the catalog.", ("source",))
        self._epoch.replace({(): ledger.epoch})
        self._models.replace({("shipped",): len(ledger.catalog.specs)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_s = time.monotonic()
        headers: list[Header] = [(b"x-sie-version", __version__.encode())]
        try:
            code = await self._answer(scope, receive, send, headers)
        except ApiError as error:
            code = error.kind.status
            await respond.send_error(send, error, request_id=respond.request_id(scope), headers=headers)
        except CallerGone:
            return
        route = _route_label(scope["path"])
        self._requests.add(route, str(code))
        self._seconds.observe(time.monotonic() - started_s, route)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, headers: list[Header]) -> int:
        path, method = scope["path"], scope["method"]
        operational = self._operational(path)
        if operational is not None:
            code, content_type, body = operational
            await respond.send_bytes(send, code, body, content_type=content_type, headers=headers)
            return code
        self._auth.check_read(scope["headers"])
        if path == RESOLVE and method == "POST":
            return await self._resolve(scope, receive, send, headers)
        if method not in READ_METHODS and path.startswith(CONFIGS + "/"):
            raise self._no_writes(scope)
        body, content_type = self._read(path)
        tagged = [*headers, (b"etag", self._ledger.etag.encode())]
        if self._has(scope):
            await send({"type": "http.response.start", "status": 304, "headers": tagged})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return 304
        await respond.send_bytes(send, 200, body, content_type=content_type, headers=tagged)
        return 200

    def _has(self, scope: Scope) -> bool:
        """Whether the caller holds this epoch's content already; every view follows from the fingerprint."""
        known = header(scope["headers"], b"if-none-match")
        if known is None:
            return False
        tags = [tag.strip().removeprefix("W/") for tag in known.split(",")]
        return self._ledger.etag in tags or "*" in tags

    def _operational(self, path: str) -> tuple[int, bytes, bytes] | None:
        match path:
            case "/healthz":
                return 200, respond.TEXT, b"ok"
            case "/readyz":
                return (503, respond.TEXT, b"draining") if self._drain.begun else (200, respond.TEXT, b"ok")
            case "/metrics":
                metrics = (self._requests, self._seconds, self._epoch, self._models)
                return 200, prometheus.CONTENT_TYPE, prometheus.render(metrics)
        return None

    def _read(self, path: str) -> tuple[bytes, bytes]:
        """A route's body and its content type.

        Raises `ApiError`: `MODEL_NOT_FOUND`, or `NOT_FOUND` for a bundle or a route.
        """
        views = {
            CONFIGS + "/models": self._ledger.models_view,
            CONFIGS + "/bundles": self._ledger.bundles_view,
            CONFIGS + "/epoch": self._ledger.epoch_view,
        }
        if path == EXPORT_PATH:
            return self._ledger.export, respond.JSON
        if path in views:
            return respond.to_json(views[path]()), respond.JSON
        if path.startswith(MODELS):
            return self._model_yaml(path.removeprefix(MODELS)), YAML
        if path.startswith(BUNDLES):
            bundle = self._ledger.bundle(path.removeprefix(BUNDLES))
            return _yaml(msgspec.to_builtins(msgspec.structs.asdict(bundle))), YAML
        raise ApiError("NOT_FOUND", f"there is no route `{path}`", hint=f"`GET {EXPORT_PATH}` has everything")

    def _model_yaml(self, model: str) -> bytes:
        spec = self._ledger.catalog.find(model)
        if spec is None:
            raise self._ledger.no_model(model)
        return dump_spec(spec).encode()

    async def _resolve(self, scope: Scope, receive: Receive, send: Send, headers: list[Header]) -> int:
        body = await respond.read_body(scope, receive, limit_bytes=RESOLVE_LIMIT_BYTES)
        try:
            asked = msgspec.json.decode(body, type=ResolveRequest)
        except msgspec.MsgspecError as error:
            raise ApiError("INVALID_INPUT", f"want `{{model, bundle?}}` as JSON: {error}") from error
        await respond.send_json(send, 200, self._ledger.resolve(asked.model, asked.bundle), headers=headers)
        return 200

    def _no_writes(self, scope: Scope) -> ApiError:
        self._auth.check_admin(scope["headers"])
        return ApiError(
            "METHOD_NOT_ALLOWED",
            f"this version serves the specs it was shipped with: no {scope['method']} on `{scope['path']}`",
            hint="add a spec to the programs' `specs/models` and build them anew",
        )


def _yaml(value: Any) -> bytes:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True)).encode()


def _route_label(path: str) -> str:
    """A label that callers cannot multiply."""
    for prefix in (MODELS, BUNDLES):
        if path.startswith(prefix):
            return prefix + "{id}"
    known = (EXPORT_PATH, RESOLVE, CONFIGS + "/models", CONFIGS + "/bundles", CONFIGS + "/epoch")
    return path if path in known or path in ("/healthz", "/readyz", "/metrics") else "other"
