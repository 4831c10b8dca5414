"""Files in a Google Cloud Storage bucket, with the identity of the workload or of the workstation.

The client finds credentials itself: Workload Identity in a cluster, which asks the metadata address, or
`GOOGLE_APPLICATION_CREDENTIALS`. `STORAGE_EMULATOR_HOST` points it elsewhere, without credentials.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, BinaryIO, cast

import google.auth
from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, Unauthorized
from google.auth.credentials import AnonymousCredentials, with_scopes_if_required
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.cloud import storage

from sie_core.artifacts.digest import Digest
from sie_core.artifacts.errors import NoPermission, NotThere, TransferError, Unreachable
from sie_core.artifacts.manifest import parse_path
from sie_core.artifacts.store import Stat, Traits, Unfinished
from sie_core.artifacts.stores.streams import Body, Declared

_READ_BYTES = 8 << 20
_SEND_BYTES = 32 << 20
# The client lets errors of its connections through as they are; they are `OSError`s.
_FAILURES = (GoogleAPICallError, GoogleAuthError, OSError)
# How long to wait is decided where the caller can be told of it, so the client's own retries are off.
_ONCE: dict[str, Any] = {"retry": None, "timeout": (5, 30)}


class GcsStore:
    """A bucket, or what lies under a prefix of one."""

    traits = Traits(atomic_put=True, range_reads=True, listing_is_consistent=True, max_parallel=4)

    def __init__(self, bucket: str, prefix: str = "", *, endpoint: str | None = None, page_names: int = 1_000) -> None:
        """See `open_store`; `page_names` is how many files the server lists at a time."""
        self._endpoint = endpoint
        self._page_names = page_names
        self._name = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.url = f"gs://{bucket}/{self._prefix}"

    @cached_property
    def _bucket(self) -> Any:
        return _client(self._endpoint).bucket(self._name)

    def stat(self, name: str) -> Stat | None:
        key = self._key(name)
        with self._told("storage.objects.get", name):
            blob = self._bucket.get_blob(key, **_ONCE)
            if blob is None:
                self._see_bucket()
                return None
        return Stat(name=name, size_bytes=blob.size)

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        blob = self._bucket_blob(name)
        with self._told("storage.objects.get", name):
            blob.reload(**_ONCE)
        if start >= blob.size or length == 0:
            return io.BytesIO()
        reader = blob.open("rb", chunk_size=_READ_BYTES, **_ONCE)
        reader.seek(start)
        body = Body(
            reader.read,
            reader.close,
            translate=lambda error: self._translated(error, "storage.objects.get", name),
            failures=_FAILURES,
            # Not past the end: the client would ask for more there, to be told with an error that there is none.
            limit_bytes=blob.size - start if length is None else min(length, blob.size - start),
        )
        return cast(BinaryIO, body)

    def put(self, name: str, data: BinaryIO, *, size_bytes: int, digest: Digest) -> None:
        """A file is visible when its last byte has come; `Declared` holds that back until all is right."""
        declared = Declared(data, size_bytes=size_bytes, digest=digest, where=f"{self.url}{name}")
        blob = self._bucket_blob(name)
        blob.chunk_size = _SEND_BYTES
        with self._told("storage.objects.create", name):
            if size_bytes <= _SEND_BYTES:
                blob.upload_from_string(declared.read(), content_type="application/octet-stream", **_ONCE)
            else:
                blob.upload_from_file(declared, size=size_bytes, content_type="application/octet-stream", **_ONCE)

    def list(self, prefix: str) -> Iterator[Stat]:
        with self._told("storage.objects.list", prefix):
            blobs = self._bucket.list_blobs(prefix=self._prefix + prefix, page_size=self._page_names, **_ONCE)
            found = [(blob.name, blob.size, str(blob.generation)) for blob in blobs]
        names = sorted((key.removeprefix(self._prefix), size, tag) for key, size, tag in found if not key.endswith("/"))
        return (Stat(name=name, size_bytes=size, tag=tag) for name, size, tag in names)

    def delete(self, name: str) -> None:
        blob = self._bucket_blob(name)
        with self._told("storage.objects.delete", name):
            try:
                blob.delete(**_ONCE)
            except NotFound:
                self._see_bucket()

    def copy(self, source: str, name: str, *, size_bytes: int) -> bool:
        blob, its_source = self._bucket_blob(name), self._bucket_blob(source)
        with self._told("storage.objects.create", name):
            try:
                token, *_ = blob.rewrite(its_source, **_ONCE)
                while token is not None:  # a large one, in as many requests as the server wants
                    token, *_ = blob.rewrite(its_source, token=token, **_ONCE)
            except (Forbidden, NotFound):
                return False
        stat = self.stat(name)
        return stat is not None and stat.size_bytes == size_bytes

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """None: the server lists no uploads that were begun; it forgets them after a week."""
        return iter(())

    def _key(self, name: str) -> str:
        return self._prefix + parse_path(name)

    def _bucket_blob(self, name: str) -> Any:
        key = self._key(name)
        with self._told("storage.objects.get", name):
            return self._bucket.blob(key)

    def _see_bucket(self) -> None:
        """Raises `NotThere` for a bucket that does not exist: a 404 for a file does not say which is missing.

        Asked by listing: the bucket itself may only be looked at with `storage.buckets.get`, which is in none of
        the roles for objects, and those are what a worker or a mirror is given.
        """
        with self._told("storage.objects.list", ""):
            try:
                next(iter(self._bucket.list_blobs(prefix=self._prefix, max_results=1, **_ONCE)), None)
            except NotFound as error:
                raise self._no_bucket() from error

    def _no_bucket(self) -> NotThere:
        return NotThere(f"the bucket `{self._name}` does not exist", hint=f"check the bucket's name in `{self.url}`")

    @contextmanager
    def _told(self, permission: str, name: str) -> Iterator[None]:
        try:
            yield
        except NotFound as error:
            with self._told(permission, name):
                self._see_bucket()
            raise NotThere(f"{self.url}{name} does not exist") from error
        except _FAILURES as error:
            raise self._translated(error, permission, name) from error

    def _translated(self, error: Exception, permission: str, name: str) -> TransferError:
        where = f"{self.url}{name}"
        if isinstance(error, Forbidden | Unauthorized):
            return NoPermission(
                f"{where}: {error.message}", hint=f"grant `{permission}` on the bucket to this identity"
            )
        if isinstance(error, DefaultCredentialsError):
            return NoPermission(f"there are no credentials for {self.url}: {error}")
        if isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
            return NoPermission(f"the credentials for {self.url} were refused: {error}")
        code = int(error.code or 0) if isinstance(error, GoogleAPICallError) else 0
        failed = Unreachable(f"{where}: {error}")
        failed.transient = code >= 500 or code in (0, 408, 429)
        failed.retry_after_s = _retry_after_s(error)
        return failed


def _client(endpoint: str | None) -> Any:
    options = {"api_endpoint": endpoint} if endpoint else None
    client = storage.Client(project=None, credentials=AnonymousCredentials(), client_options=options)
    if client._is_emulator_set:  # `STORAGE_EMULATOR_HOST`
        return client
    return storage.Client(project=None, credentials=_credentials(), client_options=options)


def _credentials() -> Any:
    """Those of the environment, asking Google nothing but a token.

    Left to itself the client also looks up the number of a project that it does not need (not without scopes, so
    they are given afterwards), and in a thread the regions that an identity is bound to, which the server knows.
    Inside the gap both are attempts to leave.
    """
    found, _ = google.auth.default()
    credentials = with_scopes_if_required(found, storage.Client.SCOPE)
    credentials._maybe_start_regional_access_boundary_refresh = lambda request, url: None
    return credentials


def _retry_after_s(error: Exception) -> float | None:
    answer = error.response if isinstance(error, GoogleAPICallError) else None
    wait = str(answer.headers.get("Retry-After", "")) if answer is not None else ""
    return float(wait) if wait.isdigit() else None
