"""Digests: `sha256:` and 64 hex digits, the only identity that bytes have here."""

import hashlib
import re
from typing import BinaryIO, NewType

Digest = NewType("Digest", str)

CHUNK_BYTES = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def parse_digest(text: str) -> Digest:
    """Raises `ValueError` for anything but `sha256:` and 64 lower-case hex digits."""
    if _DIGEST.fullmatch(text) is None:
        raise ValueError(f"`{text}` is not a digest: want `sha256:` and 64 lower-case hex digits")
    return Digest(text)


def digest_of(data: bytes | memoryview) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def digest_of_stream(stream: BinaryIO) -> tuple[Digest, int]:
    """The digest and the length in bytes of all that is left in `stream`."""
    running, size_bytes = hashlib.sha256(), 0
    while chunk := stream.read(CHUNK_BYTES):
        running.update(chunk)
        size_bytes += len(chunk)
    return Digest("sha256:" + running.hexdigest()), size_bytes


def hex_of(digest: Digest) -> str:
    return digest.removeprefix("sha256:")
