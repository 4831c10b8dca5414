"""Programs of others as servers of a test: a port for one that cannot pick it, and when it answers."""

import socket
import subprocess
import time

import httpx2

READY_S = 20.0


def free_port(ip: str = "127.0.0.1") -> int:
    """One that is free now; whoever is slow to listen on it may find it taken."""
    with socket.socket() as probe:
        probe.bind((ip, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_listening(port: int, process: "subprocess.Popen[bytes]", *, ip: str = "127.0.0.1") -> None:
    """Returns once a connection is taken. Raises `TimeoutError` as `wait_until_ready` does."""
    until = time.monotonic() + READY_S
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection((ip, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise TimeoutError(f"{process.args!r} does not listen on {ip}:{port}")


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Returns once `url` is answered, with whatever status.

    Raises:
        TimeoutError: the process has ended, or does not answer within `READY_S`.
    """
    until = time.monotonic() + READY_S
    while time.monotonic() < until and process.poll() is None:
        try:
            httpx2.get(url, trust_env=False)
            return
        except httpx2.TransportError:
            time.sleep(0.02)
    raise TimeoutError(f"{process.args!r} does not answer at {url}")
