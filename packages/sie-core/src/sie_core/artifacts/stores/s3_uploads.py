"""Files that go to an S3 server in parts: sent, sent on after an interruption, or copied there from another key.

The file becomes visible with the last request, when all of it has been hashed and proved right.
"""

import base64
import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, BinaryIO

from botocore.exceptions import BotoCoreError, ClientError

from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import TrustError, Unreachable
from sie_core.artifacts.stores.s3_client import STREAMS
from sie_core.artifacts.stores.s3_errors import NO_SUCH_UPLOAD, code_of
from sie_core.artifacts.stores.upload_journal import (
    Begun,
    Listed,
    SentPart,
    UploadJournal,
    UploadOf,
    part_length,
    sent_parts,
)

PART_BYTES = 32 << 20
COPY_BYTES = 1 << 30
"""The most that a server is asked to copy in one request: it must answer before the client gives up."""
_MIB = 1 << 20
_MOST_PARTS = 10_000
_UNSUPPORTED = (405, 501)

Target = dict[str, str]
Finished = dict[str, Any]


class _ReadWrong(Unreachable):
    """What an earlier attempt read was not what this one reads; some servers do not let a part be replaced."""


def part_size_bytes(size_bytes: int, least_bytes: int = PART_BYTES) -> int:
    """`least_bytes`, or as many whole MiB as keep a file within the 10,000 parts that S3 allows."""
    needed_bytes = -(-size_bytes // _MOST_PARTS)
    return max(least_bytes, -(-needed_bytes // _MIB) * _MIB)


def send_in_parts(client: Any, data: BinaryIO, of: UploadOf, journal: UploadJournal) -> None:
    """Send what an earlier, interrupted upload of this file has not; complete it when all has been hashed.

    An upload of wrong data is taken back, and so is one that somebody stops at the keyboard. One that fails for
    another reason is left, and noted in the journal, for the next attempt to finish.
    """
    upload, sent = _resumed(client, of, journal)
    target = {"Bucket": of.bucket, "Key": of.key, "UploadId": upload}
    try:
        finished = _all_sent(client, target, data, of, sent, journal)
    except (TrustError, KeyboardInterrupt, _ReadWrong):
        _take_back(client, target)
        journal.end()
        raise
    client.complete_multipart_upload(**target, MultipartUpload={"Parts": finished})
    journal.end()


def copy_in_parts(client: Any, bucket: str, source: str, key: str, *, size_bytes: int, part_bytes: int) -> bool:
    """False when the server cannot: some answer 200 to the request for a part and copy nothing."""
    upload = _begun(client, bucket, key)
    target = {"Bucket": bucket, "Key": key, "UploadId": upload}

    def copy(number: int) -> Finished:
        start = (number - 1) * part_bytes
        end = min(start + part_bytes, size_bytes) - 1
        answer = client.upload_part_copy(
            **target,
            PartNumber=number,
            CopySource={"Bucket": bucket, "Key": source},
            CopySourceRange=f"bytes={start}-{end}",
        )
        return {"PartNumber": number, "ETag": answer.get("CopyPartResult", {}).get("ETag")}

    try:
        with ThreadPoolExecutor(STREAMS) as pool:
            finished = list(pool.map(copy, range(1, -(-size_bytes // part_bytes) + 1)))
        if not all(part["ETag"] for part in finished):
            _take_back(client, target)
            return False
    except BaseException:  # nothing is lost: no byte was sent
        _take_back(client, target)
        raise
    client.complete_multipart_upload(**target, MultipartUpload={"Parts": finished})
    return True


def md5_header(content: bytes) -> str:
    """For `Content-MD5`, which every server that we know checks."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode("ascii")


def exactly(data: BinaryIO, size_bytes: int) -> bytes:
    """`size_bytes` from a stream that returns fewer at a time; `Declared` has raised if there are not so many."""
    content = bytearray()
    while len(content) < size_bytes and (chunk := data.read(size_bytes - len(content))):
        content += chunk
    return bytes(content)


def _resumed(client: Any, of: UploadOf, journal: UploadJournal) -> tuple[str, dict[int, SentPart]]:
    """The upload to go on with, and what it has; a new one where there is none of this very file."""
    noted = journal.read()
    if noted is not None:
        begun, parts = noted
        target = {"Bucket": begun.of.bucket, "Key": begun.of.key, "UploadId": begun.upload}
        listed = _listed(client, target)
        if listed is not None and begun.of == of:
            return begun.upload, sent_parts(parts, listed, of)
        _take_back(client, target)
    upload = _begun(client, of.bucket, of.key)
    journal.begin(Begun(of, upload))
    return upload, {}


def _begun(client: Any, bucket: str, key: str) -> str:
    upload: str | None = client.create_multipart_upload(Bucket=bucket, Key=key).get("UploadId")
    if upload is None:  # the client takes a body that was cut off for an empty one
        raise Unreachable(f"the answer to the beginning of an upload of {key} came short")
    return upload


def _listed(client: Any, target: Target) -> dict[int, Listed] | None:
    """The parts that the server has; None when it knows no such upload, or does not list parts."""
    listed: dict[int, Listed] = {}
    try:
        for page in client.get_paginator("list_parts").paginate(**target):
            listed |= {one["PartNumber"]: Listed(one["Size"], one["ETag"]) for one in page.get("Parts", [])}
    except ClientError as error:
        code = code_of(error)
        if code.code in NO_SUCH_UPLOAD or code.status in _UNSUPPORTED:
            return None
        raise
    return listed


def _all_sent(
    client: Any, target: Target, data: BinaryIO, of: UploadOf, sent: dict[int, SentPart], journal: UploadJournal
) -> list[Finished]:
    parts: list[Future[Finished]] = []
    with ThreadPoolExecutor(STREAMS) as pool:
        running: deque[Future[Finished]] = deque()
        for number in range(1, -(-of.size_bytes // of.part_bytes) + 1):
            content = exactly(data, part_length(of, number))
            if len(running) == STREAMS:  # no more parts in memory than are being sent
                running.popleft().result()
            future = pool.submit(_send_part, client, target, number, content, sent.get(number), journal)
            running.append(future)
            parts.append(future)
        return [future.result() for future in parts]


def _send_part(
    client: Any, target: Target, number: int, content: bytes, sent: SentPart | None, journal: UploadJournal
) -> Finished:
    digest = digest_of(content)
    if sent is not None:
        if sent.digest != digest:
            raise _ReadWrong(f"part {number} of an earlier attempt at {target['Key']} was read wrong: it begins anew")
        return {"PartNumber": number, "ETag": sent.etag}
    answer = client.upload_part(**target, PartNumber=number, Body=content, ContentMD5=md5_header(content))
    etag = answer.get("ETag", "")
    if not etag or etag.startswith('"') != etag.endswith('"'):
        # The client takes a header that was cut off for a whole one.
        raise Unreachable(f"the answer to part {number} of {target['Key']} came short")
    journal.note(SentPart(number=number, digest=digest, etag=etag))
    return {"PartNumber": number, "ETag": etag}


def _take_back(client: Any, target: Target) -> None:
    """Where that fails, too, the upload is told among the unfinished ones."""
    with suppress(BotoCoreError, ClientError):
        client.abort_multipart_upload(**target)
