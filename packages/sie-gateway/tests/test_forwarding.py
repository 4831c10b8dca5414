"""What goes through the gateway arrives as it was sent, both ways, and what goes wrong behind it is told truly."""

import http.client
import socket
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sie_testing.stand_in_worker import Line, Received, StandInWorker, echo, raw, reply

MODEL = "org/one"
MIB = 1 << 20


def test_bytes_and_headers_arrive_as_they_were_sent(world: Any) -> None:
    worker = world.worker()
    body = bytes(range(256)) * 40
    door = world.gateway(worker)

    answer = door.encode(body, Content_Type="application/msgpack", Content_Encoding="gzip", Accept="x/y", X_Mine="1")

    received = worker.calls[0]
    assert (received.method, received.target, received.body) == ("POST", f"/v1/encode/{MODEL}", body)
    assert {name: received.headers[name] for name in ("Content-Encoding", "Accept", "X-Mine")} == {
        "Content-Encoding": "gzip",
        "Accept": "x/y",
        "X-Mine": "1",
    }
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["Content-Type"] == "application/msgpack"
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["X-Worker-Says"] == "yes"
    assert answer.headers["X-SIE-Worker"] == "w1"
    assert answer.headers["X-SIE-Version"] == "0.3.1"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=5000), parts=st.integers(1, 4))
def test_any_body_in_any_framing_is_the_same_bytes(shared: Any, body: bytes, parts: int) -> None:
    size = max(1, len(body) // parts)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]

    whole = shared.encode(body)
    chunked = shared.encode(iter(pieces), Transfer_Encoding="chunked")

    assert (whole.body, chunked.body) == (body, body)


@pytest.fixture
def shared(world: Any) -> Any:
    return world.gateway(world.worker())


@pytest.mark.parametrize("status", [200, 400, 404, 500, 502, 503])
def test_status_and_body_of_the_worker_are_the_callers(world: Any, status: int) -> None:
    worker = world.worker(answer=reply(status, b'{"x":1}', {"X-SIE-Error-Code": "MODEL_LOADING", "Retry-After": "5"}))

    answer = world.gateway(worker).encode()

    assert (answer.status, answer.body) == (status, b'{"x":1}')
    assert (answer.headers["X-SIE-Error-Code"], answer.headers["Retry-After"]) == ("MODEL_LOADING", "5")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcdefg",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nabcdefg",
        b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\nabcdefg",
    ],
    ids=["chunked", "until close", "100 first", "1.0"],
)
def test_every_framing_of_an_answer_is_understood(world: Any, answer: bytes) -> None:
    assert world.gateway(world.worker(answer=raw(answer))).encode().body == b"abcdefg"


def test_trailers_of_an_answer_do_not_become_its_headers(world: Any) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    answer = world.gateway(world.worker(answer=raw(head + b"3\r\nabc\r\n0\r\nX-Late: 1\r\n\r\n"))).encode()

    assert (answer.body, "X-Late" in answer.headers) == (b"abc", False)


def test_large_answer_is_streamed_and_whole(world: Any) -> None:
    body = bytes(range(256)) * (4 * MIB // 256)
    door = world.gateway(world.worker(), max_body_bytes=8 * MIB)

    assert door.encode(body).body == body


def test_large_answer_waits_for_a_slow_caller(world: Any) -> None:
    body = b"x" * (24 * MIB)
    door = world.gateway(world.worker(answer=reply(200, body)))

    with door.connection() as connection:
        connection.request("POST", f"/v1/encode/{MODEL}", b"")
        answer = connection.getresponse()
        first = answer.read(1000)
        door.wait_until(lambda said: said["status"] == "healthy")
        rest = answer.read()

    assert len(first) + len(rest) == len(body)


def test_headers_between_two_hops_stay_there(world: Any) -> None:
    hop = {
        "Connection": "X-Hop, keep-alive",
        "X-Hop": "1",
        "TE": "trailers",
        "Keep-Alive": "timeout=5",
        "Upgrade": "h2c",
    }
    back = {"Connection": "X-Back", "X-Back": "1", "Keep-Alive": "timeout=5", "Server": "stand-in", "X-Stays": "1"}
    worker = world.worker(answer=reply(200, b"", back))

    answer = world.gateway(worker).ask("POST", f"/v1/encode/{MODEL}", b"", {**hop, "X-Stays": "1"})

    assert [name for name in (*hop, "X-Stays") if name in worker.calls[0].headers] == ["X-Stays"]
    assert [name for name in (*back, "X-Stays") if name in answer.headers] == ["X-Stays", "X-Stays"]


def test_worker_gets_its_own_profile_what_is_left_of_the_time_and_one_request_id(world: Any) -> None:
    worker = world.worker(machine_profile="l4-spot")

    answer = world.gateway(worker).encode(
        X_SIE_Machine_Profile="l4", X_SIE_Pool="l4", X_SIE_Timeout_Ms="60000", X_Request_ID="mine"
    )

    headers = worker.calls[0].headers
    assert headers["X-SIE-Machine-Profile"] == "l4-spot"
    assert "X-SIE-Pool" not in headers
    assert 0 < int(headers["X-SIE-Timeout-Ms"]) <= 60000
    assert headers["X-Request-ID"] == answer.headers["X-SIE-Request-ID"] == "mine"


def test_query_and_escapes_of_the_path_are_handed_on(world: Any) -> None:
    worker = world.worker()

    door = world.gateway(worker)
    targets = ["/v1/encode/default:/org%2Fone?x=%20y", "/v1/%65ncode/org/one"]
    statuses = [door.ask("POST", target, b"").status for target in targets]

    assert statuses == [200, 200]
    assert [call.target for call in worker.calls] == targets


def test_token_of_the_gateway_goes_to_workers_where_the_caller_sent_none(world: Any) -> None:
    from sie_core.settings import Secret

    worker = world.worker()
    door = world.gateway(worker, auth_token=Secret("ours"))
    door.encode()
    door.encode(Authorization="Bearer theirs")

    assert [call.headers["Authorization"] for call in worker.calls] == ["Bearer ours", "Bearer theirs"]
    assert worker.heartbeats[0].headers["Authorization"] == "Bearer ours"


def test_connections_are_kept_between_calls(world: Any) -> None:
    lines: list[Line] = []

    def noting(request: Received, line: Line) -> None:
        lines.append(line)
        echo(request, line)

    door = world.gateway(world.worker(answer=noting))
    for _ in range(20):
        door.encode()

    assert len(set(lines)) <= 2, "one, and another for a call that comes while the first carries a heartbeat"


# What goes wrong


def test_worker_that_is_gone_is_passed_over_for_another(world: Any) -> None:
    first, second = world.worker("a"), world.worker("b")
    door = world.gateway(first, second)
    first.close()

    assert door.encode().headers["X-SIE-Worker"] == "b"


def test_worker_that_resets_before_it_answers_is_passed_over_for_another(world: Any) -> None:
    first, second = world.worker("a", answer=lambda _, line: line.reset()), world.worker("b")

    answer = world.gateway(first, second).encode()

    assert (answer.status, answer.headers["X-SIE-Worker"]) == (200, "b")


def test_large_body_is_not_sent_to_a_second_worker(world: Any) -> None:
    first, second = world.worker("a", answer=lambda _, line: line.reset()), world.worker("b")

    answer = world.gateway(first, second).encode(b"x" * (MIB + 1))

    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "WORKER_LOST", "1")
    assert second.calls == []


def test_worker_that_stops_hands_its_call_to_another(world: Any) -> None:
    stopping = reply(503, b"{}", {"X-SIE-Error-Code": "SHUTTING_DOWN"})
    first, second = world.worker("a", answer=stopping), world.worker("b")
    door = world.gateway(first, second)

    assert door.encode().headers["X-SIE-Worker"] == "b"
    first.status.ready = second.status.ready = False
    door.wait_until(lambda said: said["status"] == "degraded")
    assert door.encode().status == 202


def test_last_worker_lost_is_a_503_that_passes(world: Any) -> None:
    answer = world.gateway(world.worker(answer=lambda _, line: line.reset())).encode()

    assert (answer.status, answer.code) == (503, "WORKER_LOST")
    assert "w1" in answer.json["message"]


@pytest.mark.parametrize("end", [Line.close, Line.reset])
def test_worker_killed_in_the_middle_of_its_answer_is_a_503_and_no_half_answer(world: Any, end: Any) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 400

    answer = world.gateway(world.worker("a", answer=raw(half, then=end)), world.worker("b")).encode()

    assert (answer.status, answer.code) == (503, "WORKER_LOST")


def test_worker_killed_while_its_answer_is_passed_on_ends_the_callers_connection(world: Any) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n" + b"x" * 1_000_000
    door = world.gateway(world.worker(answer=raw(half)))

    with pytest.raises(http.client.IncompleteRead):
        door.encode()


def test_kept_connection_that_was_closed_is_replaced_without_a_word(world: Any) -> None:
    worker = world.worker()
    door = world.gateway(worker)
    door.encode()
    worker.close_lines()

    assert [door.encode().status for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize(
    "answer",
    [
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"y" * 1000) for n in range(100)),
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: 1\r\n" * (MIB // 6),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;" + b"x" * MIB,
    ],
    ids=["no http", "headers without end", "two lengths", "upgrade", "trailers without end", "a chunk without end"],
)
def test_answer_that_is_none_is_told_as_a_bug_and_costs_only_that_call(world: Any, answer: bytes) -> None:
    worker = world.worker(answer=raw(answer))
    door = world.gateway(worker)
    broken = door.encode()
    worker.answer = echo

    assert (broken.status, broken.code) == (500, "INTERNAL_ERROR")
    assert door.encode().status == 200


def test_bytes_after_an_answer_do_not_become_the_next_one(world: Any) -> None:
    extra = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"
    worker = world.worker(answer=raw(extra, then=lambda line: None))
    door = world.gateway(worker)
    door.encode()
    worker.answer = echo

    assert door.encode(b"mine").body == b"mine"


def hanging(began: threading.Event, ended: threading.Event) -> Any:
    def answer(request: Received, line: Line) -> None:
        began.set()
        line.wait_for_hang_up()
        ended.set()

    return answer


def test_caller_that_hangs_up_ends_the_workers_call(world: Any) -> None:
    began, ended = threading.Event(), threading.Event()
    door = world.gateway(world.worker(answer=hanging(began, ended)))
    with door.connection() as connection:
        connection.request("POST", f"/v1/encode/{MODEL}", b"x")
        assert began.wait(30)

    assert ended.wait(30)
    while "sie_gateway_hung_up_total 1" not in door.ask("GET", "/metrics").body.decode():
        pass


def test_other_calls_go_on_while_one_hangs(world: Any) -> None:
    began, ended = threading.Event(), threading.Event()
    worker = world.worker(answer=hanging(began, ended))
    door = world.gateway(worker)
    with door.connection() as connection:
        connection.request("POST", f"/v1/encode/{MODEL}", b"x")
        assert began.wait(30)
        worker.answer = echo

        assert door.encode(b"other").body == b"other"


@pytest.mark.parametrize("framing", [{}, {"Transfer_Encoding": "chunked"}])
def test_body_over_the_limit_is_413_and_no_worker_sees_it(world: Any, framing: dict[str, str]) -> None:
    worker = world.worker()
    door = world.gateway(worker, max_body_bytes=1000)
    body: Any = iter([b"x" * 600, b"x" * 600]) if framing else b"x" * 1200

    answer = door.encode(body, **framing)

    assert (answer.status, answer.code) == (413, "BODY_TOO_LARGE")
    assert worker.calls == []


def test_caller_that_half_closes_after_its_request_is_gone(world: Any) -> None:
    """A server of ours takes the end of what a caller sends for its hanging up, as HTTP/1.1 servers commonly do."""
    worker: StandInWorker = world.worker()
    door = world.gateway(worker)
    with socket.create_connection(("127.0.0.1", door.port), timeout=30) as sock:
        sock.sendall(f"POST /v1/encode/{MODEL} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc".encode())
        sock.shutdown(socket.SHUT_WR)
        rest = sock.recv(1000)

    assert rest == b""
    assert worker.calls == []
    assert door.encode().status == 200
