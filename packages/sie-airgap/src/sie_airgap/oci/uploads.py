"""One blob into a registry: in one request where it is small, else in parts that are acknowledged one by one.

After every part the registry says where the next one goes, and `Sessions` remembers it. What breaks, or is killed,
asks the registry how far it came and goes on from there: at most one part is sent again. Where the registry has
forgotten, that is said, and the blob starts anew: the docker project's registry forgets an upload whose connection
broke in the middle of a part, and no client can prevent that.

Parts are 64 MiB. Something on the way that lets only shorter bodies through (413) halves them, for the rest of the
run; a registry that takes no parts gets whole blobs.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import httpx2

from sie_airgap.oci.refusals import Refused, TooLarge
from sie_airgap.oci.registry import Body, Registry, header, push
from sie_airgap.oci.sessions import Session, Sessions
from sie_airgap.progress import sized
from sie_core.artifacts.digest import CHUNK_BYTES
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.hashing import Hashing
from sie_core.artifacts.lock import LockedBlob

PART_BYTES = 64 << 20
LEAST_PART_BYTES = 32 << 10
_ARRIVED = re.compile(r"(?:bytes=)?0-([0-9]+)")


class Advance(Protocol):
    """Told how many bytes more have moved; negative when they must be moved again."""

    def __call__(self, size_bytes: int, /) -> None: ...


class Stopped(Exception):
    """Another upload failed, or the user wants to stop."""


@dataclass(frozen=True)
class Upload:
    """One blob on its way into one repository; `open_at` opens it at a byte, as often as it is asked."""

    repository: str
    blob: LockedBlob
    open_at: Callable[[int], BinaryIO]

    @property
    def scope(self) -> str:
        return push(self.repository)


class Uploader:
    """Uploads to one registry, and remembers what it and what stands before it takes. Shared between threads.

    Args:
        say: told when something is done in another way than it would be, or again.
        stop: ends uploads: in parts after the part in hand, so that they can go on; the others at once.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        sessions: Sessions,
        say: Callable[[str], object],
        stop: threading.Event,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._registry, self._sessions, self._say, self._stop = registry, sessions, say, stop
        self._part_bytes, self._told_bytes = part_bytes, part_bytes
        self._takes_parts = True

    def push(self, upload: Upload, *, advance: Advance) -> None:
        """Brings the blob there; goes on with what an earlier attempt began.

        Raises:
            TrustError: the data are not the blob, or the registry keeps something else. Nothing is kept there.
            Stopped: as `stop` asked.
            TransferError: as `Registry` raises them. Nothing of it counts as moved any more.
        """
        if self._takes_parts and upload.blob.size_bytes > self._part_bytes:
            return self._in_parts(upload, advance)
        try:
            return self._whole(upload, advance)
        except TooLarge as refused:
            if not self._takes_parts:
                raise
            self._shorten(upload.blob.size_bytes, refused)
        return self.push(upload, advance=advance)

    def _whole(self, upload: Upload, advance: Advance) -> None:
        location = self._begin(upload)
        with _Counted(advance) as counted:

            def body() -> Iterator[bytes]:
                counted.undo()
                with closing(upload.open_at(0)) as data:
                    chunks = self._unless_stopped(data)
                    yield from _verified(chunks, upload.blob, where=self._at(upload), advance=counted)

            self._finish(upload, location, body, length=upload.blob.size_bytes)

    def _unless_stopped(self, data: BinaryIO) -> Iterator[bytes]:
        while chunk := data.read(CHUNK_BYTES):
            if self._stop.is_set():
                raise Stopped
            yield chunk

    def _in_parts(self, upload: Upload, advance: Advance) -> None:
        resumed = self._resumed(upload)
        session = resumed or Session(self._begin(upload), 0)
        try:
            with _Counted(advance) as counted:
                self._parts(upload, session, counted)
        except TooLarge:
            raise
        except Refused as refused:
            self._sessions.forget(upload.repository, upload.blob.digest)
            if resumed is None:
                self._takes_parts = False
                self._say(f"{self._registry.place.host} takes no parts; whole blobs from here on ({refused.message})")
            return self.push(upload, advance=advance)

    def _parts(self, upload: Upload, session: Session, advance: Advance) -> None:
        running = _hashed(upload, session.offset)
        advance(session.offset)
        while session.offset < upload.blob.size_bytes:
            if self._stop.is_set():
                raise Stopped
            length = min(self._part_bytes, upload.blob.size_bytes - session.offset)
            part = _Part(upload, session.offset, length, running, advance)
            try:
                session = self._sent(upload, session, part)
            except TooLarge as refused:
                self._shorten(length, refused)
                session = self._resumed(upload) or Session(self._begin(upload), 0)
                if session.offset != part.start:
                    advance(session.offset - part.start)
                    running = _hashed(upload, session.offset)
                continue
            running = part.hashed
            self._sessions.keep(upload.repository, upload.blob.digest, session)
            self._tell_of_parts()
        if running.digest != upload.blob.digest:
            self._abandon(upload, session)
            raise _altered(upload.blob, running, where=self._at(upload))
        self._finish(upload, session.location, lambda: iter(()), length=0)
        self._sessions.forget(upload.repository, upload.blob.digest)

    def _sent(self, upload: Upload, session: Session, part: "_Part") -> Session:
        """One part further. Raises `Refused` where the registry took another number of bytes."""
        end = part.start + part.length
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(part.length),
            "Content-Range": f"{part.start}-{end - 1}",
        }
        try:
            with self._registry.call("PATCH", session.location, upload.scope, headers=headers, content=part) as answer:
                if answer.status_code == 404:
                    raise Refused(f"{self._at(upload)}: the upload is not known any more")
                self._registry.expect(answer, 201, 202, 204, scope=upload.scope)
                arrived = _session(answer, otherwise=end)
            if arrived is None or arrived.offset != end:
                have = arrived.offset if arrived else 0
                raise Refused(f"{self._at(upload)}: {end:,} bytes were sent, the registry has {have:,}")
        except BaseException:
            part.undo()
            raise
        return arrived

    def _resumed(self, upload: Upload) -> Session | None:
        """Where an upload that was begun goes on; None where there is none, or the registry has forgotten it."""
        known = self._sessions.find(upload.repository, upload.blob.digest)
        if known is None:
            return None
        try:
            with self._registry.call("GET", known.location, upload.scope) as answer:
                self._registry.expect(answer, 200, 204, scope=upload.scope)
                session = _session(answer, otherwise=None)
        except (NotThere, Refused):
            session = None
        if session is not None and 0 < session.offset <= upload.blob.size_bytes:
            return session
        self._sessions.forget(upload.repository, upload.blob.digest)
        layer = upload.blob.digest[7:19]
        self._say(f"{self._registry.place.host} has forgotten {sized(known.offset)} of {layer}: it starts anew")
        return None

    def _begin(self, upload: Upload) -> str:
        url = f"/v2/{upload.repository}/blobs/uploads/"
        with self._registry.call("POST", url, upload.scope) as begun:
            self._registry.expect(begun, 202, scope=upload.scope)
            return _location(begun)

    def _finish(self, upload: Upload, location: str, body: Body, *, length: int) -> None:
        """The last request. Raises `TrustError` where the registry says that it keeps something else."""
        digest = upload.blob.digest
        where = str(httpx2.URL(location).copy_merge_params({"digest": digest}))
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
        with self._registry.call("PUT", where, upload.scope, headers=headers, content=body) as answer:
            self._registry.expect(answer, 201, 204, scope=upload.scope)
            have = answer.headers.get("Docker-Content-Digest", digest)
        if have != digest:
            raise TrustError("the registry keeps another blob", where=self._at(upload), want=digest, have=have)

    def _abandon(self, upload: Upload, session: Session) -> None:
        self._sessions.forget(upload.repository, upload.blob.digest)
        with self._registry.call("DELETE", session.location, upload.scope):
            pass

    def _shorten(self, refused_bytes: int, refused: TooLarge) -> None:
        """Half of what was too long from now on; raises `refused` where that is too short to be of use."""
        shorter = min(self._part_bytes, max(1, refused_bytes) // 2)
        if shorter < LEAST_PART_BYTES:
            raise refused
        self._part_bytes = shorter

    def _tell_of_parts(self) -> None:
        if self._part_bytes != self._told_bytes:
            self._told_bytes = self._part_bytes
            limit = sized(self._part_bytes)
            self._say(f"something before {self._registry.place.host} limits bodies: parts of {limit} from here on")

    def _at(self, upload: Upload) -> str:
        return self._registry.at(f"/v2/{upload.repository}")


class _Part:
    """The body of one part; `hashed` is the digest up to its end, once it was sent."""

    def __init__(self, upload: Upload, start: int, length: int, before: Hashing, advance: Advance) -> None:
        self.start, self.length = start, length
        self._upload, self._before, self._advance = upload, before, advance
        self._moved = 0
        self.hashed = before

    def __call__(self) -> Iterator[bytes]:
        self.undo()
        self.hashed = self._before.copy()
        left = self.length
        with closing(self._upload.open_at(self.start)) as data:
            while left and (chunk := data.read(min(CHUNK_BYTES, left))):
                self.hashed.update(chunk)
                yield chunk
                left -= len(chunk)
                self._moved += len(chunk)
                self._advance(len(chunk))
        if left:
            raise _altered(self._upload.blob, self.hashed, where=self._upload.repository)

    def undo(self) -> None:
        self._advance(-self._moved)
        self._moved = 0


class _Counted:
    """Counts what moves within a block, and takes it back when the block fails."""

    def __init__(self, advance: Advance) -> None:
        self._advance, self._bytes = advance, 0

    def __call__(self, size_bytes: int, /) -> None:
        self._bytes += size_bytes
        self._advance(size_bytes)

    def undo(self) -> None:
        self._advance(-self._bytes)
        self._bytes = 0

    def __enter__(self) -> "_Counted":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None:
            self.undo()


def _hashed(upload: Upload, size_bytes: int) -> Hashing:
    """The digest of the blob's first bytes, read here once more: they are in the registry already."""
    running, left = Hashing(), size_bytes
    if left:
        with closing(upload.open_at(0)) as data:
            while left and (chunk := data.read(min(CHUNK_BYTES, left))):
                running.update(chunk)
                left -= len(chunk)
    return running


def _session(answer: httpx2.Response, *, otherwise: int | None) -> Session | None:
    """Where the next part goes; `otherwise` is the offset where the registry does not say it."""
    found = _ARRIVED.fullmatch(answer.headers.get("Range", ""))
    if found is None:
        return None if otherwise is None else Session(_location(answer), otherwise)
    last = int(found[1])
    return Session(_location(answer), last + 1 if last else 0)  # `0-0` is said of nothing, too


def _location(answer: httpx2.Response) -> str:
    return str(answer.request.url.join(header(answer, "Location")))


def _altered(blob: LockedBlob, have: Hashing, *, where: str) -> TrustError:
    want, said = f"{blob.digest}  {blob.size_bytes:,} bytes", f"{have.digest}  {have.size_bytes:,} bytes"
    return TrustError("a blob is not what was locked", where=where, want=want, have=said)


def _verified(chunks: Iterator[bytes], blob: LockedBlob, *, where: str, advance: Advance) -> Iterator[bytes]:
    """The data in chunks, the last of which is given out only when all of them hash to the digest.

    So a registry never gets a whole blob that is not what it is called, whether it checks or not.
    """
    running, held = Hashing(), b""
    for chunk in chunks:
        if held:
            yield held
            advance(len(held))
        running.update(chunk)
        held = chunk
    if (running.digest, running.size_bytes) != (blob.digest, blob.size_bytes):
        raise _altered(blob, running, where=where)
    yield held
    advance(len(held))
