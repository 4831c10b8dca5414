"""Which files of a bucket only locks need that are given up, and removing them.

Nothing else is ever removed: what no lock there names may have been copied by hand, or be on its way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sie_airgap.deltas.receipt import RECEIPT_FILE, encode_receipt, names_of, strays
from sie_airgap.failures import Drift, Partial
from sie_airgap.mirror.current import lock_in_bucket
from sie_airgap.mirror.patient_bucket import PatientBucket
from sie_airgap.mirror.weights import bucket_receipt
from sie_airgap.progress import Task, counted
from sie_airgap.store.claims import Claim, dropped, given_up, needed, without_twice
from sie_core.artifacts.lock import LOCKS_FOLDER, Lock, decode_lock, lock_digest, lock_file, signatures_file
from sie_core.artifacts.store import Store
from sie_core.artifacts.transfer import read, write

_FIRST = ("refs", "manifests")


@dataclass(frozen=True)
class BucketDiscard:
    """What stays and what goes. `names`: files → bytes; `strays`: files that no lock there names, left alone."""

    claims: tuple[Claim, ...]
    names: dict[str, int]
    there: dict[str, int]
    strays: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return sum(self.names.values())


def plan_bucket_discard(store: Store, *, drop: Sequence[int] = ()) -> BucketDiscard:
    """Raises as `lock_in_bucket`; `Misused` for giving up the bucket's own lock.

    `TrustError` where a lock there cannot be read: nobody knows what it needs.
    """
    current = lock_in_bucket(store)
    claims = without_twice(_claims(store, current))
    claims = dropped(claims, drop, where=store.url)
    there = {stat.name: stat.size_bytes for stat in store.list("")}
    goes = {name: there[name] for name in given_up(claims) if name in there}
    return BucketDiscard(claims, goes, there, strays([claim.lock for claim in claims], there))


def discard_from_bucket(store: PatientBucket, plan: BucketDiscard, task: Task) -> None:
    """Removes what goes: what a reader starts from first, and last the lock, which says what is left to remove.

    Raises:
        Partial: somebody is uploading; nothing was removed.
        Drift: a lock came meanwhile that needs something of it.
    """
    if under_way := [f"  {one.name}, begun {one.since}" for one in store.unfinished("")]:
        raise Partial(
            f"{counted(len(under_way), 'upload')} to {store.url} not ended\n" + "\n".join(under_way[:10]),
            hint="run the same command again when `sie-airgap mirror weights` has ended; "
            "an upload that nobody goes on with is aborted with the bucket's own tools",
        )
    for name in sorted(plan.names, key=_order):
        task.at(name)
        store.delete(name)
        task.advance(plan.names[name])
    came = [claim for claim in _claims(store, lock_in_bucket(store)) if not _is_of(claim, plan)]
    lost = needed(came) & plan.names.keys()
    if lost:
        raise Drift(
            f"lock number {came[0].lock.serial} came to {store.url} meanwhile and needs {len(lost)} files that went",
            hint="`sie-airgap mirror weights` of that lock brings them again",
        )
    write(store, RECEIPT_FILE, encode_receipt(bucket_receipt(store)))


def _is_of(claim: Claim, plan: BucketDiscard) -> bool:
    return any(lock_digest(one.lock) == lock_digest(claim.lock) for one in plan.claims)


def _order(name: str) -> tuple[int, str]:
    """Refs, manifests, files, locks."""
    if name.startswith(LOCKS_FOLDER):
        return len(_FIRST) + 1, name
    kind = name.split("/")[1]
    return _FIRST.index(kind) if kind in _FIRST else len(_FIRST), name


def _claims(store: Store, current: Lock) -> Iterator[Claim]:
    yield _claim(current, f"{store.url} is for it", is_current=True)
    for stat in store.list(LOCKS_FOLDER):
        if stat.name.endswith(".json"):
            lock = decode_lock(read(store, stat.name) or b"", where=f"{store.url.rstrip('/')}/{stat.name}")
            yield _claim(lock, "mirrored here earlier: workers that are pinned to it read it")


def _claim(lock: Lock, why: str, *, is_current: bool = False) -> Claim:
    digest = lock_digest(lock)
    own = {lock_file(digest), signatures_file(digest)}
    return Claim(lock, why, frozenset(own.union(*(names_of(model) for model in lock.models))), is_current)
