"""Flows carried out over httpx2, blocking or awaiting. The two halves differ in nothing but that.

Proxies are those of the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY), as with curl, except that calls
to this machine itself never go through one. Certificates are checked against the operating system's trust
store, or against SSL_CERT_FILE.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx2

from sie_sdk import _media
from sie_sdk._media import Items
from sie_sdk._steps import Flow, Lost, Reply, Send, Sleep, Woken

T = TypeVar("T")

KEPT_FOR_S = 30.0
"""How long an idle connection is kept: well under the 75 s after which servers of ours close it, so that no
call is sent into a connection that is being closed."""

MAX_CONNECTIONS = 100

THIS_MACHINE = ("all://localhost", "all://127.0.0.1", "all://[::1]")
"""Never reached through a proxy: a port-forward to a cluster is called as `http://localhost:8080`."""


class BlockingDriver:
    """Carries flows out, one at a time on each thread that calls `run`."""

    def __init__(
        self,
        base_url: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._base_url, self._clock, self._sleep = base_url, clock, sleep
        self._http = httpx2.Client(
            verify=_trust(base_url),
            limits=_limits(MAX_CONNECTIONS),
            mounts=dict.fromkeys(THIS_MACHINE),
        )

    def now_s(self) -> float:
        return self._clock()

    def run(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                step = flow.send(self._done(step))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def ready(self, items: Items) -> Items:
        """The items with their pictures and documents as bytes; raises as `_media.ready`."""
        return _media.ready(items) if _media.any_in(items) else items

    def close(self) -> None:
        self._http.close()

    def _done(self, step: Send | Sleep) -> Reply | Lost | Woken:
        if isinstance(step, Sleep):
            self._sleep(step.delay_s)
            return Woken(self._clock())
        try:
            response = self._http.request(
                step.method,
                self._base_url + step.path,
                headers=step.headers,
                content=step.body,
                timeout=_timeout(step.timeout_s),
            )
        except httpx2.TransportError as error:
            return _lost(error, self._clock())
        return _reply(response, self._clock())


class AwaitingDriver:
    """Carries flows out, as many at a time as there are tasks that await `run`.

    Args:
        max_connections: open at once; a call that finds none free waits for one.
        max_concurrency: requests on their way at once; None for no limit. Sleeping calls do not count.
    """

    def __init__(
        self,
        base_url: str,
        *,
        max_connections: int | None = None,
        max_concurrency: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._base_url, self._clock, self._sleep = base_url, clock, sleep
        # Even without a limit of their own, no more requests set out than there are connections for.
        self._slots = asyncio.Semaphore(max_concurrency or max_connections or MAX_CONNECTIONS)
        self._http = httpx2.AsyncClient(
            verify=_trust(base_url),
            limits=_limits(max_connections or MAX_CONNECTIONS),
            mounts=dict.fromkeys(THIS_MACHINE),
        )

    def now_s(self) -> float:
        return self._clock()

    async def run(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                step = flow.send(await self._done(step))
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def ready(self, items: Items) -> Items:
        """The items with their pictures and documents as bytes, made in a thread: encoding a picture takes a while.

        Raises as `_media.ready`.
        """
        return await asyncio.to_thread(_media.ready, items) if _media.any_in(items) else items

    async def close(self) -> None:
        await self._http.aclose()

    async def _done(self, step: Send | Sleep) -> Reply | Lost | Woken:
        if isinstance(step, Sleep):
            await self._sleep(step.delay_s)
            return Woken(self._clock())
        try:
            async with self._slots:
                response = await self._http.request(
                    step.method,
                    self._base_url + step.path,
                    headers=step.headers,
                    content=step.body,
                    timeout=_timeout(step.timeout_s),
                )
        except httpx2.TransportError as error:
            return _lost(error, self._clock())
        return _reply(response, self._clock())


def _timeout(timeout_s: float) -> httpx2.Timeout:
    # Waiting for one of the client's own connections is no failure of the server's.
    return httpx2.Timeout(timeout_s, pool=None)


def _limits(max_connections: int) -> httpx2.Limits:
    return httpx2.Limits(
        max_connections=max_connections, max_keepalive_connections=max_connections, keepalive_expiry=KEPT_FOR_S
    )


def _trust(base_url: str) -> ssl.SSLContext | bool:
    """The system's trust store for https. Reading it takes a fifth of a second, so http goes without:
    a context that trusts nobody."""
    return True if base_url.startswith("https://") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _reply(response: httpx2.Response, now_s: float) -> Reply:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, response.content, now_s)


def _lost(error: httpx2.TransportError, now_s: float) -> Lost:
    return Lost(error, _passes(error), now_s)


def _passes(error: httpx2.TransportError) -> bool:
    """False where the same call would meet the same end: TLS, a name that nobody has, a request that is none."""
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return False
        if isinstance(cause, socket.gaierror):
            return cause.errno == socket.EAI_AGAIN
        cause = cause.__cause__ or cause.__context__
    return True
