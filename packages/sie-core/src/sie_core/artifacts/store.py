"""What a place that holds files owes: one interface, one suite for every implementation.

`stores/` has the implementations (memory, folder, S3, GCS); `stores.open` picks one by URL.
Errors are those of `artifacts.errors` and nothing else: `NotThere`, `NoPermission`, `Unreachable`,
`NoSpace`, and `TrustError` from `put` when the data are not what was declared.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from sie_core.artifacts.digest import Digest


@dataclass(frozen=True)
class Traits:
    """What a store can do, so that callers choose a way and tests name their exceptions.

    Attributes:
        atomic_put: a reader never sees a half-written file.
        range_reads: `open(start=…)` reads only what is asked for.
        listing_is_consistent: what was put is listed at once.
        max_parallel: how many transfers at a time pay.
    """

    atomic_put: bool
    range_reads: bool
    listing_is_consistent: bool
    max_parallel: int


@dataclass(frozen=True)
class Stat:
    """One stored file.

    Attributes:
        name: relative to the store's root.
        tag: another one, where it is listed, once somebody has written the file anew: an ETag, a time. Good for
            noticing that something changed, and no evidence of what the bytes are.
    """

    name: str
    size_bytes: int
    tag: str = field(default="", compare=False)


@dataclass(frozen=True)
class Unfinished:
    """An upload that was begun and has not ended: of which file, and since when (the server's words)."""

    name: str
    since: str


class Store(Protocol):
    """Where files live, by name. Names are POSIX, relative, without `..`."""

    url: str
    traits: Traits

    def stat(self, name: str) -> Stat | None:
        """None when there is no such file; permission and reachability raise."""
        ...

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """A stream over `length` bytes from `start`. Raises `NotThere`. A short stream is the caller's to notice."""
        ...

    def put(self, name: str, data: BinaryIO, *, size_bytes: int, digest: Digest) -> None:
        """All or nothing. Raises `TrustError` when `data` is not of that size and digest; then nothing is stored."""
        ...

    def list(self, prefix: str) -> Iterator[Stat]:
        """Every file whose name begins with `prefix`, in order of name."""
        ...

    def delete(self, name: str) -> None:
        """Deleting what is not there is not an error."""
        ...


class Destination(Store, Protocol):
    """A store that snapshots are uploaded to."""

    def copy(self, source: str, name: str, *, size_bytes: int) -> bool:
        """Make `name` the same as `source`, of that length, where they are; False when this store cannot."""
        ...

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """Uploads below `prefix` that were begun and have not ended, by whomever, as far as the store tells of them."""
        ...
