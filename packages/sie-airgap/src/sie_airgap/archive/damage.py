"""How damage is told: which volume, which file of which model, which bytes of both, and what to do. Pure."""

from collections.abc import Collection, Mapping
from pathlib import PurePath

from sie_airgap.archive.volume_format import CHECKS_NAME, Member, chunk_ranges
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.errors import TrustError

_SHOWN = 3
Crcs = tuple[int, int | None]
"""The CRC-32 that a chunk must have, and the one that it has; None: the machine cannot read it."""


def carry_again(path: PurePath) -> str:
    return (
        f"carry `{path.name}` again, or `sie-airgap repair` makes it good from parity; "
        "what is on the other volumes stays usable"
    )


def altered(path: PurePath, member: Member, chunks: Collection[int], *, label: str, want: str, have: str) -> TrustError:
    """A member that is not what it must be. `chunks`: those of its MiB that are wrong, as far as is known."""
    return TrustError(
        f"{label} is not what was locked",
        where=f"{path}: {_places(member, chunks)}",
        want=want,
        have=have,
        hint=carry_again(path),
    )


def part_altered(path: PurePath, member: Member, crcs: Mapping[int, Crcs], *, label: str) -> TrustError:
    """A part of a blob with damaged chunks."""
    want, have = crcs[min(crcs)]
    return altered(
        path,
        member,
        crcs.keys(),
        label=f"a part of {label}",
        want=f"CRC-32 {want:08x} of the first MiB concerned",
        have="unreadable" if have is None else f"CRC-32 {have:08x}",
    )


def checks_altered(path: PurePath, why: str) -> TrustError:
    return TrustError(
        f"`{CHECKS_NAME}` of `{path.name}` is damaged: parts of blobs on this volume cannot be checked",
        where=str(path),
        want="the checksums that `pack` wrote",
        have=why,
        hint=carry_again(path),
    )


def between(path: PurePath, offset: int, where: str) -> TrustError:
    return TrustError(
        f"the tar of `{path.name}` is damaged {where}",
        where=f"{path}: bytes from {offset:,}",
        want="the headers and zeros that `pack` writes",
        have="other bytes",
        hint=f"carry `{path.name}` again; what is on it can still be unpacked where its digest is right",
    )


def sum_differs(path: PurePath, sums_name: str, want: Digest, have: Digest) -> TrustError:
    return TrustError(
        f"`{path.name}` is not the volume that {sums_name} names, though all that it carries is right",
        where=str(path),
        want=want,
        have=have,
        hint=f"its index or {sums_name} was changed: carry both again",
    )


def _places(member: Member, chunks: Collection[int]) -> str:
    """`bytes 1,024 to 2,047 (of the file: 512 to 1,535)`; all of the member where no chunk is known."""
    ranges = chunk_ranges(chunks, member.size_bytes) or [(0, member.size_bytes)]
    shown = [
        f"bytes {member.offset + start:,} to {member.offset + stop - 1:,} "
        f"(of the file: {member.blob_offset + start:,} to {member.blob_offset + stop - 1:,})"
        for start, stop in ranges[:_SHOWN]
    ]
    more = [f"{len(ranges) - _SHOWN} more"] if len(ranges) > _SHOWN else []
    return ", ".join(shown + more)
