"""What every verb of the far side does before it believes a lock."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from sie_airgap.archive.media import Media
from sie_airgap.cli.console import Console, from_option, lock_option, opened
from sie_airgap.failures import Expected
from sie_airgap.store.blobs import Blobs
from sie_airgap.trust.files import read_pinned, sealed_in, write_pinned
from sie_airgap.trust.judging import Sealed, signed_by
from sie_airgap.trust.pinned import aloud, check_not_older, take
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import Lock, lock_digest

F = TypeVar("F", bound=Callable[..., Any])
TRUST = Path("trust.json")


def trust_file_option(command: F) -> F:
    """`--trust FILE`, which arrives as `trust_path`."""
    return click.option(
        "--trust",
        "trust_path",
        type=click.Path(path_type=Path, dir_okay=False),
        default=TRUST,
        show_default=True,
        help="What `trust pin` wrote: whose signatures a lock needs.",
    )(command)


def trust_options(command: F) -> F:
    """`--trust FILE` and `--insecure-no-verify`, which arrive as `trust_path` and `insecure`."""
    command = click.option(
        "--insecure-no-verify",
        "insecure",
        is_flag=True,
        help="Take a lock without the signatures that the pinned root wants; trust.json keeps a record of it.",
    )(command)
    return trust_file_option(command)


@dataclass(frozen=True)
class Carried:
    """What was carried, and whether it is believed: the options that every verb of the far side begins with."""

    sources: tuple[Path, ...]
    lock_path: Path | None
    trust_path: Path
    insecure: bool

    def opened(self, console: Console) -> "tuple[Blobs, Lock, Guard]":
        """What `--from` and `--lock` name. Raises as `console.opened` and `Guard.check`."""
        guard = Guard(self.trust_path, insecure=self.insecure, console=console)
        blobs, lock = opened(self.sources, self.lock_path)
        if isinstance(blobs, Media):
            blobs.say = console.note
        guard.check(blobs, lock)
        return blobs, lock, guard


def carried_options(command: F) -> F:
    """`--from`, `--lock`, `--trust` and `--insecure-no-verify`, which arrive as one `carried`."""

    @functools.wraps(command)
    def verb(
        *words: object,
        sources: tuple[Path, ...],
        lock_path: Path | None,
        trust_path: Path,
        insecure: bool,
        **options: object,
    ) -> object:
        return command(*words, carried=Carried(sources, lock_path, trust_path, insecure), **options)

    return cast(F, from_option(lock_option(trust_options(verb))))


class Guard:
    """Whose lock is believed: held against what is pinned, and noted there once its archive was brought in whole."""

    def __init__(self, trust_path: Path, *, insecure: bool, console: Console) -> None:
        self._path, self._insecure, self._console = trust_path, insecure, console
        self._pinned = read_pinned(trust_path)
        self._keys: tuple[str, ...] = ()

    def check(self, blobs: Blobs, lock: Lock) -> None:
        """Whether the lock of a store or an archive is believed.

        Raises:
            TrustError: it is not signed as the pinned root wants, or media would go back behind a lock taken here.
        """
        if self._pinned is not None and isinstance(blobs, Media):
            check_not_older(self._pinned, lock, where=blobs.where)
        self.check_lock(lock, sealed_in(blobs), where=blobs.where)

    def check_lock(self, lock: Lock, sealed: Sequence[Sealed], *, where: str) -> None:
        """The same for a lock and the envelopes that were found with it."""
        if self._pinned is None:
            self._console.note(
                f"note: there is no {self._path}, so no signature is asked for; compare the digest of lock number "
                f"{lock.serial}:\n{aloud(lock_digest(lock))}"
            )
            return
        if self._insecure:
            self._console.note(
                "WARNING: --insecure-no-verify: the signatures of this lock are NOT checked\n"
                f"WARNING: number {lock.serial}, {lock_digest(lock)}"
            )
            return
        self._keys = signed_by(self._pinned.root, lock, sealed, where=where)
        shown = ", ".join(f"{keyid[:16]}…" for keyid in self._keys)
        self._console.note(f"lock number {lock.serial} is signed as root {self._pinned.root.number} wants it: {shown}")

    def findings(self, check: Callable[[], None]) -> list[Expected]:
        """What a check finds, for a verb that tells everything before it ends."""
        try:
            check()
        except TrustError as error:
            return [error]
        return []

    def was_taken(self, lock: Lock) -> bool:
        """Whether that lock was brought in before, as far as anybody keeps a record."""
        return self._pinned is None or any(one.lock == lock_digest(lock) for one in self._pinned.taken)

    def taken(self, blobs: Blobs, lock: Lock) -> None:
        """Note that an archive was brought in whole: from now on, none that is older is taken from media."""
        if self._pinned is not None and isinstance(blobs, Media):
            write_pinned(self._path, take(self._pinned, lock, self._keys))
