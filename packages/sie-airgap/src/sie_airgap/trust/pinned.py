"""`trust.json`: the root that the far side pinned, and the locks that it has taken from media.

Pure: what may follow what. `folder` reads and writes it.
"""

import msgspec
from msgspec import Struct

from sie_airgap.trust.root import Root, encode_root
from sie_core.artifacts.digest import Digest, parse_digest
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import Lock, lock_digest
from sie_core.artifacts.manifest import canonical_json

TRUST_VERSION = 1


class Taken(Struct, frozen=True, forbid_unknown_fields=True):
    """A lock whose archive was brought in whole. `signed_by`: ids of keys; none: it was not verified, on demand."""

    serial: int
    lock: Digest
    signed_by: tuple[str, ...]


class Pinned(Struct, frozen=True, forbid_unknown_fields=True):
    """What `trust.json` says. `taken`: in the order in which they came."""

    version: int
    root: Root
    taken: tuple[Taken, ...] = ()

    @property
    def highest_serial(self) -> int:
        """Of all that was taken; 0 for none."""
        return max((one.serial for one in self.taken), default=0)


def pin(root: Root, before: Pinned | None) -> Pinned:
    return Pinned(TRUST_VERSION, root, before.taken if before is not None else ())


def encode_pinned(pinned: Pinned) -> bytes:
    return msgspec.json.format(canonical_json(pinned).rstrip(b"\n"), indent=2) + b"\n"


def decode_pinned(data: bytes, *, where: str) -> Pinned:
    """Raises `TrustError` for what `encode_pinned` did not write."""
    try:
        pinned = msgspec.json.decode(data, type=Pinned)
        if pinned.version != TRUST_VERSION:
            raise ValueError(f"version {pinned.version}, this toolkit reads {TRUST_VERSION}")
        encode_root(pinned.root)
        for one in pinned.taken:
            parse_digest(one.lock)
            if one.serial < 1:
                raise ValueError(f"a lock with the serial {one.serial}")
        if encode_pinned(pinned) != data:
            raise ValueError("it is in another form than it is written in")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise TrustError(
            "the pinned trust cannot be read",
            where=where,
            want=f"what `trust pin` wrote, version {TRUST_VERSION}",
            have=str(error),
            hint="nothing is taken on trust that cannot be read: bring the file back from a backup, or, to begin "
            "anew, move it away and pin the root again, comparing its digest",
        ) from error
    return pinned


def check_not_older(pinned: Pinned, lock: Lock, *, where: str) -> None:
    """Raises `TrustError` for media that would take the far side back, or that name a serial twice."""
    digest, highest = lock_digest(lock), pinned.highest_serial
    hint = "an older lock that was taken here before comes back with `sie-airgap rollback --to SERIAL`, without media"
    if lock.serial < highest:
        raise TrustError(
            "the lock is older than one that was taken here",
            where=where,
            want=f"number {highest} or later",
            have=f"number {lock.serial}, {digest}",
            hint=hint,
        )
    for one in pinned.taken:
        if one.serial == lock.serial and one.lock != digest:
            raise TrustError(
                f"two locks have the number {lock.serial}",
                where=where,
                want=f"{one.lock}, which was taken here before",
                have=digest,
                hint="lock again on the connected side, from the lock that was carried last: the number counts up",
            )


def take(pinned: Pinned, lock: Lock, keys: tuple[str, ...]) -> Pinned:
    """With a lock that was brought in whole; a second time the same."""
    taken = Taken(lock.serial, lock_digest(lock), keys)
    if any((one.serial, one.lock) == (taken.serial, taken.lock) for one in pinned.taken):
        return pinned
    return msgspec.structs.replace(pinned, taken=(*pinned.taken, taken))


def aloud(digest: Digest) -> str:
    """A digest to be read aloud and compared: its 64 digits in sixteen groups of four, on two lines."""
    digits = digest.removeprefix("sha256:")
    groups = [digits[at : at + 4] for at in range(0, 64, 4)]
    return " ".join(groups[:8]) + "\n" + " ".join(groups[8:])
