"""The far side: from the volumes to a first inference, where nothing but this machine can be reached.

Started by `sie-airgap far-side`, so the network namespace is made and counts already.
"""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from sie_testing import parts, seaweed
from sie_testing.demo.stage import BIN, Folder, Screen, server, wait_for

ADDRESS = "10.77.0.1"
BUCKET = "s3://sie-models-private/weights/"
_REGISTRY_PORT = 5000
_VALUES = "values-offline.yaml: the one file that the chart is rendered with"
_REHEARSAL = "the chart's own commands, environment, volumes and probes, each pod in namespaces of its own"
_STATUS = (
    "L0 to L5 hold: the lock, media, registry, bucket, what is rendered; L7 and L8 in rehearsal, L6 wants a cluster"
)
_USER, _PASSWORD = "operator", "demo-password"


def run(screen: Screen, folder: Folder, *, keep: bool, arrived: Callable[[], bool]) -> dict[str, Any] | None:
    """Steps 2 to 5 of the guide, and what holds in the end; what the rehearsal reported.

    Args:
        arrived: waits for the media, while bucket and registry, which are there before anything is carried, start.
            False when they will not come.
    """
    side = folder.root / "far"
    side.mkdir()
    airgap = str(BIN / "sie-airgap")
    with ExitStack() as stack:
        bucket = stack.enter_context(seaweed.running(side, ip=ADDRESS))
        registry = _start_registry(stack, side)
        _write_logins(side, registry)
        bucket.make_bucket("sie-models-private")
        if not arrived():
            return None
        screen.title(f"Far side, no network: a bucket (SeaweedFS) at {bucket.endpoint}, a registry at {registry}")
        screen.step("verify", [airgap, "verify", str(folder.archive)], cwd=side)
        screen.step("unpack", [airgap, "unpack", str(folder.archive)], cwd=side)
        env = _credentials(side)
        endpoint = ["--endpoint", bucket.endpoint, "--region", "us-east-1"]
        screen.step("mirror weights", [airgap, "mirror", "weights", BUCKET, *endpoint], env=env, cwd=side)
        screen.step("mirror images", [airgap, "mirror", "images", f"http://{registry}/sie"], env=env, cwd=side)
        screen.step("mirror chart", [airgap, "mirror", "chart", f"http://{registry}/charts"], env=env, cwd=side)
        lock = ["--lock", "airgap-store/airgap.lock"]
        screen.step("verify", [airgap, "verify", BUCKET, *lock, *endpoint], env=env, cwd=side)
        screen.step("verify", [airgap, "verify", f"oci+http://{registry}/sie", *lock], env=env, cwd=side)
        secrets = ["--credentials-secret", "bucket", "--pull-secret", "regcred"]
        where = ["--bucket", BUCKET, *endpoint, "--registry", f"http://{registry}/sie", *secrets]
        screen.step("values", [airgap, "values", *where, "-o", "values-offline.yaml"], cwd=side, what=_VALUES)
        _write_manifests(side / "secrets.yaml", side)
        files = ["--values", "values-offline.yaml", "--manifests", "secrets.yaml", "--helm", str(parts.helm())]
        kept = ["--keep"] if keep else []
        screen.line("rehearse", _REHEARSAL)
        if keep:
            stack.enter_context(_relay(folder))
        said = screen.step("rehearse", [airgap, "rehearse", *files, *kept, "--output", "json"], cwd=side, relayed=True)
        rendered = ["--values", "values-offline.yaml", "--helm", str(parts.helm()), "--up-to", "L5"]
        screen.step("status", [airgap, "status", *rendered], env=env, cwd=side, what=_STATUS)
    facts: dict[str, Any] = json.loads(said)
    return facts


def _start_registry(stack: ExitStack, side: Path) -> str:
    argv = [sys.executable, "-m", "sie_testing.registry", "--root", str(side / "registry"), "--host", ADDRESS]
    argv += ["--port", str(_REGISTRY_PORT), "--htpasswd", f"{_USER}:{_PASSWORD}"]
    process = stack.enter_context(server(argv, side / "registry.log"))
    wait_for(side / "registry.log", "registry: ", process)
    return f"{ADDRESS}:{_REGISTRY_PORT}"


def _logins(registry: str) -> str:
    auth = base64.b64encode(f"{_USER}:{_PASSWORD}".encode()).decode()
    return json.dumps({"auths": {registry: {"auth": auth}}})


def _write_logins(side: Path, registry: str) -> None:
    """What `docker login` would have written."""
    (side / "docker").mkdir()
    (side / "docker" / "config.json").write_text(_logins(registry))


def _credentials(side: Path) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": seaweed.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": seaweed.SECRET_KEY,
        "DOCKER_CONFIG": str(side / "docker"),
    }


def _write_manifests(path: Path, side: Path) -> None:
    """The Secrets that an operator applies before the install."""
    keys = {"AWS_ACCESS_KEY_ID": seaweed.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": seaweed.SECRET_KEY}
    logins = {".dockerconfigjson": (side / "docker" / "config.json").read_text()}
    secrets = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bucket"}, "stringData": keys},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "regcred"},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": logins,
        },
    ]
    path.write_text(yaml.safe_dump_all(secrets))


def _relay(folder: Folder) -> "subprocess.Popen[bytes]":
    """From a socket in the work folder, which crosses namespaces, to where `rehearse --keep` listens."""
    target = [f"unix:{folder.socket}", "127.0.0.1:8080"]
    return subprocess.Popen([sys.executable, "-m", "sie_airgap.rehearsal.relay", *target], stdout=subprocess.DEVNULL)
