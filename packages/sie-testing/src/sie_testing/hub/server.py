"""The Hub's HTTP API over folders: `root/ORG/NAME/` is the repository `ORG/NAME`, at one commit and as `main`.

Two origins in one process, as the Hub has: the API, and the place that files kept by LFS are redirected to.
What is answered is what `huggingface_hub` 0.36 to 2.4 and its commands ask for. Left out: writing, search,
discussions, Xet's own protocol, more than one commit of a repository.
"""

import hashlib
import secrets
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import msgspec

from sie_core.ids import Revision, parse_model_id
from sie_testing.faults import Fault, answered, asked, due, spent
from sie_testing.hub.repository import (
    DEFAULT_LFS_ABOVE_BYTES,
    Repository,
    RepositoryFile,
    fingerprint,
    read_repository,
)
from sie_testing.web import Answer, FileSlice, Request, file_answer, json_answer, serving

PAGE_ENTRIES = 1000
_SEEN_KEPT = 10_000


@dataclass(frozen=True)
class Seen:
    """One request as it was answered, for tests to look at."""

    origin: str
    method: str
    path: str
    status: int
    has_token: bool
    range: str | None


class Hub:
    """The answers, and what a test may turn: faults, and the record of what was asked.

    Attributes:
        seen: every request in order, the last ten thousand.
        blobs_origin: the second origin, `http://{host}:port`; set by `serving_hub`.
        sent_bytes: how much of files has gone out, of both origins.
        on_sent: told that number as it grows; from several threads.
    """

    def __init__(
        self,
        root: Path,
        *,
        pins: Mapping[str, Revision] | None = None,
        lfs_above_bytes: int = DEFAULT_LFS_ABOVE_BYTES,
        token: str | None = None,
        faults: Sequence[Fault] = (),
        page_entries: int = PAGE_ENTRIES,
        signed: bool = False,
        xet: bool = False,
    ) -> None:
        """
        Args:
            signed: an address at the second origin is good for one request, as one that expires at once.
            xet: large files are said to be kept by Xet, and their bytes have an ETag that is no sha256.
        """
        self.seen: deque[Seen] = deque(maxlen=_SEEN_KEPT)
        self.blobs_origin = ""
        self.sent_bytes = 0
        self.on_sent: Callable[[int], None] | None = None
        self._root = root
        self._pins = dict(pins or {})
        self._lfs_above_bytes = lfs_above_bytes
        self._token = token
        self._page_entries = page_entries
        self._signed, self._xet = signed, xet
        self._signatures: set[str] = set()
        self._faults = list(faults)
        self._read: dict[str, tuple[object, Repository]] = {}
        self._lock = threading.Lock()

    def set_faults(self, *faults: Fault) -> None:
        """These and no others from now on."""
        with self._lock:
            self._faults = list(faults)

    def repository(self, name: str) -> Repository | None:
        """The repository as its folder is now; None when there is no such folder."""
        try:
            folder = self._root / parse_model_id(name)
        except ValueError:
            return None
        if not folder.is_dir():
            return None
        if all(path.is_dir() for path in folder.iterdir()) and name.count("/") == 0:
            return None  # an organisation, not a repository without one
        now = fingerprint(folder)
        with self._lock:
            known = self._read.get(name)
            if known is None or known[0] != now:
                pin = self._pins.get(name)
                known = (now, read_repository(folder, name, pin=pin, lfs_above_bytes=self._lfs_above_bytes))
                self._read[name] = known
        return known[1]

    def answer_api(self, request: Request) -> Answer:
        """The first origin: metadata, small files, and redirections to the second."""
        if request.path == "/_faults":
            return self._change_faults(request)
        if request.path == "/_seen":
            return json_answer(list(self.seen))
        return self._answer("api", request, self._api)

    def answer_blobs(self, request: Request) -> Answer:
        """The second origin: content by sha256, for whoever was sent there."""
        return self._answer("blobs", request, self._blob)

    def _answer(self, origin: str, request: Request, right: Callable[[Request], Answer]) -> Answer:
        has_token = self._token is not None and request.headers.get("Authorization") == f"Bearer {self._token}"
        with self._lock:
            met = due(self._faults, method=request.method, path=request.path)
            self._faults = spent(self._faults, met)
        is_file = "/resolve/" in request.path
        answer = answered(lambda: right(asked(request, met)), met, has_token=has_token, is_file=is_file)
        if isinstance(answer.body, FileSlice):
            answer = replace(answer, sent=self._sent)
        given = "Authorization" in request.headers
        self.seen.append(Seen(origin, request.method, request.path, answer.status, given, request.headers.get("Range")))
        return answer

    def _sent(self, size_bytes: int) -> None:
        with self._lock:
            self.sent_bytes += size_bytes
            total = self.sent_bytes
        if self.on_sent is not None:
            self.on_sent(total)

    def _change_faults(self, request: Request) -> Answer:
        """PUT a JSON list of faults in place of those set; DELETE leaves none."""
        try:
            faults = [] if request.method == "DELETE" else msgspec.json.decode(request.body.read(), type=list[Fault])
        except msgspec.MsgspecError as error:
            return json_answer({"error": str(error)}, status=400)
        self.set_faults(*faults)
        return Answer(204)

    def _api(self, request: Request) -> Answer:
        if self._token is not None and request.headers.get("Authorization") != f"Bearer {self._token}":
            return _refused(401, "RepoNotFound", "Invalid username or password.")
        if request.method not in ("GET", "HEAD"):
            return Answer(405)
        parts = request.path.strip("/").split("/")
        if parts[:2] == ["api", "whoami-v2"]:
            return json_answer({"type": "user", "name": "tester", "orgs": [], "auth": {"type": "access_token"}})
        if parts[:2] == ["api", "models"]:
            return self._in_repository(parts[2:], request, self._metadata)
        if "resolve" in parts:
            return self._in_repository(parts, request, self._resolve)
        return json_answer({"error": "Sorry, we can't find the page you are looking for."}, status=404)

    def _in_repository(
        self, parts: list[str], request: Request, then: Callable[[Repository, list[str], Request], Answer]
    ) -> Answer:
        for length in (2, 1):
            repository = self.repository("/".join(parts[:length])) if len(parts) >= length else None
            if repository is not None:
                return then(repository, parts[length:], request)
        return _refused(404, "RepoNotFound", "Repository not found")

    def _metadata(self, repository: Repository, rest: list[str], request: Request) -> Answer:
        match rest:
            case []:
                return json_answer(_model_info(repository, blobs=_is_true(request.query.get("blobs"))))
            case ["refs"]:
                main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.commit}
                return json_answer({"branches": [main], "tags": [], "converts": []})
            case ["revision", *_] | ["tree", *_] if not _is_at(repository, rest[1:2]):
                return _refused(404, "RevisionNotFound", f"Invalid rev id: {'/'.join(rest[1:2])}")
            case ["revision", _]:
                return json_answer(_model_info(repository, blobs=_is_true(request.query.get("blobs"))))
            case ["tree", _, *folder]:
                return self._tree(repository, "/".join(folder), request)
        return json_answer({"error": "Not found"}, status=404)

    def _tree(self, repository: Repository, folder: str, request: Request) -> Answer:
        prefix = folder + "/" if folder else ""
        entries = _entries(repository, prefix, recursive=_is_true(request.query.get("recursive")), xet=self._xet)
        if folder and not entries:
            return _refused(404, "EntryNotFound", f"{folder} does not exist on `main`")
        page = min(int(request.query.get("limit", self._page_entries)), self._page_entries)
        start = int(request.query.get("cursor", "0"))
        headers = {}
        if start + page < len(entries):
            origin = f"{self.blobs_origin.partition(':')[0]}://{request.headers.get('Host')}"
            query = "&".join(f"{key}={quote(value)}" for key, value in request.query.items() if key != "cursor")
            headers["Link"] = f'<{origin}{quote(request.path)}?{query}&cursor={start + page}>; rel="next"'
        return json_answer(entries[start : start + page], headers=headers)

    def _resolve(self, repository: Repository, rest: list[str], request: Request) -> Answer:
        if rest[:1] != ["resolve"] or len(rest) < 3:
            return json_answer({"error": "Not found"}, status=404)
        if not _is_at(repository, rest[1:2]):
            return _refused(404, "RevisionNotFound", f"Invalid rev id: {rest[1]}")
        commit = {"X-Repo-Commit": repository.commit}
        file = repository.file("/".join(rest[2:]))
        if file is None:
            return _refused(404, "EntryNotFound", "Entry not found", headers=commit)
        if not file.is_lfs:
            return file_answer(request, file.source, etag=f'"{file.etag}"', headers=commit)
        linked = {"X-Linked-ETag": f'"{file.etag}"', "X-Linked-Size": str(file.size_bytes)}
        if self._xet:
            linked["X-Xet-Hash"] = _xet_hash(file)
        target = f"{self.blobs_origin.format(host=request.host)}/{repository.name}/{file.sha256}{self._signature()}"
        body = f"Found. Redirecting to {target}".encode()
        return Answer(302, {**commit, **linked, "ETag": f'"{file.blob_id}"', "Location": target}, body)

    def _blob(self, request: Request) -> Answer:
        name, _, sha256 = request.path.strip("/").rpartition("/")
        repository = self.repository(name)
        found = [file for file in repository.files if file.sha256 == sha256] if repository is not None else []
        if not found or request.method not in ("GET", "HEAD"):
            return Answer(404)
        if self._signed and not self._redeemed(request.query.get("Signature", "")):
            return Answer(403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>")
        etag = _xet_hash(found[0]) if self._xet else sha256
        return file_answer(request, found[0].source, etag=f'"{etag}"')

    def _signature(self) -> str:
        if not self._signed:
            return ""
        signature = secrets.token_hex(16)
        with self._lock:
            self._signatures.add(signature)
        return f"?Expires=1&Signature={signature}"

    def _redeemed(self, signature: str) -> bool:
        with self._lock:
            known = signature in self._signatures
            self._signatures.discard(signature)
        return known


def _xet_hash(file: RepositoryFile) -> str:
    """64 hex digits that are no sha256 of the file."""
    return hashlib.sha256(b"xet" + file.sha256.encode()).hexdigest()


def _is_true(text: str | None) -> bool:
    return text is not None and text.lower() in ("true", "1")


def _is_at(repository: Repository, revision: list[str]) -> bool:
    return revision in ([repository.commit], ["main"], ["refs/heads/main"])


def _refused(status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> Answer:
    told = {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}
    return json_answer({"error": message}, status=status, headers=told)


def _lfs(file: RepositoryFile, digest_key: str) -> dict[str, object]:
    return {digest_key: file.sha256, "size": file.size_bytes, "pointerSize": file.pointer_bytes}


def _model_info(repository: Repository, *, blobs: bool) -> dict[str, object]:
    siblings = []
    for file in repository.files:
        sibling: dict[str, object] = {"rfilename": file.path}
        if blobs:
            sibling |= {"size": file.size_bytes, "blobId": file.blob_id}
            sibling |= {"lfs": _lfs(file, "sha256")} if file.is_lfs else {}
        siblings.append(sibling)
    return {
        "_id": repository.commit[:24],
        "id": repository.name,
        "modelId": repository.name,
        "sha": repository.commit,
        "lastModified": "2024-01-01T00:00:00.000Z",
        "createdAt": "2024-01-01T00:00:00.000Z",
        "private": False,
        "gated": repository.card.get("gated", False),
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "cardData": repository.card,
        "siblings": siblings,
    }


def _entries(repository: Repository, prefix: str, *, recursive: bool, xet: bool) -> list[dict[str, object]]:
    """Folders and files under `prefix`, by path; only its direct children unless `recursive`."""
    found: dict[str, dict[str, object]] = {}
    for file in repository.files:
        if not file.path.startswith(prefix):
            continue
        parts = file.path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts) if recursive else min(2, len(parts))):
            folder = prefix + "/".join(parts[:depth])
            found[folder] = {"type": "directory", "oid": repository.commit, "size": 0, "path": folder}
        if recursive or len(parts) == 1:
            entry: dict[str, object] = {"type": "file", "oid": file.blob_id, "size": file.size_bytes, "path": file.path}
            found[file.path] = entry | ({"lfs": _lfs(file, "oid")} if file.is_lfs else {})
            if xet and file.is_lfs:
                found[file.path]["xetHash"] = _xet_hash(file)
    return [found[path] for path in sorted(found)]


@contextmanager
def serving_hub(
    hub: Hub, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """Serves both origins until the block ends; yields what `HF_ENDPOINT` is to be. The second takes a free port."""
    with (
        serving(hub.answer_blobs, host=host, tls=tls) as blobs,
        serving(hub.answer_api, host=host, port=port, tls=tls) as endpoint,
    ):
        scheme, _, place = blobs.partition("://")
        hub.blobs_origin = f"{scheme}://{{host}}:{place.rpartition(':')[2]}"
        yield endpoint
