"""Which files of a place its locks claim, and which may go. Pure: of a store and of a bucket alike.

A claim that is dropped protects nothing. What no claim names has come from somewhere else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sie_airgap.failures import Misused
from sie_core.artifacts.lock import Lock, lock_digest


@dataclass(frozen=True)
class Claim:
    """What a lock needs of a place.

    Attributes:
        why: the lock counts there.
        names: of files, there or not.
        is_current: the place is for this lock, so that it cannot be dropped.
    """

    lock: Lock
    why: str
    names: frozenset[str]
    is_current: bool = False
    is_dropped: bool = False


def without_twice(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """The first of each lock, by the lock's number, the newest first."""
    first: dict[str, Claim] = {}
    for claim in claims:
        first.setdefault(lock_digest(claim.lock), claim)
    return tuple(sorted(first.values(), key=lambda claim: -claim.lock.serial))


def dropped(claims: Sequence[Claim], serials: Iterable[int], *, where: str) -> tuple[Claim, ...]:
    """The claims, those of these numbers given up; a number that is not there was given up before.

    Raises `Misused` for the lock that the place is for.
    """
    wanted = set(serials)
    for claim in claims:
        if claim.is_current and claim.lock.serial in wanted:
            raise Misused(
                f"{where} is for lock number {claim.lock.serial}, which cannot be given up",
                hint="bring a later lock first, or go back to an earlier one with `sie-airgap rollback`",
            )
    return tuple(
        Claim(claim.lock, claim.why, claim.names, claim.is_current, is_dropped=claim.lock.serial in wanted)
        for claim in claims
    )


def needed(claims: Iterable[Claim]) -> frozenset[str]:
    """What may not go."""
    return frozenset[str]().union(*(claim.names for claim in claims if not claim.is_dropped))


def given_up(claims: Sequence[Claim]) -> frozenset[str]:
    """What only dropped locks name."""
    return frozenset[str]().union(*(claim.names for claim in claims if claim.is_dropped)) - needed(claims)


def alone_bytes(claim: Claim, claims: Iterable[Claim], there: Mapping[str, int]) -> int:
    """How much of a place goes when this claim, too, is given up."""
    others = needed(one for one in claims if one is not claim)
    return sum(there.get(name, 0) for name in claim.names - others)
