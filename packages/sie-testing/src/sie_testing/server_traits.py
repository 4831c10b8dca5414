"""Where S3 servers differ, and what we do about it: one table, measured on the servers that can be had here.

`probe` asks a running server; `MEASURED` is what each answered. The tests hold the two against each other, and
docs/formats/bucket-layout.md against `markdown`.
"""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

_PART_BYTES = 5 << 20
_OTHER_ETAG = '"ffffffffffffffffffffffffffffffff"'


@dataclass(frozen=True)
class Trait:
    """How a question is put to a server; `so` is what follows from the answers for the mirror and for readers."""

    answer: Callable[[Any, str], str]
    so: str


def client(endpoint: str, *, access_key: str, secret_key: str) -> Any:
    """boto3's own, without the checksums that it sends by default."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def probe(s3: Any, bucket: str) -> tuple[str, ...]:
    """What the server answers to each question of `TRAITS`, in the words of `MEASURED`."""
    return tuple(trait.answer(s3, bucket) for trait in TRAITS.values())


def _refused(call: Callable[[], object]) -> str | None:
    """The status under which a call was refused."""
    try:
        call()
    except ClientError as error:
        return str(error.response["ResponseMetadata"]["HTTPStatusCode"])
    return None


def _b64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _wrong_sha256(s3: Any, bucket: str) -> str:
    wrong = _b64(hashlib.sha256(b"other").digest())
    return _refused(lambda: s3.put_object(Bucket=bucket, Key="sha", Body=b"x", ChecksumSHA256=wrong)) or "stored"


def _wrong_md5(s3: Any, bucket: str) -> str:
    wrong = _b64(hashlib.md5(b"other", usedforsecurity=False).digest())
    return _refused(lambda: s3.put_object(Bucket=bucket, Key="md5", Body=b"x", ContentMD5=wrong)) or "stored"


def _etag(s3: Any, bucket: str) -> str:
    s3.put_object(Bucket=bucket, Key="etag", Body=b"x")
    etag = str(s3.head_object(Bucket=bucket, Key="etag").get("ETag", "")).strip('"')
    return "its MD5" if etag == hashlib.md5(b"x", usedforsecurity=False).hexdigest() else etag or "none"


def _put_unless_there(s3: Any, bucket: str) -> str:
    s3.put_object(Bucket=bucket, Key="there", Body=b"old")
    return _refused(lambda: s3.put_object(Bucket=bucket, Key="there", Body=b"new", IfNoneMatch="*")) or "overwrote"


def _put_if_match(s3: Any, bucket: str) -> str:
    s3.put_object(Bucket=bucket, Key="there", Body=b"old")
    return _refused(lambda: s3.put_object(Bucket=bucket, Key="there", Body=b"new", IfMatch=_OTHER_ETAG)) or "overwrote"


def _get_if_match(s3: Any, bucket: str) -> str:
    s3.put_object(Bucket=bucket, Key="there", Body=b"old")
    return _refused(lambda: s3.get_object(Bucket=bucket, Key="there", IfMatch=_OTHER_ETAG)["Body"].read()) or "served"


def _delete_several(s3: Any, bucket: str) -> str:
    keys = {"Objects": [{"Key": "one"}, {"Key": "two"}]}
    return _refused(lambda: s3.delete_objects(Bucket=bucket, Delete=keys)) or "deleted"


def _range(s3: Any, bucket: str) -> str:
    s3.put_object(Bucket=bucket, Key="range", Body=b"0123456789")
    answer = s3.get_object(Bucket=bucket, Key="range", Range="bytes=2-4")
    body = answer["Body"].read()
    said = str(answer["ResponseMetadata"]["HTTPStatusCode"])
    return f"{said}, {'the range' if body == b'234' else 'the whole file'}"


def _file_and_folder(s3: Any, bucket: str) -> str:
    s3.put_object(Bucket=bucket, Key="x", Body=b"1")
    return _refused(lambda: s3.put_object(Bucket=bucket, Key="x/y", Body=b"2")) or "both"


def _copy(s3: Any, bucket: str) -> str:
    s3.put_object(Bucket=bucket, Key="original", Body=b"0123456789")
    source = {"Bucket": bucket, "Key": "original"}
    refused = _refused(lambda: s3.copy_object(Bucket=bucket, Key="copied", CopySource=source))
    return refused or ("copied" if s3.head_object(Bucket=bucket, Key="copied")["ContentLength"] == 10 else "empty")


def _copy_part(s3: Any, bucket: str) -> str:
    s3.put_object(Bucket=bucket, Key="original", Body=b"0123456789")
    source = {"Bucket": bucket, "Key": "original"}
    target = _begun(s3, bucket)
    refused = _refused(lambda: s3.upload_part_copy(**target, PartNumber=1, CopySource=source))
    sizes = [one["Size"] for one in s3.list_parts(**target).get("Parts", [])]
    s3.abort_multipart_upload(**target)
    return refused or ("copied" if sizes == [10] else "200, nothing copied")


def _list_parts(s3: Any, bucket: str) -> str:
    target = _begun(s3, bucket)
    etag = s3.upload_part(**target, PartNumber=1, Body=bytes(_PART_BYTES))["ETag"]
    listed = [(one["Size"], one["ETag"]) for one in s3.list_parts(**target).get("Parts", [])]
    s3.abort_multipart_upload(**target)
    return "listed" if listed == [(_PART_BYTES, etag)] else "others"


def _list_uploads(s3: Any, bucket: str) -> str:
    target = _begun(s3, bucket)
    pages = s3.list_multipart_uploads(Bucket=bucket, Prefix="parts/")
    s3.abort_multipart_upload(**target)
    return "listed" if [one["Key"] for one in pages.get("Uploads", [])] == ["parts/x"] else "none"


def _begun(s3: Any, bucket: str) -> dict[str, str]:
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts/x")["UploadId"]
    return {"Bucket": bucket, "Key": "parts/x", "UploadId": upload}


TRAITS = {
    "PUT with a wrong sha256": Trait(_wrong_sha256, "no checksum is sent; readers hash"),
    "PUT with a wrong Content-MD5": Trait(_wrong_md5, "sent with every request: it guards the way, not the disk"),
    "ETag of a file": Trait(_etag, "no evidence; only its change is noticed"),
    "PUT If-None-Match: * over a file": Trait(_put_unless_there, "conditional writes are not used"),
    "PUT If-Match with another ETag": Trait(_put_if_match, "conditional writes are not used"),
    "GET If-Match with another ETag": Trait(_get_if_match, "not used"),
    "DeleteObjects as boto3 sends it": Trait(_delete_several, "files are deleted one at a time"),
    "GET of a range": Trait(_range, "`Content-Range` decides, not the status"),
    "Keys `x` and `x/y`": Trait(_file_and_folder, "no layout of ours has both"),
    "CopyObject": Trait(_copy, "identical files are sent once"),
    "UploadPartCopy": Trait(_copy_part, "where it copies nothing, the file is sent"),
    "ListParts": Trait(_list_parts, "an upload that was cut short goes on"),
    "ListMultipartUploads": Trait(_list_uploads, "unfinished uploads are told"),
}

MEASURED = {
    "seaweedfs": (
        *("400", "400", "its MD5", "412", "412", "412", "deleted"),
        *("206, the range", "both", "copied", "copied", "listed", "listed"),
    ),
    "juicefs": (
        *("stored", "400", "none", "overwrote", "overwrote", "412", "400"),
        *("206, the range", "500", "copied", "copied", "listed", "listed"),
    ),
    "rclone": (
        *("stored", "400", "its MD5", "overwrote", "overwrote", "served", "deleted"),
        *("200, the range", "500", "copied", "200, nothing copied", "listed", "listed"),
    ),
}
"""For each server, the answers in the order of `TRAITS`."""

SERVERS = {"seaweedfs": "SeaweedFS 4.48", "juicefs": "old MinIO (JuiceFS 1.4.2 gateway)", "rclone": "rclone 1.75.2"}


def markdown() -> str:
    """The table as it stands in docs/formats/bucket-layout.md."""
    rows = [["", *SERVERS.values(), "So"], ["---"] * (len(SERVERS) + 2)]
    for number, (name, trait) in enumerate(TRAITS.items()):
        rows.append([name, *(MEASURED[server][number] for server in SERVERS), trait.so])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
