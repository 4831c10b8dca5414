"""`sie-server weights` as a pod's init container runs it: a real process, with what variables the cluster gives it.

with started("--models", MINILM, SIE_CLUSTER_CACHE=bucket, AWS_ENDPOINT_URL=endpoint) as process:
    said_until(process, "fetched in")
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def started(*arguments: str, **env: str) -> Iterator["subprocess.Popen[str]"]:
    """It has no other variables than `env`, and is killed when the block ends."""
    command = [str(Path(sys.executable).parent / "sie-server"), "weights", *arguments]
    environment = {"PATH": os.defpath, **env}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def said_until(process: "subprocess.Popen[str]", *wanted: str) -> str:
    """What it says, up to the line that has one of `wanted` in it; all of it where none has."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if any(one in line for one in wanted):
            break
    return said
