"""What happens around a `snapshot` while it runs: the disk fills up, another one starts, somebody presses Ctrl-C."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder, lock_of, write_lock
from sie_airgap.verifying.store import verify_store
from sie_core.artifacts.lock import Lock
from sie_testing.carried import CHART, FILES, WHEEL
from sie_testing.hub import Fault, FaultKind, Hub, serving_hub

DISK_BYTES = 8 << 20
FULL, INTERRUPTED, PARTIAL = 7, 130, 10


@dataclass
class Command:
    """`sie-airgap snapshot` for a store that is as `lock` left it, against a hub."""

    store: BlobFolder
    lock_file: Path
    endpoint: str
    hub: Hub
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *options: str) -> subprocess.Popen[str]:
        words = ["snapshot", "--lock", str(self.lock_file), "--store", str(self.store.root), *options]
        environment = {"PATH": os.defpath, "HF_ENDPOINT": self.endpoint}
        child = subprocess.Popen(
            [sys.executable, "-m", "sie_airgap", *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.running.append(child)
        return child

    def run(self) -> tuple[int, str]:
        """How it ended, and what it said."""
        return ended(self.start())


def ended(child: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = child.communicate(timeout=100)
    return child.returncode, said


def made(here: Path, lock: Lock, endpoint: str, hub: Hub) -> Command:
    store = BlobFolder(here / "store")
    store.add(WHEEL)
    store.add(CHART)
    write_lock(here / "airgap.lock", lock)
    return Command(store, here / "airgap.lock", endpoint, hub)


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    for model, files in FILES.items():
        for path, data in files.items():
            file = tmp_path / "hub" / model / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    return Hub(tmp_path / "hub", pins=dict.fromkeys(FILES, "ab" * 20), lfs_above_bytes=1000)  # type: ignore[arg-type]


@pytest.fixture
def endpoint(hub: Hub) -> Iterator[str]:
    with serving_hub(hub) as at:
        yield at


@pytest.fixture
def command(tmp_path: Path, lock: Lock, endpoint: str, hub: Hub) -> Iterator[Command]:
    one = made(tmp_path, lock, endpoint, hub)
    yield one
    for child in one.running:
        if child.poll() is None:
            child.kill()
            child.communicate()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system of a known size")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_up(disk: Path, *, but: int) -> Path:
    """Somebody else's file that leaves `but` bytes."""
    other = disk / "somebody else's"
    with other.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - but)
    return other


def test_what_will_not_fit_is_said_before_anything_is_asked_for(
    small_disk: Path, lock: Lock, hub: Hub, endpoint: str
) -> None:
    command = made(small_disk, lock, endpoint, hub)
    fill_up(small_disk, but=1_000_000)

    code, said = command.run()
    assert code == FULL
    assert "bytes free" in said
    assert "are needed" in said
    assert not hub.seen


def test_disk_that_fills_up_meanwhile_stops_it_and_it_goes_on_when_there_is_room(
    small_disk: Path, lock: Lock, hub: Hub, endpoint: str
) -> None:
    command = made(small_disk, lock, endpoint, hub)
    once = threading.Lock()

    def fill(sent_bytes: int) -> None:
        if sent_bytes > 500_000 and once.acquire(blocking=False):
            fill_up(small_disk, but=0)

    hub.set_faults(Fault(FaultKind.SLOW, match="/org/large/*", bytes_per_s=20_000_000))
    hub.on_sent = fill
    code, said = command.run()
    assert code == FULL
    assert "No space left on device" in said
    assert "hint:" in said

    (small_disk / "somebody else's").unlink()
    assert command.run()[0] == 0
    assert verify_store(lock, command.store, progress=Silent()) == []


@pytest.fixture
def held_up(hub: Hub) -> Iterator[threading.Event]:
    """Set once the weights are being sent: their end does not come."""
    sending = threading.Event()
    hub.set_faults(Fault(FaultKind.STALL, match="/org/large/*", after_bytes=1_000_000))
    hub.on_sent = lambda sent_bytes: sending.set() if sent_bytes > 900_000 else None
    yield sending
    hub.set_faults()


def test_second_run_into_one_store_is_refused_and_the_first_is_not_disturbed(
    command: Command, held_up: threading.Event, hub: Hub, lock: Lock
) -> None:
    first = command.start()
    assert held_up.wait(60)
    code, said = command.run()

    assert code == PARTIAL
    assert "another sie-airgap is writing into" in said
    assert first.poll() is None
    first.kill()
    first.communicate()
    hub.set_faults()
    assert command.run()[0] == 0
    assert lock_of(command.store) == lock


def test_ctrl_c_stops_it_and_the_next_run_goes_on(command: Command, hub: Hub, lock: Lock) -> None:
    sending = threading.Event()
    hub.set_faults(Fault(FaultKind.SLOW, match="/org/large/*", bytes_per_s=200_000))
    hub.on_sent = lambda sent_bytes: sending.set() if sent_bytes > 100_000 else None
    child = command.start()
    assert sending.wait(60)
    os.killpg(child.pid, signal.SIGINT)

    code, said = ended(child)
    assert code == INTERRUPTED
    assert "interrupted" in said
    assert "it goes on from here" in said
    assert "Traceback" not in said
    hub.set_faults()
    assert command.run()[0] == 0
    assert lock_of(command.store) == lock
