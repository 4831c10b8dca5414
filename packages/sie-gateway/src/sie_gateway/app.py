"""The gateway as a raw ASGI application: which route does what, and how each call's story is told.

A call is routed on its path and headers before its body is read: what will be refused is not waited for. Two routes,
whose interface is not ours, name their model inside the body: of theirs that name is read, and nothing else.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from sie_core.catalog.catalog import Catalog
from sie_core.catalog.feed import Feed
from sie_core.errors import ApiError
from sie_core.http import metrics as prometheus
from sie_core.http import respond
from sie_core.http.asgi import Header, Receive, Scope, Send, header
from sie_core.http.auth import Auth
from sie_core.http.serve import Drain
from sie_core.settings import SettingsError
from sie_core.wire import codec, envelope
from sie_core.wire.messages import Named
from sie_core.wire.openai import as_openai
from sie_gateway import __version__, discovery, status
from sie_gateway.capacity import Demand, Rate
from sie_gateway.forward import Call, Forwarder
from sie_gateway.heartbeat import Heartbeats
from sie_gateway.observability import Metrics
from sie_gateway.page import PAGE
from sie_gateway.routing import Decision, Refuse, Wait, route
from sie_gateway.settings import GatewaySettings
from sie_gateway.upstream import Connections, CutOff
from sie_gateway.workers import WorkerTable

LATER = ("/v1/pools", "/v1/configs", "/ws/")
"""Routes of the interface that this version does not serve."""

CONFIGS_HINT = "the config service itself serves `/v1/configs`"
READ_METHODS = ("GET", "HEAD")
ROUTED_AGAIN_S = 0.5
"""A body that took longer to come may have outlived what was decided on its headers."""

logger = logging.getLogger("sie.gateway")


class Gateway:
    """One gateway process. `lifespan` must be entered before calls are handed in."""

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        catalog: Catalog,
        auth: Auth,
        drain: Drain,
        clock: Callable[[], float] = time.monotonic,
        heartbeat_s: float = 1.0,
    ) -> None:
        self.catalog = catalog
        self.table = WorkerTable()
        self._settings = settings
        self._auth = auth
        self._drain = drain
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._targets = discovery.parse_targets(settings.workers)
        self._connections = Connections()
        self._forwarder = Forwarder(self.table, self._connections, clock=clock)
        self._feed = _feed(settings, self._changed)
        self._metrics = Metrics()
        self._demand = Demand()
        self._rate = Rate()

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Heartbeats and the catalog's feed run inside it."""
        heartbeats = Heartbeats(
            self.table,
            self._connections,
            lookup=lambda: discovery.resolve(self._targets),
            token=self._settings.own_token,
            clock=self._clock,
            period_s=self._heartbeat_s,
        )
        self._loop = asyncio.get_running_loop()
        if self._feed is not None:
            self._feed.start()
        beating = asyncio.create_task(heartbeats.run())
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            if self._feed is not None:
                await asyncio.to_thread(self._feed.stop)
            self._connections.close()

    def _changed(self, catalog: Catalog) -> None:
        """Called in the feed's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._follow, catalog)

    def _follow(self, catalog: Catalog) -> None:
        self.catalog = catalog
        fields = {"fingerprint": catalog.fingerprint, "models": len(catalog.specs)}
        logger.info("catalog_changed", extra={"fields": fields})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = respond.request_id(scope)
        headers = [(b"x-sie-request-id", request_id.encode()), (b"x-sie-version", __version__.encode())]
        started_s = self._clock()
        endpoint = _endpoint(scope["path"])
        try:
            self._auth.check(scope["path"], scope["headers"])
            if endpoint == "other":
                code = await self._operation(scope, send, headers=headers)
            else:
                code = await self._call(scope, receive, send, request_id=request_id, headers=headers)
        except ApiError as error:
            code = await self._refuse(scope, send, Refuse(error), request_id=request_id, headers=headers)
        except respond.CallerGone:
            self._metrics.hung_up.add()
            return
        except CutOff as error:
            # Part of the answer is out: all that is left is to close the connection, which uvicorn does
            # for an answer that was not finished.
            logger.warning("answer_cut_off", extra={"fields": {"request_id": request_id, "reason": str(error)}})
            return
        self._metrics.requests.add(endpoint, str(code))
        self._metrics.seconds.observe(self._clock() - started_s, endpoint)

    async def _call(self, scope: Scope, receive: Receive, send: Send, *, request_id: str, headers: list[Header]) -> int:
        if scope["method"] != "POST":
            raise _wrong_method(scope, "POST")
        started_s = self._clock()
        timeout_ms = envelope.timeout_ms(scope["headers"])
        if timeout_ms is None and self._settings.request_timeout_s is not None:
            timeout_ms = int(self._settings.request_timeout_s * 1000)
        deadline_s = None if timeout_ms is None else started_s + timeout_ms / 1000
        call, body = envelope.read(scope["path"], scope["headers"]), None
        if call is None:
            body = await self._body(scope, receive, deadline_s=deadline_s)
            call = _named_inside(scope, body)
        call = replace(call, timeout_ms=timeout_ms)
        decision = self._route(call)
        if isinstance(decision, Refuse):
            return await self._refuse(scope, send, decision, request_id=request_id, headers=headers)
        if isinstance(decision, Wait):
            return await self._wait(scope, send, decision, request_id=request_id, headers=headers)
        if body is None:
            body = await self._body(scope, receive, deadline_s=deadline_s)
            if self._clock() - started_s > ROUTED_AGAIN_S:
                again = self._route(call)
                decision = decision if isinstance(again, Refuse | Wait) else again
        self._rate.count(started_s)
        whole = Call(
            scope=scope,
            envelope=call,
            body=body,
            request_id=request_id,
            started_s=started_s,
            token=self._settings.own_token,
        )
        return await self._forwarder.forward(whole, decision, receive, send, headers=headers)

    async def _body(self, scope: Scope, receive: Receive, *, deadline_s: float | None) -> bytes:
        """Raises as `respond.read_body`, and `DEADLINE_EXCEEDED` for a caller that is longer about it than it waits."""
        left_s = None if deadline_s is None else deadline_s - self._clock()
        try:
            async with asyncio.timeout(left_s):
                return await respond.read_body(scope, receive, limit_bytes=self._settings.max_body_bytes)
        except TimeoutError as error:
            said = "the caller's deadline passed before the whole body had come"
            raise ApiError("DEADLINE_EXCEEDED", said) from error

    def _route(self, call: envelope.Envelope) -> Decision:
        return route(
            call,
            self.table.all(),
            self.catalog,
            configured=self._settings.configured_gpus,
            now_s=self._clock(),
        )

    async def _wait(self, scope: Scope, send: Send, wait: Wait, *, request_id: str, headers: list[Header]) -> int:
        self._metrics.provisioning.add(*self._demand.note(wait, self._clock()))
        if scope["path"] in envelope.NAMED_IN_BODY:
            late = ApiError("PROVISIONING", wait.message, retry_after_s=wait.estimated_wait_s)
            return await self._refuse(scope, send, Refuse(late), request_id=request_id, headers=headers)
        body = {
            "status": "provisioning",
            "gpu": wait.gpu,
            "bundle": wait.bundle,
            "estimated_wait_s": wait.estimated_wait_s,
            "message": wait.message,
        }
        again = (b"retry-after", respond.retry_after(wait.estimated_wait_s))
        await respond.send_json(send, 202, body, headers=[*headers, again])
        return 202

    async def _refuse(self, scope: Scope, send: Send, refuse: Refuse, *, request_id: str, headers: list[Header]) -> int:
        """As every server answers, and the keys of v0.3.1's gateway at the top beside it."""
        error = as_openai(refuse.error) if scope["path"] in envelope.NAMED_IN_BODY else refuse.error
        self._metrics.rejected.add(error.code.lower())
        body = {"message": error.message, **refuse.also, **error.body()}
        said = [*respond.error_headers(error, request_id=request_id), *headers]
        await respond.send_json(send, error.kind.status, body, headers=said)
        return error.kind.status

    async def _operation(self, scope: Scope, send: Send, *, headers: list[Header]) -> int:
        path = scope["path"]
        if path.startswith(LATER):
            hint = CONFIGS_HINT if path.startswith("/v1/configs") else None
            raise ApiError("NOT_IMPLEMENTED", f"this version's gateway does not serve `{path}`", hint=hint)
        shown = self._shown(path)
        if shown is None:
            raise ApiError("NOT_FOUND", f"there is no route `{path}`", hint="`GET /` lists the routes")
        if scope["method"] not in READ_METHODS:
            raise _wrong_method(scope, "GET")
        code, content_type, body = shown
        await respond.send_bytes(send, code, body, content_type=content_type, headers=headers)
        return code

    def _shown(self, path: str) -> tuple[int, bytes, bytes] | None:
        """What a route that only reads answers; None where there is none."""
        now_s, workers = self._clock(), self.table.all()
        match path:
            case "/":
                return 200, respond.HTML, PAGE
            case "/healthz":
                return 200, respond.JSON, b'{"status":"ok"}'
            case "/readyz":
                return self._readiness(len(status.healthy(workers, now_s)))
            case "/metrics":
                return 200, prometheus.CONTENT_TYPE, self._metrics.page(workers, self._demand.waiting(now_s), now_s)
            case "/health":
                configured, rate = self._settings.configured_gpus, self._rate.per_s(now_s)
                cluster = status.health(workers, self.catalog, configured=configured, calls_per_s=rate, now_s=now_s)
                return 200, respond.JSON, respond.to_json(cluster)
            case "/v1/models":
                return 200, respond.JSON, respond.to_json(status.models(workers, self.catalog, now_s))
        if path.startswith("/v1/models/"):
            return self._model(path.removeprefix("/v1/models/"))
        return None

    def _readiness(self, healthy_workers: int) -> tuple[int, bytes, bytes]:
        """Ready without a worker as well: telling callers to wait is the gateway's work."""
        word = "draining" if self._drain.begun else "ready"
        body = respond.to_json({"status": word, "healthy_workers": healthy_workers})
        return 503 if self._drain.begun else 200, respond.JSON, body

    def _model(self, name: str) -> tuple[int, bytes, bytes]:
        entry = status.model(name, self.table.all(), self.catalog, self._clock())
        if entry is None:
            raise self.catalog.no_model(name)
        return 200, respond.JSON, respond.to_json(entry)


def _feed(settings: GatewaySettings, on_change: Callable[[Catalog], None]) -> Feed | None:
    """Raises `SettingsError` for a URL that is none."""
    if settings.config_service_url is None:
        return None
    try:
        return Feed(settings.config_service_url, token=settings.own_token, on_change=on_change)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _endpoint(path: str) -> str:
    """What a call is, `encode` or `embeddings`, else `other`: a label that callers cannot multiply."""
    if path in envelope.NAMED_IN_BODY:
        return path.removeprefix("/v1/")
    for prefix, verb in envelope.PREFIXES.items():
        if path.startswith(prefix):
            return verb
    return "other"


def _named_inside(scope: Scope, body: bytes) -> envelope.Envelope:
    """The envelope of a call whose body names the model; the rest of it is the worker's to read."""
    fmt = codec.body_format(header(scope["headers"], b"content-type"))
    named: Named = codec.decode_as(body, fmt, Named)
    return envelope.named(scope["path"], named.model, scope["headers"])


def _wrong_method(scope: Scope, wanted: str) -> ApiError:
    return ApiError("METHOD_NOT_ALLOWED", f"`{scope['path']}` takes {wanted}, not {scope['method']}")
