"""What a bucket must hold, file by file, and what to say of a file that is otherwise.

Every finding is given, with the file's place and both values. A file that cannot be read is one finding among the
others; a bucket where nothing answers any more is one finding, too, and the last.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sie_airgap.failures import Expected
from sie_airgap.patience import Wait
from sie_airgap.progress import Progress
from sie_airgap.verifying.objects import Objects, is_about_all
from sie_airgap.verifying.remembered import Remembered
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.errors import NoPermission, NotThere, TransferError, TrustError, Unreachable
from sie_core.artifacts.store import Store

_MOST_SHOWN_BYTES = 71
"""Data no longer than a digest are shown themselves."""


@dataclass(frozen=True)
class Wanted:
    """One file that must be there.

    Attributes:
        label: what it is, for people.
        data: what it holds, where that follows from the lock; None: `digest` alone says it.
        should: what it is not, where it is another.
    """

    name: str
    label: str
    digest: Digest
    size_bytes: int
    data: bytes | None = None
    should: str = "what was locked"


def exactly(name: str, label: str, data: bytes) -> Wanted:
    """A small file of which every byte is known."""
    return Wanted(name, label, digest_of(data), len(data), data, should="what `mirror weights` writes")


def look_at(
    store: Store,
    wanted: Sequence[Wanted],
    hint: str,
    *,
    progress: Progress,
    remembered: Remembered | None = None,
    wait: Wait | None = None,
) -> list[Expected]:
    """Read all that is wanted; what is wrong with it. `hint`: what brings a file again."""
    remembered = remembered or Remembered()
    with progress.task("verify", sum(one.size_bytes for one in wanted if one.data is None)) as task:
        objects = Objects(store, task, progress, remembered=remembered, wait=wait)
        try:
            said = objects.each(wanted, partial(_look, store, objects, hint))
        finally:
            remembered.keep(progress.say)  # of a run that is interrupted, too
    findings = [one for looked in said for one in looked or ()]
    unread = sum(1 for looked in said if looked is None)
    if objects.gone is not None:
        findings.append(_gone(store, objects.gone, len(wanted) - unread, len(wanted)))
    return findings


def lengths(store: Store, wanted: Sequence[Wanted], have: Mapping[str, int], hint: str) -> Iterator[Expected]:
    """What is missing, or of another length, by what a store says of its files; that is no evidence of their bytes."""
    for one in wanted:
        size_bytes = have.get(one.name)
        if size_bytes is None:
            yield _missing(store, one, NotThere(one.name), hint)
        elif size_bytes != one.size_bytes:
            want, said = f"{one.size_bytes:,} bytes", f"{size_bytes:,} bytes"
            yield TrustError(
                f"{one.label} is not {one.should}", where=_where(store, one), want=want, have=said, hint=hint
            )


def _look(store: Store, objects: Objects, hint: str, one: Wanted) -> list[Expected] | None:
    """What is wrong with one file; None when that is not known, since nothing answers any more."""
    try:
        if one.data is not None:
            have = objects.small(one.name, most_bytes=one.size_bytes)
            return [] if have == one.data else [_other(store, one, one.data, have, hint)]
        found = objects.file(one.name, one.digest, one.size_bytes)
    except NotThere as error:
        return [_missing(store, one, error, hint)]
    except TransferError as error:
        return None if objects.gone is not None and is_about_all(error) else [_unread(store, one, error)]
    if (found.digest, found.size_bytes) == (one.digest, one.size_bytes):
        return []
    return [_altered(store, one, found.digest, found.size_bytes, hint)]


def _altered(store: Store, one: Wanted, digest: Digest, size_bytes: int, hint: str) -> TrustError:
    have = f"{digest}  {size_bytes:,} bytes"
    if size_bytes > one.size_bytes:
        first = "right" if digest == one.digest else f"{digest}"
        have = f"{size_bytes:,} bytes; the first {one.size_bytes:,} are {first}"
    return TrustError(
        f"{one.label} is not {one.should}",
        where=_where(store, one),
        want=f"{one.digest}  {one.size_bytes:,} bytes",
        have=have,
        hint=hint,
    )


def _other(store: Store, one: Wanted, want: bytes, have: bytes, hint: str) -> TrustError:
    return TrustError(
        f"{one.label} is not {one.should}",
        where=_where(store, one),
        want=_told(want),
        have=_told(have) if len(have) <= len(want) else f"more than {len(want):,} bytes",
        hint=hint,
    )


def _missing(store: Store, one: Wanted, error: NotThere, hint: str) -> NotThere:
    have = error.message if "something else is in its place" in error.message else "nothing"
    return NotThere(
        f"{one.label} is not in {store.url}\n  at    {_where(store, one)}\n  want  {_wanted(one)}\n  have  {have}",
        hint=hint,
    )


def _unread(store: Store, one: Wanted, error: TransferError) -> TransferError:
    """One file that does not come, while others do."""
    kind = NoPermission if isinstance(error, NoPermission) else Unreachable
    return kind(
        f"{one.label} cannot be read\n  at    {_where(store, one)}\n  want  {_wanted(one)}\n  have  {error.message}",
        hint=error.hint or "run it again; what stays so is the server's own damage: look at its log",
    )


def _gone(store: Store, error: TransferError, looked_at: int, count: int) -> TransferError:
    kind = NoPermission if isinstance(error, NoPermission) else Unreachable
    return kind(
        f"nothing in {store.url} can be read any more; {looked_at:,} of {count:,} files were looked at\n"
        f"  have  {error.message}",
        hint=error.hint or "run it again when the server answers",
    )


def _where(store: Store, one: Wanted) -> str:
    return f"{store.url.rstrip('/')}/{one.name}"


def _wanted(one: Wanted) -> str:
    return f"{one.digest}  {one.size_bytes:,} bytes" if one.data is None else _told(one.data)


def _told(data: bytes) -> str:
    if len(data) <= _MOST_SHOWN_BYTES and data.isascii():
        return repr(data.decode())
    return f"{digest_of(data)}  {len(data):,} bytes"
