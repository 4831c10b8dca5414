"""A worker in this process: the real application and engine over tiny models, called as an ASGI server would."""

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from sie_core.catalog.catalog import Bundle, Catalog
from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.http.asgi import Message
from sie_core.http.auth import Auth
from sie_core.http.serve import Drain
from sie_core.ids import BundleName, ModelId
from sie_core.wire.arrays import from_wire
from sie_server.api.inference import Identity
from sie_server.api.routes import Worker
from sie_server.engine.engine import Engine, Limits
from sie_server.engine.residency import Load, Loading, State
from sie_testing.tiny import TinyModel

T = TypeVar("T")
TINY = ModelId("acme/tiny")
OTHER = ModelId("acme/other")
REVISION = "1" * 40


def spec(model_id: ModelId = TINY, *, max_tokens: int | None = None) -> ModelSpec:
    return ModelSpec(id=model_id, dense=DenseHead(), max_tokens=max_tokens)


def catalog(*specs: ModelSpec) -> Catalog:
    return Catalog.of(specs, [Bundle(name=BundleName("default"), models="all")])


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]

    @property
    def msgpack(self) -> Any:
        return _with_arrays(msgspec.msgpack.decode(self.body))


@dataclass
class Caller:
    """One connection as an ASGI server shows it: parts of a body in, messages out, and a line that may be cut."""

    parts: list[Message]
    sent: list[Message] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    read: int = 0

    async def receive(self) -> Message:
        if self.read < len(self.parts):
            self.read += 1
            return self.parts[self.read - 1]
        await self.hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def reply(self) -> Reply:
        start, *bodies = self.sent
        headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        return Reply(start["status"], headers, b"".join(message["body"] for message in bodies))


_NEVER = Loading(0.0, 0)


class Site:
    """A worker with its event loop. `loads` says what becomes of each spec that is loaded."""

    def __init__(
        self,
        loads: Load,
        *,
        catalog: Catalog,
        kept: Sequence[ModelId],
        limits: Limits,
        auth: Auth,
        identity: Identity,
        max_body_bytes: int,
    ) -> None:
        self.runner = asyncio.Runner()
        self.states: dict[ModelId, State] = {}
        self._changed = threading.Condition()
        self.engine = Engine(loads, limits=limits, kept=kept, on_change=self._on_change)
        self.drain = Drain()
        self.worker = Worker(
            self.engine, catalog, identity=identity, auth=auth, drain=self.drain, max_body_bytes=max_body_bytes
        )
        self.run(self._start())

    async def _start(self) -> None:
        self.engine.start()

    def _on_change(self, model_id: ModelId, state: State) -> None:
        with self._changed:
            self.states[model_id] = state
            self._changed.notify_all()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def load(self, model_spec: ModelSpec) -> State:
        """Loads and waits until that has ended, one way or the other."""
        self.engine.residency.begin(model_spec)
        return self.ended(model_spec.id)

    def ended(self, model_id: ModelId) -> State:
        with self._changed:
            done = self._changed.wait_for(lambda: not isinstance(self.states.get(model_id, _NEVER), Loading), 30)
        assert done, f"{model_id} is still loading"
        return self.states[model_id]

    async def asking(self, caller: Caller, method: str, path: str, headers: Mapping[str, str]) -> Reply:
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        }
        await self.worker(scope, caller.receive, caller.send)
        return caller.reply

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        return self.run(self.asking(Caller([_last(b"")]), "GET", path, headers or {}))

    def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> Reply:
        return self.run(self.posting(path, body, headers))

    async def posting(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> Reply:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        all_headers = {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}
        return await self.asking(Caller([_last(data)]), "POST", path, all_headers)

    def unloaded(self, model: TinyModel) -> bool:
        """Whether it is closed, once whatever is being unloaded has been."""
        for thread in self.engine._unloading:
            thread.join(30)
        return model.closed

    def close(self) -> None:
        self.engine.close()
        self.runner.close()


def _last(data: bytes) -> Message:
    return {"type": "http.request", "body": data, "more_body": False}


def _with_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        if b"nd" in value:
            return from_wire(value)
        return {key: _with_arrays(item) for key, item in value.items()}
    return [_with_arrays(item) for item in value] if isinstance(value, list) else value
