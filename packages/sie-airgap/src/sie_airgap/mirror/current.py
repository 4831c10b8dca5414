"""Which lock a bucket was filled from, as the bucket says it."""

from sie_airgap.failures import Incomplete
from sie_core.artifacts.digest import Digest, digest_of, parse_digest
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import CURRENT_FILE, Lock, decode_lock, lock_file
from sie_core.artifacts.store import Store
from sie_core.artifacts.transfer import read


def lock_in_bucket(store: Store) -> Lock:
    """The lock that was mirrored last.

    Raises:
        Incomplete: the bucket was not filled by this toolkit, or not to the end.
        TrustError: the lock there is not the one it is called by.
    """
    current = read(store, CURRENT_FILE)
    if current is None:
        raise Incomplete(
            f"{store.url} has no `{CURRENT_FILE}`: nothing was mirrored there to the end",
            hint="`sie-airgap mirror weights` writes it last; `verify` holds it against the lock of `--lock`",
        )
    try:
        digest = parse_digest(current.decode("ascii", "replace"))
    except ValueError as error:
        raise TrustError(
            f"`{CURRENT_FILE}` does not name a lock",
            where=f"{store.url.rstrip('/')}/{CURRENT_FILE}",
            want="sha256: and 64 hex digits",
            have=repr(current[:100]),
        ) from error
    name = lock_file(digest)
    data = read(store, name)
    if data is None:
        raise Incomplete(f"{store.url.rstrip('/')}/{name} is not there, though `{CURRENT_FILE}` names it")
    if digest_of(data) != digest:
        raise _lock_altered(f"{store.url.rstrip('/')}/{name}", digest, digest_of(data))
    return decode_lock(data, where=f"{store.url.rstrip('/')}/{name}")


def _lock_altered(where: str, want: Digest, have: Digest) -> TrustError:
    return TrustError("the lock is not as it was written", where=where, want=want, have=have)
