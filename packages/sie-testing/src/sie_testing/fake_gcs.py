"""A server of Google's storage API over a folder, for the tests of `gs://`."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sie_testing import parts
from sie_testing.programs import free_port, wait_until_ready


@contextmanager
def running(folder: Path, *, bucket: str) -> Iterator[str]:
    """The endpoint of a server that has one bucket, for the time of the block; its log is `folder/server.log`."""
    (folder / "data" / bucket).mkdir(parents=True)
    port = free_port()
    where = f"127.0.0.1:{port}"
    words = [str(parts.fake_gcs_server()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    words += ["-backend", "filesystem", "-filesystem-root", str(folder / "data"), "-public-host", where]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(words, stderr=log, stdin=subprocess.DEVNULL)
    try:
        wait_until_ready(f"http://{where}/storage/v1/b/{bucket}", process)
        yield f"http://{where}"
    finally:
        process.kill()
        process.wait()
