"""An archive before it is written: which volume holds what, and how much room is left beside it.

Reads nothing of the store but names and lengths. `packing` writes what is planned here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import msgspec

from sie_airgap.archive.medium import UNLIMITED, VolumeSize
from sie_airgap.archive.parity_format import Covered, Parity, groups, parity_name
from sie_airgap.archive.plan import Piece, lay_out_on, with_offsets
from sie_airgap.archive.runbook import readme, start_script
from sie_airgap.archive.sums import LINE_BYTES
from sie_airgap.archive.volume_format import ARCHIVE_VERSION, Volume, volume_name
from sie_airgap.deltas.delta import DELTA_NAME, NOTHING, Delta, carried, encode_delta
from sie_airgap.failures import Drift, Incomplete, Misused
from sie_airgap.store.blobs import GOLDEN_NAME, Blobs
from sie_airgap.store.contents import LOCK_NAME, Content, contents
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.lock import Lock, encode_lock, lock_digest

_BESIDE_STEP_BYTES = 1 << 16
_EVERYWHERE = (LOCK_NAME, DELTA_NAME)
"""Whoever has one volume can tell what the archive is for, and what its blobs are made of."""


@dataclass(frozen=True)
class Cut:
    """An archive before it is written: what stands on each volume, and how many of them share a parity volume."""

    name: str
    lock: Lock
    lock_digest: Digest
    named: Mapping[str, bytes]
    volumes: tuple[tuple[Piece, ...], ...]
    parity_every: int | None = None
    delta: Delta = NOTHING

    @property
    def volume_names(self) -> tuple[str, ...]:
        return tuple(volume_name(number) for number in range(1, len(self.volumes) + 1))

    @property
    def parity_groups(self) -> tuple[tuple[str, ...], ...]:
        """The volumes that each parity volume stands for."""
        return () if self.parity_every is None else tuple(groups(len(self.volumes), self.parity_every))

    @property
    def parity_names(self) -> tuple[str, ...]:
        return tuple(parity_name(number) for number in range(1, len(self.parity_groups) + 1))

    @property
    def names(self) -> tuple[str, ...]:
        return self.volume_names + self.parity_names

    @cached_property
    def indexes(self) -> tuple[Volume, ...]:
        """`VOLUME.json` of every volume."""
        named = {file: digest_of(data) for file, data in self.named.items()}
        empty = Volume(ARCHIVE_VERSION, self.name, self.lock_digest, 1, len(self.volumes), 0, named, ())
        return tuple(
            with_offsets(msgspec.structs.replace(empty, number=number), pieces)
            for number, pieces in enumerate(self.volumes, start=1)
        )

    def parity(self, number: int, sums: Mapping[str, Digest]) -> Parity:
        """The index of a parity volume, given the digests of the volumes that it stands for."""
        sizes = {index.name: index.size_bytes for index in self.indexes}
        covered = tuple(Covered(name, sizes[name], sums[name]) for name in self.parity_groups[number - 1])
        of = len(self.parity_groups)
        return Parity(ARCHIVE_VERSION, self.name, self.lock_digest, number, of, covered)

    @cached_property
    def size_bytes(self) -> dict[str, int]:
        """Of every file that is a volume, by name."""
        sums = dict.fromkeys(self.volume_names, self.lock_digest)  # digests are all of one length
        sizes = {index.name: index.size_bytes for index in self.indexes}
        parity = [self.parity(number, sums) for number in range(1, len(self.parity_groups) + 1)]
        return sizes | {index.name: index.size_bytes for index in parity}

    def runbook(self, names: Sequence[str]) -> str:
        """What lies beside the volumes of those names."""
        golden = GOLDEN_NAME in self.named
        return readme(self.lock, self.lock_digest, self.name, names, self.delta, golden=golden)


def plan_archive(
    lock: Lock,
    source: Blobs,
    *,
    name: str,
    size: VolumeSize = UNLIMITED,
    parity_every: int | None = None,
    delta: Delta = NOTHING,
) -> Cut:
    """What `pack` will write.

    Args:
        delta: what is left to the far side, or carried as recipes.
        parity_every: how many volumes share a parity volume at most; None: there is none.

    Raises:
        Incomplete: the source lacks something that the lock names.
        Drift: its golden answers belong to another lock.
        Misused: they are none.
        ValueError: nothing fits on a volume of that size.
    """
    _check_complete(contents(lock), source)
    wanted = carried(lock, delta)
    lock_bytes = encode_lock(lock)
    named = {LOCK_NAME: lock_bytes}
    golden = source.named(GOLDEN_NAME)
    if golden is not None:
        _check_golden(golden, digest_of(lock_bytes))
        named[GOLDEN_NAME] = golden
    if delta != NOTHING:
        named[DELTA_NAME] = encode_delta(delta)
    everywhere = {file: named[file] for file in _EVERYWHERE if file in named}
    blobs = {content.digest: content.size_bytes for content in wanted}
    extra = {digest_of(data): len(data) for file, data in named.items() if file not in everywhere}
    ordered = list({**extra, **blobs}.items())
    empty = Cut(name, lock, digest_of(lock_bytes), named, (), parity_every, delta)
    volumes = lay_out_on(
        size,
        ordered,
        reserved_bytes=[len(data) for data in everywhere.values()],
        beside_bytes=partial(beside_bytes, empty),
    )
    return replace(empty, volumes=tuple(tuple(_with_names(pieces, named)) for pieces in volumes))


def would_be(lock: Lock) -> Cut:
    """An archive of a lock without its volumes, for what can be said before there is a store; golden answers count."""
    return Cut(f"sie-{lock.serial}", lock, lock_digest(lock), {LOCK_NAME: encode_lock(lock), GOLDEN_NAME: b""}, ())


def beside_bytes(cut: Cut, count: int) -> int:
    """Room for what stands beside one of `count` volumes on its medium, in whole steps.

    That is the runbook, the script and the sums, as with a parity volume to every volume.
    """
    counted = replace(cut, volumes=((),) * count)
    needed = len(cut.runbook(counted.names)) * 2 + len(start_script()) + 2 * LINE_BYTES * count
    return needed + -needed % _BESIDE_STEP_BYTES


class _Recorded(msgspec.Struct):
    lock: Digest


def _check_golden(golden: bytes, lock: Digest) -> None:
    try:
        have = msgspec.json.decode(golden, type=_Recorded).lock
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Misused(
            f"`{GOLDEN_NAME}` of the store holds no golden answers: {error}",
            hint="`sie-airgap golden record` writes it anew, or remove it",
        ) from error
    if have != lock:
        raise Drift(
            f"the golden answers were recorded for another lock\n  want  {lock}\n  have  {have}",
            hint=f"`sie-airgap golden record` records them anew, or remove `{GOLDEN_NAME}` from the store",
        )


def _check_complete(wanted: Sequence[Content], source: Blobs) -> None:
    missing = [content for content in wanted if source.size(content.digest) is None]
    if missing:
        shown = "\n".join(f"  {content.label}  {content.digest}" for content in missing[:10])
        more = f"\n  and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise Incomplete(
            f"{len(missing)} of {len(wanted)} blobs are not in {source.where}\n{shown}{more}",
            hint="`sie-airgap snapshot` fetches what the store lacks",
        )


def _with_names(pieces: Sequence[Piece], named: Mapping[str, bytes]) -> Iterator[Piece]:
    """The lock first on every volume, then the pieces, those that have a name of their own under it."""
    for file in _EVERYWHERE:
        if file in named:
            yield Piece(digest_of(named[file]), len(named[file]), 0, len(named[file]), name=file)
    own = {digest_of(data): file for file, data in named.items()}
    for piece in pieces:
        if piece.blob in own and piece.of == 1:
            yield Piece(piece.blob, piece.blob_size_bytes, 0, piece.size_bytes, name=own[piece.blob])
        else:
            yield piece
