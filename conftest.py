"""What holds for every test: none leaves this machine, and none fails because the machine is busy.

Whatever tries to leave is refused, and fails its test, naming where it was going.

Python's audit events see every connect, every datagram and every lookup of this process, whatever library makes it,
in every thread. Refused is what is not loopback, not a Unix socket and not `localhost`. The refusal alone would
not be enough, since code under test may take it for an outage and go on: each is remembered, and fails the test that
was running.

Two things are out of reach. A library with a network of its own below Python (uvloop, a Go program) raises no audit
event. And a process that a test starts has no such hook: those that must be shown to stay silent run in network
namespaces where the kernel counts (`sie_airgap.netns`), and the fetching of real parts (`sie_testing.parts`) is
meant to leave, once.
"""

import socket
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from socket import AF_INET, AF_INET6
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

# Property tests have no deadline and are not called too slow: both would be durations. What explains a failure
# traces every line of every example, which takes longer than all of them.
settings.register_profile(
    "checkout",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
settings.load_profile("checkout")

_SENDS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
_LOOKUPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}

_tried: list[str] = []


class NetworkBlocked(RuntimeError):
    """Something in this process tried to leave the machine; no `OSError`, so that nobody tries again."""


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event in _SENDS:
        _check_send(event, *arguments)
    elif event in _LOOKUPS and not _is_local_name(arguments[0]):
        _refuse(event, str(arguments[0]))


def _check_send(event: str, sock: object, address: object = None, *_: object) -> None:
    # A connected socket sends to no address: its connect was seen.
    if getattr(sock, "family", None) in (AF_INET, AF_INET6) and isinstance(address, tuple):
        host, port = address[:2]
        if not _is_loopback(host):
            if isinstance(sock, socket.socket):
                # Who opened it closes it on an OSError, and this is none: it would warn in some later test.
                sock.close()
            _refuse(event, f"{host}:{port}")


def _is_loopback(host: object) -> bool:
    try:
        address = ip_address(_text(host).partition("%")[0])
    except ValueError:
        return _text(host) in ("localhost", "")
    return address.is_loopback or address.is_unspecified


def _is_local_name(host: object) -> bool:
    """What is an address already is looked up nowhere; where it leads is checked when something is sent."""
    try:
        ip_address(_text(host).partition("%")[0])
    except ValueError:
        return host is None or _text(host) in ("localhost", "")
    return True


def _text(host: object) -> str:
    return host.decode("ascii", "replace") if isinstance(host, (bytes, bytearray)) else str(host)


def _refuse(event: str, where: str) -> None:
    _tried.append(f"{event} {where}")
    raise NetworkBlocked(f"{event}: tests may not leave this machine, and this one wants `{where}`")


def _checking(name: str) -> None:
    """Look at the address before the socket does: it looks a name up below Python, and only then raises its event."""
    method = getattr(socket.socket, name)

    def checked(self: socket.socket, *arguments: Any) -> Any:
        _check_send(f"socket.{name}", self, arguments[-1] if arguments else None)
        return method(self, *arguments)

    setattr(socket.socket, name, checked)


sys.addaudithook(_audit)
for _name in ("connect", "connect_ex", "sendto"):
    _checking(_name)


def _failing() -> Iterator[None]:
    _tried.clear()
    try:
        yield
    finally:
        if _tried:
            pytest.fail(f"tried to leave this machine: {', '.join(dict.fromkeys(_tried))}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    yield from _failing()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    yield from _failing()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    yield from _failing()
