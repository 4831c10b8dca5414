"""Files in an S3 bucket, as AWS, MinIO, Ceph, SeaweedFS and their like serve them.

Nothing a server says about bytes is evidence: checksums are not asked for (older MinIO answers the client's
default with 400), ETags only spare a part from being sent twice, and every reader holds what it got against
a digest of its own. A file longer than one part is sent in parts and becomes visible when all have been
hashed and proved right; an upload that was cut short is found again by its parts and goes on from there.
"""

import base64
import hashlib
import io
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO, cast

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from sie_core.artifacts.digest import Digest
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.manifest import parse_path
from sie_core.artifacts.store import Stat, Traits
from sie_core.artifacts.stores.s3_errors import NO_SUCH_UPLOAD, Place, code_of, translated
from sie_core.artifacts.stores.streams import Body, Declared

PART_BYTES = 32 << 20
STREAMS = 4
_MIB = 1 << 20
_MOST_PARTS = 10_000
_FAILURES = (BotoCoreError, ClientError, HTTPError)


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
        instance_metadata: bool = False,
        part_bytes: int = PART_BYTES,
        page_names: int = 1_000,
    ) -> None:
        """See `open_store`; `part_bytes` is the least a part has, `page_names` how many files are listed at a time."""
        session = botocore.session.Session()
        session.register_component("data_loader", _api_descriptions())
        if not instance_metadata:
            session.get_component("credential_provider").remove("iam-role")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self.url = f"s3://{bucket}/{self._prefix}"
        self._client = _client(session, endpoint=endpoint, region=region, path_style=path_style)
        credentials = session.get_credentials()
        identity = credentials.access_key if credentials else None
        self._place = Place(url=self.url, bucket=bucket, endpoint=self._client.meta.endpoint_url, identity=identity)
        self._part_bytes = part_bytes
        self._page = {"PageSize": page_names}
        self._bucket_was_seen = False

    def stat(self, name: str) -> Stat | None:
        with self._told("s3:GetObject", name):
            try:
                answer = self._client.head_object(Bucket=self._bucket, Key=self._key(name))
            except ClientError as error:
                if code_of(error).status != 404:
                    raise
                self._see_bucket()
                return None
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
        return self._place.no_bucket(known)

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
        # Some gateways answer a range with 200 and the whole file.
        is_range = answer["ResponseMetadata"]["HTTPStatusCode"] == 206
        body = Body(
            answer["Body"].read,
            answer["Body"].close,
            translate=lambda error: translated(error, self._place, "s3:GetObject", name),
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
                    Bucket=self._bucket, Key=self._key(name), Body=content, ContentMD5=_md5(content)[0]
                )
            else:
                self._put_parts(self._key(name), declared, size_bytes)

    def list(self, prefix: str) -> Iterator[Stat]:
        """In order of name: servers over a file tree list `a/b` before `a.txt`."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix, PaginationConfig=self._page
        )
        found = []
        with self._told("s3:ListBucket", prefix):
            try:
                for page in pages:
                    found += [(one["Key"], one["Size"]) for one in page.get("Contents", [])]
            except ClientError as error:
                if code_of(error).status == 404:
                    raise self._no_bucket() from error
                raise
        self._bucket_was_seen = True
        names = sorted((key.removeprefix(self._prefix), size) for key, size in found if not key.endswith("/"))
        return (Stat(name=name, size_bytes=size) for name, size in names)

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
            raise translated(error, self._place, permission, name) from error

    def _put_parts(self, key: str, data: BinaryIO, size_bytes: int) -> None:
        """Send what an earlier, interrupted upload of this file has not; complete it when all has been hashed.

        An upload that fails for any other reason than wrong data is left for the next attempt to finish.
        """
        part_bytes = part_size_bytes(size_bytes, self._part_bytes)
        upload, sent = self._unfinished(key)
        upload = upload or self._client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]
        target = {"Bucket": self._bucket, "Key": key, "UploadId": upload}
        parts: list[Future[dict[str, Any]]] = []
        try:
            with ThreadPoolExecutor(STREAMS) as pool:
                running: deque[Future[dict[str, Any]]] = deque()
                for number in range(1, -(-size_bytes // part_bytes) + 1):
                    content = _exactly(data, min(part_bytes, size_bytes - (number - 1) * part_bytes))
                    if len(running) == STREAMS:  # no more parts in memory than are being sent
                        running.popleft().result()
                    future = pool.submit(self._put_part, target, number, content, sent.get(number))
                    running.append(future)
                    parts.append(future)
                finished = [future.result() for future in parts]
        except TrustError:
            self._client.abort_multipart_upload(**target)
            raise
        self._client.complete_multipart_upload(**target, MultipartUpload={"Parts": finished})

    def _unfinished(self, key: str) -> tuple[str | None, dict[int, tuple[int, str]]]:
        """The newest unfinished upload of a key, and its parts: number → (bytes, ETag)."""
        listed = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=key).get("Uploads", [])
        same = [one for one in listed if one["Key"] == key]
        if not same:
            return None, {}
        upload = max(same, key=lambda one: one["Initiated"])["UploadId"]
        sent: dict[int, tuple[int, str]] = {}
        try:
            for page in self._client.get_paginator("list_parts").paginate(
                Bucket=self._bucket, Key=key, UploadId=upload
            ):
                sent |= {one["PartNumber"]: (one["Size"], one["ETag"].strip('"')) for one in page.get("Parts", [])}
        except ClientError as error:
            if code_of(error).code in NO_SUCH_UPLOAD:
                return None, {}
            raise
        return upload, sent

    def _put_part(
        self, target: dict[str, str], number: int, content: bytes, sent: tuple[int, str] | None
    ) -> dict[str, Any]:
        """One part; not sent again when the server lists it with this length and this MD5."""
        md5, etag = _md5(content)
        if sent == (len(content), etag):
            return {"PartNumber": number, "ETag": f'"{etag}"'}
        answer = self._client.upload_part(**target, PartNumber=number, Body=content, ContentMD5=md5)
        return {"PartNumber": number, "ETag": answer["ETag"]}


def part_size_bytes(size_bytes: int, least_bytes: int = PART_BYTES) -> int:
    """`least_bytes`, or as many whole MiB as keep a file within the 10,000 parts that S3 allows."""
    needed_bytes = -(-size_bytes // _MOST_PARTS)
    return max(least_bytes, -(-needed_bytes // _MIB) * _MIB)


def _exactly(data: BinaryIO, size_bytes: int) -> bytes:
    """`size_bytes` from a stream that returns fewer at a time; `Declared` has raised if there are not so many."""
    content = bytearray()
    while len(content) < size_bytes and (chunk := data.read(size_bytes - len(content))):
        content += chunk
    return bytes(content)


def _md5(content: bytes) -> tuple[str, str]:
    """For `Content-MD5`, which every server checks, and in hex as ETags of parts have it."""
    md5 = hashlib.md5(content, usedforsecurity=False)
    return base64.b64encode(md5.digest()).decode("ascii"), md5.hexdigest()


@cache
def _api_descriptions() -> Any:
    """The client's own files, parsed once a process: most of what it costs to open a bucket."""
    return botocore.loaders.create_loader()


def _client(session: Any, *, endpoint: str | None, region: str | None, path_style: bool) -> Any:
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if path_style else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # Waiting is decided where the caller can be told of it; one more attempt covers a closed connection.
        retries={"mode": "standard", "total_max_attempts": 2},
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=2 * STREAMS + 2,
    )
    region = region or session.get_config_variable("region") or "us-east-1"
    return boto3.session.Session(botocore_session=session).client(
        "s3", endpoint_url=endpoint, region_name=region, config=config
    )
