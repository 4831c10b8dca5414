"""`sie-gateway` as a process: what it refuses to start with, and how it ends."""

import http.client
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from sie_gateway.cli import main
from sie_testing.stand_in_worker import Line, Received, reply

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        ((), {"SIE_GATEWAY_WORKER": "x"}, "did you mean `SIE_GATEWAY_WORKERS`?"),
        ((), {"SIE_NATS_URL": "nats://x"}, "there is no message broker"),
        ((), {"SIE_AUTH_MODE": "tokne"}, "want one of `none`, `token`, `static`"),
        ((), {"SIE_AUTH_MODE": "token"}, "no token is set"),
        ((), {"SIE_CONFIG_SERVICE_URL": "sie-config:8080"}, "want `http://host:port`"),
        (("--workers", "worker:8080"), {}, "want a comma-separated list of `http://host:port`"),
        (("--port", "http"), {}, "want a whole number"),
        (("--port", "65536"), {}, "want 65535 or less"),
        ((), {"SIE_GATEWAY_REQUEST_TIMEOUT": "0"}, "want 0.001 or more"),
        ((), {"SIE_AUTH_TOKEN": "two words"}, "that no header can carry"),
        (("--workers", "http://a..b:80"), {}, "want a comma-separated list of `http://host:port`"),
    ],
)
def test_what_cannot_be_meant_stops_the_start(arguments: tuple[str, ...], env: dict[str, str], said: str) -> None:
    result = CliRunner().invoke(main, ["serve", "--port", "0", *arguments], env=env)

    assert result.exit_code == 2
    assert said in result.stderr


def test_settings_show_where_they_come_from_and_no_secret() -> None:
    result = CliRunner().invoke(main, ["settings", "--port", "9"], env={"SIE_AUTH_TOKEN": "hidden"})

    assert "hidden" not in result.stdout
    assert ["port", "9", "flag", "--port"] in [line.split() for line in result.stdout.splitlines()]


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-c", "from sie_gateway.cli import main; main()", "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as running:
        try:
            assert running.stderr is not None
            yield running, int(running.stderr.readline().rsplit(":", 1)[1])
        finally:
            running.kill()


def test_running_call_is_finished_after_sigterm_and_the_process_ends_with_0(world: Any) -> None:
    began, release = threading.Event(), threading.Event()

    def slow(request: Received, line: Line) -> None:
        began.set()
        assert release.wait(30)
        reply(200, b"finished")(request, line)

    worker = world.worker(answer=slow, models=[MODEL])
    with process("--workers", worker.url) as (gateway, port):
        ask = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while not (_get(port, "/readyz")[1].endswith(b'"healthy_workers":1}')):
            pass
        ask.request("POST", f"/v1/encode/{MODEL}", b"x")
        assert began.wait(30)
        gateway.send_signal(signal.SIGTERM)
        while _get(port, "/readyz")[0] == 200:
            pass
        health = _get(port, "/healthz")[0]
        release.set()
        answer = ask.getresponse()

        assert health == 200
        assert (answer.status, answer.read()) == (200, b"finished")
        assert gateway.wait(30) == 0
        ask.close()


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
