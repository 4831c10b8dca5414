"""Uploads that are not done yet: where each goes on, remembered beyond the end of the process.

A registry says where a begun upload goes on, and forgets none for days. Each is a small file of its own, which only
its owner may read, since an address of that kind can let in whoever has it:

    uploads/<hex>.json     one blob on its way into one repository; removed when it has arrived

One process at a time uses the folder; another keeps its own uploads in memory.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from sie_core.artifacts.digest import Digest

KEPT_S = 7 * 24 * 3600
"""As long as registries keep what was begun: the docker project's throws it away after 168 hours."""


class Session(Struct, frozen=True, forbid_unknown_fields=True):
    """A begun upload: where the next part goes, and how many bytes the registry has acknowledged."""

    location: str
    offset: int


class Sessions:
    """Those of one registry. `folder` None keeps them in memory. Safe to share between threads."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[str, Session] = {}

    def find(self, repository: str, digest: Digest) -> Session | None:
        """What is known of an upload; None where none was begun, or what was written of it cannot be read."""
        name = _name(repository, digest)
        if self._folder is not None and name not in self._known:
            with suppress(OSError, msgspec.MsgspecError):
                self._known[name] = msgspec.json.decode((self._folder / name).read_bytes(), type=Session)
        return self._known.get(name)

    def keep(self, repository: str, digest: Digest, session: Session) -> None:
        name = _name(repository, digest)
        self._known[name] = session
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = self._folder / f".{name}"
            draft.touch(mode=0o600)
            draft.write_bytes(msgspec.json.encode(session))
            draft.replace(self._folder / name)

    def forget(self, repository: str, digest: Digest) -> None:
        name = _name(repository, digest)
        self._known.pop(name, None)
        if self._folder is not None:
            (self._folder / name).unlink(missing_ok=True)


@contextmanager
def kept_sessions(state: Path, origin: str, *, say: Callable[[str], object]) -> Iterator[Sessions]:
    """The sessions with one registry, under the user's own folder of states; nobody else uses them meanwhile.

    Where the folder cannot be written, or another process has it, `say` is told and they are kept in memory.
    """
    folder = state / "uploads" / hashlib.sha256(origin.encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        say(f"note: {folder}: {error.strerror}; an upload that is killed will start anew")
        yield Sessions()
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"note: another sie-airgap is pushing to {origin}; an upload of this one that is killed starts anew")
            yield Sessions()
        else:
            _drop_old(folder)
            yield Sessions(folder)
            with suppress(OSError):
                folder.rmdir()  # nothing is on its way
    finally:
        os.close(handle)


def _drop_old(folder: Path) -> None:
    for path in folder.glob("*.json"):
        if path.stat().st_mtime < time.time() - KEPT_S:
            path.unlink(missing_ok=True)


def _name(repository: str, digest: Digest) -> str:
    return hashlib.sha256(f"{repository}@{digest}".encode()).hexdigest() + ".json"
