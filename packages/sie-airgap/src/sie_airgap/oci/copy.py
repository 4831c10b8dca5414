"""Images brought to a registry: what it lacks, and the copying itself.

Children go before their parents and tags go last, so that what can be seen there is whole at every moment.
What is done is seen in the registry, so a copy that was killed goes on where it was by being run again.
Every platform is kept, and no byte of a manifest is changed.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass

from sie_airgap.oci.image import Content, Image, platform_of_config, read_image
from sie_airgap.oci.manifest import MAX_MANIFEST_BYTES, Manifest, parse
from sie_airgap.oci.reference import Reference
from sie_airgap.oci.registry import Advance, Registry
from sie_airgap.oci.sources import ImageSource
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.errors import TrustError, Unreachable
from sie_core.artifacts.lock import LockedBlob, LockedImage

UPLOADS = 3
"""At a time: one connection seldom fills a line, and more than three no longer help."""

RETRY_AFTER_S = (1.0, 4.0, 10.0)


@dataclass(frozen=True)
class ImagePlan:
    """What one image still needs at its target.

    Attributes:
        blobs: configs and layers that the repository lacks.
        manifests: those that it lacks, children first.
        tag_now: what the tag names before the copy; None for nothing.
    """

    target: Reference
    image: Image
    blobs: tuple[LockedBlob, ...]
    manifests: tuple[Content, ...]
    tag_now: Digest | None

    @property
    def size_bytes(self) -> int:
        return sum(blob.size_bytes for blob in self.blobs)

    @property
    def moves_tag(self) -> bool:
        return self.tag_now != self.image.root.digest

    @property
    def is_done(self) -> bool:
        return not self.blobs and not self.manifests and not self.moves_tag


def resolve_image(reference: str, source: ImageSource, *, why: Sequence[str]) -> LockedImage:
    """What a lock says of an image: its digest now, every platform, everything it consists of.

    Raises `NotThere`, `NoPermission`, `Unreachable`, `TrustError`, and `ValueError` for what is no image.
    """
    root = source.root()
    where = f"{source.where} ({reference})"
    image = read_image(root, source.manifest, where=where)
    manifests = (LockedBlob(one.digest, len(one.data), one.media_type) for one in image.manifests)
    return LockedImage(
        reference=reference,
        digest=root.digest,
        media_type=root.media_type,
        platforms=dict(sorted(image.platforms.items())) or _only_platform(root, source, where),
        blobs=tuple(sorted([*manifests, *image.blobs])),
        why=tuple(why),
    )


def _only_platform(root: Content, source: ImageSource, where: str) -> dict[str, Digest]:
    read = parse(root.data, media_type=root.media_type, where=where)
    if not isinstance(read, Manifest):
        return {}
    with closing(source.open(read.config.digest)) as stream:
        platform = platform_of_config(stream.read(MAX_MANIFEST_BYTES))
    return {} if platform is None else {str(platform): root.digest}


def plan_image(image: Image, registry: Registry, target: Reference) -> ImagePlan:
    """Asks the registry what it has. Changes nothing. Raises `TrustError` for a blob of another length there."""
    lacking = tuple(blob for blob in image.blobs if not _has(registry, target, blob))
    manifests = tuple(
        content
        for content in image.manifests
        if lacking or registry.manifest_digest(target.repository, content.digest) is None
    )
    tag_now = registry.manifest_digest(target.repository, target.asked)
    return ImagePlan(target, image, lacking, manifests, tag_now)


def _has(registry: Registry, target: Reference, blob: LockedBlob) -> bool:
    have = registry.blob_size(target.repository, blob.digest)
    if have is not None and have != blob.size_bytes:
        where = f"{registry.place.origin}/{target.repository}"
        want, said = f"{blob.digest}  {blob.size_bytes:,} bytes", f"{have:,} bytes"
        raise TrustError("the registry holds a blob of another length", where=where, want=want, have=said)
    return have is not None


class _Stopped(Exception):
    """Another upload failed, or the user wants to stop."""


class Copier:
    """Carries plans out on one registry, and remembers which of its repositories has which blob.

    Args:
        advance: told the bytes of blobs as they move, from several threads.
        pause: waits before a failed upload is tried again; a test passes one that does not.
    """

    def __init__(self, registry: Registry, *, advance: Advance, pause: Callable[[float], object] = time.sleep) -> None:
        self._registry, self._advance, self._pause = registry, advance, pause
        self._held_by: dict[Digest, str] = {}
        self._stop = threading.Event()

    def copy(self, plan: ImagePlan, source: ImageSource) -> None:
        """Raises what `Registry` raises; what was copied until then stays and is not copied again."""
        repository = plan.target.repository
        self._push_blobs(plan.blobs, source, repository)
        self._held_by |= {blob.digest: repository for blob in plan.image.blobs}
        for content in plan.manifests:
            self._registry.push_manifest(repository, content.digest, content)
        if plan.moves_tag:
            self._registry.push_manifest(repository, plan.target.asked, plan.image.root)

    def _push_blobs(self, blobs: Sequence[LockedBlob], source: ImageSource, repository: str) -> None:
        with ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload") as pool:
            try:
                running = [pool.submit(self._push_blob, blob, source, repository) for blob in blobs]
                for done in as_completed(running):
                    done.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _push_blob(self, blob: LockedBlob, source: ImageSource, repository: str) -> None:
        holder = self._held_by.get(blob.digest)
        if holder is not None and self._registry.mount(repository, blob.digest, source=holder):
            self._advance(blob.size_bytes)
            return
        for wait_s in (*RETRY_AFTER_S, None):
            moved = _Moved(self._advance, self._stop)
            try:
                with closing(source.open(blob.digest)) as data:
                    self._registry.push_blob(repository, blob.digest, blob.size_bytes, data, advance=moved)
                return
            except Unreachable:
                moved.undo()
                if wait_s is None:
                    raise
                self._pause(wait_s)


class _Moved:
    """Counts one attempt, to take it back; and ends it when the others have ended."""

    def __init__(self, advance: Advance, stop: threading.Event) -> None:
        self._advance, self._stop, self._bytes = advance, stop, 0

    def __call__(self, size_bytes: int, /) -> None:
        if self._stop.is_set():
            raise _Stopped
        self._bytes += size_bytes
        self._advance(size_bytes)

    def undo(self) -> None:
        self._advance(-self._bytes)


def copy_image(
    source: ImageSource,
    registry: Registry,
    target: Reference,
    *,
    advance: Advance,
    pause: Callable[[float], object] = time.sleep,
) -> ImagePlan:
    """One image from wherever it is to a registry; says what it lacked."""
    image = read_image(source.root(), source.manifest, where=source.where)
    plan = plan_image(image, registry, target)
    Copier(registry, advance=advance, pause=pause).copy(plan, source)
    return plan
