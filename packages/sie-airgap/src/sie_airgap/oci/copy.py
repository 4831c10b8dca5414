"""Images brought to a registry: what it lacks, and the copying itself.

Children go before their parents, signatures before the image's tag, and tags last, so that what can be seen there is
whole at every moment. What is done is seen in the registry, so a copy that was killed goes on where it was by being
run again. Every platform is kept, and no byte of a manifest is changed.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from sie_airgap.oci.image import Content, Image, platform_of_config, read_image
from sie_airgap.oci.manifest import MAX_MANIFEST_BYTES, Descriptor, Manifest, parse
from sie_airgap.oci.reference import Reference
from sie_airgap.oci.referrers import Referring, described, list_tag, with_entries
from sie_airgap.oci.registry import Registry
from sie_airgap.oci.sessions import Sessions
from sie_airgap.oci.sources import ImageSource
from sie_airgap.oci.uploads import Advance, Upload, Uploader
from sie_airgap.patience import Wait, patiently
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import LockedBlob, LockedImage, LockedReferrer

UPLOADS = 3
"""At a time: one connection seldom fills a line, and more than three no longer help."""

MOST_REFERRERS = 200


@dataclass(frozen=True)
class Whole:
    """An image with what refers to it."""

    image: Image
    referring: Mapping[Referring, Image]

    @property
    def blobs(self) -> tuple[LockedBlob, ...]:
        """Configs and layers of all of them, each once."""
        all_blobs = [*self.image.blobs, *(blob for one in self.referring.values() for blob in one.blobs)]
        return tuple({blob.digest: blob for blob in all_blobs}.values())

    @property
    def manifests(self) -> tuple[Content, ...]:
        """Of all of them, each once, children before parents."""
        found = [*self.image.manifests, *(content for one in self.referring.values() for content in one.manifests)]
        return tuple({content.digest: content for content in found}.values())


@dataclass(frozen=True)
class ImagePlan:
    """What one image still needs at its target.

    Attributes:
        blobs: configs and layers that the repository lacks.
        manifests: those that it lacks, children first.
        tags: those of signatures that it has not, or that name something else.
        unlisted: by subject, what the registry does not list as referring to it.
        tag_now: what the tag names before the copy; None for nothing.
    """

    target: Reference
    image: Image
    blobs: tuple[LockedBlob, ...]
    manifests: tuple[Content, ...]
    tags: Mapping[str, Content]
    unlisted: Mapping[Digest, tuple[Descriptor, ...]]
    tag_now: Digest | None

    @property
    def size_bytes(self) -> int:
        return sum(blob.size_bytes for blob in self.blobs)

    @property
    def moves_tag(self) -> bool:
        return self.tag_now != self.image.root.digest

    @property
    def is_done(self) -> bool:
        return not (self.blobs or self.manifests or self.tags or self.unlisted or self.moves_tag)


def resolve_image(reference: str, source: ImageSource, *, why: Sequence[str]) -> LockedImage:
    """What a lock says of an image: its digest now, every platform, everything it consists of, what refers to it.

    Raises `NotThere`, `NoPermission`, `Unreachable`, `TrustError`, and `ValueError` for what is no image.
    """
    whole = read_whole(source, name=reference)
    root = whole.image.root
    manifests = (LockedBlob(one.digest, len(one.data), one.media_type) for one in whole.manifests)
    return LockedImage(
        reference=reference,
        digest=root.digest,
        media_type=root.media_type,
        platforms=dict(sorted(whole.image.platforms.items())) or _only_platform(root, source, source.where),
        blobs=tuple(sorted({blob.digest: blob for blob in [*whole.blobs, *manifests]}.values())),
        referrers=tuple(sorted(_locked(one, held, source.where) for one, held in whole.referring.items())),
        why=tuple(why),
    )


def _locked(one: Referring, image: Image, where: str) -> LockedReferrer:
    kind = described(image.root, where=where).artifact_type
    return LockedReferrer(one.subject, one.digest, kind, one.tag)


def read_whole(source: ImageSource, *, name: str) -> Whole:
    """An image as it lies at its source, and all that refers to it there, and to what refers to it."""
    where = f"{source.where} ({name})"
    image = read_image(source.root(), source.manifest, where=where)
    found: dict[Referring, Image] = {}
    left = [content.digest for content in image.manifests]
    seen = set(left)
    while left:
        for one in source.referring(left.pop()):
            if len(found) >= MOST_REFERRERS:
                raise ValueError(f"{where}: {MOST_REFERRERS} signatures and the like at most")
            found[one] = read_image(source.manifest(one.digest), source.manifest, where=where)
            if one.digest not in seen:
                seen.add(one.digest)
                left.append(one.digest)
    return Whole(image, {one: found[one] for one in sorted(found, key=_order)})


def _order(one: Referring) -> tuple[str, str, str]:
    return one.subject, one.digest, one.tag or ""


def _only_platform(root: Content, source: ImageSource, where: str) -> dict[str, Digest]:
    read = parse(root.data, media_type=root.media_type, where=where)
    if not isinstance(read, Manifest):
        return {}
    with closing(source.open(read.config.digest)) as stream:
        platform = platform_of_config(stream.read(MAX_MANIFEST_BYTES))
    return {} if platform is None else {str(platform): root.digest}


def plan_image(whole: Whole, registry: Registry, target: Reference) -> ImagePlan:
    """Asks the registry what it has. Changes nothing. Raises `TrustError` for a blob of another length there."""
    repository = target.repository
    lacking = tuple(blob for blob in whole.blobs if not _has(registry, target, blob))
    manifests = tuple(
        content for content in whole.manifests if registry.manifest_digest(repository, content.digest) is None
    )
    tags = {
        one.tag: image.root
        for one, image in whole.referring.items()
        if one.tag is not None and registry.manifest_digest(repository, one.tag) != one.digest
    }
    tag_now = registry.manifest_digest(repository, target.asked)
    return ImagePlan(target, whole.image, lacking, manifests, tags, _unlisted(whole, registry, repository), tag_now)


def _unlisted(whole: Whole, registry: Registry, repository: str) -> dict[Digest, tuple[Descriptor, ...]]:
    wanted: dict[Digest, list[Descriptor]] = {}
    for one, image in whole.referring.items():
        if one.tag is None:
            wanted.setdefault(one.subject, []).append(described(image.root, where=registry.place.origin))
    found = {}
    for subject, entries in wanted.items():
        held = {entry.digest for entry in registry.listed(repository, subject)}
        if lacking := tuple(entry for entry in entries if entry.digest not in held):
            found[subject] = lacking
    return found


def _has(registry: Registry, target: Reference, blob: LockedBlob) -> bool:
    have = registry.blob_size(target.repository, blob.digest)
    if have is not None and have != blob.size_bytes:
        where = f"{registry.place.origin}/{target.repository}"
        want, said = f"{blob.digest}  {blob.size_bytes:,} bytes", f"{have:,} bytes"
        raise TrustError("the registry holds a blob of another length", where=where, want=want, have=said)
    return have is not None


class Copier:
    """Carries plans out on one registry, and remembers which of its repositories has which blob.

    Args:
        advance: told the bytes of blobs as they move, from several threads.
        say: told of what is tried again, or done in another way.
        sessions: uploads that an earlier run began.
        wait: sleeps before something that failed is tried again; a test passes one that does not.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        advance: Advance,
        say: Callable[[str], object] = lambda _: None,
        sessions: Sessions | None = None,
        wait: Wait = time.sleep,
    ) -> None:
        self._registry, self._advance, self._say, self._wait = registry, advance, say, wait
        self._held_by: dict[Digest, str] = {}
        self._stop = threading.Event()
        self._uploader = Uploader(registry, sessions=sessions or Sessions(), say=say, stop=self._stop)

    def copy(self, plan: ImagePlan, source: ImageSource) -> None:
        """Raises what `Registry` raises; what was copied until then stays and is not copied again."""
        repository = plan.target.repository
        self._push_blobs(plan.blobs, source, repository)
        self._held_by |= {blob.digest: repository for blob in plan.image.blobs}
        for content in plan.manifests:
            self._push_manifest(repository, content.digest, content)
        for tag, content in plan.tags.items():
            self._push_manifest(repository, tag, content)
        for subject, entries in plan.unlisted.items():
            self._list(repository, subject, entries)
        if plan.moves_tag:
            self._push_manifest(repository, plan.target.asked, plan.image.root)

    def _push_manifest(self, repository: str, asked: str, content: Content) -> None:
        push = partial(self._registry.push_manifest, repository, asked, content)
        patiently(push, say=self._say, wait=self._wait)

    def _list(self, repository: str, subject: Digest, entries: Sequence[Descriptor]) -> None:
        """A registry of OCI 1.1 lists what names a subject as it comes; for another we keep the list as a tag."""
        if self._registry.referrers(repository, subject) is None:
            known = self._registry.tagged_list(repository, subject)
            self._push_manifest(repository, list_tag(subject), with_entries(known, entries))

    def _push_blobs(self, blobs: Sequence[LockedBlob], source: ImageSource, repository: str) -> None:
        with ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload") as pool:
            try:
                running = [pool.submit(self._push_blob, blob, source, repository) for blob in blobs]
                for done in as_completed(running):
                    done.result()
            except BaseException as error:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                if isinstance(error, KeyboardInterrupt):
                    self._say("ending the parts that are on their way, so that their layers can go on from there")
                raise

    def _push_blob(self, blob: LockedBlob, source: ImageSource, repository: str) -> None:
        holder = self._held_by.get(blob.digest)
        if holder is not None and self._registry.mount(repository, blob.digest, source=holder):
            self._advance(blob.size_bytes)
            return
        upload = Upload(repository, blob, lambda start: source.open(blob.digest, start=start))
        push = partial(self._uploader.push, upload, advance=self._advance)
        patiently(push, say=self._say, wait=self._wait)


def copy_image(
    source: ImageSource,
    registry: Registry,
    target: Reference,
    *,
    advance: Advance,
    wait: Wait = time.sleep,
) -> ImagePlan:
    """One image from wherever it is to a registry; says what it lacked."""
    plan = plan_image(read_whole(source, name=str(target)), registry, target)
    Copier(registry, advance=advance, wait=wait).copy(plan, source)
    return plan
