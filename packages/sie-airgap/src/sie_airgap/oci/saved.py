"""What `docker save` wrote before version 25, and `podman save` writes still: `manifest.json` over configs and layers.

It holds no manifest of a registry. One is made here from what is there, always the same bytes, and its digest is what
is locked; layers lie there unpacked, so theirs differ from those that a registry of the same image has. Hence an
image that is asked for by a digest, or that was locked from a registry, cannot come from such a tar, and that is said.
Tars of version 25 and later are OCI layouts, with the digests that the engine itself has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

import msgspec

from sie_airgap.oci.image import Content
from sie_airgap.oci.manifest import MAX_MANIFEST_BYTES, OCI_MANIFEST, Descriptor, Manifest, encode
from sie_airgap.oci.reference import Reference, parse_reference
from sie_airgap.oci.referrers import Referring
from sie_airgap.oci.tar import Tar
from sie_core.artifacts.digest import Digest, digest_of, digest_of_stream, parse_digest
from sie_core.artifacts.errors import NotThere, TrustError

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_FORMS = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}
_LAYERS_MOST = 1000
WHY_NOT = (
    "this tar has no manifest of a registry and its layers unpacked, so no digest of a registry can come from it; "
    "take the image from its registry, or as an OCI layout (`skopeo copy docker://… oci:FOLDER`)"
)


class _Saved(msgspec.Struct, rename="pascal"):
    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


class _RootFs(msgspec.Struct):
    diff_ids: list[str] = []


class _Config(msgspec.Struct):
    rootfs: _RootFs


def is_saved(tar: Tar) -> bool:
    return "manifest.json" in tar.names() and "index.json" not in tar.names()


def parse_saved(data: bytes, *, where: str) -> list[_Saved]:
    """Reads `manifest.json`. Raises `ValueError` with `where` for what is none."""
    try:
        saved = msgspec.json.decode(data, type=list[_Saved])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{where}: manifest.json is not what `docker save` writes: {error}") from error
    if any(len(one.layers) > _LAYERS_MOST for one in saved):
        raise ValueError(f"{where}: manifest.json names more than {_LAYERS_MOST} layers")
    return saved


def diff_ids(config: bytes, *, where: str) -> list[Digest]:
    """The digests of an image's unpacked layers, from its config. Raises `ValueError`."""
    try:
        return [parse_digest(text) for text in msgspec.json.decode(config, type=_Config).rootfs.diff_ids]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not the config of an image: {error}") from error


@dataclass(frozen=True)
class SavedImage:
    """One image of such a tar."""

    tar: Tar
    reference: Reference

    @property
    def where(self) -> str:
        return self.tar.where

    def root(self) -> Content:
        """The manifest that is made of it. Raises `NotThere`, `TrustError`, and `ValueError` for what is no image."""
        content, want = self._made[0], self.reference.digest
        if want is not None and want != content.digest:
            message = f"`{self.reference}` cannot come from here"
            raise TrustError(message, where=self.where, want=want, have=content.digest, hint=WHY_NOT)
        return content

    def manifest(self, digest: Digest) -> Content:
        content = self._made[0]
        if digest != content.digest:
            message = f"{self.where} has no manifest {digest}; what it holds is {content.digest}"
            raise NotThere(message, hint=WHY_NOT)
        return content

    def open(self, digest: Digest, *, start: int = 0) -> BinaryIO:
        name = self._made[1].get(digest)
        if name is None:
            raise NotThere(f"{self.where} has no blob {digest}", hint=WHY_NOT)
        return self._file(name, start=start)

    def referring(self, subject: Digest) -> Sequence[Referring]:
        return ()

    @cached_property
    def _made(self) -> tuple[Content, dict[Digest, str]]:
        """The manifest, and where its config and layers lie."""
        saved = self._found()
        with self._file(saved.config) as stream:
            config = stream.read(MAX_MANIFEST_BYTES + 1)
        if len(config) > MAX_MANIFEST_BYTES:
            raise ValueError(f"{self.where}: `{saved.config}` is longer than any config")
        ids = diff_ids(config, where=f"{self.where}: {saved.config}")
        if len(ids) != len(saved.layers):
            raise ValueError(f"{self.where}: the config names {len(ids)} layers, manifest.json {len(saved.layers)}")
        layers = [self._layer(name, known) for name, known in zip(saved.layers, ids, strict=True)]
        manifest = Manifest(
            config=Descriptor(_CONFIG, digest_of(config), len(config)), layers=tuple(layers), media_type=OCI_MANIFEST
        )
        data = encode(manifest)
        lie = {layer.digest: name for layer, name in zip(layers, saved.layers, strict=True)}
        return Content(OCI_MANIFEST, data, digest_of(data)), {**lie, digest_of(config): saved.config}

    def _layer(self, name: str, diff_id: Digest) -> Descriptor:
        """A layer under the digest of its bytes: of an unpacked one the config has it, a packed one is read."""
        with self._file(name) as stream:
            form = _FORMS.get(stream.read(2), "")
        if not form:
            return Descriptor(_LAYER, diff_id, self.tar.size(name))
        with self._file(name) as stream:
            digest, size_bytes = digest_of_stream(stream)
        return Descriptor(_LAYER + form, digest, size_bytes)

    def _found(self) -> _Saved:
        with self._file("manifest.json") as stream:
            saved = parse_saved(stream.read(MAX_MANIFEST_BYTES), where=self.where)
        tags = [(tag, one) for one in saved for tag in one.repo_tags or []]
        wanted = (self.reference.registry, self.reference.repository, self.reference.tag)
        for tag, one in tags:
            known = parse_reference(tag)
            if (known.registry, known.repository, known.tag) == wanted:
                return one
        short = f"{self.reference.name}:{self.reference.tag}"
        by_name = [one for tag, one in tags if tag.rpartition("/")[2] == short]
        if len(by_name) == 1:
            return by_name[0]
        held = ", ".join(tag for tag, _ in tags) or "images without a name"
        raise NotThere(f"{self.where} has no `{self.reference}`", hint=f"it holds {held}")

    def _file(self, name: str, *, start: int = 0) -> BinaryIO:
        try:
            return self.tar.open(name, start=start)
        except FileNotFoundError as error:
            raise NotThere(str(error)) from error
