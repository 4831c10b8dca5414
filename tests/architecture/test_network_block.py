"""The checkout's own conftest.py keeps tests on this machine: shown on a suite of one file, in a process of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]

LEAVING = {
    "tcp": ("socket.create_connection(('203.0.113.9', 443), 2)", "socket.connect 203.0.113.9:443"),
    "tcp6": ("socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))", "socket.connect 2001:db8::1:80"),
    "datagram": ("datagrams().sendto(b'x', ('203.0.113.9', 53))", "socket.sendto 203.0.113.9:53"),
    "message": ("datagrams().sendmsg([b'x'], [], 0, ('203.0.113.9', 53))", "socket.sendmsg 203.0.113.9:53"),
    "lookup": ("socket.getaddrinfo('models.example', 443)", "socket.getaddrinfo models.example"),
    "old lookup": ("socket.gethostbyname('models.example')", "socket.gethostbyname models.example"),
    "connect by name": ("socket.socket().connect(('models.example', 80))", "socket.connect models.example:80"),
    "http": ("urllib.request.urlopen('http://203.0.113.9/')", "socket.connect 203.0.113.9:80"),
    "event loop": (
        "asyncio.run(asyncio.open_connection('203.0.113.9', 80))",
        "socket.connect 203.0.113.9:80",
    ),
    "in a thread": (
        "in_thread(socket.create_connection, ('203.0.113.9', 1))",
        "socket.connect 203.0.113.9:1",
    ),
    "taken for an outage": (
        "quietly(socket.getaddrinfo, 'models.example', 443)",
        "socket.getaddrinfo models.example",
    ),
}
STAYING = """
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1]), 2).close()
        socket.create_connection(("127.0.0.1", server.getsockname()[1]), 2).close()
    with datagrams() as sender:
        sender.sendto(b"x", ("127.0.0.1", 9))
    left, right = socket.socketpair()
    left.close(), right.close()
    socket.getaddrinfo("0.0.0.0", 80)
"""
PRELUDE = """
import asyncio, contextlib, socket, threading, urllib.request

def datagrams():
    return socket.socket(type=socket.SOCK_DGRAM)

def quietly(call, *arguments):
    with contextlib.suppress(Exception):
        call(*arguments)

def in_thread(*arguments):
    thread = threading.Thread(target=quietly, args=arguments)
    thread.start()
    thread.join()
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of a suite where every test but one tries to leave."""
    folder = tmp_path_factory.mktemp("suite")
    shutil.copy(CHECKOUT / "conftest.py", folder)
    tests = [f"def test_{index}():\n    {line}\n" for index, (line, _) in enumerate(LEAVING.values())]
    fixture = "import pytest\n@pytest.fixture\ndef given():\n    quietly(socket.getaddrinfo, 'fixture.example', 1)\n"
    tests += [fixture, "def test_fixture(given):\n    pass\n", f"def test_stays():{STAYING}"]
    (folder / "test_suite.py").write_text(PRELUDE + "\n".join(tests))
    words = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "--rootdir", str(folder), "test_suite.py"]
    env = {**os.environ, "COLUMNS": "300"}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60).stdout


@pytest.mark.parametrize("way", LEAVING)
def test_leaving_fails_the_test_and_names_the_address(said: str, way: str) -> None:
    number, (_, named) = list(LEAVING).index(way), LEAVING[way]
    (line,) = [line for line in said.splitlines() if line.startswith(f"FAILED test_suite.py::test_{number} ")]

    assert named in line


def test_leaving_in_a_fixture_fails_the_test_that_wanted_it(said: str) -> None:
    assert "ERROR test_suite.py::test_fixture - Failed: tried to leave this machine: socket.getaddrinfo fixture" in said


def test_loopback_is_open(said: str) -> None:
    assert "PASSED test_suite.py::test_stays" in said
