"""Manifests and indexes: what an image consists of. Pure.

Both the OCI and the Docker media types are read; bytes are never written again, only passed on, so that
digests stay what they are. What is read has bounds, since it comes from outside.
"""

import msgspec
from msgspec import Struct

from sie_core.artifacts.digest import Digest, parse_digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
ACCEPT = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST))

_SCHEMA_1 = frozenset(
    f"application/vnd.docker.distribution.manifest.v1+{form}" for form in ("json", "prettyjws", "jws")
)
_FOREIGN = frozenset(
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    )
)

MAX_MANIFEST_BYTES = 4 << 20
MAX_CHILDREN = 1000
MAX_BLOB_BYTES = 1 << 50


class Platform(Struct, frozen=True, omit_defaults=True):
    """What an image runs on, as an index says it."""

    architecture: str
    os: str
    variant: str = ""

    def __str__(self) -> str:
        """`linux/arm64/v8`."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What one thing refers to another by."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] = {}
    artifact_type: str = ""
    urls: tuple[str, ...] = ()


class Index(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Manifests for several platforms; or other indexes."""

    manifests: tuple[Descriptor, ...]
    schema_version: int = msgspec.field(default_factory=lambda: 2)
    media_type: str = ""
    annotations: dict[str, str] = {}
    artifact_type: str = ""
    subject: Descriptor | None = None


class Manifest(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One image for one platform, or another artefact: a config and layers."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    schema_version: int = msgspec.field(default_factory=lambda: 2)
    media_type: str = ""
    annotations: dict[str, str] = {}
    artifact_type: str = ""
    subject: Descriptor | None = None


class _Kind(Struct, rename="camel"):
    media_type: str = ""
    schema_version: int = 0
    manifests: msgspec.Raw = msgspec.Raw(b"")


def parse(data: bytes, *, media_type: str, where: str) -> Index | Manifest:
    """Reads a manifest or an index, whichever `media_type` says; with none, whichever it calls itself.

    Raises `ValueError`, with `where` in it, for what is neither, is too long, has too many children, or has
    digests and sizes that cannot be.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise ValueError(f"{where}: a manifest has {MAX_MANIFEST_BYTES:,} bytes at most, this has {len(data):,}")
    try:
        kind = media_type or media_type_of(data)
        if kind in _SCHEMA_1:
            raise ValueError(f"{where}: `{kind}` has no digests of its own to carry it by; push the image anew")
        if kind not in INDEX_TYPES | MANIFEST_TYPES:
            raise ValueError(
                f"{where}: `{kind or 'no media type'}` is neither a manifest nor an index of OCI or Docker"
            )
        read = _decode(data, is_index=kind in INDEX_TYPES)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: not a manifest: {error}") from error
    if read.schema_version != 2 or read.media_type not in ("", kind):
        have = f"schema {read.schema_version}, `{read.media_type or 'no media type'}`"
        raise ValueError(f"{where}: sent as `{kind}`, calls itself {have}")
    _check(children(read), where)
    return read


def _decode(data: bytes, *, is_index: bool) -> Index | Manifest:
    return msgspec.json.decode(data, type=Index) if is_index else msgspec.json.decode(data, type=Manifest)


def media_type_of(data: bytes) -> str:
    """What a manifest calls itself; for one that does not, an index if it has manifests."""
    kind = msgspec.json.decode(data, type=_Kind)
    return kind.media_type or (OCI_INDEX if bytes(kind.manifests) else OCI_MANIFEST)


def _check(found: tuple[Descriptor, ...], where: str) -> None:
    if len(found) > MAX_CHILDREN:
        raise ValueError(f"{where}: {MAX_CHILDREN} children at most, this has {len(found)}")
    for child in found:
        try:
            parse_digest(child.digest)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if child.size < 0:
            raise ValueError(f"{where}: {child.digest} has a negative size: {child.size}")
        if child.size > MAX_BLOB_BYTES:
            raise ValueError(f"{where}: {child.digest} has a size that nothing has: {child.size:,} bytes")
        if child.urls or child.media_type in _FOREIGN:
            at = f" ({child.urls[0]})" if child.urls else ""
            raise ValueError(
                f"{where}: {child.digest} is a foreign layer{at}: it lies outside of registries and cannot be carried"
            )


def children(read: Index | Manifest) -> tuple[Descriptor, ...]:
    """Everything it refers to, in its order."""
    return read.manifests if isinstance(read, Index) else (read.config, *read.layers)


def encode(content: Index | Manifest) -> bytes:
    """The bytes of one that we make: the same content is the same bytes."""
    return msgspec.json.encode(content)
