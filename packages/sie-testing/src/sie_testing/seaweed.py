"""A real S3 server for tests and the demo: SeaweedFS, one process, a folder and ports of its own.

It is the strict one of the servers we know: it checks signatures, refuses a PUT whose declared sha256 is
wrong, and answers ranges with 206.
"""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from sie_testing import parts

ACCESS_KEY, SECRET_KEY = "demo-access", "demo-secret"
READER_KEY, READER_SECRET = "reader-access", "reader-secret"
"""Of somebody who may read and list, and no more."""
_GRPC_OFFSET = 10_000
_BASES = (20_000, 22_700)
"""Both ports of each pair lie below 32768, where the kernel begins to give ports to whoever connects: one of those
was taken between the look and the server's start."""
_READY_TIMEOUT_S = 60.0
_FIRST_WRITES = 8
"""Any of the first writes into a new bucket may wait 5 s for its volume to be announced; these do the waiting."""


@dataclass(frozen=True)
class Ports:
    """Each also takes the port 10,000 above it, for gRPC."""

    s3: int
    master: int
    volume: int
    filer: int


def free_ports(ip: str = "127.0.0.1") -> Ports:
    """Four that are free now, with the ones 10,000 above them."""
    found: list[int] = []
    while len(found) < 4:
        port = SystemRandom().randrange(*_BASES)
        if port not in found and _is_free(ip, port) and _is_free(ip, port + _GRPC_OFFSET):
            found.append(port)
    return Ports(*found)


def _is_free(ip: str, port: int) -> bool:
    with closing(socket.socket()) as probe:
        try:
            probe.bind((ip, port))
        except OSError:
            return False
    return True


def command(folder: Path, ports: Ports, *, ip: str = "127.0.0.1", weed: Path | None = None) -> list[str]:
    """The command line of a server that keeps its data in `folder`; writes the identities it knows there."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    identities = folder / "s3.json"
    known = [
        _identity("admin", ACCESS_KEY, SECRET_KEY, ["Admin", "Read", "List", "Tagging", "Write"]),
        _identity("reader", READER_KEY, READER_SECRET, ["Read", "List"]),
    ]
    identities.write_text(json.dumps({"identities": known}), encoding="utf-8")
    options = {
        "ip": ip,
        "ip.bind": ip,
        "dir": folder / "data",
        "s3.port": ports.s3,
        "s3.config": identities,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "master.port": ports.master,
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 256,
        "volume.port": ports.volume,
        "volume.max": 20,
        "filer.port": ports.filer,
    }
    program = weed or parts.weed()
    return [str(program), "server", "-s3", *(f"-{name}={value}" for name, value in options.items())]


def _identity(name: str, access_key: str, secret_key: str, actions: list[str]) -> dict[str, object]:
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    return {"name": name, "credentials": credentials, "actions": actions}


@dataclass(frozen=True)
class Seaweed:
    """A running server."""

    endpoint: str
    process: "subprocess.Popen[bytes]"

    def make_bucket(self, name: str) -> None:
        """As soon as the server is ready for it, which takes a few seconds in a new folder.

        Raises:
            ClientError: it is ready, and refuses this for good: a name that no bucket can have, say.
            TimeoutError: it was not ready within a minute, or ended.
        """
        client = _client(self.endpoint)
        give_up_at = time.monotonic() + _READY_TIMEOUT_S
        while True:
            try:
                _make_and_try(client, name)
                return
            except (BotoCoreError, ClientError) as error:
                if isinstance(error, ClientError) and _is_final(error):
                    raise
                if self.process.poll() is not None or time.monotonic() > give_up_at:
                    raise TimeoutError(f"SeaweedFS at {self.endpoint} is not ready: {error}") from error
                time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL: it takes 25 s to end when asked politely, and its data are kept either way."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def running(folder: Path, *, ip: str = "127.0.0.1") -> Iterator[Seaweed]:
    """A server for the time of the block; its log is `folder/seaweed.log`."""
    ports = free_ports(ip)
    words = command(folder, ports, ip=ip)
    with (folder / "seaweed.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    server = Seaweed(endpoint=f"http://{ip}:{ports.s3}", process=process)
    try:
        yield server
    finally:
        server.kill()


def _make_and_try(client: Any, bucket: str) -> None:
    with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=bucket)
    for _ in range(_FIRST_WRITES):
        client.put_object(Bucket=bucket, Key=".ready", Body=b"ready")
    client.delete_object(Bucket=bucket, Key=".ready")


def _is_final(error: ClientError) -> bool:
    """Whether asking again cannot help; a new bucket may not be known everywhere at once (404, 409)."""
    status: int = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return 400 <= status < 500 and status not in (404, 408, 409, 429)


def _client(endpoint: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=10),
    )
