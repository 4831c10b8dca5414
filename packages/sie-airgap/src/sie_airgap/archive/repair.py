"""Make lost or damaged volumes good from parity volumes, byte for byte.

Of the volumes that one parity volume stands for, each MiB can be made again when all the others have it: so one may
be lost altogether, or several be damaged in different places, which is what scratches do. What is read is checked
chunk by chunk, what is made is held against the digest in the parity volume's index before it gets its name, and the
media are left alone. A run that was killed goes on where it was.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from sie_airgap.archive.media import indexes
from sie_airgap.archive.parity import exclusive_or
from sie_airgap.archive.parity_format import Covered, Parity
from sie_airgap.archive.volume_format import BLOCK_BYTES, CHUNK_BYTES, Volume, volume_name
from sie_airgap.archive.volume_reader import Checked, Damaged, Index, Unreadable, read_checks
from sie_airgap.archive.volume_writer import draft, publish, writing
from sie_airgap.failures import Drift, Expected, Incomplete, raise_all
from sie_airgap.progress import Progress, Silent, Task
from sie_airgap.store.blobs import held, need_space
from sie_core.artifacts.digest import digest_of_stream
from sie_core.artifacts.errors import TrustError


@dataclass(frozen=True)
class Lost:
    """A volume to be made good. `chunks`: those of its MiB that are damaged; None: all of it is lost."""

    volume: Covered
    parity: Parity
    chunks: frozenset[int] | None


@dataclass(frozen=True)
class Survey:
    """What was found on the media.

    Attributes:
        lost: what can be made good, as far as can be told before it is tried.
        errors: what cannot.
        refused: files that were set aside, and why.
    """

    lost: tuple[Lost, ...]
    errors: tuple[Expected, ...]
    refused: tuple[Expected, ...]
    files: dict[Path, Index]


def survey(paths: Sequence[Path], *, progress: Progress) -> Survey:
    """Look for volumes that are missing or damaged. Every byte is read where none is missing altogether.

    Raises:
        Incomplete: there is no parity volume.
    """
    files, refused = indexes(paths)
    parities = {(one.archive, one.lock, one.name): one for one in files.values() if isinstance(one, Parity)}
    if not parities:
        raise Incomplete(
            f"no sound parity volume in {', '.join(str(path) for path in paths)}",
            hint="name the medium with p0001.tar; an archive without is made good with `sie-airgap pack --only VOLUME`",
        )
    lost: list[Lost] = []
    errors: list[Expected] = list(_uncovered(files, list(parities.values())))
    whole = [one for one in parities.values() if not _absent(files, one)]
    looking = progress if whole else Silent()
    with looking.task("repair: look", sum(volume.size_bytes for one in whole for volume in one.volumes)) as task:
        for parity in parities.values():
            absent = _absent(files, parity)
            if len(absent) > 1:
                errors.append(_too_many(parity, absent))
            elif absent:
                lost.append(Lost(absent[0], parity, None))
            else:
                lost += _damaged(files, parity, task)
    return Survey(tuple(lost), tuple(errors), tuple(refused), files)


def repair(found: Survey, folder: Path, *, progress: Progress) -> tuple[Path, ...]:
    """Write into `folder` what can be made good of it; the volumes written.

    Raises:
        Incomplete: too much is lost or damaged; whatever else can be made good was.
        Drift: there is something else under a volume's name in `folder`.
        TrustError: what came out is not what was packed.
        NoSpace, NoPermission: of the folder.
        Partial: another run is writing there.
    """
    errors: list[Expected] = list(found.errors)
    written = []
    todo = [one for one in found.lost if not _is_there(folder / one.volume.name, one.volume)]
    started = sum(draft(folder / one.volume.name).stat().st_size for one in todo if _begun(folder, one))
    total_bytes = sum(one.volume.size_bytes for one in todo)
    need_space(folder, total_bytes - started)
    if todo:
        with held(folder), progress.task("repair", total_bytes) as task:
            for one in todo:
                task.at(one.volume.name)
                try:
                    written.append(_make(found.files, one, folder, task))
                except (Incomplete, TrustError) as error:
                    errors.append(error)
    raise_all(errors)
    return tuple(written)


def _begun(folder: Path, one: Lost) -> bool:
    return draft(folder / one.volume.name).is_file()


def _is_there(path: Path, volume: Covered) -> bool:
    """Raises `Drift` for a file that is something else: nothing is overwritten."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        have, size_bytes = digest_of_stream(file)
    if have != volume.digest:
        raise Drift(
            f"{path} is there and is not the volume that was packed\n"
            f"  want  {volume.digest}  {volume.size_bytes:,} bytes\n  have  {have}  {size_bytes:,} bytes",
            hint="nothing was overwritten: name an empty folder with -o",
        )
    return True


def _copies(files: dict[Path, Index], parity: Parity, volume: Covered) -> dict[Path, Volume]:
    """The files that say they are that volume."""
    return {
        path: index
        for path, index in files.items()
        if isinstance(index, Volume)
        and (index.archive, index.lock, index.name) == (parity.archive, parity.lock, volume.name)
        and index.size_bytes == volume.size_bytes
    }


def _absent(files: dict[Path, Index], parity: Parity) -> list[Covered]:
    return [volume for volume in parity.volumes if not _copies(files, parity, volume)]


def _uncovered(files: dict[Path, Index], parities: Sequence[Parity]) -> Iterator[Incomplete]:
    """Volumes that are not here, and no parity volume either that stands for them."""
    here = {(index.archive, index.lock, index.name) for index in files.values()}
    here |= {(one.archive, one.lock, volume.name) for one in parities for volume in one.volumes}
    for archive, lock, of in {(one.archive, one.lock, one.of) for one in files.values() if isinstance(one, Volume)}:
        names = [volume_name(number) for number in range(1, of + 1)]
        missing = [name for name in names if (archive, lock, name) not in here]
        if missing:
            yield Incomplete(
                f"{', '.join(f'`{name}`' for name in missing)} of `{archive}` not here, nor a parity volume for it",
                hint=f"name the medium with it, or with its parity volume; or `sie-airgap pack --only {missing[0]}`",
            )


def _too_many(parity: Parity, absent: Sequence[Covered]) -> Incomplete:
    names = ", ".join(f"`{volume.name}`" for volume in absent)
    return Incomplete(
        f"{names} are lost or damaged where their index is; `{parity.name}` makes one of its "
        f"{len(parity.volumes)} volumes good",
        hint="name the media with all of them but one, or cut them again with `sie-airgap pack --only`",
    )


class _Side:
    """One volume, or the parity of them: read from whichever copy is sound where it is read."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.copies: list[tuple[Checked, int]] = []
        """Each with the place of our first byte in it."""

    def read(self, start: int, length: int = CHUNK_BYTES) -> bytes:
        """From `start`, less at the end, nothing beyond. Raises `Damaged`."""
        length = min(length, self.size_bytes - start)
        if length <= 0:
            return b""
        for copy, first in self.copies:
            try:
                return copy.read(first + start, length)
            except Damaged:
                continue
        raise Damaged


class _Group:
    """The volumes that one parity volume stands for, and that volume, opened."""

    def __init__(self, files: dict[Path, Index], parity: Parity, stack: ExitStack) -> None:
        self.parity = parity
        self.sum = _Side(parity.parity_bytes)
        for path, index in files.items():
            if index == parity:
                self._open(self.sum, path, index, parity.offset, stack)
        self.volumes: dict[str, _Side] = {}
        for volume in parity.volumes:
            side = self.volumes[volume.name] = _Side(volume.size_bytes)
            for path, index in _copies(files, parity, volume).items():
                self._open(side, path, index, 0, stack)

    def _open(self, side: _Side, path: Path, index: Index, first: int, stack: ExitStack) -> None:
        try:
            checks = read_checks(path, index)
            if checks is not None:
                side.copies.append((stack.enter_context(closing(Checked(path, index, checks))), first))
        except Unreadable:
            pass  # as lost as a file that is not there

    def made(self, name: str, start: int, length: int) -> bytes:
        """Bytes of a volume: its own where they are sound, else from all the others. Raises `Incomplete`.

        The MiB that the volumes' CRCs are of do not begin at the same places: what cannot be had at once is looked
        for by halves.
        """
        own = self.volumes[name]
        try:
            return own.read(start, length)
        except Damaged:
            pass
        pieces, damaged = [], []
        for other, side in [(self.parity.name, self.sum), *self.volumes.items()]:
            if other == name:
                continue
            try:
                pieces.append(side.read(start, length))
            except Damaged:
                damaged.append(other)
        if not damaged:
            return exclusive_or(pieces, length)
        if length > BLOCK_BYTES:
            half = length // 2
            return self.made(name, start, half) + self.made(name, start + half, length - half)
        raise Incomplete(
            f"`{name}` cannot be made good: what stands at byte {start:,} is lost or damaged on "
            + " and ".join(f"`{one}`" for one in damaged)
            + ", too",
            hint=f"carry one of them again, or cut it again with `sie-airgap pack --only {name}`",
        )


def _damaged(files: dict[Path, Index], parity: Parity, task: Task) -> Iterator[Lost]:
    """Reads every volume to its end; those of which no copy is sound everywhere."""
    with ExitStack() as stack:
        group = _Group(files, parity, stack)
        for volume in parity.volumes:
            task.at(volume.name)
            bad = set()
            for start in range(0, volume.size_bytes, CHUNK_BYTES):
                try:
                    group.volumes[volume.name].read(start)
                except Damaged:
                    bad.add(start // CHUNK_BYTES)
                task.advance(min(CHUNK_BYTES, volume.size_bytes - start))
            if bad:
                yield Lost(volume, parity, frozenset(bad))


def _make(files: dict[Path, Index], one: Lost, folder: Path, task: Task) -> Path:
    path = folder / one.volume.name
    with ExitStack() as stack:
        group = _Group(files, one.parity, stack)
        with writing(path, task) as writer:
            for start in range(0, one.volume.size_bytes, CHUNK_BYTES):
                writer.put(group.made(one.volume.name, start, min(CHUNK_BYTES, one.volume.size_bytes - start)))
            writer.finish()
            have = writer.digest
    if have != one.volume.digest:
        draft(path).unlink()
        raise TrustError(
            f"`{one.volume.name}`, made from `{one.parity.name}` and the other volumes, is not what was packed",
            where=str(path),
            want=one.volume.digest,
            have=have,
            hint="one of them was altered: `sie-airgap verify` with all media says which",
        )
    publish(path)
    return path
