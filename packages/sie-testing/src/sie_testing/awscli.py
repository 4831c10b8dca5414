"""The real `aws` command against a server on this machine, as an operator would run it.

It comes with a botocore of its own, so that what is written here is not written by the client we use ourselves.
"""

import os
import subprocess
import sys
from pathlib import Path

from sie_testing import parts
from sie_testing.seaweed import ACCESS_KEY, SECRET_KEY


def aws(*arguments: str, endpoint: str, cwd: Path) -> str:
    """Runs `aws ARGUMENTS` to its end; what it printed. Raises `RuntimeError` with what it complained of."""
    environment = {
        "PATH": os.defpath,
        "HOME": str(cwd),
        "PYTHONPATH": os.pathsep.join(str(parts.fetch(name)) for name in parts.AWSCLI),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
    }
    # After an empty file (the hub's client leaves such locks) this server lets the next request on the connection
    # wait; the command asks again on another connection, by default after a minute.
    command = [sys.executable, "-m", "awscli", "--cli-read-timeout", "10", *arguments]
    ran = subprocess.run(command, cwd=cwd, env=environment, check=False, capture_output=True, text=True)
    if ran.returncode != 0:
        raise RuntimeError(f"`aws {' '.join(arguments)}` ended with {ran.returncode}: {ran.stderr[-2000:]}")
    return ran.stdout
