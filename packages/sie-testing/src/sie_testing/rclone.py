"""A sloppy S3 server for tests: `rclone serve s3` over a folder.

It answers a range with 200 in some cases, checks no digests, ignores conditions, and forgets unfinished uploads when
it ends. Signatures it checks.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sie_testing import parts
from sie_testing.programs import free_port, wait_until_ready

ACCESS_KEY, SECRET_KEY = "demo-access", "demo-secret"


@contextmanager
def running(folder: Path, *, bucket: str) -> Iterator[str]:
    """The endpoint of a server that has one bucket, for the time of the block; its log is `folder/server.log`."""
    (folder / "data" / bucket).mkdir(parents=True)
    (folder / "rclone.conf").touch()
    where = f"127.0.0.1:{free_port()}"
    words = [str(parts.rclone()), "serve", "s3", "--config", str(folder / "rclone.conf"), "--addr", where]
    words += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--cache-dir", str(folder / "cache"), str(folder / "data")]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        wait_until_ready(f"http://{where}/", process)
        yield f"http://{where}"
    finally:
        process.kill()
        process.wait()
