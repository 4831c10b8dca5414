"""What the checks on this machine found, on disk: one small file for each level, lock and place.

In this user's folder of states (`checks/` beside `verified/`), as `checks.file_of` names them. A verb that cannot write
its record says so and ends as it would have.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sie_airgap.store.blobs import write_atomically
from sie_airgap.verifying.checks import Check, after, decode_check, encode_check, file_of
from sie_airgap.verifying.remembered import stamp_of
from sie_airgap.verifying.stamps import Stamp
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.errors import TransferError

FOLDER = "checks"


@dataclass(frozen=True)
class Unread:
    """A record that says nothing, and why."""

    path: Path
    why: str


class Records:
    """Those of one user, below the toolkit's folder of states."""

    def __init__(self, state: Path) -> None:
        self._root = state / FOLDER

    def path(self, check: Check) -> Path:
        return self._root / file_of(check)

    def keep(self, check: Check, say: Callable[[str], object]) -> Check:
        """In the stead of the last check of that place, as it is kept; `say` is told where it cannot be written."""
        path, before = self.path(check), None
        with suppress(OSError, ValueError):  # none, or a damaged one: it is written anew
            before = decode_check(path.read_bytes())
        kept = after(before, check)
        try:
            write_atomically(path, encode_check(kept))
        except (TransferError, OSError) as error:
            say(f"note: what was found is not remembered for `status`: {error}")
        return kept

    def read(self) -> tuple[list[Check], list[Unread]]:
        """All that can be read, of every lock, and what cannot."""
        checks, unread = [], []
        for path in sorted(self._root.glob("*/*.json")):
            try:
                check = decode_check(path.read_bytes())
                if self.path(check) != path:
                    raise ValueError(f"it belongs to {self.path(check)}")
            except (OSError, ValueError) as error:
                unread.append(Unread(path, str(error)))
            else:
                checks.append(check)
        return checks, unread


def stamps_of(paths: Iterable[Path]) -> dict[str, Stamp | None]:
    """How files stand now, by their absolute names; None where a stamp says nothing. Absent ones are left out."""
    found = {}
    for path in paths:
        with suppress(OSError), path.open("rb") as file:
            found[str(path.resolve())] = stamp_of(file.fileno())
    return found


def unchanged(
    before: Mapping[str, Stamp | None], after: Mapping[str, Stamp | None], *, now_ns: int
) -> dict[str, Stamp]:
    """What a check can be known again by: all its files, if they stood so before and after it, and long enough.

    Where one did not, or its stamp says nothing, none is given: what was read could change unseen.
    """
    settled = {name: stamp for name, stamp in before.items() if stamp is not None and stamp.is_settled(now_ns)}
    return settled if settled == after else {}


def differing(files: Mapping[str, Stamp]) -> tuple[list[str], list[str]]:
    """Which files are not here now, and which are not known to be as they were."""
    now = stamps_of(Path(name) for name in files)
    gone = [name for name in files if name not in now]
    return gone, [name for name, stamp in files.items() if name in now and now[name] != stamp]


def digests_of(paths: Iterable[Path]) -> dict[str, Digest]:
    """Small files by their absolute names; those that cannot be read are left out."""
    found = {}
    for path in paths:
        with suppress(OSError):
            found[str(path.resolve())] = digest_of(path.read_bytes())
    return found
