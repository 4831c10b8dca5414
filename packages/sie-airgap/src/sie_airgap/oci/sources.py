"""Where an image is read from: the registry of its own name, another place for names that begin so, or files.

A lock keeps the name that the chart renders; `--image-source PREFIX=URL|oci:FOLDER|tar:FILE` only says where the
bytes are. A tar is what `docker save` or `podman save` writes, or an OCI layout in one file; it is read where it lies.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from sie_airgap.oci.auth import NOBODY, Logins, parse_logins
from sie_airgap.oci.image import Content
from sie_airgap.oci.layout import Layout
from sie_airgap.oci.manifest import parse
from sie_airgap.oci.reference import Place, Reference, parse_place, parse_reference, place_of
from sie_airgap.oci.referrers import Referring, cosign_tags
from sie_airgap.oci.registry import Registry
from sie_airgap.oci.saved import SavedImage, is_saved
from sie_airgap.oci.tar import Tar
from sie_core.artifacts.digest import Digest


class ImageSource(Protocol):
    """One image, wherever it lies."""

    @property
    def where(self) -> str:
        """For messages: the place, not the image."""
        ...

    def root(self) -> Content:
        """What the image's tag or digest names, checked. Raises `NotThere`."""
        ...

    def manifest(self, digest: Digest) -> Content:
        """A manifest or index of the image, checked. Raises `NotThere`, `TrustError`."""
        ...

    def open(self, digest: Digest, *, start: int = 0) -> BinaryIO:
        """A blob's bytes from `start`; whoever reads them checks them. Raises `NotThere`."""
        ...

    def referring(self, subject: Digest) -> Sequence[Referring]:
        """Signatures and the like that refer to a manifest of the image here."""
        ...


@dataclass(frozen=True)
class Elsewhere:
    """Images whose names begin with `prefix` are read from a registry, a layout's folder, or a tar."""

    prefix: str
    at: Place | Path
    is_tar: bool = False


def parse_elsewhere(text: str) -> Elsewhere:
    """Reads `PREFIX=URL`, `PREFIX=oci:FOLDER` or `PREFIX=tar:FILE`. Raises `ValueError`."""
    prefix, separator, at = text.partition("=")
    if not separator or not prefix or not at:
        raise ValueError(f"`{text}` is not an image source: want PREFIX=URL, PREFIX=oci:FOLDER or PREFIX=tar:FILE")
    if at.startswith("tar:"):
        return Elsewhere(prefix.rstrip("/"), Path(at.removeprefix("tar:")), is_tar=True)
    if at.startswith("oci:") and not at.startswith("oci://"):
        return Elsewhere(prefix.rstrip("/"), Path(at.removeprefix("oci:")))
    return Elsewhere(prefix.rstrip("/"), parse_place(at))


def load_logins(path: Path) -> Logins:
    """The logins of docker's `config.json`; nobody's without that file. Raises `ValueError` for what is none."""
    return parse_logins(path.read_bytes(), where=str(path)) if path.is_file() else NOBODY


@dataclass(frozen=True)
class RegistryImage:
    """An image in a registry, under a repository that need not be the one of its name."""

    registry: Registry
    repository: str
    asked: str

    @property
    def where(self) -> str:
        return f"{self.registry.place.origin}/{self.repository}"

    def root(self) -> Content:
        return self.registry.manifest(self.repository, self.asked)

    def manifest(self, digest: Digest) -> Content:
        return self.registry.manifest(self.repository, digest)

    def open(self, digest: Digest, *, start: int = 0) -> BinaryIO:
        return self.registry.open_blob(self.repository, digest, start=start)

    def referring(self, subject: Digest) -> Sequence[Referring]:
        found = [Referring(subject, entry.digest) for entry in self.registry.listed(self.repository, subject)]
        for tag in cosign_tags(subject):
            digest = self.registry.manifest_digest(self.repository, tag, to_push=False)
            if digest is not None:
                found.append(Referring(subject, digest, tag))
        return found


@dataclass(frozen=True)
class LayoutImage:
    """An image in a layout."""

    layout: Layout
    reference: Reference

    @property
    def where(self) -> str:
        return self.layout.where

    def root(self) -> Content:
        return self.layout.manifest(self.layout.find(self.reference).digest)

    def manifest(self, digest: Digest) -> Content:
        return self.layout.manifest(digest)

    def open(self, digest: Digest, *, start: int = 0) -> BinaryIO:
        return self.layout.open(digest, start=start)

    def referring(self, subject: Digest) -> Sequence[Referring]:
        named = [Referring(subject, digest) for about, digest in self._naming if about == subject]
        tags = {tag: self.layout.tagged(tag) for tag in cosign_tags(subject)}
        return named + [Referring(subject, digest, tag) for tag, digest in tags.items() if digest is not None]

    @cached_property
    def _naming(self) -> tuple[tuple[Digest, Digest], ...]:
        """(subject, manifest) of everything in the layout's index that names a subject."""
        found = []
        for entry in self.layout.entries():
            content = self.layout.manifest(entry.digest)
            read = parse(content.data, media_type=content.media_type, where=self.where)
            if read.subject is not None:
                found.append((read.subject.digest, content.digest))
        return tuple(found)


class ImageSources:
    """Finds every image; keeps one connection a registry. Use it in a `with`."""

    def __init__(self, elsewhere: Sequence[Elsewhere] = (), *, logins: Logins = NOBODY) -> None:
        self._elsewhere = sorted(elsewhere, key=lambda rule: len(rule.prefix), reverse=True)
        self._logins = logins
        self._registries: dict[Place, Registry] = {}
        self._tars: dict[Path, Tar] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def find(self, name: str) -> ImageSource:
        """The image of that name. Whether it is there is seen when it is read. Raises `ValueError` for no name."""
        reference = parse_reference(name)
        whole = f"{reference.registry}/{reference.repository}"
        for rule in self._elsewhere:
            if whole == rule.prefix or whole.startswith(rule.prefix + "/"):
                return self._at(rule, reference, whole.removeprefix(rule.prefix).lstrip("/") or reference.name)
        return RegistryImage(self._registry(place_of(reference)), reference.repository, reference.asked)

    def _at(self, rule: Elsewhere, reference: Reference, rest: str) -> ImageSource:
        if isinstance(rule.at, Path):
            return self._in_tar(rule.at, reference) if rule.is_tar else LayoutImage(Layout(rule.at), reference)
        return RegistryImage(self._registry(rule.at), rule.at.repository(rest), reference.asked)

    def _in_tar(self, path: Path, reference: Reference) -> ImageSource:
        if path not in self._tars:
            self._tars[path] = Tar(path)
        tar = self._tars[path]
        return SavedImage(tar, reference) if is_saved(tar) else LayoutImage(Layout(tar), reference)

    def _registry(self, place: Place) -> Registry:
        if place not in self._registries:
            self._registries[place] = self._open.enter_context(Registry(place, logins=self._logins))
        return self._registries[place]
