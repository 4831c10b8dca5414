"""Read an archive from its volumes: any of them, in any order, under any name, from read-only media.

A volume is known by its first member, not by its file's name. `read_media` looks at every file it is given
and says which are volumes, which are damaged and which belong to another archive; `Media` then gives out
blobs straight from the volumes, whole ones and those cut into parts alike, without unpacking anything. What a
machine cannot read of a medium (`Unreadable`) is told with the volume's name, as damage is.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from sie_airgap.archive.copies import Chained, CrcsOf, Placed
from sie_airgap.archive.damage import altered
from sie_airgap.archive.parity_format import Parity
from sie_airgap.archive.volume_format import Volume
from sie_airgap.archive.volume_reader import Index, Unreadable, read_index, told_unreadable
from sie_airgap.deltas.delta import DELTA_NAME, NOTHING, Delta, carried_labels, decode_delta
from sie_airgap.failures import Drift, Expected, Incomplete, Misused, raise_all
from sie_airgap.store.blobs import SIGNATURES_NAME
from sie_airgap.store.contents import LOCK_NAME
from sie_core.artifacts.digest import CHUNK_BYTES, Digest, digest_of
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.lock import Lock, decode_lock


@dataclass
class Media:
    """The volumes that were found.

    Attributes:
        where: the folders and files that were named.
        volumes: path to index, for every sound volume; a second copy of one is here too.
        parity: likewise for the parity volumes.
        refused: what is wrong with the others.
        spoilt: the names of the files that are volumes and too damaged to be read as one.
        lock: what the archive is for.
        beside: its signatures, which lie beside volumes.
        say: told of each damaged copy that is passed over while another one is read.
    """

    where: str
    volumes: dict[Path, Volume]
    parity: dict[Path, Parity]
    refused: list[Expected]
    lock: Lock
    lock_digest: Digest
    beside: tuple[Path, ...] = ()
    spoilt: frozenset[str] = frozenset()
    pieces: dict[Digest, dict[int, list[Placed]]] = field(default_factory=dict)
    say: Callable[[str], object] = field(default=lambda text: None)
    _crcs: CrcsOf = field(default_factory=CrcsOf)
    _told: set[tuple[Path, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        for path, volume in self.volumes.items():
            for member in volume.members:
                places = self.pieces.setdefault(member.blob, {}).setdefault(member.blob_offset, [])
                places.append(Placed(path, volume, member))

    @cached_property
    def delta(self) -> Delta:
        """What the archive leaves to the far side. Raises `TrustError` for one that cannot be read."""
        data = self.named(DELTA_NAME)
        return NOTHING if data is None else decode_delta(data, where=self.where)

    @property
    def archive(self) -> str:
        return next(iter(self.volumes.values())).archive

    def size(self, digest: Digest) -> int | None:
        """None when it, or a part of it, is on no volume that is here."""
        chain = self.chain(digest)
        return None if chain is None else sum(placed.member.size_bytes for placed in chain)

    def chain(self, digest: Digest) -> list[Placed] | None:
        """The members that make up a blob, in order; None when one is missing."""
        places, position, found = self.pieces.get(digest, {}), 0, []
        while position in places:
            placed = places[position][0]
            found.append(placed)
            position += placed.member.size_bytes
            if position == placed.member.blob_size_bytes:
                return found
            if placed.member.size_bytes == 0:
                return None
        return None

    def open(self, digest: Digest, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """As of `Blobs`. Where a member stands on several volumes, a damaged one is passed over, and `say` is told."""
        chain = self.chain(digest)
        if chain is None:
            raise NotThere(f"`{digest}` is on no volume of {self.where}")
        end = sum(placed.member.size_bytes for placed in chain)
        stop = end if length is None else min(end, start + length)
        copies = [self._copies(placed) for placed in chain]
        return io.BufferedReader(Chained(copies, start, stop, self._crcs, self._passed_over), CHUNK_BYTES)

    def _copies(self, placed: Placed) -> list[Placed]:
        member = placed.member
        places = self.pieces[member.blob][member.blob_offset]
        return [one for one in places if one.member.size_bytes == member.size_bytes]

    def _passed_over(self, placed: Placed, other: Placed, why: str) -> None:
        told = (placed.path, placed.member.name)
        if told not in self._told:
            self._told.add(told)
            label = carried_labels(self.lock, self.delta).get(placed.member.blob, f"`{placed.member.name}`")
            self.say(f"note: {label} on {placed.path} {why}; the copy on {other.path} is used")

    def named(self, name: str) -> bytes | None:
        """A file beside the blobs, from the first volume where it is sound."""
        refused: Expected | None = None
        for path, volume in self.volumes.items():
            member = next((one for one in volume.members if one.name == name), None)
            if member is None:
                continue
            try:
                return _named_bytes(Placed(path, volume, member))
            except (TrustError, Unreadable) as error:
                refused = error
        if refused is not None:
            raise refused
        return None

    def named_everywhere(self, name: str) -> list[tuple[str, bytes]]:
        found = []
        for path in self.beside:
            if path.name == name:
                with told_unreadable(path):
                    found.append((str(path), path.read_bytes()))
        on_volumes = self.named(name)
        return found if on_volumes is None else [*found, (self.where, on_volumes)]

    def missing_volumes(self) -> tuple[str, ...]:
        """The names of the volumes that the others speak of and that are not here."""
        here = {volume.name for volume in self.volumes.values()}
        return tuple(name for name in next(iter(self.volumes.values())).names if name not in here)

    def notes(self) -> Iterator[str]:
        """What is odd about the files and harms nothing: other names than `pack` gave, second copies."""
        found: dict[Path, Index] = {**self.volumes, **self.parity}
        first: dict[str, Path] = {}
        for path, index in sorted(found.items(), key=lambda one: one[0].name != one[1].name):
            other = found.get(path.with_name(index.name))
            if first.setdefault(index.name, path) != path:
                yield f"{path} is a second copy of `{index.name}`; the first is {first[index.name]}"
            elif other is not None and other.name == path.name != index.name:
                yield f"{path} is `{index.name}`: the names of the two were exchanged; `sha256sum -c` minds that"
            elif path.name != index.name:
                yield f"{path} is `{index.name}`, renamed; `sha256sum -c` minds that"


def read_media(paths: Sequence[Path]) -> Media:
    """Find the volumes among `paths` (files, or folders that are looked into).

    Raises:
        Incomplete: there is not one volume, or none holds the lock that it names.
        Misused: a path is neither a folder nor a file.
        TrustError, Unreadable: not one of the volumes is sound.
    """
    found, refused = indexes(paths)
    volumes = {path: index for path, index in found.items() if isinstance(index, Volume)}
    parity = {path: index for path, index in found.items() if isinstance(index, Parity)}
    where = ", ".join(str(path) for path in paths)
    if not volumes:
        raise_all(refused)
        raise _no_volume(where, list(parity.values()))
    spoilt = frozenset(path.name for path in _files(paths) if path not in found) if refused else frozenset()
    lock, digest = _lock(volumes)
    refused += _set_aside(volumes, parity, lock, digest)
    folders = dict.fromkeys(path if path.is_dir() else path.parent for path in paths)
    beside = tuple(path for folder in folders if (path := folder / SIGNATURES_NAME).is_file())
    return Media(where, volumes, parity, refused, lock, digest, beside, spoilt)


def _no_volume(where: str, parity: Sequence[Parity]) -> Incomplete:
    if not parity:
        return Incomplete(
            f"no volume of an archive in {where}", hint="name the folder or the .tar files that `pack` wrote"
        )
    stands_for = sorted({one.name for each in parity for one in each.volumes})
    return Incomplete(
        f"only parity in {where}: it stands for {stands_for[0]} to {stands_for[-1]}, and none of these is here",
        hint="name it together with the other volumes",
    )


def indexes(paths: Sequence[Path]) -> tuple[dict[Path, Index], list[Expected]]:
    """What the files say that they are, and what is wrong with those that are volumes and damaged."""
    found: dict[Path, Index] = {}
    refused: list[Expected] = []
    for path in _files(paths):
        try:
            index = read_index(path)
        except (TrustError, Unreadable) as error:
            refused.append(error)
            continue
        if index is not None:
            found[path] = index
    return found, refused


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    seen: set[Path] = set()
    for path in paths:
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
        elif path.is_file():
            inside = [path]
        elif path.exists():
            raise Misused(f"{path} is neither a folder nor a file", hint="name where the medium is mounted")
        else:
            raise Incomplete(f"there is nothing at {path}", hint="name a store, or the media that `pack` wrote")
        for one in inside:
            if one.resolve() not in seen:
                seen.add(one.resolve())
                yield one


def _set_aside(
    volumes: dict[Path, Volume], parity: dict[Path, Parity], lock: Lock, digest: Digest
) -> Iterator[Expected]:
    """Takes out what is of another archive, or of the same lock cut otherwise; says of each why."""
    cuts = Counter((one.archive, one.of) for one in volumes.values() if one.lock == digest)
    cut = cuts.most_common(1)[0][0]
    for path, volume in list(volumes.items()):
        if volume.lock != digest:
            yield _foreign(path, volume, lock, digest)
        elif (volume.archive, volume.of) != cut:
            yield _cut_otherwise(path, volume, cut)
        else:
            continue
        del volumes[path]
    sizes = {volume.name: volume.size_bytes for volume in volumes.values()}
    for path, one in list(parity.items()):
        if one.lock != digest:
            yield _foreign(path, one, lock, digest)
        elif one.archive != cut[0] or any(of.size_bytes != sizes.get(of.name, of.size_bytes) for of in one.volumes):
            yield _parity_otherwise(path, one, cut)
        else:
            continue
        del parity[path]


def _lock(volumes: Mapping[Path, Volume]) -> tuple[Lock, Digest]:
    """The lock of the archive that most volumes belong to; the first in order of name where that is even.

    A copy of it that is damaged is of no matter where another is sound: `verify` reads them all.
    """
    refused: list[Expected] = []
    for digest, _ in Counter(volume.lock for volume in volumes.values()).most_common():
        for path, volume in volumes.items():
            if volume.lock != digest:
                continue
            try:
                lock = _lock_on(path, volume)
            except (TrustError, Unreadable) as error:
                refused.append(error)
                continue
            if lock is not None:
                return lock, digest
    raise_all(refused)
    raise Incomplete("no volume holds the lock it belongs to")


def _lock_on(path: Path, volume: Volume) -> Lock | None:
    """The lock that a volume carries, when it is the one that its index announces."""
    member = next((one for one in volume.members if (one.name, one.blob) == (LOCK_NAME, volume.lock)), None)
    if member is None:
        return None
    return decode_lock(_named_bytes(Placed(path, volume, member)), where=f"{path}: {LOCK_NAME}")


def _named_bytes(placed: Placed) -> bytes:
    member = placed.member
    with placed.open() as stream:
        data = stream.read()
    have = digest_of(data)
    if have != member.blob:
        raise altered(placed.path, member, (), label=f"`{member.name}`", want=member.blob, have=have)
    return data


def _foreign(path: Path, index: Index, lock: Lock, digest: Digest) -> Drift:
    """What to say of a volume of another lock: of an older one of the same name, above all."""
    try:
        other = _lock_on(path, index) if isinstance(index, Volume) else None
    except (TrustError, Unreadable):
        other = None
    which, number = "another archive", ""
    if other is not None:
        if other.serial != lock.serial:
            which = "an older archive" if other.serial < lock.serial else "a later archive"
        number = f"  (number {other.serial})"
    return Drift(
        f"{path} is `{index.name}` of {which}, `{index.archive}`\n"
        f"  want  lock {digest}  (number {lock.serial})\n  have  lock {index.lock}{number}",
        hint="take that medium away; one archive is read at a time, and its own volumes stay usable",
    )


def _cut_otherwise(path: Path, volume: Volume, cut: tuple[str, int]) -> Drift:
    return Drift(
        f"{path} is of the same lock cut otherwise\n"
        f"  want  one of {cut[1]} volumes of `{cut[0]}`\n  have  one of {volume.of} of `{volume.archive}`",
        hint="unpack one cut after the other: what was taken from the first is kept",
    )


def _parity_otherwise(path: Path, parity: Parity, cut: tuple[str, int]) -> Drift:
    covered = ", ".join(f"`{one.name}` of {one.size_bytes:,} bytes" for one in parity.volumes[:3])
    return Drift(
        f"{path} is a parity volume of the same lock cut otherwise\n"
        f"  want  one for volumes of `{cut[0]}` that are here\n  have  one of `{parity.archive}`, for {covered}",
        hint="it makes none of these volumes good; `sie-airgap pack --parity` writes the right one",
    )
