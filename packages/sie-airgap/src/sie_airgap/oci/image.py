"""What one image consists of: its manifests in the order a registry takes them, its blobs, its platforms.

The way down from a root is decided here; the manifests on it are fetched by the function that is passed in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from sie_airgap.oci.manifest import Descriptor, Index, Platform, children, parse
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.lock import LockedBlob

MAX_MANIFESTS = 200
MAX_DEPTH = 4


@dataclass(frozen=True)
class Content:
    """A manifest or an index: its bytes as they are, what they are called, what they hash to."""

    media_type: str
    data: bytes
    digest: Digest


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
        manifests: every child before its parents, the root last.
        blobs: configs and layers, each once, by digest.
        platforms: `linux/amd64` and so on → that platform's manifest; empty when the root is no index.
    """

    manifests: tuple[Content, ...]
    blobs: tuple[LockedBlob, ...]
    platforms: Mapping[str, Digest]

    @property
    def root(self) -> Content:
        return self.manifests[-1]


def read_image(root: Content, fetch: Callable[[Digest], Content], *, where: str) -> Image:
    """Follows a root down to its blobs. Raises `ValueError`, with `where` in it, for what cannot be an image."""
    manifests: dict[Digest, Content] = {}
    blobs: dict[Digest, LockedBlob] = {}
    platforms: dict[str, Digest] = {}

    def follow(content: Content, depth: int) -> None:
        if content.digest in manifests:
            return
        if depth > MAX_DEPTH or len(manifests) >= MAX_MANIFESTS:
            raise ValueError(f"{where}: an image has {MAX_MANIFESTS} manifests and {MAX_DEPTH} levels at most")
        read = parse(content.data, media_type=content.media_type, where=where)
        for child in children(read):
            if isinstance(read, Index):
                if _is_runnable(child):
                    platforms.setdefault(str(child.platform), child.digest)
                follow(_of_length(fetch(child.digest), child, where), depth + 1)
            else:
                known = blobs.setdefault(child.digest, LockedBlob(child.digest, child.size, child.media_type))
                if known.size_bytes != child.size:
                    sizes = f"{known.size_bytes:,} and {child.size:,}"
                    raise ValueError(f"{where}: {child.digest} has two lengths: {sizes} bytes")
        manifests[content.digest] = content

    follow(root, 0)
    return Image(tuple(manifests.values()), tuple(blobs[digest] for digest in sorted(blobs)), platforms)


def _of_length(content: Content, said: Descriptor, where: str) -> Content:
    if len(content.data) != said.size:
        have = f"{len(content.data):,}"
        raise ValueError(f"{where}: {said.digest} is said to have {said.size:,} bytes and has {have}")
    return content


def _is_runnable(child: Descriptor) -> bool:
    """Build attestations stand in an index as manifests of an unknown platform; they are carried, not run."""
    return child.platform is not None and child.platform.os != "unknown"


def platform_of_config(data: bytes) -> Platform | None:
    """What an image without an index runs on, as its config says; None for the config of something else."""
    try:
        return msgspec.json.decode(data, type=Platform)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
