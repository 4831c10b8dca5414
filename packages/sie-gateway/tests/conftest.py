"""A gateway in a thread with a loop of its own, and stand-in workers behind it, all on real sockets."""

import asyncio
import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import uvloop

from sie_core.catalog.catalog import Bundle, Catalog
from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.http.serve import Drain, bind, serve
from sie_core.ids import BundleName, ModelId
from sie_core.wire.messages import WorkerStatus
from sie_gateway.app import Gateway
from sie_gateway.settings import GatewaySettings, auth
from sie_testing.stand_in_worker import Answer, StandInWorker, echo

MODEL = ModelId("org/one")
CATALOG = Catalog.of(
    [ModelSpec(id=ModelId(name), dense=DenseHead(dim=8)) for name in ("org/one", "org/two")],
    [Bundle(name=BundleName("default"), models="all")],
)
HEARTBEAT_S = 0.02


@dataclass(frozen=True)
class Answered:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        assert self.headers["X-SIE-Error-Code"] == self.json["detail"]["code"]
        return str(self.json["detail"]["code"])


class Door:
    """The gateway's address, and calls to it."""

    def __init__(self, port: int) -> None:
        self.port = port

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            yield connection
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answered:
        with self.connection() as connection:
            connection.request(method, path, body, headers or {}, encode_chunked=_is_chunked(headers))
            answer = connection.getresponse()
            return Answered(answer.status, answer.headers, answer.read())

    def encode(self, body: Any = b"body", *, model: str = MODEL, **headers: str) -> Answered:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", f"/v1/encode/{model}", body, sent)

    def wait_until(self, holds: Callable[[Any], bool]) -> Any:
        """What `/health` says once `holds` is true of it."""
        while not holds(said := self.ask("GET", "/health").json):
            pass
        return said

    def wait_for(self, *workers: StandInWorker) -> "Door":
        names = {worker.status.name for worker in workers}
        self.wait_until(lambda said: names <= {one["name"] for one in said["workers"] if one["healthy"]})
        return self


def _is_chunked(headers: dict[str, str] | None) -> bool:
    return (headers or {}).get("Transfer-Encoding") == "chunked"


@contextmanager
def running(settings: GatewaySettings, catalog: Catalog = CATALOG) -> Iterator[Door]:
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    held: list[tuple[asyncio.AbstractEventLoop, Drain]] = []
    up = threading.Event()

    async def main() -> None:
        drain = Drain()
        held.append((asyncio.get_running_loop(), drain))
        gateway = Gateway(settings, catalog=catalog, auth=auth(settings), drain=drain, heartbeat_s=HEARTBEAT_S)
        await serve(
            gateway,
            listener=listener,
            drain=drain,
            drain_s=5,
            linger_s=0,
            lifespan=gateway.lifespan,
            on_listening=lambda _: up.set(),
        )

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    assert up.wait(30)
    try:
        yield Door(port)
    finally:
        loop, drain = held[0]
        loop.call_soon_threadsafe(lambda: drain.begin(linger=False))
        thread.join()


class World:
    """Workers and gateways of one test; all are closed after it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def worker(self, name: str = "w1", *, answer: Answer = echo, port: int = 0, **said: Any) -> StandInWorker:
        facts: dict[str, Any] = {
            "ready": True,
            "machine_profile": "l4",
            "pool": "l4",
            "bundle": "default",
            "loaded": [MODEL],
            "models": list(CATALOG.specs),
            "queued_tokens": 0,
            "fingerprint": CATALOG.fingerprint,
            "version": "0.3.1",
        }
        worker = StandInWorker(WorkerStatus(name=name, **(facts | said)), answer=answer, port=port)
        self._stack.callback(worker.close)
        return worker

    def gateway(self, *workers: StandInWorker, **settings: Any) -> Door:
        """A gateway that has heard of every one of them, all of them ready."""
        return self.open(*workers, **settings).wait_for(*workers)

    def open(self, *workers: StandInWorker, **settings: Any) -> Door:
        """A gateway that has only been told where they are."""
        made = GatewaySettings(workers=tuple(worker.url for worker in workers), **settings)
        return self._stack.enter_context(running(made))


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)
