"""Locks whose content is on its way into a store: begun and not ended, so that `gc` leaves what has come.

store/begun/<hex>.lock
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sie_airgap.store.blobs import BlobFolder, told_os_errors, write_atomically
from sie_core.artifacts.digest import hex_of
from sie_core.artifacts.lock import Lock, decode_lock, encode_lock, lock_digest

_FOLDER = "begun"


@contextmanager
def begun(store: BlobFolder, lock: Lock) -> Iterator[None]:
    """Noted until the block ends well: what fails or is killed leaves the note for the run that goes on."""
    write_atomically(store.root / begun_file(lock), encode_lock(lock))
    yield
    with told_os_errors(store.root):
        (store.root / begun_file(lock)).unlink(missing_ok=True)


def begun_file(lock: Lock) -> str:
    """Its name in the store."""
    return f"{_FOLDER}/{hex_of(lock_digest(lock))}.lock"


def begun_locks(store: BlobFolder) -> tuple[Lock, ...]:
    """Raises `TrustError` for a note that is none."""
    paths = sorted((store.root / _FOLDER).glob("*.lock"))
    return tuple(decode_lock(path.read_bytes(), where=str(path)) for path in paths)
