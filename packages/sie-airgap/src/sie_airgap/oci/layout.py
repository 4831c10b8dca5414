"""An OCI image layout: images in a folder or in a tar, blobs by digest and `index.json` over them.

Read by any name that tools write there: the whole reference, `name:tag`, or the tag alone where it is the only one.
"""

from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from sie_airgap.oci.image import Content
from sie_airgap.oci.manifest import MAX_MANIFEST_BYTES, OCI_INDEX, Descriptor, Index, encode, media_type_of
from sie_airgap.oci.reference import Reference
from sie_airgap.store.blobs import window
from sie_core.artifacts.digest import Digest, digest_of, hex_of, parse_digest
from sie_core.artifacts.errors import NotThere, TrustError

REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"
_MARKER = b'{"imageLayoutVersion":"1.0.0"}'


class Files(Protocol):
    """Where a layout's files are."""

    where: str

    def open(self, name: str, /, *, start: int = 0) -> BinaryIO:
        """A file from a byte on. Raises `FileNotFoundError`."""
        ...


class Folder:
    """Files under a folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, str(path)

    def open(self, name: str, /, *, start: int = 0) -> BinaryIO:
        """Raises `FileNotFoundError`, and `TrustError` for what is no file of this folder: it is not opened."""
        path = self.path / name
        real = path.resolve(strict=True)
        if not real.is_relative_to(self.path.resolve()):
            raise TrustError("a link leads out of the layout", where=str(path), want="a file", have=f"a link to {real}")
        if not real.is_file():
            raise TrustError("not a file", where=str(path), want="a file", have="a folder, a device or a pipe")
        return window(real, start=start, length=None)


class Layout:
    """A layout that is read."""

    def __init__(self, files: Files | Path) -> None:
        self._files: Files = Folder(files) if isinstance(files, Path) else files
        self.where = self._files.where

    def entries(self) -> tuple[Descriptor, ...]:
        """What `index.json` names. Raises `NotThere` for what is no layout."""
        path = f"{self.where}/index.json"
        try:
            with self._files.open("index.json") as stream:
                data = stream.read(MAX_MANIFEST_BYTES)
        except FileNotFoundError as error:
            raise NotThere(f"{self.where} is not an OCI layout: it has no index.json") from error
        try:
            entries = msgspec.json.decode(data, type=Index).manifests
            for entry in entries:
                parse_digest(entry.digest)  # it becomes a path
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise NotThere(f"{path} is not an index: {error}") from error
        return entries

    def find(self, reference: Reference) -> Descriptor:
        """What the layout holds under this name. Raises `NotThere`, with the names that it does hold."""
        entries = self.entries()
        for name in _names(reference):
            found = [entry for entry in entries if name in _names_of(entry)]
            if len(found) == 1:
                return found[0]
        by_digest = [entry for entry in entries if entry.digest == reference.digest]
        if by_digest:
            return by_digest[0]
        held = ", ".join(sorted({name for entry in entries for name in _names_of(entry)})) or "nothing with a name"
        raise NotThere(f"{self.where} has no `{reference}`", hint=f"it holds {held}")

    def open(self, digest: Digest, *, start: int = 0) -> BinaryIO:
        """Raises `NotThere`."""
        try:
            return self._files.open(_blob(digest), start=start)
        except FileNotFoundError as error:
            raise NotThere(f"{self.where} has no blob {digest}") from error

    def manifest(self, digest: Digest) -> Content:
        """A manifest or index, checked. Raises `NotThere`, `TrustError`, and `ValueError` for what is neither."""
        with self.open(digest) as stream:
            data = stream.read(MAX_MANIFEST_BYTES + 1)
        have = digest_of(data)
        if have != digest:
            raise TrustError(
                "a manifest is not what it is called", where=f"{self.where}/{_blob(digest)}", want=digest, have=have
            )
        try:
            return Content(media_type_of(data), data, digest)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"{self.where}/{_blob(digest)} is not a manifest: {error}") from error

    def tagged(self, tag: str) -> Digest | None:
        """What the layout holds under a tag that stands alone, without the name of an image."""
        found = [entry.digest for entry in self.entries() if entry.annotations.get(REF_NAME) == tag]
        return found[0] if len(found) == 1 else None


class LayoutFolder(Layout):
    """A layout that is written; a folder that is not there yet is an empty one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder

    def add_blob(self, data: bytes) -> Digest:
        path = self.folder / _blob(digest_of(data))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return digest_of(data)

    def add_image(self, name: str, content: Content) -> None:
        """Keeps a manifest or index whose children are there, and names it; a name is moved if it is known."""
        self.add_blob(content.data)
        entry = Descriptor(content.media_type, content.digest, len(content.data), annotations={REF_NAME: name})
        index = self.folder / "index.json"
        others = [known for known in (self.entries() if index.exists() else ()) if name not in _names_of(known)]
        index.write_bytes(encode(Index(manifests=(*others, entry), media_type=OCI_INDEX)))
        (self.folder / "oci-layout").write_bytes(_MARKER)


def _blob(digest: Digest) -> str:
    return f"blobs/sha256/{hex_of(digest)}"


def _names(reference: Reference) -> list[str]:
    return [str(reference), f"{reference.name}:{reference.tag}", reference.tag or ""]


def _names_of(entry: Descriptor) -> set[str]:
    return {entry.annotations[key] for key in (REF_NAME, IMAGE_NAME) if key in entry.annotations}
