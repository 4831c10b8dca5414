"""Disks that are full, or become so, and media that cannot be written to."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sie_airgap.archive.cut import plan_archive
from sie_airgap.archive.media import read_media
from sie_airgap.archive.medium import VolumeSize
from sie_airgap.archive.packing import pack
from sie_airgap.archive.repair import repair, survey
from sie_airgap.archive.unpack import unpack
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder, lock_of
from sie_airgap.verifying.store import verify_store
from sie_core.artifacts.errors import NoSpace
from sie_core.artifacts.lock import Lock
from sie_testing.archives import content, packed, volumes
from sie_testing.mounts import mounted, needs_mounts

VOLUME_BYTES = 2 << 20


class Filling(Silent):
    """Fills the disk when so many bytes have moved: somebody else writes there, too."""

    def __init__(self, disk: Path, at_bytes: int) -> None:
        self.filler, self._left = disk / "filler", at_bytes

    def advance(self, size_bytes: int) -> None:
        self._left -= size_bytes
        if self._left <= 0 and not self.filler.exists():
            free = os.statvfs(self.filler.parent)
            self.filler.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - 4096)))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=8m", "tmpfs") as folder:
        yield folder


@pytest.fixture
def archive(tmp_path: Path, lock: Lock, store: BlobFolder) -> Path:
    return packed(lock, store, tmp_path / "archive", volume_bytes=VOLUME_BYTES, parity=10)


Verb = Callable[[Path, Silent], None]


@pytest.fixture(params=["pack", "unpack", "repair"])
def verb(request: pytest.FixtureRequest, archive: Path, lock: Lock, store: BlobFolder) -> Verb:
    """Writes some 3 MB (`repair`: 2 MB) into a folder."""

    def run(folder: Path, progress: Silent) -> None:
        match request.param:
            case "pack":
                cut = plan_archive(lock, store, name="sie-test-1", size=VolumeSize(VOLUME_BYTES))
                pack(cut, store, folder, progress=progress)
            case "unpack":
                unpack(read_media([archive]), BlobFolder(folder), progress=progress)
            case "repair":
                repair(
                    survey([*volumes(archive)[:-1], archive / "p0001.tar"], progress=Silent()),
                    folder,
                    progress=progress,
                )

    return run


@needs_mounts
def test_a_disk_that_will_be_full_is_told_before_anything_is_written(disk: Path, verb: Verb) -> None:
    (disk / "filler").write_bytes(bytes(7_500_000))
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize

    with pytest.raises(NoSpace, match=rf"has {free:,} bytes free, [0-9,]+ are needed") as told:
        verb(disk / "new", Silent())
    assert told.value.exit_code == 7
    assert [path.name for path in disk.rglob("*") if path.is_file()] == ["filler"]


@needs_mounts
@pytest.mark.parametrize("at_bytes", [1, 400_000, 900_000])
def test_a_disk_that_fills_up_on_the_way_loses_nothing(
    disk: Path, verb: Verb, at_bytes: int, tmp_path: Path, archive: Path
) -> None:
    given = content(archive)
    full = Filling(disk, at_bytes)
    with pytest.raises(NoSpace, match="No space left") as told:
        verb(disk / "new", full)
    assert (told.value.exit_code, bool(told.value.hint)) == (7, True)
    assert not [path for path in (disk / "new").glob("*.tar") if path.read_bytes() != given[path.name]]

    full.filler.unlink()
    verb(disk / "new", Silent())
    verb(tmp_path / "never full", Silent())
    assert _tree(disk / "new") == _tree(tmp_path / "never full")
    assert content(archive) == given


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@needs_mounts
def test_any_subset_in_any_order_is_read_from_media_that_cannot_be_written_to(
    tmp_path: Path, lock: Lock, store: BlobFolder
) -> None:
    archive = packed(lock, store, tmp_path / "archive")
    first, *_, last = volumes(archive)
    far = BlobFolder(tmp_path / "far")
    rest = [path for path in volumes(archive) if path not in (first, last)]
    with mounted(tmp_path / "disc", "-o", "bind,ro", str(archive)) as disc:
        with pytest.raises(OSError, match="Read-only"):
            (disc / "x").write_bytes(b"")
        for names in ([last], rest, [first]):
            words = ["unpack", *(str(disc / path.name) for path in names), "--store", str(far.root)]
            ended = subprocess.run(
                [sys.executable, "-m", "sie_airgap", *words], capture_output=True, text=True, check=False
            )
            assert ended.returncode == (0 if names == [first] else 10), ended.stderr

    assert lock_of(far) == lock
    assert verify_store(lock, far, progress=Silent()) == []
