"""One OCI registry over HTTP: read and written in bounded memory, digests checked both ways.

Errors are those of `sie_core.artifacts.errors`: 401 and 403 are `NoPermission`, 404 is `NotThere`, 429, 5xx and
a connection that fails are `Unreachable`, other refusals are `Refused`; content of another digest is `TrustError`.
Nothing is tried again here; `copy` does that for whole blobs, and `uploads` says how one is brought there.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self, TypedDict, Unpack

import httpx2

from sie_airgap.oci.auth import NOBODY, Logins
from sie_airgap.oci.image import Content
from sie_airgap.oci.manifest import ACCEPT, MAX_MANIFEST_BYTES, OCI_INDEX, Descriptor
from sie_airgap.oci.reference import Place
from sie_airgap.oci.referrers import list_tag, listed_referrers
from sie_airgap.oci.refusals import NO_REGISTRY, Refused, no_answer, refusal
from sie_airgap.oci.tokens import Tokens
from sie_core.artifacts.digest import CHUNK_BYTES, Digest, digest_of, parse_digest
from sie_core.artifacts.errors import TransferError, TrustError

TIMEOUT_S = 60.0
_NEXT_PAGE = re.compile(r'<([^>]+)>;\s*rel="?next"?')
_MOST_PAGES = 100
_NO_SUCH_ROUTE = frozenset({404, 405, 501})


class Body(Protocol):
    """Begins a body: it may be asked for twice, when the registry first asks who we are."""

    def __call__(self) -> Iterator[bytes]: ...


class _More(TypedDict, total=False):
    """What a request may have beside method and URL."""

    headers: Mapping[str, str]
    params: Mapping[str, str]
    content: bytes | Body


class Registry:
    """A registry at a place. One object may be used by several threads; `close` it, or use it in a `with`."""

    def __init__(self, place: Place, *, logins: Logins = NOBODY, timeout_s: float = TIMEOUT_S) -> None:
        self.place = place
        self._client = httpx2.Client(base_url=place.origin, timeout=timeout_s)
        self._tokens = Tokens(place, logins, self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def wants_login(self) -> bool:
        """Whether it was told who we are, because it asked."""
        return self._tokens.used_login

    def close(self) -> None:
        self._client.close()

    def manifest(self, repository: str, asked: str) -> Content:
        """A manifest or index by tag or digest, checked against the digest that was asked for or is declared."""
        url, scope = f"/v2/{repository}/manifests/{asked}", pull(repository)
        with self.call("GET", url, scope, headers={"Accept": ACCEPT}) as answer:
            self.expect(answer, 200, scope=scope)
            data = _read_at_most(answer, MAX_MANIFEST_BYTES)
            media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
            declared = answer.headers.get("Docker-Content-Digest")
        have = digest_of(data)
        want = asked if asked.startswith("sha256:") else declared or have
        if want != have:
            raise TrustError("a manifest is not what it is called", where=self.at(url), want=want, have=have)
        return Content(media_type, data, have)

    def manifest_digest(self, repository: str, asked: str, *, to_push: bool = True) -> Digest | None:
        """What a tag (or digest) names there; None for nothing. `to_push` asks for the right to push at once."""
        url, scope = f"/v2/{repository}/manifests/{asked}", push(repository) if to_push else pull(repository)
        with self.call("HEAD", url, scope, headers={"Accept": ACCEPT}) as answer:
            if answer.status_code == 404:
                return None
            self.expect(answer, 200, scope=scope)
            declared = answer.headers.get("Docker-Content-Digest")
        return self._digest(url, declared) if declared else self.manifest(repository, asked).digest

    def referrers(self, repository: str, subject: Digest) -> tuple[Descriptor, ...] | None:
        """What the registry lists as referring to a manifest; None where it has no such list (before OCI 1.1)."""
        url: str | None = f"/v2/{repository}/referrers/{subject}"
        found: list[Descriptor] = []
        for _ in range(_MOST_PAGES):
            with self.call("GET", str(url), pull(repository), headers={"Accept": OCI_INDEX}) as answer:
                if answer.status_code in _NO_SUCH_ROUTE:
                    return None
                self.expect(answer, 200, scope=pull(repository))
                data = _read_at_most(answer, MAX_MANIFEST_BYTES)
                following = _NEXT_PAGE.search(answer.headers.get("Link", ""))
            listed = listed_referrers(data)
            if listed is None:
                return None
            found += listed
            if following is None:
                return tuple(found)
            url = str(answer.request.url.join(following[1]))
        raise Refused(f"{self.at(str(url))}: a list of referrers that does not end")

    def listed(self, repository: str, subject: Digest) -> tuple[Descriptor, ...]:
        """What is listed as referring to a manifest: by the registry, or under the tag that stands for such a list."""
        listed = self.referrers(repository, subject)
        return self.tagged_list(repository, subject) if listed is None else listed

    def tagged_list(self, repository: str, subject: Digest) -> tuple[Descriptor, ...]:
        tag = list_tag(subject)
        if self.manifest_digest(repository, tag, to_push=False) is None:
            return ()
        return listed_referrers(self.manifest(repository, tag).data) or ()

    def blob_size(self, repository: str, digest: Digest, *, to_push: bool = True) -> int | None:
        """The length in bytes of a blob that the repository has; None when it has it not. `to_push` as above."""
        scope = push(repository) if to_push else pull(repository)
        with self.call("HEAD", f"/v2/{repository}/blobs/{digest}", scope) as answer:
            if answer.status_code == 404:
                return None
            self.expect(answer, 200, scope=scope)
            return int(header(answer, "Content-Length"))

    def open_blob(self, repository: str, digest: Digest, *, start: int = 0) -> BinaryIO:
        """The blob's bytes from `start`, as they come; whoever reads them checks the digest."""
        url = f"/v2/{repository}/blobs/{digest}"
        headers = {"Range": f"bytes={start}-"} if start else {}
        answer = self._request("GET", url, pull(repository), headers=headers)
        try:
            self.expect(answer, 200, 206, scope=pull(repository))
        except TransferError:
            answer.close()
            raise
        stream = BufferedReader(_Body(answer, self.at(url)), CHUNK_BYTES)
        skip = start if answer.status_code == 200 else 0
        while skip > 0 and (chunk := stream.read(min(skip, CHUNK_BYTES))):
            skip -= len(chunk)
        return stream

    def mount(self, repository: str, digest: Digest, *, source: str) -> bool:
        """Asks the registry to take the blob over from another of its repositories; False when it does not."""
        scope = f"{push(repository)} {pull(source)}"
        query = {"mount": digest, "from": source}
        with self.call("POST", f"/v2/{repository}/blobs/uploads/", scope, params=query) as answer:
            self.expect(answer, 201, 202, scope=scope)
            if answer.status_code == 201:
                return True
            abandoned = answer.headers.get("Location")
        if abandoned:
            with self.call("DELETE", abandoned, push(repository)):
                pass
        return False

    def push_manifest(self, repository: str, asked: str, content: Content) -> None:
        """Uploads a manifest under a tag or under its digest."""
        url, scope = f"/v2/{repository}/manifests/{asked}", push(repository)
        headers = {"Content-Type": content.media_type}
        with self.call("PUT", url, scope, headers=headers, content=content.data) as answer:
            self.expect(answer, 201, scope=scope)
            have = answer.headers.get("Docker-Content-Digest", content.digest)
        if have != content.digest:
            raise TrustError("the registry keeps another manifest", where=self.at(url), want=content.digest, have=have)

    @contextmanager
    def call(self, method: str, url: str, scope: str, **more: Unpack[_More]) -> Iterator[httpx2.Response]:
        """One request for the length of a block; its answer is unread when the block begins."""
        answer = self._request(method, url, scope, **more)
        try:
            yield answer
        except httpx2.TransportError as error:
            raise no_answer(self.at(url), error, self.place) from error
        finally:
            answer.close()

    def _request(self, method: str, url: str, scope: str, **more: Unpack[_More]) -> httpx2.Response:
        """Sends it, and once more when the registry asks who we are. The caller closes what is returned."""
        try:
            answer = self._send(method, url, scope, **more)
            if answer.status_code == 401 and self._tokens.answer(scope, answer):
                answer.close()
                answer = self._send(method, url, scope, **more)
        except httpx2.TransportError as error:
            raise no_answer(self.at(url), error, self.place) from error
        return answer

    def _send(self, method: str, url: str, scope: str, **more: Unpack[_More]) -> httpx2.Response:
        target = self._same_scheme(self._client.base_url.join(url))
        ours = (target.scheme, target.netloc) == (self._client.base_url.scheme, self._client.base_url.netloc)
        headers = {**more.get("headers", {}), **(self._tokens.header(scope) if ours else {})}
        params, given = more.get("params"), more.get("content")
        content = given() if callable(given) else given
        request = self._client.build_request(method, target, headers=headers, params=params, content=content)
        return self._client.send(request, stream=True, follow_redirects=method in ("GET", "HEAD"))

    def _same_scheme(self, target: httpx2.URL) -> httpx2.URL:
        """A registry behind a proxy that ends TLS may send us on to itself by http, where it cannot be reached."""
        base = self._client.base_url
        return target.copy_with(scheme="https") if (target.host, base.scheme) == (base.host, "https") else target

    def expect(self, answer: httpx2.Response, *wanted: int, scope: str) -> None:
        """Raises the error that the status stands for, unless it is one of those wanted."""
        if answer.status_code not in wanted:
            raise refusal(
                answer.status_code,
                asked=f"{answer.request.method} {_shown(answer.request.url)}",
                body=_read_at_most(answer, MAX_MANIFEST_BYTES),
                place=self.place,
                scope=scope,
                retry_after=answer.headers.get("Retry-After"),
            )

    def _digest(self, url: str, text: str) -> Digest:
        try:
            return parse_digest(text)
        except ValueError as error:
            raise Refused(f"{self.at(url)}: {error}", hint=NO_REGISTRY) from error

    def at(self, url: str) -> str:
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
                raise no_answer(self._where, error) from error
        taken = min(len(buffer), len(self._rest))
        buffer[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken

    def close(self) -> None:
        self._answer.close()
        super().close()


def header(answer: httpx2.Response, name: str) -> str:
    """Raises `Refused` where an answer lacks what every registry sends."""
    value = answer.headers.get(name)
    if value is None:
        message = f"{answer.request.method} {_shown(answer.request.url)}: {answer.status_code} without `{name}`"
        raise Refused(message, hint=NO_REGISTRY)
    return str(value)


def _shown(url: httpx2.URL) -> str:
    """Without its query: where a registry sends readers elsewhere, that is what lets them in."""
    return str(url.copy_with(query=None))


def pull(repository: str) -> str:
    return f"repository:{repository}:pull"


def push(repository: str) -> str:
    return f"repository:{repository}:pull,push"


def _read_at_most(answer: httpx2.Response, limit: int) -> bytes:
    """The body. Raises `Refused` for one that is longer."""
    data = bytearray()
    for chunk in answer.iter_raw():
        data += chunk
        if len(data) > limit:
            raise Refused(f"{_shown(answer.request.url)}: {limit:,} bytes at most, this is longer")
    return bytes(data)
