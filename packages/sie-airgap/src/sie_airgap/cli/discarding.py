"""The verb that makes room: gc."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from sie_airgap.cli.console import STORE, Console, bucket, bucket_options, dry_run_option, is_store, output_option
from sie_airgap.failures import Incomplete, Misused
from sie_airgap.mirror.discarding import BucketDiscard, discard_from_bucket, plan_bucket_discard
from sie_airgap.mirror.patient_bucket import PatientBucket
from sie_airgap.progress import counted, sized
from sie_airgap.store.blobs import BlobFolder, read_lock
from sie_airgap.store.claims import Claim, alone_bytes
from sie_airgap.store.contents import LOCK_NAME
from sie_airgap.store.discarding import Discard, discard, plan_discard
from sie_core.artifacts.lock import lock_digest


@click.command()
@click.argument("what", default=str(STORE))
@click.option(
    "--drop", "serials", type=int, multiple=True, metavar="SERIAL", help="Give up this lock, too (several times)."
)
@click.option(
    "--lock",
    "locks",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="What this lock names stays in the store (several times).  [default: airgap.lock, where there is one]",
)
@click.option("--delete", is_flag=True, help="Remove it. Without this nothing is removed.")
@bucket_options
@dry_run_option
@output_option
def gc(
    what: str,
    serials: tuple[int, ...],
    locks: tuple[Path, ...],
    delete: bool,
    endpoint: str | None,
    region: str | None,
    dry_run: bool,
    output: str,
) -> None:
    """Say what no lock needs any more in WHAT, a store or a bucket, and remove it with --delete.

    Every lock that is there keeps its files: the one that WHAT is for, those that came earlier, those on their way.
    --drop gives up one of them: no `rollback` to it then, and workers that are pinned to it find nothing.

    From a store goes what no lock names; a later `pack --base` has less to build on. From a bucket goes only what a
    lock named that is given up: files copied by hand stay. Let nothing mirror into it meanwhile.

    \b
    Example:  sie-airgap gc
              sie-airgap gc s3://models/weights/ --drop 6 --delete
    """
    console = Console(output)
    removes = delete and not dry_run
    plan: Discard | BucketDiscard
    if "://" in what:
        if locks:
            raise Misused("--lock is for a store: a bucket keeps its locks itself")
        place = PatientBucket(bucket(what, endpoint=endpoint, region=region), say=console.note)
        plan = plan_bucket_discard(place, drop=serials)
        if removes:
            with console.progress.task("gc", plan.size_bytes) as task:
                discard_from_bucket(place, plan, task)
    else:
        store = _store(Path(what))
        plan = plan_discard(store, others=[read_lock(path) for path in _named(locks)], drop=serials)
        if removes:
            discard(store, plan)
    for serial in sorted(set(serials) - {claim.lock.serial for claim in plan.claims}):
        console.note(f"note: there is no lock number {serial} in {what}")
    _tell(plan, what, removed=removes, console=console)


def _store(path: Path) -> BlobFolder:
    if not is_store(path):
        raise Incomplete(f"{path} is no store", hint="name the store, or a bucket by its URL")
    return BlobFolder(path)


def _named(locks: Sequence[Path]) -> Sequence[Path]:
    here = Path(LOCK_NAME)
    return locks or ([here] if here.is_file() else [])


def _tell(plan: Discard | BucketDiscard, what: str, *, removed: bool, console: Console) -> None:
    lines = [_claimed(claim, plan) for claim in plan.claims]
    files = f"{counted(len(plan.names), 'file')}, {sized(plan.size_bytes)}"
    if not plan.names:
        lines.append(f"nothing to remove from {what}: a lock needs all of it")
    else:
        lines.append(f"removed from {what}: {files}" if removed else f"to remove from {what}: {files}")
        if not removed:
            console.note("hint: --delete removes it")
    if isinstance(plan, BucketDiscard) and plan.strays:
        console.note(f"note: left alone: {counted(len(plan.strays), 'file')} that no lock there names")
    console.data("\n".join(lines), _facts(plan, what, removed=removed))


def _claimed(claim: Claim, plan: Discard | BucketDiscard) -> str:
    lock = f"lock number {claim.lock.serial}, {lock_digest(claim.lock)}"
    if claim.is_dropped:
        return f"drop  {lock}"
    if claim.is_current:
        return f"keep  {lock}\n      {claim.why}"
    alone = sized(alone_bytes(claim, plan.claims, plan.there))
    return f"keep  {lock}\n      {claim.why}; --drop {claim.lock.serial} gives up {alone} that no other needs"


def _facts(plan: Discard | BucketDiscard, what: str, *, removed: bool) -> Mapping[str, object]:
    locks = [
        {
            "serial": claim.lock.serial,
            "lock": lock_digest(claim.lock),
            "why": claim.why,
            "dropped": claim.is_dropped,
            "alone_bytes": alone_bytes(claim, plan.claims, plan.there),
        }
        for claim in plan.claims
    ]
    facts = {"place": what, "locks": locks, "removed": removed, "bytes": plan.size_bytes, "files": sorted(plan.names)}
    return facts | ({"strays": len(plan.strays)} if isinstance(plan, BucketDiscard) else {})
