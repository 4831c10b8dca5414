"""An old MinIO for tests: the gateway of JuiceFS, which is MinIO's request code of its last free release.

It ignores checksums and conditions, refuses what newer clients send by default, and cannot keep a file beside a
folder of its name. Data and metadata lie in one folder.
"""

import os
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
    program, meta = str(parts.juicefs()), f"sqlite3://{folder}/meta.db"
    made = [program, "format", "--storage", "file", "--bucket", str(folder / "data"), meta, bucket]
    where = f"127.0.0.1:{free_port()}"
    quiet = ["--no-usage-report", "--backup-meta", "0", "--cache-dir", str(folder / "cache")]
    gateway = [program, "gateway", "--no-banner", "--log", str(folder / "gateway.log"), *quiet, meta, where]
    user = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
    with (folder / "server.log").open("wb") as log:
        subprocess.run(made, check=True, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        process = subprocess.Popen(
            gateway, env={**os.environ, **user}, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        wait_until_ready(f"http://{where}/", process)
        yield f"http://{where}"
    finally:
        process.kill()
        process.wait()
