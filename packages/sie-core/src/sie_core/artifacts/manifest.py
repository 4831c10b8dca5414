"""What one snapshot consists of, as canonical JSON that has one digest.

The same bytes are written beside a model in a bucket (`manifests/<commit>.json`) and in the worker's
cache; their digest is what a lock may pin.
"""

import re

import msgspec
from msgspec import Struct

from sie_core.artifacts.digest import Digest, digest_of, parse_digest
from sie_core.ids import ModelId, Revision, parse_model_id, parse_revision

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class FileEntry(Struct, frozen=True, order=True, forbid_unknown_fields=True):
    """One file: its path as in the repository (POSIX, relative, no `..`), what it holds, how long it is."""

    path: str
    digest: Digest
    size_bytes: int


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Every file of a repository at one revision, sorted by path.

    Attributes:
        adopted: it was written from what was found in a bucket that somebody had filled by hand: from then on the
            files cannot change unseen, but nothing says that they were what the hub has.
    """

    repo: ModelId
    revision: Revision
    files: tuple[FileEntry, ...]
    adopted: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.files)


def canonical_json(value: object) -> bytes:
    """Sorted keys, UTF-8, no spaces, one LF at the end: the same value is the same bytes everywhere."""
    return msgspec.json.encode(value, order="sorted") + b"\n"


def parse_path(path: str) -> str:
    """Raises `ValueError` for what must never become a path on disk."""
    parts = path.split("/")
    if not path or "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"`{path}` is not a relative path inside a repository")
    if not is_plain(path):
        raise ValueError(f"{path!a} is a path with control characters in it")
    return path


def is_plain(text: str) -> bool:
    """Whether it shows on a terminal as what it is: nothing in it moves a cursor or turns the direction of writing."""
    return _CONTROLS.search(text) is None


def encode_manifest(manifest: Manifest) -> bytes:
    return canonical_json(manifest)


def manifest_digest(manifest: Manifest) -> Digest:
    return digest_of(encode_manifest(manifest))


def decode_manifest(data: bytes) -> Manifest:
    """Raises `ValueError` for bytes that are not a manifest, and for names, digests, order or sizes that cannot be."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a manifest: {error}") from error
    parse_model_id(manifest.repo)
    parse_revision(manifest.revision)
    for entry in manifest.files:
        parse_path(entry.path)
        parse_digest(entry.digest)
        if entry.size_bytes < 0:
            raise ValueError(f"`{entry.path}` has a negative size: {entry.size_bytes}")
    paths = [entry.path for entry in manifest.files]
    if paths != sorted(set(paths)):
        raise ValueError("files are not sorted by path, or a path stands twice")
    return manifest
