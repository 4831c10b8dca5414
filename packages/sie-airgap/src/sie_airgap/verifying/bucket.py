"""Hold a bucket against the lock, byte by byte.

Every finding is given, not the first, with the file it belongs to and where that file lies. Nothing is changed.
"""

from collections.abc import Iterator

from sie_airgap.failures import Drift, Expected
from sie_airgap.mirror.current import lock_in_bucket
from sie_airgap.progress import Progress, Task
from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import CHUNK_BYTES, digest_of
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.hashing import Hashing
from sie_core.artifacts.lock import CURRENT_FILE, Lock, LockedModel, lock_digest
from sie_core.artifacts.manifest import FileEntry, encode_manifest
from sie_core.artifacts.store import Store
from sie_core.artifacts.transfer import read


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
