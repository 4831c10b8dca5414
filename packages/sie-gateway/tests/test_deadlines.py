"""What a caller's deadline and its hanging up end, wherever the call is just then."""

import asyncio
import http.client
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sie_core.errors import ApiError
from sie_core.http.asgi import Message
from sie_core.http.respond import CallerGone
from sie_core.wire import envelope
from sie_gateway import upstream
from sie_gateway.forward import Call, Forwarder
from sie_gateway.routing import Forward
from sie_gateway.upstream import Connections
from sie_gateway.workers import Address, Worker, WorkerTable
from sie_testing.stand_in_worker import Line, Received, raw

MODEL = "org/one"
PATH = f"/v1/encode/{MODEL}"


def hanging(ended: threading.Event) -> Any:
    def answer(request: Received, line: Line) -> None:
        line.wait_for_hang_up()
        ended.set()

    return answer


def test_deadline_is_a_504_and_ends_the_workers_call(world: Any) -> None:
    ended = threading.Event()

    answer = world.gateway(world.worker(answer=hanging(ended))).encode(X_SIE_Timeout_Ms="50")

    assert (answer.status, answer.code) == (504, "DEADLINE_EXCEEDED")
    assert ended.wait(30)


def test_callers_without_a_deadline_get_the_operators(world: Any) -> None:
    worker = world.worker()
    world.gateway(worker, request_timeout_s=60.0).encode()

    assert 0 < int(worker.calls[0].headers["X-SIE-Timeout-Ms"]) <= 60000


def test_deadline_passes_while_the_body_is_coming(world: Any) -> None:
    worker = world.worker()
    door = world.gateway(worker)
    with socket.create_connection(("127.0.0.1", door.port), timeout=30) as sock:
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nX-SIE-Timeout-Ms: 50\r\n\r\nabc"
        sock.sendall(head.encode())
        status = sock.recv(12)

    assert status == b"HTTP/1.1 504"
    assert worker.calls == []


def test_deadline_in_the_middle_of_an_answer_cuts_it_off_and_is_no_bug(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n" + b"x" * 1_000_000

    def stalling(line: Line) -> None:
        line.wait_for_hang_up()
        ended.set()

    door = world.gateway(world.worker(answer=raw(half, then=stalling)))
    with pytest.raises(http.client.IncompleteRead):
        door.encode(X_SIE_Timeout_Ms="2000")

    assert ended.wait(30)
    assert "bug" not in {record.getMessage() for record in caplog.records}


def test_what_is_no_http_in_the_middle_of_an_answer_cuts_it_off_and_is_no_bug(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    chunk = b"%x\r\n" % 300_000 + b"x" * 300_000 + b"\r\n"
    passing_on = threading.Event()

    def spoiling(line: Line) -> None:
        passing_on.wait(30)
        line.send(b"no length\r\n")

    answer = raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk, then=spoiling)
    door = world.gateway(world.worker(answer=answer))
    with door.connection() as connection:
        connection.request("POST", PATH, b"x")
        begun = connection.getresponse()
        passing_on.set()
        with pytest.raises(http.client.IncompleteRead):
            begun.read()

    assert "bug" not in {record.getMessage() for record in caplog.records}


# While a worker that drops packets is dialled: a listener whose queue is full drops them too.


@pytest.fixture
def deaf() -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        host, port = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex((host, port))
        yield Address(host, port)
        for one in waiting:
            one.close()


def forwarded(to: Address, messages: list[Message], **headers: str) -> None:
    """What becomes of a call to a worker; `messages` are what its caller says after the body."""

    async def main() -> None:
        sent = [(name.lower().replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"method": "POST", "path": PATH, "raw_path": PATH.encode(), "query_string": b"", "headers": sent}
        said = envelope.read(PATH, sent)
        assert said is not None
        loop = asyncio.get_running_loop()
        call = Call(scope=scope, envelope=said, body=b"", request_id="r", started_s=loop.time(), token=None)

        async def receive() -> Message:
            return messages.pop() if messages else await loop.create_future()

        async def send(message: Message) -> None:
            raise AssertionError(f"{message} was sent")

        forwarder = Forwarder(WorkerTable(), Connections(), clock=loop.time)
        async with asyncio.timeout(30):
            await forwarder.forward(call, Forward(Worker(to)), receive, send, headers=[])

    asyncio.run(main())


def test_deadline_passes_while_a_worker_is_dialled(deaf: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "CONNECT_S", 3600)

    with pytest.raises(ApiError) as told:
        forwarded(deaf, [], X_SIE_Timeout_Ms="50")

    assert told.value.code == "DEADLINE_EXCEEDED"


def test_caller_that_hangs_up_while_a_worker_is_dialled_is_not_waited_for(
    deaf: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "CONNECT_S", 3600)

    with pytest.raises(CallerGone):
        forwarded(deaf, [{"type": "http.disconnect"}])


def test_worker_that_takes_no_connection_is_lost(deaf: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "CONNECT_S", 0.05)

    with pytest.raises(ApiError) as told:
        forwarded(deaf, [])

    assert told.value.code == "WORKER_LOST"


def test_nothing_is_kept_of_a_worker_that_is_gone(world: Any) -> None:
    address = Address("127.0.0.1", world.worker().port)

    async def main() -> tuple[int, int]:
        connections = Connections()
        busy = await connections.dial(address)
        connections.drop(address, upstream.CutOff("gone"))
        connections.give(busy, now_s=0.0)
        return len(connections._idle), len(connections._busy)

    assert asyncio.run(main()) == (0, 0)
