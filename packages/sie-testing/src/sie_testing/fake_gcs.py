"""A server of Google's storage API over a folder, for the tests of `gs://`."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sie_testing import parts

_READY_TIMEOUT_S = 20.0


@contextmanager
def running(folder: Path, *, bucket: str) -> Iterator[str]:
    """The endpoint of a server that has one bucket, for the time of the block; its log is `folder/server.log`."""
    (folder / "data" / bucket).mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = f"127.0.0.1:{port}"
    words = [str(parts.fake_gcs_server()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    words += ["-backend", "filesystem", "-filesystem-root", str(folder / "data"), "-public-host", where]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(words, stderr=log, stdin=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield f"http://{where}"
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    give_up_at = time.monotonic() + _READY_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError as error:
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise TimeoutError(f"fake-gcs-server does not listen on {port}") from error
            time.sleep(0.02)
