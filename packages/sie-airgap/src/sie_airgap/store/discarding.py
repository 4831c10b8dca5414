"""Which blobs of a store no lock needs any more, and removing them.

A store is for one lock; those that were taken earlier, those whose content is still coming, and those that somebody
names count as well. The note of a lock that is given up goes before its blobs: a lock that is here is whole.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sie_airgap.failures import Drift, Incomplete
from sie_airgap.store.begun import begun_file, begun_locks
from sie_airgap.store.blobs import BlobFolder, held, lock_of, told_os_errors
from sie_airgap.store.claims import Claim, dropped, needed, without_twice
from sie_airgap.store.contents import LOCK_NAME, contents
from sie_airgap.store.kept import kept, kept_folder
from sie_core.artifacts.digest import hex_of
from sie_core.artifacts.lock import Lock, lock_digest

BEGUN = "begun and not ended"
_HEX = "[0-9a-f]" * 64


@dataclass(frozen=True)
class Discard:
    """What stays and what goes. `names`: files below the store → bytes that they take."""

    claims: tuple[Claim, ...]
    names: dict[str, int]
    there: dict[str, int]

    @property
    def size_bytes(self) -> int:
        return sum(self.names.values())


def plan_discard(store: BlobFolder, *, others: Sequence[Lock] = (), drop: Sequence[int] = ()) -> Discard:
    """Args: others: locks beside those of the store whose blobs stay; drop: numbers of locks to give up.

    Raises:
        Incomplete: no lock says what stays.
        Misused: the lock to give up is the one that the store is for.
    """
    claims = without_twice(_claims(store, others))
    if not claims:
        raise Incomplete(
            f"no lock says which blobs of {store.root} stay",
            hint="`--lock` names one; `sie-airgap snapshot` and `unpack` bring the store to one",
        )
    claims = dropped(claims, drop, where=str(store.root))
    stays, there = needed(claims), dict(_there(store))
    on_its_way = any(claim.why == BEGUN and not claim.is_dropped for claim in claims)
    goes = {
        path: size
        for path, size in there.items()
        # What a lock on its way is made from (the recipe of a delta) may stand in no lock.
        if Path(path).name[:64] not in stays and not (on_its_way and path.startswith("incoming/"))
    }
    by_hex = {Path(path).name: size for path, size in there.items()}
    return Discard(claims, goes, by_hex)


def discard(store: BlobFolder, plan: Discard) -> None:
    """Removes what goes.

    Raises:
        Partial: another run is filling the store; nothing was removed.
        Drift: a lock came since the plan was made; nothing was removed.
    """
    with held(store.root), told_os_errors(store.root):
        _check_none_came(store, plan)
        for claim in plan.claims:
            if claim.is_dropped:
                (store.root / begun_file(claim.lock)).unlink(missing_ok=True)
                shutil.rmtree(kept_folder(store, claim.lock), ignore_errors=True)
        for name in plan.names:
            (store.root / name).unlink(missing_ok=True)


def _check_none_came(store: BlobFolder, plan: Discard) -> None:
    planned = {lock_digest(claim.lock) for claim in plan.claims}
    for claim in without_twice(_claims(store, ())):
        if lock_digest(claim.lock) not in planned:
            raise Drift(
                f"lock number {claim.lock.serial} came to {store.root} meanwhile; nothing was removed",
                hint="run the same command again: it counts that lock, too",
            )


def _claims(store: BlobFolder, others: Sequence[Lock]) -> Iterator[Claim]:
    if (store.root / LOCK_NAME).exists():
        yield _claim(lock_of(store), f"{store.root} is for it", is_current=True)
    for lock in others:
        yield _claim(lock, "named by `--lock`")
    for one in kept(store):
        yield _claim(one.lock, "taken here: `rollback` can go back to it")
    for lock in begun_locks(store):
        yield _claim(lock, BEGUN)


def _claim(lock: Lock, why: str, *, is_current: bool = False) -> Claim:
    return Claim(lock, why, frozenset(hex_of(content.digest) for content in contents(lock)), is_current)


def _there(store: BlobFolder) -> Iterator[tuple[str, int]]:
    """Blobs, whole and arriving, with what is noted beside them."""
    for folder in ("blobs/sha256", "incoming"):
        for path in sorted((store.root / folder).glob(f"{_HEX}*")):
            yield path.relative_to(store.root).as_posix(), path.stat().st_size
