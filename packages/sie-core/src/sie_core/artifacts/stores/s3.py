"""Files in an S3 bucket, as AWS, MinIO, Ceph, SeaweedFS and their like serve them.

Nothing a server says about bytes is evidence: checksums are not asked for, ETags only show that a part was
replaced, and every reader holds what it got against a digest of its own. Conditional writes are not used: half of
the servers ignore the condition (docs/formats/bucket-layout.md has the table).
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, cast

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from sie_core.artifacts.digest import Digest
from sie_core.artifacts.errors import NotThere, Unreachable
from sie_core.artifacts.manifest import parse_path
from sie_core.artifacts.store import Stat, Traits, Unfinished
from sie_core.artifacts.stores.s3_client import STREAMS, new_client, new_session
from sie_core.artifacts.stores.s3_errors import Place, code_of, translated
from sie_core.artifacts.stores.s3_uploads import (
    COPY_BYTES,
    PART_BYTES,
    copy_in_parts,
    md5_header,
    part_size_bytes,
    send_in_parts,
)
from sie_core.artifacts.stores.streams import Body, Declared
from sie_core.artifacts.stores.upload_journal import UploadOf, journal_of

_FAILURES = (BotoCoreError, ClientError, HTTPError)
_CANNOT_COPY = (400, 403, 404, 405, 501)


class S3Store:
    """A bucket, or what lies under a prefix of one."""

    traits = Traits(atomic_put=True, range_reads=True, listing_is_consistent=True, max_parallel=STREAMS)

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        region: str | None = None,
        path_style: bool = True,
        journals: Path | None = None,
        part_bytes: int = PART_BYTES,
        copy_bytes: int = COPY_BYTES,
        page_names: int = 1_000,
    ) -> None:
        """See `open_store`.

        Args:
            part_bytes: the least a part has.
            copy_bytes: the most that is copied with one request.
            page_names: how many files are listed at a time.
        """
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.url = f"s3://{bucket}/{self._prefix}"
        self._asked_for: dict[str, Any] = {"endpoint": endpoint, "region": region, "path_style": path_style}
        self._making = Lock()
        self._journals = journals
        self._part_bytes, self._copy_bytes = part_bytes, copy_bytes
        self._page = {"PageSize": page_names}
        self._bucket_was_seen = False

    @cached_property
    def _session(self) -> Any:
        return new_session()

    @cached_property
    def _made(self) -> Any:
        return new_client(self._session, **self._asked_for)

    @property
    def _client(self) -> Any:
        """Made at the first call: to find its credentials it may have to ask somebody."""
        with self._making:
            return self._made

    def _place(self) -> Place:
        """For an error, so it must not fail itself."""
        try:
            endpoint = self._client.meta.endpoint_url
            credentials = self._session.get_credentials()
            identity = f"`{credentials.access_key}` (from {credentials.method})" if credentials else None
        except (BotoCoreError, ClientError):
            endpoint, identity = self._asked_for["endpoint"] or "AWS", None
        return Place(url=self.url, bucket=self._bucket, endpoint=endpoint, identity=identity)

    def stat(self, name: str) -> Stat | None:
        with self._told("s3:GetObject", name):
            try:
                answer = self._client.head_object(Bucket=self._bucket, Key=self._key(name))
            except ClientError as error:
                if code_of(error).status != 404:
                    raise
                self._see_bucket()
                return None
        if "ContentLength" not in answer:  # the client takes headers that were cut off for all of them
            raise Unreachable(f"the answer to the question for {self.url}{name} came short")
        return Stat(name=name, size_bytes=answer["ContentLength"])

    def _see_bucket(self) -> None:
        """Raises `NotThere` for a bucket that does not exist: a 404 for a file does not say which is missing."""
        if not self._bucket_was_seen:
            with self._told("s3:ListBucket", ""):
                try:
                    self._client.head_bucket(Bucket=self._bucket)
                except ClientError as error:
                    if code_of(error).status == 404:
                        raise self._no_bucket() from error
                    raise
            self._bucket_was_seen = True

    def _no_bucket(self) -> NotThere:
        try:
            known = [one["Name"] for one in self._client.list_buckets().get("Buckets", [])]
        except (BotoCoreError, ClientError):
            known = []  # to list buckets is a permission of its own, and not one that workers have
        return self._place().no_bucket(known)

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        if length == 0:
            return io.BytesIO()
        end = "" if length is None else str(start + length - 1)
        is_whole = start == 0 and length is None
        asked = {} if is_whole else {"Range": f"bytes={start}-{end}"}
        with self._told("s3:GetObject", name):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._key(name), **asked)
            except ClientError as error:
                if code_of(error).status == 416:
                    return io.BytesIO()
                if code_of(error).code == "NoSuchBucket":
                    raise self._no_bucket() from error
                raise
        # Some gateways answer a range with 200: one kind with the whole file, the other with the range.
        is_range = answer["ResponseMetadata"]["HTTPStatusCode"] == 206 or "ContentRange" in answer
        body = Body(
            answer["Body"].read,
            answer["Body"].close,
            translate=lambda error: translated(error, self._place(), "s3:GetObject", name),
            failures=(*_FAILURES, OSError),
            skip_bytes=0 if is_range else start,
            limit_bytes=length,
        )
        return cast(BinaryIO, body)

    def put(self, name: str, data: BinaryIO, *, size_bytes: int, digest: Digest) -> None:
        where = f"{self.url}{name}"
        declared = cast(BinaryIO, Declared(data, size_bytes=size_bytes, digest=digest, where=where))
        with self._told("s3:PutObject", name):
            if size_bytes <= self._part_bytes:
                content = declared.read()
                self._client.put_object(
                    Bucket=self._bucket, Key=self._key(name), Body=content, ContentMD5=md5_header(content)
                )
            else:
                self._put_parts(name, declared, size_bytes, digest)

    def _put_parts(self, name: str, data: BinaryIO, size_bytes: int, digest: Digest) -> None:
        of = UploadOf(
            endpoint=self._client.meta.endpoint_url,
            bucket=self._bucket,
            key=self._key(name),
            digest=digest,
            size_bytes=size_bytes,
            part_bytes=part_size_bytes(size_bytes, self._part_bytes),
        )
        with journal_of(self._journals, of) as journal:
            send_in_parts(self._client, data, of, journal)
        self._check_length(name, size_bytes)

    def copy(self, source: str, name: str, *, size_bytes: int) -> bool:
        key, place = self._key(name), {"Bucket": self._bucket, "Key": self._key(source)}
        with self._told("s3:PutObject", name):
            try:
                if size_bytes <= self._copy_bytes:
                    self._client.copy_object(Bucket=self._bucket, Key=key, CopySource=place)
                elif not copy_in_parts(
                    self._client, self._bucket, place["Key"], key, size_bytes=size_bytes, part_bytes=self._copy_bytes
                ):
                    return False
            except ClientError as error:
                if code_of(error).status in _CANNOT_COPY:
                    return False
                raise
        return self._length(name) == size_bytes

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        found = []
        with self._told("s3:ListBucketMultipartUploads", prefix):
            try:
                pages = self._client.get_paginator("list_multipart_uploads").paginate(
                    Bucket=self._bucket, Prefix=self._prefix + prefix
                )
                for page in pages:
                    found += [
                        (one["Key"].removeprefix(self._prefix), one["Initiated"].isoformat(timespec="seconds"))
                        for one in page.get("Uploads", [])
                    ]
            except ClientError as error:
                if code_of(error).status in _CANNOT_COPY:
                    return iter(())
                raise
        return (Unfinished(name=name, since=since) for name, since in sorted(found))

    def _check_length(self, name: str, size_bytes: int) -> None:
        """Its length as the server gives it is no evidence, but another one shows that the server lost something."""
        have_bytes = self._length(name)
        if have_bytes != size_bytes:
            have = "nothing is" if have_bytes is None else f"{have_bytes:,} bytes are"
            raise Unreachable(f"{self.url}{name}: {size_bytes:,} bytes were sent and acknowledged, {have} there")

    def _length(self, name: str) -> int | None:
        stat = self.stat(name)
        return None if stat is None else stat.size_bytes

    def list(self, prefix: str) -> Iterator[Stat]:
        """In order of name: servers over a file tree list `a/b` before `a.txt`."""
        found = []
        with self._told("s3:ListBucket", prefix):
            try:
                pages = self._client.get_paginator("list_objects_v2").paginate(
                    Bucket=self._bucket, Prefix=self._prefix + prefix, PaginationConfig=self._page
                )
                for page in pages:
                    found += [(one["Key"], one["Size"], one.get("ETag", "")) for one in page.get("Contents", [])]
            except ClientError as error:
                if code_of(error).status == 404:
                    raise self._no_bucket() from error
                raise
        self._bucket_was_seen = True
        names = sorted((key.removeprefix(self._prefix), size, tag) for key, size, tag in found if not key.endswith("/"))
        return (Stat(name=name, size_bytes=size, tag=tag) for name, size, tag in names)

    def delete(self, name: str) -> None:
        with self._told("s3:DeleteObject", name):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(name))

    def _key(self, name: str) -> str:
        return self._prefix + parse_path(name)

    @contextmanager
    def _told(self, permission: str, name: str) -> Iterator[None]:
        """What the client raises inside becomes one of ours; `permission` is what a 403 would be about."""
        try:
            yield
        except _FAILURES as error:
            raise translated(error, self._place(), permission, name) from error
