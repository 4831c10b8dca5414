"""Where a registry keeps things: a folder of blobs by digest, and per repository which of them belong to it.

blobs/sha256/<hex>                          every blob and every manifest, once
repositories/<name>/_layers/<hex>           an empty file: this blob may be read through this repository
repositories/<name>/_manifests/<hex>        its media type
repositories/<name>/_tags/<tag>             a digest
repositories/<name>/_referrers/<hex>/<hex>  an empty file: the second names the first as its subject
uploads/<id>                                what has come so far
"""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from sie_core.artifacts.digest import CHUNK_BYTES, Digest, digest_of, hex_of


class Storage:
    """Blobs, manifests and tags under one folder; every file appears by rename, whole."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs" / "sha256"
        self._repositories = root / "repositories"
        self._uploads = root / "uploads"
        for folder in (self._blobs, self._repositories, self._uploads):
            folder.mkdir(parents=True, exist_ok=True)

    def blob_path(self, digest: Digest) -> Path:
        return self._blobs / hex_of(digest)

    def blob(self, repository: str, digest: Digest) -> Path | None:
        """Where the blob lies, if this repository has it; a manifest counts as one."""
        at = self._repository(repository)
        known = (at / "_layers" / hex_of(digest)).exists() or (at / "_manifests" / hex_of(digest)).exists()
        return self.blob_path(digest) if known else None

    def link(self, repository: str, digest: Digest) -> None:
        """From now on this repository has the blob."""
        _write(self._repository(repository) / "_layers" / hex_of(digest), b"")

    def unlink(self, repository: str, digest: Digest) -> None:
        (self._repository(repository) / "_layers" / hex_of(digest)).unlink(missing_ok=True)

    def begin_upload(self) -> str:
        upload = secrets.token_hex(16)
        (self._uploads / upload).touch()
        return upload

    def upload_size(self, upload: str) -> int | None:
        """Bytes that have come; None when there is no such upload."""
        path = self._upload(upload)
        return path.stat().st_size if path is not None and path.exists() else None

    def append(self, upload: str, body: BinaryIO) -> int:
        """Adds a body to what has come, and says how much that is now."""
        with (self._uploads / upload).open("ab") as sink:
            while chunk := body.read(CHUNK_BYTES):
                sink.write(chunk)
            return sink.tell()

    def finish_upload(self, repository: str, upload: str, digest: Digest, *, checked: bool = True) -> bool:
        """Keeps what has come as a blob of the repository; False, and nothing kept, when it is not of that digest."""
        path = self._uploads / upload
        with path.open("rb") as stream:
            have = hashlib.file_digest(stream, "sha256").hexdigest()
        if checked and have != hex_of(digest):
            path.unlink()
            return False
        path.rename(self.blob_path(digest))
        self.link(repository, digest)
        return True

    def cancel_upload(self, upload: str) -> None:
        (self._uploads / upload).unlink(missing_ok=True)

    def manifest(self, repository: str, digest: Digest) -> tuple[str, bytes] | None:
        """Media type and bytes."""
        about = self._repository(repository) / "_manifests" / hex_of(digest)
        return (about.read_text(), (self._blobs / hex_of(digest)).read_bytes()) if about.exists() else None

    def keep_manifest(self, repository: str, media_type: str, content: bytes) -> Digest:
        digest = digest_of(content)
        _write(self._blobs / hex_of(digest), content)
        _write(self._repository(repository) / "_manifests" / hex_of(digest), media_type.encode())
        return digest

    def delete_manifest(self, repository: str, digest: Digest) -> None:
        """The manifest, and the tags that name it."""
        (self._repository(repository) / "_manifests" / hex_of(digest)).unlink(missing_ok=True)
        for tag in self.tags(repository):
            if self.tag(repository, tag) == digest:
                self.delete_tag(repository, tag)

    def tag(self, repository: str, tag: str) -> Digest | None:
        with suppress(FileNotFoundError):
            return Digest((self._repository(repository) / "_tags" / tag).read_text())
        return None

    def set_tag(self, repository: str, tag: str, digest: Digest) -> None:
        _write(self._repository(repository) / "_tags" / tag, digest.encode())

    def delete_tag(self, repository: str, tag: str) -> None:
        (self._repository(repository) / "_tags" / tag).unlink(missing_ok=True)

    def tags(self, repository: str) -> list[str]:
        return _names(self._repository(repository) / "_tags")

    def add_referrer(self, repository: str, subject: Digest, referrer: Digest) -> None:
        _write(self._repository(repository) / "_referrers" / hex_of(subject) / hex_of(referrer), b"")

    def referrers(self, repository: str, subject: Digest) -> Iterator[tuple[Digest, tuple[str, bytes]]]:
        """Every manifest that names the subject: digest, and media type and bytes."""
        for name in _names(self._repository(repository) / "_referrers" / hex_of(subject)):
            found = self.manifest(repository, Digest(f"sha256:{name}"))
            if found is not None:
                yield Digest(f"sha256:{name}"), found

    def has_repository(self, repository: str) -> bool:
        return self._repository(repository).is_dir()

    def repositories(self) -> list[str]:
        """Those that hold something, by name."""
        return sorted(self._named())

    def _named(self) -> Iterator[str]:
        for folder in self._repositories.rglob("_manifests"):
            yield folder.parent.relative_to(self._repositories).as_posix()

    def _repository(self, repository: str) -> Path:
        return self._repositories / repository

    def _upload(self, upload: str) -> Path | None:
        return self._uploads / upload if upload.isalnum() else None


def _names(folder: Path) -> list[str]:
    """The files of a folder, without those still being written."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}")
    temporary.write_bytes(content)
    temporary.replace(path)
