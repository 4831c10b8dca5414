"""One OCI registry over HTTP: read and written in bounded memory, digests checked both ways.

Errors are those of `sie_core.artifacts.errors`: 401 and 403 are `NoPermission`, 404 is `NotThere`, 429, 5xx and
a connection that fails are `Unreachable`, other refusals are `Refused`; content of another digest is `TrustError`.
Nothing is tried again here; `copy` does that for whole blobs.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self, TypedDict, Unpack

import httpx2

from sie_airgap.oci.auth import NOBODY, Logins
from sie_airgap.oci.image import Content
from sie_airgap.oci.manifest import ACCEPT, MAX_MANIFEST_BYTES
from sie_airgap.oci.reference import Place
from sie_airgap.oci.tokens import Tokens, login_hint
from sie_core.artifacts.digest import CHUNK_BYTES, Digest, digest_of, hex_of, parse_digest
from sie_core.artifacts.errors import NoPermission, NotThere, TransferError, TrustError, Unreachable

TIMEOUT_S = 60.0
NO_REGISTRY = "what answers there may be no registry: is the address right?"
_BODY_SHOWN = 300


class Refused(TransferError):
    """The registry answered that it will not, for a reason that trying again does not change."""

    transient = False


class Advance(Protocol):
    """Told how many bytes more have moved; negative when they must be moved again."""

    def __call__(self, size_bytes: int, /) -> None: ...


class _More(TypedDict, total=False):
    """What a request may have beside method and URL."""

    headers: Mapping[str, str]
    params: Mapping[str, str]
    content: bytes | Iterator[bytes]


class Registry:
    """A registry at a place. One object may be used by several threads; `close` it, or use it in a `with`."""

    def __init__(self, place: Place, *, logins: Logins = NOBODY) -> None:
        self.place = place
        self._client = httpx2.Client(base_url=place.origin, timeout=TIMEOUT_S)
        self._tokens = Tokens(place, logins, self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def manifest(self, repository: str, asked: str) -> Content:
        """A manifest or index by tag or digest, checked against the digest that was asked for or is declared."""
        url = f"/v2/{repository}/manifests/{asked}"
        with self._call("GET", url, _pull(repository), headers={"Accept": ACCEPT}) as answer:
            self._expect(answer, 200)
            data = _read_at_most(answer, MAX_MANIFEST_BYTES)
            media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
            declared = answer.headers.get("Docker-Content-Digest")
        have = digest_of(data)
        want = asked if asked.startswith("sha256:") else declared or have
        if want != have:
            raise TrustError("a manifest is not what it is called", where=self._at(url), want=want, have=have)
        return Content(media_type, data, have)

    def manifest_digest(self, repository: str, asked: str) -> Digest | None:
        """What a tag (or digest) names there; None for nothing."""
        url = f"/v2/{repository}/manifests/{asked}"
        with self._call("HEAD", url, _push(repository), headers={"Accept": ACCEPT}) as answer:
            if answer.status_code == 404:
                return None
            self._expect(answer, 200)
            declared = answer.headers.get("Docker-Content-Digest")
        return self._digest(url, declared) if declared else self.manifest(repository, asked).digest

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """The length in bytes of a blob that the repository has; None when it has it not."""
        with self._call("HEAD", f"/v2/{repository}/blobs/{digest}", _push(repository)) as answer:
            if answer.status_code == 404:
                return None
            self._expect(answer, 200)
            return int(_header(answer, "Content-Length"))

    def open_blob(self, repository: str, digest: Digest, *, start: int = 0) -> BinaryIO:
        """The blob's bytes from `start`, as they come; whoever reads them checks the digest."""
        url = f"/v2/{repository}/blobs/{digest}"
        headers = {"Range": f"bytes={start}-"} if start else {}
        answer = self._request("GET", url, _pull(repository), headers=headers)
        try:
            self._expect(answer, 200, 206)
        except TransferError:
            answer.close()
            raise
        stream = BufferedReader(_Body(answer, self._at(url)), CHUNK_BYTES)
        skip = start if answer.status_code == 200 else 0
        while skip > 0 and (chunk := stream.read(min(skip, CHUNK_BYTES))):
            skip -= len(chunk)
        return stream

    def mount(self, repository: str, digest: Digest, *, source: str) -> bool:
        """Asks the registry to take the blob over from another of its repositories; False when it does not."""
        scope = f"{_push(repository)} {_pull(source)}"
        query = {"mount": digest, "from": source}
        with self._call("POST", f"/v2/{repository}/blobs/uploads/", scope, params=query) as answer:
            self._expect(answer, 201, 202)
            if answer.status_code == 201:
                return True
            abandoned = answer.headers.get("Location")
        if abandoned:
            with self._call("DELETE", abandoned, _push(repository)):
                pass
        return False

    def push_blob(self, repository: str, digest: Digest, size_bytes: int, data: BinaryIO, *, advance: Advance) -> None:
        """Uploads a blob in one request. Raises `TrustError`, and nothing is kept there, when `data` are not it."""
        with self._call("POST", f"/v2/{repository}/blobs/uploads/", _push(repository)) as begun:
            self._expect(begun, 202)
            where = begun.request.url.join(_header(begun, "Location")).copy_merge_params({"digest": digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
        body = _verified(data, digest, size_bytes, where=self._at(f"/v2/{repository}"), advance=advance)
        with self._call("PUT", str(where), _push(repository), headers=headers, content=body) as answer:
            self._expect(answer, 201)

    def push_manifest(self, repository: str, asked: str, content: Content) -> None:
        """Uploads a manifest under a tag or under its digest."""
        url = f"/v2/{repository}/manifests/{asked}"
        headers = {"Content-Type": content.media_type}
        with self._call("PUT", url, _push(repository), headers=headers, content=content.data) as answer:
            self._expect(answer, 201)
            have = answer.headers.get("Docker-Content-Digest", content.digest)
        if have != content.digest:
            raise TrustError("the registry keeps another manifest", where=self._at(url), want=content.digest, have=have)

    @contextmanager
    def _call(self, method: str, url: str, scope: str, **more: Unpack[_More]) -> Iterator[httpx2.Response]:
        """One request for the length of a block; its answer is unread when the block begins."""
        answer = self._request(method, url, scope, **more)
        try:
            yield answer
        except httpx2.TransportError as error:
            raise self._unreachable(url, error) from error
        finally:
            answer.close()

    def _request(self, method: str, url: str, scope: str, **more: Unpack[_More]) -> httpx2.Response:
        """Sends it, and once more when the registry asks who we are. The caller closes what is returned."""
        can_repeat = isinstance(more.get("content", b""), bytes)
        try:
            answer = self._send(method, url, scope, **more)
            if answer.status_code == 401 and can_repeat and self._tokens.answer(scope, answer):
                answer.close()
                answer = self._send(method, url, scope, **more)
        except httpx2.TransportError as error:
            raise self._unreachable(url, error) from error
        return answer

    def _send(self, method: str, url: str, scope: str, **more: Unpack[_More]) -> httpx2.Response:
        target = self._client.base_url.join(url)
        ours = (target.scheme, target.netloc) == (self._client.base_url.scheme, self._client.base_url.netloc)
        headers = {**more.get("headers", {}), **(self._tokens.header(scope) if ours else {})}
        params, content = more.get("params"), more.get("content")
        request = self._client.build_request(method, target, headers=headers, params=params, content=content)
        return self._client.send(request, stream=True, follow_redirects=method in ("GET", "HEAD"))

    def _unreachable(self, url: str, error: Exception) -> Unreachable:
        return unreachable(self._at(url), error, hint=f"is `{self.place.origin}` right, scheme included?")

    def _expect(self, answer: httpx2.Response, *wanted: int) -> None:
        """Raises the error that the status stands for, unless it is one of those wanted."""
        status = answer.status_code
        if status in wanted:
            return
        said = _read_at_most(answer, MAX_MANIFEST_BYTES)[:_BODY_SHOWN].decode("utf-8", "replace").strip()
        message = f"{answer.request.method} {_shown(answer.request.url)}: {status} {said}".rstrip()
        if status in (401, 403):
            raise NoPermission(message, hint=login_hint(self.place))
        if status == 404:
            raise NotThere(message)
        if status == 429 or status >= 500:
            raise Unreachable(message)
        if status == 413:
            raise Refused(message, hint="something before the registry limits the size of a body; raise its limit")
        raise Refused(message)

    def _digest(self, url: str, text: str) -> Digest:
        try:
            return parse_digest(text)
        except ValueError as error:
            raise Refused(f"{self._at(url)}: {error}", hint=NO_REGISTRY) from error

    def _at(self, url: str) -> str:
        return _shown(self._client.base_url.join(url))


class _Body(RawIOBase):
    """The body of an answer as a stream; closing it ends the call."""

    def __init__(self, answer: httpx2.Response, where: str) -> None:
        self._answer, self._where = answer, where
        self._chunks = answer.iter_raw(CHUNK_BYTES)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            try:
                self._rest = memoryview(next(self._chunks, b""))
            except httpx2.TransportError as error:
                raise unreachable(self._where, error) from error
        taken = min(len(buffer), len(self._rest))
        buffer[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken

    def close(self) -> None:
        self._answer.close()
        super().close()


def _header(answer: httpx2.Response, name: str) -> str:
    """Raises `Refused` where an answer lacks what every registry sends."""
    value = answer.headers.get(name)
    if value is None:
        message = f"{answer.request.method} {_shown(answer.request.url)}: {answer.status_code} without `{name}`"
        raise Refused(message, hint=NO_REGISTRY)
    return str(value)


def _shown(url: httpx2.URL) -> str:
    """Without its query: where a registry sends readers elsewhere, that is what lets them in."""
    return str(url.copy_with(query=None))


def unreachable(where: str, error: Exception, *, hint: str | None = None) -> Unreachable:
    return Unreachable(f"{where}: {str(error) or type(error).__name__}", hint=hint)


def _pull(repository: str) -> str:
    return f"repository:{repository}:pull"


def _push(repository: str) -> str:
    return f"repository:{repository}:pull,push"


def _read_at_most(answer: httpx2.Response, limit: int) -> bytes:
    """The body. Raises `Refused` for one that is longer."""
    data = bytearray()
    for chunk in answer.iter_raw():
        data += chunk
        if len(data) > limit:
            raise Refused(f"{_shown(answer.request.url)}: {limit:,} bytes at most, this is longer")
    return bytes(data)


def _verified(data: BinaryIO, digest: Digest, size_bytes: int, *, where: str, advance: Advance) -> Iterator[bytes]:
    """The data in chunks, the last of which is given out only when all of them hash to the digest.

    So a registry never gets a whole blob that is not what it is called, whether it checks or not.
    """
    running, seen, held = hashlib.sha256(), 0, b""
    while chunk := data.read(CHUNK_BYTES):
        if held:
            yield held
            advance(len(held))
        running.update(chunk)
        seen, held = seen + len(chunk), chunk
    if (running.hexdigest(), seen) != (hex_of(digest), size_bytes):
        have = f"sha256:{running.hexdigest()}  {seen:,} bytes"
        raise TrustError(
            "a blob is not what was locked", where=where, want=f"{digest}  {size_bytes:,} bytes", have=have
        )
    yield held
    advance(len(held))
