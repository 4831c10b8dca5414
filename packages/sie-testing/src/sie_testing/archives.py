"""Archives to spoil: cut from `sie_testing.carried`, then damaged as media are."""

from pathlib import Path

from sie_airgap.archive.cut import plan_archive
from sie_airgap.archive.media import read_media
from sie_airgap.archive.medium import VolumeSize
from sie_airgap.archive.packing import pack
from sie_airgap.archive.volume_format import Checks, RunningCrcs, Volume, encode_head, encode_tail, encode_volume
from sie_airgap.archive.volume_reader import read_index
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import Lock
from sie_testing.carried import FILES

VOLUME_BYTES = 1 << 20


def packed(
    lock: Lock, store: BlobFolder, folder: Path, *, volume_bytes: int = VOLUME_BYTES, parity: int | None = None
) -> Path:
    """An archive in `folder`."""
    cut = plan_archive(lock, store, name="sie-test-1", size=VolumeSize(volume_bytes), parity_every=parity)
    pack(cut, store, folder, progress=Silent())
    return folder


def volumes(folder: Path) -> list[Path]:
    return sorted(folder.glob("v*.tar"))


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def flip(path: Path, at: int) -> None:
    """One bit."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def placed(folder: Path, path: str, model: str) -> tuple[Path, int]:
    """A volume that holds bytes of that file, and where the first of them stands."""
    digest = digest_of(FILES[model][path])
    places = read_media([folder]).pieces[digest]
    first = places[min(places)][0]
    return first.path, first.member.offset


def volume_at(path: Path) -> Volume:
    """The index of a sound volume."""
    index = read_index(path)
    assert isinstance(index, Volume)
    return index


def forge(path: Path, index: Volume) -> None:
    """Write a volume's index and its checksums anew, as somebody would who wants not to be noticed."""
    data = bytearray(path.read_bytes()[: index.tail_offset])
    head = encode_head("VOLUME.json", encode_volume(index))
    data[: len(head)] = head
    crcs = RunningCrcs()
    for member in index.members:
        crcs.update(bytes(data[member.offset : member.end]))
        crcs.end_member()
    path.write_bytes(bytes(data) + encode_tail(Checks(digest_of(head), tuple(crcs.done))))
