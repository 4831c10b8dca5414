"""The worker as an ASGI application: its routes, its door, and how every error leaves it.

Raw ASGI: a framework's routing and validation would cost more than everything else that a short call needs
outside the model.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from sie_core.catalog.catalog import Catalog
from sie_core.errors import ApiError
from sie_core.http.asgi import Receive, Scope, Send
from sie_core.http.auth import Auth
from sie_core.http.metrics import CONTENT_TYPE
from sie_core.http.respond import CallerGone, request_id, send_bytes, send_error, send_json, send_text
from sie_core.http.serve import Drain
from sie_core.wire import envelope
from sie_core.wire.openai import as_openai
from sie_server.api.inference import SERVER_VERSION, Identity, Inference
from sie_server.api.offer import Offer
from sie_server.api.openai import OpenAi
from sie_server.api.ops import Operations
from sie_server.engine.engine import Engine
from sie_server.observability import EVENT_BUG, EVENT_CALLER_GONE, EVENT_CATALOG

logger = logging.getLogger("sie.app")

_MODEL = "/v1/models/"
_CALLS = (*(f"{prefix}ORG/NAME" for prefix in envelope.PREFIXES), *envelope.NAMED_IN_BODY)
_NOT_YET = ("/ws/status",)


@dataclass
class _Counted:
    """Which model a call named, once that is known."""

    model: str


class Worker:
    """The ASGI application."""

    def __init__(
        self, engine: Engine, catalog: Catalog, *, identity: Identity, auth: Auth, drain: Drain, max_body_bytes: int
    ) -> None:
        self.engine = engine
        self.offer = Offer(catalog, identity.bundle)
        self._auth = auth
        self._inference = Inference(engine, identity=identity, max_body_bytes=max_body_bytes)
        self._openai = OpenAi(self._inference, is_stopping=lambda: drain.begun)
        self._operations = Operations(engine, drain, identity)
        self._routes: Mapping[str, Callable[[Send], Awaitable[None]]] = {
            "/healthz": lambda send: send_text(send, 200, "ok"),
            "/readyz": self._readyz,
            "/heartbeat": lambda send: send_json(send, 200, self._operations.status(self.offer)),
            "/metrics": self._metrics,
            "/v1/models": lambda send: send_json(send, 200, self._operations.models(self.offer)),
        }

    def swap(self, catalog: Catalog) -> None:
        """From now on this catalog: models whose spec changed or went are unloaded after their running calls.

        Belongs to the event loop's thread.
        """
        before, self.offer = self.offer, Offer(catalog, self.offer.bundle)
        residency = self.engine.residency
        offered = {model_id: catalog.specs[model_id] for model_id in self.offer.models}
        for model_id in residency.states():
            if offered.get(model_id) != residency.spec(model_id):
                self.engine.unload(model_id)
        for model_id in residency.kept & offered.keys():
            if residency.spec(model_id) is None:
                residency.begin(offered[model_id])
        fields = {"fingerprint": catalog.fingerprint, "was": before.catalog.fingerprint, "models": len(catalog.specs)}
        logger.info(EVENT_CATALOG, extra={"fields": fields})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call_id = request_id(scope)
        try:
            self._auth.check(scope["path"], scope["headers"])
            await self._route(scope, receive, send, call_id)
        except ApiError as error:
            await send_error(send, error, request_id=call_id, headers=[SERVER_VERSION])
        except CallerGone:
            logger.debug(EVENT_CALLER_GONE, extra={"fields": {"path": scope["path"], "request_id": call_id}})
        except Exception:
            logger.exception(EVENT_BUG, extra={"fields": {"path": scope["path"], "request_id": call_id}})
            said = f"the worker failed on a bug of its own; its log has the trace under request id `{call_id}`"
            await send_error(send, ApiError("INTERNAL_ERROR", said), request_id=call_id, headers=[SERVER_VERSION])

    async def _route(self, scope: Scope, receive: Receive, send: Send, call_id: str) -> None:
        path = scope["path"]
        said = envelope.read(path, scope["headers"])
        if said is not None:
            _want_method(scope, "POST")
            with self._counted(said.verb, said.model):
                await self._inference.answer(said, self.offer, scope, receive, send, request_id=call_id)
            return
        if path in envelope.NAMED_IN_BODY:
            _want_method(scope, "POST")
            await self._foreign(scope, receive, send, call_id)
            return
        if path in _NOT_YET:
            raise ApiError("NOT_IMPLEMENTED", f"`{path}` is not served by this version", hint="use `/v1/encode/MODEL`")
        answer = self._routes.get(path)
        if answer is None and not path.startswith(_MODEL):
            raise ApiError("NOT_FOUND", f"no route `{path}`", hint=f"routes: {', '.join((*self._routes, *_CALLS))}")
        _want_method(scope, "GET")
        if answer is None:
            entry = self._operations.entry(self.offer, self.offer.spec(path[len(_MODEL) :]))
            await send_json(send, 200, entry, headers=[SERVER_VERSION])
            return
        await answer(send)

    async def _foreign(self, scope: Scope, receive: Receive, send: Send, call_id: str) -> None:
        """A call whose body names its model."""
        try:
            with self._counted(scope["path"].removeprefix("/v1/")) as counted:
                call = await self._openai.read(scope, receive)
                counted.model = call.envelope.model
                await self._openai.answer(call, self.offer, receive, send, request_id=call_id)
        except ApiError as error:
            raise as_openai(error) from error

    @contextmanager
    def _counted(self, endpoint: str, model: str = "") -> Iterator[_Counted]:
        """A model's call, counted by how it ended; ids that are not in the catalog share one label."""
        counted = _Counted(model)
        status = "200"
        try:
            yield counted
        except ApiError as error:
            status = str(error.kind.status)
            raise
        except CallerGone:
            status = "499"
            raise
        except Exception:
            status = "500"
            raise
        finally:
            label = counted.model if counted.model in self.offer.models else "unknown"
            self.engine.metrics.requests.add(label, endpoint, status)

    async def _readyz(self, send: Send) -> None:
        reason = self._operations.not_ready(self.offer)
        if reason is None:
            await send_text(send, 200, "ok")
        else:
            await send_text(send, 503, f"not ready: {reason}\n")

    async def _metrics(self, send: Send) -> None:
        await send_bytes(send, 200, self._operations.metrics(), content_type=CONTENT_TYPE)


def _want_method(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise ApiError("METHOD_NOT_ALLOWED", f"`{scope['path']}` takes {method}, not {scope['method']}")
