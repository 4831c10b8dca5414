"""One server process: it listens, serves, and on SIGTERM finishes what it has begun.

What happens at SIGTERM, so that a rolling upgrade loses no call:

1. `drain.begun` turns true. `/readyz` should say 503 from now on and a heartbeat "not ready"; `/healthz` stays
   200, since a process that is killed for being unhealthy finishes nothing.
2. For `linger_s` new calls are still served: the gateway asks each second, a load balancer is later still.
3. After that new calls get 503 `SHUTTING_DOWN`; the running ones go on, `drain_s` in all at the most.
4. The process ends with status 0.

SIGINT (a person at a terminal) skips the lingering; a second signal of either kind ends it at once.
"""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager

import uvicorn
import uvloop

from sie_core.errors import ApiError
from sie_core.http.asgi import App, Message, Receive, Scope, Send, header
from sie_core.http.corked import CorkedProtocol
from sie_core.http.guarded import READ_OUT_S
from sie_core.http.respond import request_id, send_error

DRAIN_S = 25.0
"""Five seconds less than the 30 that Kubernetes gives a pod before it kills it."""

LINGER_S = 1.5
"""A gateway asks each second: one period and a half for it to have heard."""

KEEP_ALIVE_S = 75
"""Longer than any client of ours keeps a connection, so that none sends on one that is just being closed."""

_OPERATIONAL = frozenset({"/healthz", "/readyz", "/health", "/heartbeat", "/metrics"})
"""Answered to the end and not waited for: a probe must not keep a process alive."""

logger = logging.getLogger("sie.serve")


class Drain:
    """Whether the process is stopping, and how many calls are running. Belongs to the loop's thread."""

    def __init__(self) -> None:
        self.begun = False
        self.refusing = False
        self.running = 0
        self._lingers = True
        self._woken = asyncio.Event()

    def begin(self, *, linger: bool = True) -> None:
        """Start to stop; once begun, calling it again ends it at once."""
        if self.begun:
            self.running = 0
            self._lingers = False
        self.begun = True
        self._lingers = self._lingers and linger
        self._woken.set()

    def enter(self) -> None:
        self.running += 1

    def leave(self) -> None:
        self.running = max(0, self.running - 1)
        if self.begun:
            self._woken.set()

    async def over(self, *, drain_s: float, linger_s: float) -> bool:
        """Returns once the process may end: true when every call was finished, false when time ran out."""
        await self._woken.wait()
        if self._lingers and linger_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._interrupted(), linger_s)
        self.refusing = True
        try:
            await asyncio.wait_for(self._idle(), drain_s)
        except TimeoutError:
            return False
        return True

    async def _interrupted(self) -> None:
        while self._lingers:
            await self._next_change()

    async def _idle(self) -> None:
        while self.running:
            await self._next_change()

    async def _next_change(self) -> None:
        self._woken.clear()
        await self._woken.wait()


def run(
    app: App,
    *,
    host: str,
    port: int,
    drain: Drain,
    drain_s: float = DRAIN_S,
    linger_s: float = LINGER_S,
    lifespan: Callable[[], AbstractAsyncContextManager[None]] | None = None,
    on_listening: Callable[[str], None] | None = None,
) -> None:
    """Serve until a signal; returns when the process may exit with status 0.

    Args:
        app: raw ASGI; sees `http` scopes only.
        port: 0 takes a free one.
        drain: the app reads `begun` for its readiness.
        lifespan: entered before the first call, left after the last; tasks of the app live in it.
        on_listening: told the base URL once connections are taken.

    Raises:
        OSError: the address cannot be bound; the message names it.
    """
    listener = bind(host, port)
    serving = serve(
        app,
        listener=listener,
        drain=drain,
        drain_s=drain_s,
        linger_s=linger_s,
        lifespan=lifespan,
        on_listening=on_listening,
        signals=True,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serving)


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket; `::` takes IPv4 as well, so that one setting fits every cluster."""
    if not 0 <= port <= 65535:
        raise OSError(errno.EINVAL, f"cannot listen on {host}:{port}: a port is a number from 0 to 65535")
    is_v6 = ":" in host
    try:
        return socket.create_server(
            (host, port),
            family=socket.AF_INET6 if is_v6 else socket.AF_INET,
            backlog=2048,
            reuse_port=False,
            dualstack_ipv6=is_v6 and host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror or error}") from error


def base_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    app: App,
    *,
    listener: socket.socket,
    drain: Drain,
    drain_s: float = DRAIN_S,
    linger_s: float = LINGER_S,
    lifespan: Callable[[], AbstractAsyncContextManager[None]] | None = None,
    on_listening: Callable[[str], None] | None = None,
    signals: bool = False,
) -> None:
    """As `run`, inside a running loop and on a socket that is there; `drain.begin` ends it."""
    async with lifespan() if lifespan is not None else contextlib.nullcontext():
        server = _Server(_config(_counting(app, drain)))
        url = base_url(listener)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        ending = asyncio.create_task(drain.over(drain_s=drain_s, linger_s=linger_s))
        serving.add_done_callback(lambda _: server.listening.set())
        with _handlers(drain) if signals else contextlib.nullcontext():
            await server.listening.wait()
            if serving.done():
                ending.cancel()
                await serving
                return
            logger.info("listening", extra={"fields": {"url": url}})
            if on_listening is not None:
                on_listening(url)
            await asyncio.wait({serving, ending}, return_when=asyncio.FIRST_COMPLETED)
            finished = ending.done() and ending.result()
            ending.cancel()
            server.end()
            await serving
        logger.info("stopped", extra={"fields": {"url": url, "every_call_finished": finished}})


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._ending = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        """Renews the `Date` header each second until the end; uvicorn's own wakes ten times as often."""
        while not self._ending.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), 1.0)

    def end(self) -> None:
        self._ending.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are `Drain`'s: uvicorn would close the listener at once and die of the signal at the end."""
        yield


def _config(app: App) -> uvicorn.Config:
    # uvicorn's own lines say nothing that ours do not, except its warnings.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return uvicorn.Config(
        app,
        http=CorkedProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )


@contextlib.contextmanager
def _handlers(drain: Drain) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, drain.begin)
    loop.add_signal_handler(signal.SIGINT, lambda: drain.begin(linger=False))
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        loop.remove_signal_handler(signal.SIGINT)


def _counting(app: App, drain: Drain) -> App:
    """The app with its calls counted, and refused once the process takes no more."""

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        is_counted = scope["path"] not in _OPERATIONAL
        if is_counted and drain.refusing:
            error = ApiError("SHUTTING_DOWN", "this process is stopping and takes no new calls")
            await send_error(send, error, request_id=request_id(scope), headers=[(b"connection", b"close")])
            return
        line = _Line(scope, receive, send, is_last=is_counted and drain.begun)
        if is_counted:
            drain.enter()
        try:
            await app(scope, line.receive, line.send)
        except Exception:
            await _answer_bug(scope, send)
        finally:
            if is_counted:
                drain.leave()

    return counted


async def _answer_bug(scope: Scope, send: Send) -> None:
    """Log what escaped, and answer as every error is answered if nothing has been sent."""
    id_ = request_id(scope)
    logger.exception("bug", extra={"fields": {"path": scope["path"], "request_id": id_}})
    error = ApiError("INTERNAL_ERROR", "the process failed on this call", hint="its log says where")
    with contextlib.suppress(RuntimeError):  # an answer had begun: uvicorn closes the connection
        await send_error(send, error, request_id=id_)


class _Line:
    """A caller's line during one call: what must happen on it when the answer comes before the body was read.

    - After a 413 what the caller is still sending is thrown away for a while, before the connection is closed: see
      `READ_OUT_S`. The answer itself goes out first.
    - A caller that asked whether to send its body at all (`Expect: 100-continue`) and is told no may send something
      else next, which would be taken for that body: the connection is closed.

    Args:
        is_last: callers on kept connections are told to go elsewhere next time.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, is_last: bool) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._is_last = is_last
        self._was_asked = self._is_read = self._reads_out = False

    async def receive(self) -> Message:
        self._was_asked = True
        message = await self._receive()
        if not message.get("more_body", False):
            self._is_read = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._reads_out = message["status"] == 413 and not self._is_read
            if self._is_last or (not self._was_asked and header(self._scope["headers"], b"expect") is not None):
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        elif self._reads_out and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READ_OUT_S):
                    while (await self._receive()).get("more_body", False):
                        pass
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)
