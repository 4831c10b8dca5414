"""`snapshot` killed with SIGKILL while bytes come: the next run fetches at most one range a stream again.

The real command, against a hub that counts what it sends and kills the command when that is enough.
"""

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from sie_airgap.store.blobs import BlobFolder, lock_of, write_lock
from sie_core.artifacts.digest import Digest, digest_of_stream, hex_of
from sie_core.artifacts.lock import Lock, LockedBlob, LockedImage
from sie_core.artifacts.ranges import SMALLEST_RANGE_BYTES, STREAMS, range_bytes_of
from sie_testing.carried import CHART, FILES, WHEEL, make_lock, seeded
from sie_testing.hub import Hub, serving_hub
from sie_testing.web import Answer, Request, file_answer, serving

SIZE_BYTES = 48 << 20
SEED = 20261123
POINTS = sorted(random.Random(SEED).sample(range(1, SIZE_BYTES), 50))  # noqa: S311  # seeded on purpose
IN_SOCKETS_BYTES = 16 << 20
"""What a server may have sent that nobody has read."""


class Sending:
    """Counts what is sent, and kills the process it is given when that reaches `kill_at`."""

    def __init__(self) -> None:
        self._total_bytes = self._before_bytes = 0
        self._kill_at: int | None = None
        self._begun = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._guard = threading.Lock()

    def sent(self, size_bytes: int) -> None:
        """So much more, by one of the server's threads."""
        with self._guard:
            self._total_bytes += size_bytes
        self._look()

    def reached(self, total_bytes: int) -> None:
        """So much in all, as one of the server's threads saw it, perhaps before another one told more."""
        with self._guard:
            self._total_bytes = max(self._total_bytes, total_bytes)
        self._look()

    @property
    def sent_bytes(self) -> int:
        """Since `begin`."""
        return self._total_bytes - self._before_bytes

    def begin(self) -> None:
        self._before_bytes = self._total_bytes

    def _look(self) -> None:
        is_due = self._kill_at is not None and self.sent_bytes >= self._kill_at
        if is_due and self._begun.wait(60) and self._process is not None:
            self._process.kill()

    def run(self, command: list[str], environment: dict[str, str], *, kill_at: int | None = None) -> int:
        """How the command ended."""
        self._kill_at = kill_at
        self._begun.clear()
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as child:
            self._process = child
            self._begun.set()
            return child.wait(timeout=100)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("kills") / "hub" / "org" / "big" / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(seeded(SIZE_BYTES, seed=SEED))
    return file


@pytest.fixture(scope="module")
def digest(weights: Path) -> Digest:
    with weights.open("rb") as stream:
        return digest_of_stream(stream)[0]


@pytest.fixture(scope="module")
def served(weights: Path) -> Iterator[tuple[Sending, str]]:
    sending = Sending()
    hub = Hub(weights.parents[2], pins={"org/big": "ab" * 20}, lfs_above_bytes=1000)  # type: ignore[dict-item]
    hub.on_sent = sending.reached
    with serving_hub(hub) as endpoint:
        yield sending, endpoint


def snapshot_command(here: Path, lock: Lock, *options: str) -> list[str]:
    """The command for a fresh store with what `lock` puts there."""
    store = BlobFolder(here / "store")
    store.add(WHEEL)
    store.add(CHART)
    write_lock(here / "airgap.lock", lock)
    places = ["--lock", str(here / "airgap.lock"), "--store", str(store.root)]
    return [sys.executable, "-m", "sie_airgap", "snapshot", *places, *options]


def lock_of_model(digest: Digest) -> Lock:
    lock = make_lock({"org/big": {"model.safetensors": b""}})
    file = msgspec.structs.replace(lock.models[0].files[0], digest=digest, size_bytes=SIZE_BYTES, hub_id=hex_of(digest))
    return msgspec.structs.replace(lock, models=(msgspec.structs.replace(lock.models[0], files=(file,)),))


few = [POINTS[0], POINTS[25], POINTS[49]]


@pytest.mark.parametrize(
    "kill_at", [*few, *(pytest.param(at, marks=pytest.mark.gap_kills) for at in POINTS if at not in few)]
)
def test_kill_costs_at_most_one_range_a_stream(
    served: tuple[Sending, str], digest: Digest, tmp_path: Path, kill_at: int
) -> None:
    sending, endpoint = served
    lock = lock_of_model(digest)
    command, environment = snapshot_command(tmp_path, lock), {"PATH": os.defpath, "HF_ENDPOINT": endpoint}
    sending.begin()

    assert sending.run(command, environment, kill_at=kill_at) == -9
    store = BlobFolder(tmp_path / "store")
    assert store.named("airgap.lock") is None
    assert sending.run(command, environment) == 0
    again = sending.sent_bytes - SIZE_BYTES
    assert lock_of(store) == lock
    with store.open(digest) as stream:
        assert digest_of_stream(stream)[0] == digest
    assert 0 <= again <= STREAMS * range_bytes_of(SIZE_BYTES)
    assert range_bytes_of(SIZE_BYTES) == SMALLEST_RANGE_BYTES


@pytest.mark.parametrize("kill_at", [pytest.param(few[0], marks=pytest.mark.gap_kills), few[1], few[2]])
def test_layer_of_an_image_goes_on_within_it(weights: Path, digest: Digest, tmp_path: Path, kill_at: int) -> None:
    """A registry sends the rest of a blob in one answer: what is lost is what was in the sockets."""
    sending = Sending()

    def answer(request: Request) -> Answer:
        if request.path != f"/v2/x/y/blobs/{digest}":
            return Answer(404)
        return replace(file_answer(request, weights, etag=f'"{digest}"'), sent=sending.sent)

    layer = LockedBlob(digest, SIZE_BYTES, "application/vnd.oci.image.layer.v1.tar")
    image = LockedImage("ghcr.io/x/y:1", digest, layer.media_type, {}, (layer,), (), ("Deployment/y",))
    lock = msgspec.structs.replace(make_lock(FILES), models=(), images=(image,))
    with serving(answer) as registry:
        command = snapshot_command(tmp_path, lock, "--image-source", f"ghcr.io={registry}")
        assert sending.run(command, {"PATH": os.defpath}, kill_at=kill_at) == -9
        killed_bytes = sending.sent_bytes
        assert sending.run(command, {"PATH": os.defpath}) == 0

    assert BlobFolder(tmp_path / "store").size(digest) == SIZE_BYTES
    assert sending.sent_bytes - SIZE_BYTES <= min(killed_bytes, IN_SOCKETS_BYTES)
