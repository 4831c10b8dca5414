"""Hold the toolkit's store against the lock, byte by byte.

Every finding is given, not the first: a damaged byte is named with the file it belongs to and where that file lies.
Nothing is changed. What was read before, and was not written to since, is not read again where the caller says so
(`remembered`).
"""

from pathlib import Path

from sie_airgap.failures import Expected, Incomplete
from sie_airgap.progress import Progress
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.store.contents import Content, contents
from sie_airgap.store.cores import Advance, on_all_cores
from sie_airgap.verifying.remembered import Remembered, stamp_of
from sie_core.artifacts.digest import CHUNK_BYTES
from sie_core.artifacts.errors import NoPermission, NotThere, TrustError
from sie_core.artifacts.hashing import Hashing
from sie_core.artifacts.lock import Lock


def verify_store(
    lock: Lock, store: BlobFolder, *, progress: Progress, remembered: Remembered | None = None
) -> list[Expected]:
    """Every blob of the lock in the toolkit's store. `remembered` None: every byte is read."""
    wanted = contents(lock)
    remembered = remembered or Remembered()
    with progress.task("verify", sum(content.size_bytes for content in wanted)) as task:

        def held(content: Content, advance: Advance) -> Expected | None:
            task.at(content.label)
            return _blob(store, content, remembered, advance)

        try:
            findings = on_all_cores(held, wanted, advance=task.advance)
        finally:
            remembered.keep(progress.say)  # of a run that is interrupted, too
    return [finding for finding in findings if finding is not None]


def _blob(store: BlobFolder, content: Content, remembered: Remembered, advance: Advance) -> Expected | None:
    running = Hashing()
    try:
        with store.open(content.digest) as stream:
            before = stamp_of(stream.fileno())
            if remembered.holds(content.digest, before):
                advance(content.size_bytes)
                return None
            while chunk := stream.read(CHUNK_BYTES):
                running.update(chunk)
                advance(len(chunk))
            after = stamp_of(stream.fileno())
    except NotThere:
        return Incomplete(f"{content.label} is not in {store.root}")
    except OSError as error:  # a disk that goes bad, above all: what else is bad is wanted, too
        return _unreadable(content, store.path(content.digest), error)
    if running.digest == content.digest:
        remembered.note(content.digest, before, after)
        return None
    return TrustError(
        f"{content.label} is not what was locked",
        where=str(store.path(content.digest)),
        want=content.digest,
        have=running.digest,
        hint="remove that file and run `sie-airgap snapshot` or `unpack` again",
    )


def _unreadable(content: Content, path: Path, error: OSError) -> Expected:
    message = f"{content.label} cannot be read\n  at    {path}\n  want  {content.digest}\n  have  {error.strerror}"
    if isinstance(error, PermissionError):
        return NoPermission(message, hint="verify as a user who may read the store")
    return Incomplete(message, hint="remove that file, if the disk lets you, and run `snapshot` or `unpack` again")
