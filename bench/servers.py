"""The servers that are measured, started and stopped: ours, the peer, a stub, a gateway, nginx."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sie_testing.cluster import MINILM
from sie_testing.parts import minilm_folder

ROOT = Path(__file__).resolve().parent.parent
PEER_PYTHON = ROOT / ".venv-parity" / "bin" / "python"
INFINITY_PYTHON = ROOT / ".venv-infinity" / "bin" / "python"
READY_TIMEOUT_S = 120.0
ENCODE = f"/v1/encode/{MINILM}"


@dataclass(frozen=True)
class Server:
    """A process that listens on `port` of loopback. `log` is what it writes."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def anonymous_mib(self) -> float:
        """What it has now that is not a file's."""
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Anonymous:"):
                return int(line.split()[1]) / 1024
        raise LookupError(f"process {self.process.pid} has no `Anonymous`")

    @property
    def peak_rss_mib(self) -> float:
        """The most memory that it ever had, of the kernel's count."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise LookupError(f"process {self.process.pid} has no VmHWM")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def worker_command(port: int, bucket: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Ours, as an operator starts it, with nothing set that the defaults would not be."""
    program = str(Path(sys.executable).parent / "sie-server")
    flags = ["--models", MINILM, "--local-cache", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    return [program, "serve", *flags], {"SIE_CLUSTER_CACHE": bucket, "SIE_LOG_LEVEL": "warning"}


def peer_command(port: int) -> tuple[list[str], dict[str, str]]:
    """Raises `FileNotFoundError` where the peer's environment was not made."""
    if not PEER_PYTHON.exists():
        raise FileNotFoundError(f"{PEER_PYTHON} is not there\n\nhint: `make bench` makes it")
    command = [str(PEER_PYTHON), "-m", "bench.peer", "--model", str(minilm_folder()), "--port", str(port)]
    return command, {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def infinity_command(port: int) -> tuple[list[str], dict[str, str]] | None:
    """None where its environment was not made."""
    if not INFINITY_PYTHON.exists():
        return None
    command = [str(INFINITY_PYTHON), "-m", "bench.peer", "--library", "infinity"]
    ours = {"PYTHONPATH": str(ROOT / "packages" / "sie-core" / "src")}  # for the wire alone
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    return [*command, "--model", str(minilm_folder()), "--port", str(port)], {**offline, "DO_NOT_TRACK": "1", **ours}


def stub_command(port: int) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-m", "bench.stub", "--port", str(port)], {}


def gateway_command(port: int, worker_port: int) -> tuple[list[str], dict[str, str]]:
    program = str(Path(sys.executable).parent / "sie-gateway")
    return [program, "serve"], {
        "SIE_GATEWAY_HOST": "127.0.0.1",
        "SIE_GATEWAY_PORT": str(port),
        "SIE_GATEWAY_WORKERS": f"http://127.0.0.1:{worker_port}",
        "SIE_LOG_LEVEL": "warning",
    }


def nginx_command(port: int, worker_port: int, folder: Path) -> tuple[list[str], dict[str, str]] | None:
    """nginx as a plain reverse proxy with kept connections; None where it is not installed."""
    program = shutil.which("nginx")
    if program is None:
        return None
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(port=port, worker_port=worker_port, folder=folder))
    return [program, "-c", str(config), "-e", "stderr"], {}


NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr error;
events {{ worker_connections 512; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream stub {{ server 127.0.0.1:{worker_port}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port}; client_max_body_size 64m;
    location / {{ proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


@contextmanager
def started(command: tuple[Sequence[str], Mapping[str, str]], port: int, folder: Path, body: bytes) -> Iterator[Server]:
    """From the start to the first answered call, then until the block ends.

    Raises:
        RuntimeError: it ended, or answered no call in time; with the end of its log.
    """
    server = start(command, port, folder)
    try:
        first_answer(server, body)
        yield server
    finally:
        stop(server)


def start(command: tuple[Sequence[str], Mapping[str, str]], port: int, folder: Path) -> Server:
    arguments, more = command
    log = folder / f"{Path(arguments[0]).name}-{port}.log"
    # On which device is the same for both sides: `make gpu` says so here.
    kept = {
        k: v
        for k, v in os.environ.items()
        if k == "SIE_DEVICE" or (not k.startswith(("SIE_", "HF_")) and not k.lower().endswith("_proxy"))
    }
    with log.open("wb") as written:
        process = subprocess.Popen(arguments, env={**kept, **more}, stdout=written, stderr=subprocess.STDOUT, cwd=ROOT)
    return Server(process, port, log)


def first_answer(server: Server, body: bytes) -> float:
    """Calls until one is answered with 200; the clock's reading then. Asks each 2 ms, for two minutes at the most."""
    give_up_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < give_up_s and server.process.poll() is None:
        if _is_answered(server.port, body):
            return time.monotonic()
        time.sleep(0.002)
    raise RuntimeError(f"port {server.port} answered no call\n{server.log.read_text(errors='replace')[-3000:]}")


def stop(server: Server) -> None:
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGINT)
    try:
        server.process.wait(30)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()


def _is_answered(port: int, body: bytes) -> bool:
    head = (
        f"POST {ENCODE} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"Content-Type: application/msgpack\r\nAccept: application/msgpack\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=READY_TIMEOUT_S) as connection:
            connection.sendall(head.encode() + body)
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
