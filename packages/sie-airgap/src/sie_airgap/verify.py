"""Hold what is there against the lock, byte by byte: media, a store, or a bucket.

Each function gives every finding, not the first: a damaged byte is named with the file it belongs to and
where that file lies. Nothing is changed, and nothing of the size or date of a file is taken as evidence.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sie_airgap.archive import SUMS_NAME, read_sums, volume_head
from sie_airgap.archive_plan import BLOCK_BYTES, Member, Volume, member_header, padding
from sie_airgap.blobs import BlobFolder, digest_of_blob
from sie_airgap.contents import contents, labels
from sie_airgap.failures import Drift, Expected, Incomplete
from sie_airgap.media import Media, Placed, Unreadable, altered
from sie_airgap.progress import Progress, Task
from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import CHUNK_BYTES, Digest, digest_of, parse_digest
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.hashing import Hashing
from sie_core.artifacts.lock import CURRENT_FILE, Lock, LockedModel, decode_lock, lock_digest, lock_file
from sie_core.artifacts.manifest import FileEntry, encode_manifest
from sie_core.artifacts.store import Store
from sie_core.artifacts.transfer import read


def verify_media(media: Media, *, progress: Progress) -> list[Expected]:
    """Every byte of every volume that is here, and which volumes are not."""
    findings: list[Expected] = list(media.refused)
    with progress.task("verify", sum(volume.size_bytes for volume in media.volumes.values())) as task:
        check = _MediaCheck(media, task)
        for path, volume in sorted(media.volumes.items(), key=lambda one: one[1].number):
            task.at(path.name)
            findings += check.volume(path, volume)
        findings += check.joined()
    lacking = [content for content in contents(media.lock) if media.size(content.digest) is None]
    if media.missing_volumes() and lacking:
        shown = ", ".join(content.label for content in lacking[:3]) + (" …" if len(lacking) > 3 else "")
        absent = ", ".join(f"`{name}`" for name in media.missing_volumes())
        findings.append(Incomplete(f"{absent} not here; lacking without: {shown}", hint="name the other media, too"))
    return findings


class _MediaCheck:
    """Reads each volume once: members, what stands between them, the volume itself, and blobs cut across volumes."""

    def __init__(self, media: Media, task: Task) -> None:
        self._media, self._task = media, task
        self._names = labels(media.lock)
        self._cut: dict[Digest, Hashing] = {}
        self._damaged: set[Digest] = set()

    def volume(self, path: Path, volume: Volume) -> list[Expected]:
        try:
            return list(self._read(path, volume))
        except OSError as error:
            self._damaged |= {member.blob for member in volume.members}
            return [Unreadable(path, error)]

    def _read(self, path: Path, volume: Volume) -> list[TrustError]:
        findings: list[TrustError] = []
        want = _sum_of(path, volume)
        with path.open("rb") as file:
            reading = _Reading(file, self._task, Hashing() if want is not None else None)
            before = volume_head(volume)
            for member in volume.members:
                before += member_header(member.name, member.size_bytes)
                if reading.take(len(before)) != before:
                    findings.append(_between(path, reading.position - len(before), f"before `{member.name}`"))
                have = reading.digest(member.size_bytes, self._goes_on(member))
                if have != member.digest:
                    self._damaged.add(member.blob)
                    findings.append(altered(Placed(path, member), have, label=self._label(member)))
                before = bytes(padding(member.size_bytes))
            before += bytes(2 * BLOCK_BYTES)
            if reading.take(len(before) + 1) != before:
                findings.append(_between(path, volume.size_bytes - len(before), "at the end"))
        if reading.whole is not None and want is not None and not findings and want != reading.whole.digest:
            findings.append(_sum_differs(path, want, reading.whole.digest))
        return findings

    def joined(self) -> Iterator[TrustError]:
        """Blobs whose parts are all here and all what their volumes say: whether together they are what was locked."""
        for digest, running in self._cut.items():
            if digest in self._damaged or self._media.size(digest) is None:
                continue
            with self._media.open(digest, start=running.size_bytes) as rest:  # what came out of order
                while chunk := rest.read(CHUNK_BYTES):
                    running.update(chunk)
            if running.digest != digest:
                yield TrustError(
                    f"{self._names.get(digest, digest)}, put together from its parts, is not what was locked",
                    where=", ".join(sorted({str(placed.path) for placed in self._media.chain(digest) or ()})),
                    want=digest,
                    have=running.digest,
                    hint="the volumes' own indexes were changed with it: carry all of them again",
                )

    def _goes_on(self, member: Member) -> Hashing | None:
        """The digest of the whole blob, where this member is the part that comes next."""
        if member.whole:
            return None
        running = self._cut.setdefault(member.blob, Hashing())
        return running if running.size_bytes == member.blob_offset else None

    def _label(self, member: Member) -> str:
        return self._names.get(member.blob, f"`{member.name}`")


class _Reading:
    """Reads a volume in order; `whole` is given all that is read."""

    def __init__(self, file: BinaryIO, task: Task, whole: Hashing | None) -> None:
        self._file, self._task, self.whole = file, task, whole
        self.position = 0

    def take(self, size_bytes: int) -> bytes:
        data = self._file.read(size_bytes)
        if self.whole is not None:
            self.whole.update(data)
        self._task.advance(len(data))
        self.position += len(data)
        return data

    def digest(self, size_bytes: int, joined: Hashing | None) -> Digest:
        """Of the next `size_bytes`, which `joined` is given, too."""
        running = Hashing()
        while chunk := self.take(min(CHUNK_BYTES, size_bytes - running.size_bytes)):
            running.update(chunk)
            if joined is not None:
                joined.update(chunk)
        return running.digest


def _between(path: Path, offset: int, where: str) -> TrustError:
    return TrustError(
        f"the tar of `{path.name}` is damaged {where}",
        where=f"{path}: bytes from {offset:,}",
        want="the headers and zeros that `pack` writes",
        have="other bytes",
        hint=f"carry `{path.name}` again; what is on it can still be unpacked where its digest is right",
    )


def _sum_of(path: Path, volume: Volume) -> Digest | None:
    sums = path.parent / SUMS_NAME
    return read_sums(sums.read_text("utf-8", "replace")).get(volume.name) if sums.is_file() else None


def _sum_differs(path: Path, want: Digest, have: Digest) -> TrustError:
    return TrustError(
        f"`{path.name}` is not the volume that {SUMS_NAME} names, though all that it carries is right",
        where=str(path),
        want=want,
        have=have,
        hint=f"its VOLUME.json or {SUMS_NAME} was changed: carry both again",
    )


def verify_store(lock: Lock, store: BlobFolder, *, progress: Progress) -> list[Expected]:
    """Every blob of the lock in the toolkit's store."""
    findings: list[Expected] = []
    wanted = contents(lock)
    with progress.task("verify", sum(content.size_bytes for content in wanted)) as task:
        for content in wanted:
            task.at(content.label)
            if store.size(content.digest) is None:
                findings.append(Incomplete(f"{content.label} is not in {store.root}"))
                continue
            have = digest_of_blob(store, content.digest, task.advance)
            if have != content.digest:
                findings.append(
                    TrustError(
                        f"{content.label} is not what was locked",
                        where=str(store.path(content.digest)),
                        want=content.digest,
                        have=have,
                        hint="remove that file and run `sie-airgap snapshot` or `unpack` again",
                    )
                )
    return findings


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
