"""A hub, read through its HTTP API: what a ref means, which files a commit has, and their bytes by range.

The hub's own client throws away what it had of a file when a download fails; here a hub is a store like the
others, so `transfer` fetches from it in ranges, resumes and verifies. Reading needs the standard library only.

Large files lie elsewhere: the hub answers with a signed address that expires, so each range asks the hub for one
anew. What goes wrong on the way is told apart in `hub_errors`.
"""

import io
import re
import ssl
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email.message import Message
from functools import cached_property, partial
from http.client import IncompleteRead
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn, cast
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

import msgspec
from msgspec import Struct

from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.errors import (
    NoPermission,
    NotThere,
    RangesIgnored,
    Replaced,
    TransferError,
    TrustError,
    Unreachable,
)
from sie_core.artifacts.manifest import FileEntry, Manifest, is_plain, parse_path
from sie_core.artifacts.selection import selected
from sie_core.artifacts.store import Stat, Traits
from sie_core.artifacts.stores.hub_errors import FAILURES, Asked, PastTheEnd, origin, told
from sie_core.artifacts.stores.streams import Body
from sie_core.ids import ModelId, Revision, parse_revision

PUBLIC_HUB = "https://huggingface.co"
_TIMEOUT_S = 30.0
_AT_ONCE = 4
"""Small files are asked for so many at a time: each costs a round trip, and most repositories have a dozen."""
_NEXT_PAGE = re.compile(r'<([^>]+)>;\s*rel="next"')
_HUB_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class HubFile(Struct, frozen=True, order=True):
    """One file of a commit.

    Attributes:
        path: as in the repository.
        size_bytes: of the file itself, not of the pointer that stands for it in git.
        hub_id: the git blob's sha1 (40 hex digits), or for LFS files the sha256 (64).
    """

    path: str
    size_bytes: int
    hub_id: str


class Card(Struct, frozen=True):
    """What a reviewer asks of a repository: its licence (None: not said), and whether its files are gated."""

    license: str | None
    gated: bool


class Hub:
    """One hub, as one reader."""

    def __init__(
        self,
        endpoint: str = PUBLIC_HUB,
        *,
        token: str | None = None,
        ca_bundle: Path | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        """
        Args:
            ca_bundle: whom to trust, a file or a folder; None: whom the system trusts, or `SSL_CERT_FILE`.
            timeout_s: how long a connection may stay silent.

        Raises:
            ValueError: an endpoint that is not `http://…` or `https://…`, a token no header can carry, or certificates
                that cannot be read.
        """
        if urlsplit(endpoint).scheme not in ("http", "https"):
            raise ValueError(f"`{endpoint}` is not a hub's URL: want `https://…`")
        self.endpoint = endpoint.rstrip("/")
        self._token = (token or "").strip()  # a Secret made from a file ends with a line end
        if not (self._token.isascii() and self._token.isprintable()):
            raise ValueError("the hub's token has a line end or a letter in it that no header can carry")
        self._opener = _opener(_trusting(ca_bundle))
        self._timeout_s = timeout_s

    def resolve(self, repo: ModelId, ref: str = "main") -> Revision:
        """The commit that a branch or tag means now. Raises `NotThere` for a ref or repository that is not there."""
        with self.get(
            f"/api/models/{repo}/revision/{quote(ref, safe='')}", repo=repo, what=f"`{repo}` at `{ref}`"
        ) as answer:
            said = _json(answer, self.endpoint, dict[str, Any]).get("sha")
        with self._understood(f"`{repo}` at `{ref}`"):
            return parse_revision(str(said))

    def files(self, repo: ModelId, revision: Revision) -> tuple[HubFile, ...]:
        """Every file of a commit, sorted by path."""
        found: list[HubFile] = []
        url: str | None = f"/api/models/{repo}/tree/{revision}?recursive=true&expand=false"
        while url is not None:
            with self.get(url, repo=repo, what=f"`{repo}` at {revision}") as answer:
                entries = _json(answer, self.endpoint, list[_TreeEntry])
                following = _NEXT_PAGE.search(answer.headers.get("Link", ""))
            with self._understood(f"`{repo}` at {revision}"):
                found += [entry.file for entry in entries if entry.type == "file"]
            url = following.group(1) if following else None
        return tuple(sorted(found))

    def card(self, repo: ModelId, revision: Revision) -> Card:
        with self.get(f"/api/models/{repo}/revision/{revision}", repo=repo, what=f"`{repo}` at {revision}") as answer:
            info: _Info = _json(answer, self.endpoint, _Info)
        return info.card

    def manifest(self, repo: ModelId, revision: Revision) -> Manifest:
        """The files of a commit that are carried, with their sha256.

        The hub states the sha256 of files it keeps in LFS. The others, which are small, are read here and
        held against their git id.
        """
        store = self.store(repo, revision)
        wanted = set(selected(file.path for file in store.files))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            futures = [pool.submit(self._entry, store, file) for file in store.files if file.path in wanted]
            try:
                entries = [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return Manifest(repo=repo, revision=revision, files=tuple(sorted(entries)))

    def _entry(self, store: "HubStore", file: HubFile) -> FileEntry:
        if len(file.hub_id) == 64:
            return FileEntry(path=file.path, digest=Digest(f"sha256:{file.hub_id}"), size_bytes=file.size_bytes)
        with store.open(hf_layout.snapshot_file(store.repo, store.revision, file.path)) as stream:
            data = stream.read()
        if (have := hf_layout.git_blob_id(data)) != file.hub_id:
            where = f"{store.url}{file.path}"
            raise TrustError(
                f"`{file.path}` is not what the hub lists", where=where, want=f"git {file.hub_id}", have=f"git {have}"
            )
        return FileEntry(path=file.path, digest=digest_of(data), size_bytes=len(data))

    def store(self, repo: ModelId, revision: Revision) -> "HubStore":
        return HubStore(self, repo, revision)

    def get(self, url: str, *, repo: ModelId, what: str, headers: Mapping[str, str] | None = None) -> Any:
        """An open answer of status 200 or 206 to GET. `url` is a path, or absolute as links to a next page are."""
        whole = url if "://" in url else self.endpoint + url
        request = Request(whole, headers=dict(headers or {}))  # noqa: S310  # the scheme was checked
        if self._token and origin(whole) == origin(self.endpoint):
            request.add_header("Authorization", f"Bearer {self._token}")
        with self.told(repo, what):
            try:
                return self._opener.open(request, timeout=self._timeout_s)
            except HTTPError as error:
                if error.code not in (401, 403) or origin(error.url) == origin(whole):
                    raise
                error.close()  # a signed address that expired while it was followed: the hub gives another
                return self._opener.open(request, timeout=self._timeout_s)

    @contextmanager
    def told(self, repo: ModelId, what: str) -> Iterator[None]:
        """What urllib raises inside becomes one of ours."""
        try:
            yield
        except FAILURES as error:
            raise self.translated(error, repo, what) from error

    @contextmanager
    def _understood(self, what: str) -> Iterator[None]:
        """A `ValueError` inside is the hub's: what it says of `what` cannot be, and does not change by asking again."""
        try:
            yield
        except ValueError as error:
            strange = TransferError(f"{self.endpoint} does not answer as a hub does for {what}: {error}")
            strange.transient = False
            raise strange from error

    def translated(self, error: Exception, repo: ModelId, what: str) -> TransferError:
        return told(error, Asked(self.endpoint, repo, what, has_token=bool(self._token)))


class HubStore:
    """One commit of one repository as a store, under the names of the cache layout. Read-only."""

    traits = Traits(atomic_put=False, range_reads=True, listing_is_consistent=True, max_parallel=4)

    def __init__(self, hub: Hub, repo: ModelId, revision: Revision) -> None:
        self.repo = repo
        self.revision = revision
        self.url = f"{hub.endpoint}/{repo}/resolve/{revision}/"
        self._hub = hub
        self._prefix = hf_layout.snapshot_folder(repo, revision) + "/"
        self._etags: dict[str, str] = {}

    @cached_property
    def files(self) -> tuple[HubFile, ...]:
        return self._hub.files(self.repo, self.revision)

    def stat(self, name: str) -> Stat | None:
        return next((stat for stat in self.list(name) if stat.name == name), None)

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        path = parse_path(name).removeprefix(self._prefix)
        if path == name:
            raise NotThere(f"{self.url} has no `{name}`")
        if length == 0:
            return io.BytesIO()
        what = f"`{path}` of `{self.repo}`"
        url = f"/{self.repo}/resolve/{self.revision}/{quote(path)}"
        try:
            answer = self._hub.get(url, repo=self.repo, what=what, headers=self._headers(path, start, length))
        except PastTheEnd:
            return io.BytesIO()
        try:
            self._check(answer, path, start)
        except TransferError:
            answer.close()
            raise
        body = Body(
            partial(_read, answer, _Left(answer)),
            answer.close,
            translate=lambda error: self._hub.translated(error, self.repo, what),
            failures=FAILURES,
            limit_bytes=length,
        )
        return cast(BinaryIO, body)

    def _headers(self, path: str, start: int, length: int | None) -> dict[str, str]:
        if not start and not length:
            return {}
        end = "" if length is None else str(start + length - 1)
        etag = self._etags.get(path)
        return {"Range": f"bytes={start}-{end}", **({"If-Range": etag} if etag else {})}

    def _check(self, answer: Any, path: str, start: int) -> None:
        """Raises `Replaced` or `RangesIgnored` for an answer that does not go on where the one before it ended."""
        have = answer.headers.get("ETag") or ""
        if have and not have.startswith("W/"):
            want = self._etags.setdefault(path, have)
            if have != want:
                self._etags[path] = have
                raise Replaced(
                    f"`{path}` of `{self.repo}` was replaced at {origin(answer.url)} while it came: "
                    f"ETag {want} before, {have} now; it is begun anew"
                )
        if start and answer.status == 200:
            raise RangesIgnored(f"{origin(answer.url)} answers with the whole of `{path}` where a part was asked for")

    def list(self, prefix: str) -> Iterator[Stat]:
        named = (Stat(name=self._prefix + file.path, size_bytes=file.size_bytes) for file in self.files)
        return (stat for stat in named if stat.name.startswith(prefix))

    def put(self, name: str, data: BinaryIO, *, size_bytes: int, digest: Digest) -> NoReturn:
        raise NoPermission(f"a hub is only read: `{name}` was not stored")

    def delete(self, name: str) -> NoReturn:
        raise NoPermission(f"a hub is only read: `{name}` was not deleted")


class _Left:
    """How much of an answer's declared length is still to come; None where it declares none."""

    def __init__(self, answer: Any) -> None:
        length = answer.headers.get("Content-Length")
        self.size_bytes = int(length) if length is not None else None


def _read(answer: Any, left: _Left, size: int) -> bytes:
    """Raises `IncompleteRead` where an answer ends before its length: `read` with a size says nothing of it."""
    chunk: bytes = answer.read(size)
    if left.size_bytes is not None:
        left.size_bytes -= len(chunk)
        if not chunk and size and left.size_bytes > 0:
            raise IncompleteRead(b"", left.size_bytes)
    return chunk


class _Info(Struct, frozen=True):
    """A repository as the API describes it; `gated` is false, or how access is granted."""

    gated: bool | str = False
    tags: tuple[str, ...] = ()
    card_data: dict[str, Any] | None = msgspec.field(name="cardData", default=None)

    @property
    def card(self) -> Card:
        data = self.card_data or {}
        said = data.get("license")
        tagged = [tag.removeprefix("license:") for tag in self.tags if tag.startswith("license:")]
        listed = [said] if isinstance(said, str) else said if isinstance(said, list) else tagged
        named = [_licence(str(one), data.get("license_name")) for one in listed]
        return Card(license=" AND ".join(named) or None, gated=self.gated is not False)


def _licence(said: str, name: object) -> str:
    """`other` says nothing: such a licence is called what its card calls it, as SPDX does it."""
    text = f"LicenseRef-{name}" if said == "other" and isinstance(name, str) else said
    return text if is_plain(text) else ascii(text)


class _Lfs(Struct, frozen=True):
    oid: str
    size: int


class _TreeEntry(Struct, frozen=True):
    """As the API lists it; what else it says is not needed."""

    type: str
    path: str
    oid: str = ""
    size: int = 0
    lfs: _Lfs | None = None

    @property
    def file(self) -> HubFile:
        """Raises `ValueError` for a path, a length or an id that no file has."""
        size_bytes, hub_id = (self.size, self.oid) if self.lfs is None else (self.lfs.size, self.lfs.oid)
        if _HUB_ID.fullmatch(hub_id) is None or size_bytes < 0:
            raise ValueError(f"`{self.path}` has {size_bytes} bytes and the id `{hub_id}`")
        return HubFile(path=parse_path(self.path), size_bytes=size_bytes, hub_id=hub_id)


def _trusting(ca_bundle: Path | None) -> ssl.SSLContext:
    if ca_bundle is None:
        return ssl.create_default_context()
    try:
        if ca_bundle.is_dir():
            return ssl.create_default_context(capath=ca_bundle)
        return ssl.create_default_context(cafile=ca_bundle)
    except OSError as error:  # an SSLError is one
        raise ValueError(f"{ca_bundle} holds no certificates that can be read: {error}") from error


def _opener(context: ssl.SSLContext) -> OpenerDirector:
    """For http and https alone: a hub that names a `file:` or `ftp:` URL as its next page is not followed there."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        HTTPHandler(),
        HTTPSHandler(context=context),
        UnknownHandler(),
        HTTPDefaultErrorHandler(),
        _Redirects(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


class _Redirects(HTTPRedirectHandler):
    """Follows to the place that keeps the bytes, and takes the token to no other origin."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        following = super().redirect_request(req, fp, code, msg, cast(Any, headers), newurl)
        if following is not None and origin(newurl) != origin(req.full_url):
            following.remove_header("Authorization")
        return following


def _json(answer: Any, endpoint: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(answer.read(), type=kind)
    except msgspec.MsgspecError as error:
        raise TransferError(f"{endpoint} does not answer as a hub does: {error}") from error
    except FAILURES as error:
        raise Unreachable(f"{endpoint} broke off its answer: {error}") from error
