"""A bucket that was filled by hand gets what the toolkit's own mirror writes: trees, manifests, refs, a lock.

Every byte is read once. Held against a lock, what is right is from then on as if it had been mirrored. Without one
the manifests say that they were adopted: the files cannot change unseen any more, and nothing says that they were
what the hub has, beside the ids that the hub's own client may have left there, which are counted. A model that is
not whole, or not what it should be, is told and left as it is; the others are adopted. What has its manifest is not
read again, so that a second run goes on where the first one stopped.
"""

from dataclasses import dataclass

from sie_airgap.failures import Expected, Incomplete
from sie_airgap.mirror.patient_bucket import PatientBucket
from sie_airgap.mirror.weights import refuse_older, seal
from sie_airgap.progress import Progress, Task
from sie_core.artifacts import handfilled, hf_layout, survey
from sie_core.artifacts.digest import CHUNK_BYTES
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.handfilled import Piece, Pieces
from sie_core.artifacts.hashing import Hashing
from sie_core.artifacts.lock import Lock, LockedModel
from sie_core.artifacts.manifest import FileEntry, Manifest, encode_manifest
from sie_core.artifacts.store import Destination, Store
from sie_core.artifacts.transfer import read, write
from sie_core.artifacts.uploading import upload_ref
from sie_core.ids import ModelId


@dataclass(frozen=True)
class Adopted:
    """One model that was read and found whole.

    Attributes:
        pieces: where its files lie, those of `manifest` and no others.
        proved: how many of them have an id that the hub's client left in the bucket.
        absent: optional files that loaders ask for and this commit has not, as the lock has them.
    """

    manifest: Manifest
    pieces: tuple[Piece, ...]
    proved: int
    absent: tuple[str, ...] = ()

    @property
    def moves(self) -> tuple[Piece, ...]:
        """Those that lie elsewhere than a reader looks for them."""
        return tuple(piece for piece in self.pieces if piece.name != self._name(piece))

    def _name(self, piece: Piece) -> str:
        return hf_layout.snapshot_file(self.manifest.repo, self.manifest.revision, piece.path)


@dataclass(frozen=True)
class Adoption:
    """What came of it.

    Attributes:
        there: models that had their manifest before.
        findings: why others were not adopted.
    """

    adopted: tuple[Adopted, ...]
    there: tuple[ModelId, ...]
    findings: tuple[Expected, ...]


def adopt(
    bucket: Destination, lock: Lock | None, *, signatures: bytes | None = None, dry_run: bool, progress: Progress
) -> Adoption:
    """Read what has no manifest, and write one for all that is right.

    Args:
        lock: what it is held against; with all of its models there it becomes the bucket's own.
        signatures: of that lock, to lie beside it.
        dry_run: read, and write nothing.

    Raises:
        Drift: the bucket holds a later lock.
        TransferError: of the bucket; what was adopted stays.
        Incomplete: there is no model at all.
    """
    store = PatientBucket(bucket, say=progress.say)
    if lock is not None:
        refuse_older(lock, store)
    wanted = _wanted(store, lock)
    if not wanted:
        raise Incomplete(f"no models are in {store.url}", hint="look at the URL's prefix")
    there: list[ModelId] = []
    surveyed: list[tuple[Pieces, LockedModel | None]] = []
    findings: list[Expected] = []
    for repo, locked in wanted:
        try:
            pieces = survey.pieces_at(store, repo, locked.revision) if locked else survey.pieces_of(store, repo)
        except (NotThere, TrustError) as error:
            findings.append(error)
            continue
        if pieces is not None:
            if _has_manifest(store, pieces, locked):
                there.append(repo)
            else:
                surveyed.append((pieces, locked))
    adopted: list[Adopted] = []
    with progress.task("adopt", sum(pieces.size_bytes for pieces, _ in surveyed)) as task:
        for pieces, locked in surveyed:
            one, wrong = _read(store, pieces, locked, task)
            findings += wrong
            if one is not None:
                adopted.append(one)
                if not dry_run:
                    _write(store, one)
    if lock is not None and not findings and not dry_run:
        seal(lock, store, (), signatures=signatures)
    return Adoption(tuple(adopted), tuple(there), tuple(findings))


def _wanted(store: Store, lock: Lock | None) -> list[tuple[ModelId, LockedModel | None]]:
    if lock is not None:
        return [(model.repo, model) for model in lock.models]
    return [(repo, None) for repo in survey.models_in(store)]


def _has_manifest(store: Store, pieces: Pieces, locked: LockedModel | None) -> bool:
    data = read(store, hf_layout.manifest_file(pieces.repo, pieces.revision))
    return data is not None and (locked is None or data == encode_manifest(locked.manifest))


def _read(
    store: Store, pieces: Pieces, locked: LockedModel | None, task: Task
) -> tuple[Adopted | None, list[Expected]]:
    """The model, when it is whole and right; else everything that is wrong with it."""
    findings: list[Expected] = []
    if locked is not None:
        wanted = {entry.path: entry for entry in locked.manifest.files}
        missing = [path for path in wanted if path not in {piece.path for piece in pieces.files}]
    else:
        wanted, missing = {}, []
        lines = survey.lacking(store, pieces)
        if lines:
            findings.append(_incomplete(store, pieces, lines))
    if missing:
        findings.append(_incomplete(store, pieces, [f"`{path}` is missing" for path in missing]))
    kept = tuple(piece for piece in pieces.files if locked is None or piece.path in wanted)
    entries: list[FileEntry] = []
    ids: dict[str, frozenset[str]] = {}
    for piece in kept:
        task.at(f"{pieces.repo} {piece.path}")
        entry, ids[piece.path] = _hashed(store, piece, task)
        entries.append(entry)
        if locked is not None and entry != wanted[piece.path]:
            findings.append(_altered(store, pieces, entry, wanted[piece.path], piece))
    read_pieces = Pieces(pieces.repo, pieces.revision, kept, pieces.blobs)
    if locked is None:
        findings += [
            _contradicted(store, pieces, piece, noted, ids[piece.path])
            for piece, noted in handfilled.contradictions(read_pieces, ids)
        ]
    if findings:
        return None, findings
    manifest = Manifest(pieces.repo, pieces.revision, tuple(sorted(entries)), adopted=locked is None)
    proved = sum(handfilled.is_proved(piece, ids[piece.path], pieces.blobs) for piece in kept)
    return Adopted(manifest, kept, proved, locked.absent if locked is not None else ()), []


def _hashed(store: Store, piece: Piece, task: Task) -> tuple[FileEntry, frozenset[str]]:
    running, content = Hashing(), bytearray()
    is_small = piece.size_bytes <= handfilled.SMALL_BYTES
    with store.open(piece.name) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            running.update(chunk)
            if is_small:
                content += chunk
            task.advance(len(chunk))
    ids = handfilled.hub_ids(running.digest, bytes(content) if is_small else None)
    return FileEntry(piece.path, running.digest, running.size_bytes), ids


def _write(store: PatientBucket, one: Adopted) -> None:
    """Files to where they are looked for, then what a mirror writes, in its order."""
    model, revision = one.manifest.repo, one.manifest.revision
    entries = {entry.path: entry for entry in one.manifest.files}
    for piece in one.moves:
        name, entry = hf_layout.snapshot_file(model, revision, piece.path), entries[piece.path]
        with store.open(piece.name) as stream:  # read again, and checked: it may have changed since
            store.put(name, stream, size_bytes=entry.size_bytes, digest=entry.digest)
    for path in one.absent:
        write(store, hf_layout.no_exist_file(model, revision, path), b"")
    write(store, hf_layout.tree_file(model, revision), hf_layout.tree_json(one.manifest))
    write(store, hf_layout.manifest_file(model, revision), encode_manifest(one.manifest))
    upload_ref(store, one.manifest)


COPY_AGAIN = (
    "copy it there again from where it came; `aws s3 sync` leaves a file of the same length alone, so remove it first"
)


def _incomplete(store: Store, pieces: Pieces, lines: "list[str] | tuple[str, ...]") -> Incomplete:
    told = "".join(f"\n  {line}" for line in lines)
    return Incomplete(
        f"`{pieces.repo}` is not complete in {store.url}, commit {pieces.revision}:{told}", hint=survey.DOWNLOAD_AGAIN
    )


def _altered(store: Store, pieces: Pieces, have: FileEntry, want: FileEntry, piece: Piece) -> TrustError:
    return TrustError(
        f"`{have.path}` of `{pieces.repo}` is not what was locked",
        where=f"{store.url.rstrip('/')}/{piece.name}",
        want=_told(want),
        have=_told(have),
        hint=COPY_AGAIN,
    )


def _contradicted(store: Store, pieces: Pieces, piece: Piece, noted: str, ids: frozenset[str]) -> TrustError:
    return TrustError(
        f"`{piece.path}` of `{pieces.repo}` is not what was downloaded from the hub",
        where=f"{store.url.rstrip('/')}/{piece.name}",
        want=noted,
        have=" or ".join(sorted(ids, key=len)),
        hint=COPY_AGAIN,
    )


def _told(entry: FileEntry) -> str:
    return f"{entry.digest}  {entry.size_bytes:,} bytes"
