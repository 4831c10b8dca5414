"""`kill -9` at seeded random points of pack, unpack and repair: run again, what was written is not written again.

What is written is what the kernel counted for both processes together (`wchar` in /proc), so nothing of ours can be
wrong about it. Three of the points are killed in every run of the tests, fifty with `make gap`.
"""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder, lock_of
from sie_airgap.verifying.store import verify_store
from sie_core.artifacts.lock import Lock
from sie_testing.archives import content, packed, volumes
from sie_testing.carried import FILES, filled_store, make_lock, seeded

VOLUME_BYTES = 5 << 20
BIG_BYTES = 24_000_000
AGAIN_BYTES = 2 << 20
"""One chunk that was under way, and the small files that are written anew."""
MOST_AGAIN_BYTES = 64 << 20
assert AGAIN_BYTES <= MOST_AGAIN_BYTES  # what is promised: one part of a stream

_ALWAYS = (7, 24, 41)
_SHARES = [random.Random(seed).random() for seed in range(50)]  # noqa: S311 - seeded on purpose
points = pytest.mark.parametrize(
    "share",
    [
        pytest.param(share, id=f"{share:.4f}", marks=() if at in _ALWAYS else pytest.mark.gap_kills)
        for at, share in enumerate(sorted(_SHARES))
    ],
)

_CHILD = """
import json, re, sys
from contextlib import contextmanager
from pathlib import Path
from sie_airgap.archive.packing import pack
from sie_airgap.store.blobs import BlobFolder, read_lock
from sie_airgap.archive.cut import plan_archive
from sie_airgap.archive.media import read_media
from sie_airgap.archive.medium import VolumeSize
from sie_airgap.progress import Silent
from sie_airgap.archive.repair import repair, survey
from sie_airgap.archive.unpack import unpack

def tell():
    written = re.search(r"wchar: (\\d+)", Path("/proc/self/io").read_text())[1]
    print(written, flush=True)

class Stopping(Silent):
    left = None
    @contextmanager
    def task(self, verb, total_bytes):
        self.left = share * total_bytes
        yield self
    def advance(self, size_bytes):
        self.left -= size_bytes
        if self.left <= 0:
            tell()
            sys.stdin.read()

verb, here, target, share = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
progress = Silent() if share is None else Stopping()
match verb:
    case "pack":
        store = BlobFolder(here / "store")
        lock = read_lock(store.root / "airgap.lock")
        cut = plan_archive(lock, store, name="sie-test-1", size=VolumeSize(5 << 20), parity_every=10)
        pack(cut, store, target, progress=progress)
    case "unpack":
        unpack(read_media([here / "archive"]), BlobFolder(target), progress=progress)
    case "repair":
        media = [path for path in (here / "archive").glob("*.tar") if path.name != "v0003.tar"]
        repair(survey(media, progress=Silent()), target, progress=progress)
tell()
"""


@pytest.fixture(scope="module")
def files() -> dict[str, dict[str, bytes]]:
    many = {f"part{number:02d}.txt": seeded(60_000, seed=number) for number in range(40)}
    return {
        **{model: dict(held) for model, held in FILES.items()},
        "org/big": {"model.safetensors": seeded(BIG_BYTES, seed=5), **many},
    }


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, files: dict[str, dict[str, bytes]]) -> Path:
    """A store and the archive of it."""
    folder = tmp_path_factory.mktemp("kills")
    lock = make_lock(files)
    packed(lock, filled_store(folder / "store", lock, files), folder / "archive", volume_bytes=VOLUME_BYTES, parity=10)
    assert len(volumes(folder / "archive")) == 6
    return folder


def written_bytes(verb: str, here: Path, target: Path, share: float) -> int:
    """Runs the verb, kills it when it has done that share, runs it again; what both wrote together."""
    words = [sys.executable, "-c", _CHILD, verb, str(here), str(target)]
    with subprocess.Popen([*words, json.dumps(share)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        first = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    return first + int(subprocess.run([*words, "null"], stdout=subprocess.PIPE, check=True).stdout)


@points
def test_pack_writes_next_to_nothing_again(here: Path, tmp_path: Path, share: float) -> None:
    written = written_bytes("pack", here, tmp_path / "archive", share)

    want = content(here / "archive")
    assert content(tmp_path / "archive") == want
    assert written <= sum(map(len, want.values())) + AGAIN_BYTES


@points
def test_unpack_writes_next_to_nothing_again(here: Path, tmp_path: Path, share: float) -> None:
    written = written_bytes("unpack", here, tmp_path / "far", share)

    far = BlobFolder(tmp_path / "far")
    lock: Lock = lock_of(far)
    assert verify_store(lock, far, progress=Silent()) == []
    assert list((far.root / "incoming").iterdir()) == []
    want = sum(path.stat().st_size for path in far.root.rglob("*") if path.is_file())
    assert written <= want + AGAIN_BYTES


@points
def test_repair_writes_next_to_nothing_again(here: Path, tmp_path: Path, share: float) -> None:
    written = written_bytes("repair", here, tmp_path / "good", share)

    want = (here / "archive" / "v0003.tar").read_bytes()
    assert content(tmp_path / "good") == {"v0003.tar": want}
    assert written <= len(want) + AGAIN_BYTES
