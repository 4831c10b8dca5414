"""A bucket with real weights, and workers and gateways as real processes on loopback.

    bucket = fill_bucket(folder / "bucket")
    with worker(folder, bucket=bucket) as served, gateway(folder, [served.url]) as door:
        ...call door.url...

Each program is the installed command itself, on a port that it picks; it is stopped by
SIGINT, which does not linger as SIGTERM does, and must end with status 0.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import httpx2

from sie_core.artifacts.digest import digest_of_stream
from sie_core.artifacts.manifest import FileEntry, Manifest
from sie_core.artifacts.stores.open import open_store
from sie_core.artifacts.uploading import upload_snapshot
from sie_core.catalog.catalog import Catalog
from sie_core.ids import ModelId, Revision
from sie_testing import parts

MINILM = ModelId("sentence-transformers/all-MiniLM-L6-v2")

_LISTENING = re.compile(rb"listening[^\n]*?(http://127\.0\.0\.1:\d+)")
"""Its own address; one before it in the log may be that of a hub."""
_READY_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 40.0


@dataclass(frozen=True)
class Running:
    """A program that takes calls. `log` is what it has written."""

    url: str
    pid: int
    log: Path


def fill_bucket(folder: Path) -> str:
    """The URL of a store at `folder` that holds the genuine all-MiniLM-L6-v2, at the commit our spec names."""
    spec = Catalog.shipped().find(MINILM)
    if spec is None or spec.source is None or spec.source.revision is None:
        raise LookupError(f"the shipped catalog has no `{MINILM}` with a commit")
    source = parts.minilm_folder()
    manifest = Manifest(MINILM, Revision(spec.source.revision), _entries(source))
    folder.mkdir(parents=True, exist_ok=True)
    url = folder.resolve().as_uri()
    upload_snapshot(open_store(url), partial(_opened, source), manifest)
    return url


@contextmanager
def worker(
    folder: Path, *, bucket: str, models: Sequence[str] = (MINILM,), env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """A worker that is ready: its models are loaded. Its cache and its log are in `folder`."""
    variables = {"SIE_CLUSTER_CACHE": bucket, **(env or {})}
    flags = ["--models", ",".join(models), "--local-cache", str(folder / "cache"), "--host", "127.0.0.1", "--port", "0"]
    with program("sie-server", ["serve", *flags], log=folder / "worker.log", env=variables) as running:
        yield running


@contextmanager
def gateway(folder: Path, workers: Sequence[str], *, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """A gateway in front of `workers`, base URLs, that has heard of one at least."""
    variables = {
        "SIE_GATEWAY_HOST": "127.0.0.1",
        "SIE_GATEWAY_PORT": "0",
        "SIE_GATEWAY_WORKERS": ",".join(workers),
        **(env or {}),
    }
    with program("sie-gateway", ["serve"], log=folder / "gateway.log", env=variables, ready=_hears_workers) as running:
        yield running


@contextmanager
def program(
    name: str,
    arguments: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str],
    ready: Callable[[str], bool] = lambda url: _fetched(url + "/readyz") is not None,
) -> Iterator[Running]:
    """An installed command of ours, from ready to stopped.

    Args:
        ready: told the base URL, whether it takes calls.

    Raises:
        RuntimeError: it ended, or was not ready in time, or did not end well; with the end of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [str(Path(sys.executable).parent / name), *arguments]
    with log.open("wb") as written:
        process = subprocess.Popen(command, env=_environment(env), stdout=written, stderr=subprocess.STDOUT)
    try:
        yield Running(_ready_url(name, process, log, ready), process.pid, log)
    finally:
        status = _stopped(process)
    if status != 0:
        raise RuntimeError(f"`{name}` ended with status {status}\n{_tail(log)}")


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """This process's own, without the settings and the proxies that a developer may have set."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("SIE_", "HF_")) and not k.lower().endswith("_proxy")
    }
    return {**kept, **env}


def _ready_url(name: str, process: subprocess.Popen[bytes], log: Path, ready: Callable[[str], bool]) -> str:
    deadline_s = time.monotonic() + _READY_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        found = _LISTENING.search(log.read_bytes())
        if found is not None and ready(found[1].decode()):
            return found[1].decode()
        time.sleep(0.02)
    state = "is not ready" if process.poll() is None else f"ended with status {process.returncode}"
    raise RuntimeError(f"`{name}` {state}\n{_tail(log)}")


def _hears_workers(url: str) -> bool:
    health = _fetched(url + "/health")
    return health is not None and json.loads(health)["status"] == "healthy"


def _fetched(url: str) -> bytes | None:
    """The body of a 200; None for any other answer, and for none."""
    try:
        reply = httpx2.get(url, timeout=5, trust_env=False)
    except httpx2.TransportError:
        return None
    return reply.content if reply.status_code == 200 else None


def _stopped(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]


def _entries(source: Path) -> tuple[FileEntry, ...]:
    found = []
    for path in sorted(source.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                digest, size_bytes = digest_of_stream(stream)
            found.append(FileEntry(path.relative_to(source).as_posix(), digest, size_bytes))
    return tuple(sorted(found))


def _opened(source: Path, entry: FileEntry) -> BinaryIO:
    return (source / entry.path).open("rb")


__all__ = ["MINILM", "Running", "fill_bucket", "gateway", "program", "worker"]
