"""Hold what is there against the lock, byte by byte: a store, or a bucket (media: `media_check`).

Each function gives every finding, not the first: a damaged byte is named with the file it belongs to and
where that file lies. Nothing is changed. What was read before, and was not written to since, is not read again
where the caller says so (`remembered`).
"""

from collections.abc import Iterator
from pathlib import Path

from sie_airgap.blobs import BlobFolder
from sie_airgap.contents import Content, contents
from sie_airgap.failures import Drift, Expected, Incomplete
from sie_airgap.progress import Progress, Task
from sie_airgap.remembered import Remembered, stamp_of
from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import CHUNK_BYTES, Digest, digest_of, parse_digest
from sie_core.artifacts.errors import NoPermission, NotThere, TrustError
from sie_core.artifacts.hashing import Hashing
from sie_core.artifacts.lock import CURRENT_FILE, Lock, LockedModel, decode_lock, lock_digest, lock_file
from sie_core.artifacts.manifest import FileEntry, encode_manifest
from sie_core.artifacts.store import Store
from sie_core.artifacts.transfer import read


def verify_store(
    lock: Lock, store: BlobFolder, *, progress: Progress, remembered: Remembered | None = None
) -> list[Expected]:
    """Every blob of the lock in the toolkit's store. `remembered` None: every byte is read."""
    findings: list[Expected] = []
    wanted = contents(lock)
    remembered = remembered or Remembered()
    with progress.task("verify", sum(content.size_bytes for content in wanted)) as task:
        try:
            for content in wanted:
                task.at(content.label)
                finding = _blob(store, content, remembered, task)
                if finding is not None:
                    findings.append(finding)
        finally:
            remembered.keep(progress.say)  # of a run that is interrupted, too
    return findings


def _blob(store: BlobFolder, content: Content, remembered: Remembered, task: Task) -> Expected | None:
    running = Hashing()
    try:
        with store.open(content.digest) as stream:
            before = stamp_of(stream.fileno())
            if remembered.holds(content.digest, before):
                task.advance(before.size_bytes)
                return None
            while chunk := stream.read(CHUNK_BYTES):
                running.update(chunk)
                task.advance(len(chunk))
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
            hint="`sie-airgap mirror weights` writes it last; or say what to hold it against with `--lock`",
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


def verify_bucket(store: Store, lock: Lock | None, *, progress: Progress) -> list[Expected]:
    """Every byte of every file in a bucket, and the manifests and refs that readers start from.

    `lock` None: the lock that the bucket says it was filled from.
    """
    findings: list[Expected] = []
    there = lock_in_bucket(store) if lock is None else lock
    if lock is not None:
        findings += _drift(store, lock)
    total = sum(model.size_bytes for model in there.models)
    with progress.task("verify", total) as task:
        for model in there.models:
            findings += _model(store, model, task)
    return findings


def _drift(store: Store, lock: Lock) -> Iterator[Expected]:
    current = read(store, CURRENT_FILE)
    want = lock_digest(lock)
    if current is not None and current != want.encode():
        yield Drift(
            f"{store.url} was filled from another lock\n  want  {want}\n  have  {current.decode('ascii', 'replace')}",
            hint="`sie-airgap mirror weights` brings it to this lock",
        )


def _model(store: Store, model: LockedModel, task: Task) -> Iterator[Expected]:
    wanted = {
        hf_layout.manifest_file(model.repo, model.revision): encode_manifest(model.manifest),
        hf_layout.tree_file(model.repo, model.revision): hf_layout.tree_json(model.manifest),
        hf_layout.ref_file(model.repo): hf_layout.ref_bytes(model.revision),
    }
    for name, want in wanted.items():
        have = read(store, name)
        where = f"{store.url.rstrip('/')}/{name}"
        if have is None:
            yield NotThere(f"`{name}` is not in {store.url}", hint=_copy_again(store))
        elif have != want:
            yield TrustError(
                f"`{name}` of `{model.id}` is not what `mirror weights` writes",
                where=where,
                want=_told(want),
                have=_told(have),
                hint=_copy_again(store),
            )
    for entry in model.manifest.files:
        task.at(f"{model.id} {entry.path}")
        finding = _file(store, model, entry, task)
        if finding is not None:
            yield finding


def _file(store: Store, model: LockedModel, entry: FileEntry, task: Task) -> Expected | None:
    name = hf_layout.snapshot_file(model.repo, model.revision, entry.path)
    running = Hashing()
    try:
        with store.open(name) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                running.update(chunk)
                task.advance(len(chunk))
    except NotThere:
        return NotThere(f"`{entry.path}` of `{model.id}` is not in {store.url}", hint=_copy_again(store))
    have = running.digest
    if have == entry.digest:
        return None
    return TrustError(
        f"`{entry.path}` of `{model.id}` is not what was locked",
        where=f"{store.url.rstrip('/')}/{name}",
        want=f"{entry.digest}  {entry.size_bytes:,} bytes",
        have=f"{have}  {running.size_bytes:,} bytes",
        hint=_copy_again(store),
    )


def _copy_again(store: Store) -> str:
    return f"`sie-airgap mirror weights {store.url} --replace` copies it again"


def _told(data: bytes) -> str:
    return repr(data.decode()) if len(data) <= 71 and data.isascii() else f"{digest_of(data)}  {len(data):,} bytes"
