"""A server process over real sockets: answers, limits, readiness and draining."""

import http.client
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

PROGRAM = textwrap.dedent(
    """
    import asyncio, sys
    from sie_core.errors import ApiError
    from sie_core.http import respond
    from sie_core.http.serve import Drain, run

    LINGER = float(sys.argv[1])
    drain, release = None, None

    async def app(scope, receive, send):
        path = scope["path"]
        if path == "/healthz":
            await respond.send_text(send, 200, "ok")
        elif path == "/readyz":
            await respond.send_text(send, 503 if drain.begun else 200, "")
        elif path == "/slow":
            print("slow began", flush=True)
            await release.wait()
            await respond.send_text(send, 200, "finished")
        elif path == "/metrics":
            release.set()
            await respond.send_text(send, 200, "")
        else:
            try:
                body = await respond.read_body(scope, receive, limit_bytes=1000)
            except ApiError as error:
                await respond.send_error(send, error, request_id=respond.request_id(scope))
                return
            await respond.send_bytes(send, 200, body, content_type=b"application/octet-stream")

    drain, release = Drain(), asyncio.Event()
    run(app, host="127.0.0.1", port=0, drain=drain, linger_s=LINGER, on_listening=lambda url: print(url, flush=True))
    """
)


class Program:
    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def get(self, path: str) -> tuple[int, bytes]:
        connection = self.connect()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def program(*, linger_s: float = 0.0) -> Iterator[Program]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(linger_s)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert process.stdout is not None
        yield Program(process, int(process.stdout.readline().rsplit(":", 1)[1]))
    finally:
        process.kill()
        process.communicate()


def test_running_call_finishes_after_sigterm_while_readiness_is_gone_and_health_is_not() -> None:
    with program() as server:
        running = server.connect()
        running.request("GET", "/slow")
        assert server.line() == "slow began"
        server.process.send_signal(signal.SIGTERM)
        while server.get("/readyz")[0] == 200:
            pass
        health = server.get("/healthz")[0]
        refused, refusal = server.get("/new")
        server.get("/metrics")
        answer = running.getresponse()

        assert health == 200
        assert (refused, msgspec.json.decode(refusal)["error"]["code"]) == (503, "SHUTTING_DOWN")
        assert (answer.status, answer.read()) == (200, b"finished")
        assert server.process.wait(30) == 0
        running.close()


def test_calls_that_come_while_lingering_are_served() -> None:
    with program(linger_s=60) as server:
        server.process.send_signal(signal.SIGTERM)
        while server.get("/readyz")[0] == 200:
            pass

        assert server.get("/echo") == (200, b"")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0


def test_second_signal_ends_it_although_a_call_is_running() -> None:
    with program() as server:
        running = server.connect()
        running.request("GET", "/slow")
        assert server.line() == "slow began"
        server.process.send_signal(signal.SIGINT)
        while server.get("/readyz")[0] == 200:
            pass
        server.process.send_signal(signal.SIGINT)

        assert server.process.wait(30) == 0
        running.close()


@pytest.mark.parametrize("encode_chunked", [False, True])
def test_body_over_the_limit_is_refused_and_one_at_the_limit_is_not(encode_chunked: bool) -> None:
    with program() as server:

        def post(size_bytes: int) -> tuple[int, bytes, str | None]:
            connection = server.connect()
            body = iter([b"x" * size_bytes]) if encode_chunked else b"x" * size_bytes
            connection.request(
                "POST", "/echo", body=body, encode_chunked=encode_chunked, headers=_framing(encode_chunked)
            )
            answer = connection.getresponse()
            said = answer.status, answer.read(), answer.getheader("X-SIE-Error-Code")
            connection.close()
            return said

        assert post(1000) == (200, b"x" * 1000, None)
        status, body, code = post(1001)
        assert (status, code) == (413, "BODY_TOO_LARGE")
        assert msgspec.json.decode(body)["detail"]["limit_bytes"] == 1000


def test_announced_body_is_refused_before_it_is_sent() -> None:
    with program() as server:
        connection = server.connect()
        connection.putrequest("POST", "/echo")
        connection.putheader("Content-Length", "123456789")
        connection.putheader("X-Request-ID", "mine")
        connection.endheaders()
        answer = connection.getresponse()

        assert (answer.status, answer.getheader("Connection")) == (413, "close")
        assert answer.getheader("X-Request-ID") == "mine"
        connection.close()


def _framing(encode_chunked: bool) -> dict[str, str]:
    return {"Transfer-Encoding": "chunked"} if encode_chunked else {}
