"""A registry's HTTP API, OCI distribution 1.1: pull, push, mount, tags, deletion, and referrers where wanted.

As strict as a registry may be: digests are checked both ways, a manifest's children must be there before it,
a manifest comes only to a caller that accepts its media type, names must be names.
"""

import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sie_core.artifacts.digest import Digest, digest_of, parse_digest
from sie_testing.faults import Fault, answered, due, spent
from sie_testing.registry.access import TOKEN_PATH, Access
from sie_testing.registry.storage import Storage
from sie_testing.web import Answer, Request, file_answer, json_answer, serving

MAX_MANIFEST_BYTES = 4 << 20
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_ROUTE = re.compile(r"/v2/(?P<name>.+)/(?P<kind>blobs/uploads|blobs|manifests|tags|referrers)/(?P<rest>[^/]*)")


@dataclass(frozen=True)
class Seen:
    """One request as it was answered, for tests to look at."""

    method: str
    path: str
    status: int


class _Descriptor(msgspec.Struct):
    digest: str


class _Manifest(msgspec.Struct, rename="camel"):
    """As much of a manifest or index as a registry must understand."""

    config: _Descriptor | None = None
    layers: list[_Descriptor] = []
    manifests: list[_Descriptor] = []
    subject: _Descriptor | None = None
    media_type: str | None = None


class _About(msgspec.Struct, rename="camel"):
    """What a list of referrers tells of one."""

    config: dict[str, object] = {}
    artifact_type: str | None = None
    annotations: dict[str, str] = {}


class Registry:
    """The answers, and what a test may turn.

    Attributes:
        seen: every request in order, the last ten thousand.
        referrers_api: without it `/referrers/` is not there, as in registries before 1.1.
        longest_body: a longer one is refused with 413, as a proxy does; None lets all through.
        takes_parts: without it PATCH is not there, as where only whole blobs are taken.
        checks_digests: without it whatever comes is kept under the digest that is said.
        alters_blobs: what is kept is not what came, and its digest is said truly.
        manifest_type: what every manifest is sent as, in the place of its own media type.
        received_bytes: of blobs, in all requests together.
    """

    def __init__(
        self, root: Path, *, access: Access | None = None, referrers_api: bool = True, faults: Sequence[Fault] = ()
    ) -> None:
        self.seen: deque[Seen] = deque(maxlen=10_000)
        self.referrers_api = referrers_api
        self.longest_body: int | None = None
        self.takes_parts = True
        self.checks_digests = True
        self.alters_blobs = False
        self.manifest_type: str | None = None
        self.received_bytes = 0
        self._storage = Storage(root)
        self._access = access or Access()
        self._faults = list(faults)
        self._lock = threading.Lock()

    def set_faults(self, *faults: Fault) -> None:
        """These and no others from now on."""
        with self._lock:
            self._faults = list(faults)

    def blob_path(self, digest: Digest) -> Path:
        """Where a blob or manifest lies, for tests that alter it."""
        return self._storage.blob_path(digest)

    def answer(self, request: Request) -> Answer:
        with self._lock:
            met = due(self._faults, method=request.method, path=request.path)
            self._faults = spent(self._faults, met)
        answer = answered(lambda: self._right_answer(request), met, has_token=False, is_file=False)
        self.seen.append(Seen(request.method, request.path, answer.status))
        return answer

    def _right_answer(self, request: Request) -> Answer:
        if self.longest_body is not None and (request.length or 0) > self.longest_body:
            return Answer(413, close=True)
        if request.path == TOKEN_PATH and self._access.with_tokens:
            return self._access.token(request)
        route = _ROUTE.fullmatch(request.path)
        name = route["name"] if route is not None else None
        action = "pull" if request.method in ("GET", "HEAD") else "push"
        refusal = self._access.refusal(request, name, action)
        if refusal is not None:
            return refusal
        if request.path == "/v2/":
            return json_answer({})
        if request.path == "/v2/_catalog":
            return json_answer({"repositories": self._storage.repositories()})
        if route is None or name is None:
            return _error(404, "NOT_FOUND", f"no such route: {request.path}")
        if _NAME.fullmatch(name) is None:
            return _error(400, "NAME_INVALID", f"`{name}` is not a repository name")
        return self._in_repository(name, route["kind"], route["rest"], request)

    def _in_repository(self, name: str, kind: str, rest: str, request: Request) -> Answer:
        handlers: dict[str, Callable[[str, str, Request], Answer]] = {
            "blobs": self._blob,
            "blobs/uploads": self._upload,
            "manifests": self._manifest,
            "tags": self._tags,
            "referrers": self._referrers,
        }
        try:
            return handlers[kind](name, rest, request)
        except _BadDigest as error:
            return _error(400, "DIGEST_INVALID", str(error))

    def _blob(self, name: str, rest: str, request: Request) -> Answer:
        digest = _digest(rest)
        path = self._storage.blob(name, digest)
        if path is None:
            return _error(404, "BLOB_UNKNOWN", f"`{name}` has no blob {digest}")
        if request.method == "DELETE":
            self._storage.unlink(name, digest)
            return Answer(202)
        return file_answer(request, path, etag=f'"{digest}"', headers={"Docker-Content-Digest": digest})

    def _upload(self, name: str, rest: str, request: Request) -> Answer:
        if rest == "":
            return self._begin(name, request) if request.method == "POST" else Answer(405)
        have = self._storage.upload_size(rest)
        if have is None:
            return _error(404, "BLOB_UPLOAD_UNKNOWN", f"no upload `{rest}`")
        match request.method:
            case "GET":
                return Answer(204, _upload_headers(name, rest, have))
            case "DELETE":
                self._storage.cancel_upload(rest)
                return Answer(204)
            case "PATCH" | "PUT" if _out_of_order(request, have):
                return Answer(416, _upload_headers(name, rest, have), close=True)
            case "PATCH" if not self.takes_parts:
                return Answer(405, close=True)
            case "PATCH":
                return Answer(202, _upload_headers(name, rest, self._append(rest, request)))
            case "PUT":
                return self._finish(name, rest, request)
        return Answer(405)

    def _begin(self, name: str, request: Request) -> Answer:
        query = request.query
        if "mount" in query and _NAME.fullmatch(query.get("from", "")) is not None:
            digest = _digest(query["mount"])
            if self._storage.blob(query["from"], digest) is not None and self._may_pull(query["from"], request):
                self._storage.link(name, digest)
                return _created(f"/v2/{name}/blobs/{digest}", digest)
        upload = self._storage.begin_upload()
        if "digest" in query:
            return self._finish(name, upload, request)
        return Answer(202, _upload_headers(name, upload, 0))

    def _may_pull(self, name: str, request: Request) -> bool:
        return self._access.refusal(request, name, "pull") is None

    def _finish(self, name: str, upload: str, request: Request) -> Answer:
        digest = _digest(request.query.get("digest", ""))
        before = self._storage.upload_size(upload) or 0
        if self._append(upload, request) - before < (request.length or 0):
            return _error(400, "SIZE_INVALID", "the body ended too early")
        if not self._storage.finish_upload(name, upload, digest, checked=self.checks_digests):
            return _error(400, "DIGEST_INVALID", f"what came is not {digest}")
        kept = digest_of(digest.encode()) if self.alters_blobs else digest
        return _created(f"/v2/{name}/blobs/{digest}", kept)

    def _append(self, upload: str, request: Request) -> int:
        """Adds a body to what has come, and counts it, also where it is cut short."""
        before = self._storage.upload_size(upload) or 0
        try:
            return self._storage.append(upload, request.body)
        finally:
            came = (self._storage.upload_size(upload) or 0) - before
            with self._lock:
                self.received_bytes += came

    def _manifest(self, name: str, reference: str, request: Request) -> Answer:
        by_tag = _TAG.fullmatch(reference) is not None
        if request.method == "PUT":
            return self._keep_manifest(name, reference, by_tag, request)
        digest = self._storage.tag(name, reference) if by_tag else _digest(reference)
        found = self._storage.manifest(name, digest) if digest is not None else None
        if digest is None or found is None:
            return _error(404, "MANIFEST_UNKNOWN", f"`{name}` has no manifest `{reference}`")
        if request.method == "DELETE":
            if by_tag:
                self._storage.delete_tag(name, reference)
            else:
                self._storage.delete_manifest(name, digest)
            return Answer(202)
        media_type, content = found
        if not _accepts(request, media_type):
            return _error(404, "MANIFEST_UNKNOWN", f"it is `{media_type}`, which `Accept` does not name")
        headers = {
            "Content-Type": self.manifest_type or media_type,
            "Docker-Content-Digest": digest,
            "ETag": f'"{digest}"',
        }
        return Answer(200, headers, content)

    def _keep_manifest(self, name: str, reference: str, by_tag: bool, request: Request) -> Answer:
        content = request.body.read(MAX_MANIFEST_BYTES + 1)
        if len(content) > MAX_MANIFEST_BYTES:
            return _error(413, "SIZE_INVALID", f"a manifest has {MAX_MANIFEST_BYTES} bytes at most")
        if not by_tag and _digest(reference) != digest_of(content):
            return _error(400, "DIGEST_INVALID", f"want {reference}, have {digest_of(content)}")
        media_type = request.headers.get("Content-Type", "")
        try:
            manifest = msgspec.json.decode(content, type=_Manifest)
        except msgspec.MsgspecError as error:
            return _error(400, "MANIFEST_INVALID", str(error))
        if manifest.media_type not in (None, media_type):
            return _error(400, "MANIFEST_INVALID", f"sent as `{media_type}`, calls itself `{manifest.media_type}`")
        missing = self._missing(name, manifest)
        if missing:
            return _error(400, "MANIFEST_BLOB_UNKNOWN", f"`{name}` has no {missing[0]}")
        digest = self._storage.keep_manifest(name, media_type, content)
        if by_tag:
            self._storage.set_tag(name, reference, digest)
        subject = {}
        if manifest.subject is not None and self.referrers_api:
            self._storage.add_referrer(name, _digest(manifest.subject.digest), digest)
            subject["OCI-Subject"] = manifest.subject.digest
        return _created(f"/v2/{name}/manifests/{digest}", digest, subject)

    def _missing(self, name: str, manifest: _Manifest) -> list[str]:
        """Children that this repository does not have; a subject may come later."""
        config = [manifest.config] if manifest.config is not None else []
        blobs = [child.digest for child in [*config, *manifest.layers]]
        missing = [digest for digest in blobs if self._storage.blob(name, _digest(digest)) is None]
        manifests = [child.digest for child in manifest.manifests]
        return missing + [one for one in manifests if self._storage.manifest(name, _digest(one)) is None]

    def _tags(self, name: str, rest: str, request: Request) -> Answer:
        if rest != "list" or not self._storage.has_repository(name):
            return _error(404, "NAME_UNKNOWN", f"no repository `{name}`")
        tags = [tag for tag in self._storage.tags(name) if tag > request.query.get("last", "")]
        count = int(request.query.get("n", len(tags)))
        headers = {}
        if 0 < count < len(tags):
            headers["Link"] = f'</v2/{name}/tags/list?n={count}&last={tags[count - 1]}>; rel="next"'
        return json_answer({"name": name, "tags": tags[:count]}, headers=headers)

    def _referrers(self, name: str, rest: str, request: Request) -> Answer:
        if not self.referrers_api:
            return _error(404, "NOT_FOUND", "this registry has no referrers")
        wanted = request.query.get("artifactType")
        found = [_described(digest, about) for digest, about in self._storage.referrers(name, _digest(rest))]
        kept = [entry for entry in found if wanted is None or entry["artifactType"] == wanted]
        headers = {"Content-Type": INDEX_TYPE} | ({"OCI-Filters-Applied": "artifactType"} if wanted else {})
        return json_answer({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": kept}, headers=headers)


class _BadDigest(ValueError):
    """A digest in the request is none."""


def _digest(text: str) -> Digest:
    try:
        return parse_digest(text)
    except ValueError as error:
        raise _BadDigest(str(error)) from error


def _accepts(request: Request, media_type: str) -> bool:
    named = [
        part.partition(";")[0].strip() for value in request.headers.get_all("Accept", []) for part in value.split(",")
    ]
    return media_type in named or "*/*" in named


def _out_of_order(request: Request, have: int) -> bool:
    """A chunk that says where it belongs must follow what has come."""
    first = request.headers.get("Content-Range", "").partition("-")[0]
    return first.isdigit() and int(first) != have


def _upload_headers(name: str, upload: str, have: int) -> dict[str, str]:
    return {
        "Location": f"/v2/{name}/blobs/uploads/{upload}",
        "Range": f"0-{max(0, have - 1)}",
        "Docker-Upload-UUID": upload,
    }


def _created(location: str, digest: Digest, more: Mapping[str, str] | None = None) -> Answer:
    return Answer(201, {"Location": location, "Docker-Content-Digest": digest, **(more or {})})


def _error(status: int, code: str, message: str) -> Answer:
    return json_answer({"errors": [{"code": code, "message": message}]}, status=status)


def _described(digest: Digest, found: tuple[str, bytes]) -> dict[str, object]:
    """A descriptor of a manifest, as a list of referrers has it."""
    media_type, content = found
    about = msgspec.json.decode(content, type=_About)
    kind = about.artifact_type or about.config.get("mediaType")
    entry = {"mediaType": media_type, "digest": digest, "size": len(content), "artifactType": kind}
    return entry | ({"annotations": about.annotations} if about.annotations else {})


@contextmanager
def serving_registry(registry: Registry, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serves it until the block ends; yields `http://host:port`."""
    with serving(registry.answer, host=host, port=port) as origin:
        yield origin
