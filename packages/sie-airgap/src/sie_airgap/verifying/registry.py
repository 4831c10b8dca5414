"""Hold a registry against the lock: every manifest by its bytes, every other blob by its name and length, every tag.

A registry hands out a blob under the digest that it was pushed under, which it checked then; that its disk still holds
those bytes shows only where they are read (`deep`). Every finding is given, not the first, and nothing is changed.
"""

from collections.abc import Callable, Iterator
from functools import partial

from sie_airgap.failures import Expected
from sie_airgap.mirror.images import targets
from sie_airgap.oci.manifest import Manifest, parse
from sie_airgap.oci.reference import Reference
from sie_airgap.oci.registry import Registry
from sie_airgap.patience import Wait, patiently
from sie_airgap.progress import Progress, Silent, Task
from sie_airgap.store.contents import kind_of_blob
from sie_core.artifacts.digest import CHUNK_BYTES
from sie_core.artifacts.errors import NotThere, TransferError, TrustError
from sie_core.artifacts.hashing import Hashing
from sie_core.artifacts.lock import Lock, LockedBlob, LockedChart, LockedImage, LockedReferrer


def verify_registry(
    lock: Lock,
    registry: Registry,
    *,
    full_names: bool = False,
    deep: bool = False,
    progress: Progress,
    wait: Wait | None = None,
) -> list[Expected]:
    """What of the lock's images the registry has not, or has otherwise; of the charts that it has, likewise.

    Args:
        full_names: the images were mirrored so.
        deep: read every byte of every blob, too.
        wait: as of `patiently`.

    Raises `Misused` when two images of the lock would be called the same there.
    """
    named = targets(lock.images, registry.place, full_names=full_names)
    check = _Check(registry, deep=deep, progress=progress, wait=wait)
    blobs = [blob for image in lock.images for blob in image.blobs]
    with progress.task("verify", sum(blob.size_bytes for blob in blobs if deep or _is_manifest(blob))) as task:
        for image in lock.images:
            check.image(image, named[image.reference], task)
        for chart in lock.charts:
            check.chart(chart, task)
    return check.findings


def glance(lock: Lock, registry: Registry, *, full_names: bool = False) -> list[Expected]:
    """What shows at once: whether every image's tag still names what was locked. Nobody is waited for."""
    named = targets(lock.images, registry.place, full_names=full_names)
    check = _Check(registry, deep=False, progress=Silent(), wait=None)
    findings: list[Expected] = []
    for image in lock.images:
        target = named[image.reference]
        findings += check.tag(target.repository, target.asked, image.digest, f"image `{image.reference}`")
    return findings


class _Check:
    """One walk through a registry. Once nobody answers there any more, nothing further is asked."""

    def __init__(self, registry: Registry, *, deep: bool, progress: Progress, wait: Wait | None) -> None:
        self._registry, self._deep, self._progress, self._wait = registry, deep, progress, wait
        self._is_gone = False
        self.findings: list[Expected] = []

    def image(self, image: LockedImage, target: Reference, task: Task) -> None:
        task.at(image.reference)
        for blob in image.blobs:
            label = f"{kind_of_blob(blob.media_type)} of image `{image.reference}`"
            self._take(partial(self._blob, target.repository, blob, label, task))
        for referrer in image.referrers:
            self._take(partial(self._referrer, target.repository, referrer, image))
        label = f"image `{image.reference}`"
        self._take(partial(self.tag, target.repository, target.asked, image.digest, label))

    def chart(self, chart: LockedChart, task: Task) -> None:
        """A chart may lie in a folder as well, so a registry without it is only told."""
        task.at(chart.file)
        self._take(partial(self._chart, chart, task))

    def _take(self, look: Callable[[], Iterator[Expected]]) -> None:
        if self._is_gone:
            return
        try:
            self.findings += patiently(lambda: list(look()), say=self._progress.say, wait=self._wait)
        except TrustError as error:
            self.findings.append(error)
        except TransferError as error:
            self.findings.append(error)
            self._is_gone = error.transient and not self._answers()

    def _answers(self) -> bool:
        """Whether anybody is there at all: a registry that fails over one blob may well have the others."""
        try:
            with self._registry.call("GET", "/v2/", "") as answer:
                return answer.status_code < 500
        except TransferError as error:
            return not error.transient

    def _blob(self, repository: str, blob: LockedBlob, label: str, task: Task) -> Iterator[Expected]:
        where = self._where(repository)
        have = self._length(repository, blob, task)
        if have is None:
            yield _missing(f"{label} is not in {where}\n  want  {blob.digest}\n  have  nothing")
        elif have != blob.size_bytes:
            want = f"{blob.digest}  {blob.size_bytes:,} bytes"
            yield _other(f"{label} is not what was locked", where, want, f"{have:,} bytes")
        elif self._deep and not _is_manifest(blob):
            yield from self._bytes(repository, blob, label, task)

    def _length(self, repository: str, blob: LockedBlob, task: Task) -> int | None:
        """In bytes; None for what is not there. A manifest is read, and raises `TrustError` for another digest."""
        if not _is_manifest(blob):
            return self._registry.blob_size(repository, blob.digest, to_push=False)
        try:
            data = self._registry.manifest(repository, blob.digest).data
        except NotThere:
            return None
        task.advance(len(data))
        return len(data)

    def _bytes(self, repository: str, blob: LockedBlob, label: str, task: Task) -> Iterator[Expected]:
        running = Hashing()
        with self._registry.open_blob(repository, blob.digest) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                running.update(chunk)
        task.advance(running.size_bytes)
        if running.digest != blob.digest:
            have = f"{running.digest}  {running.size_bytes:,} bytes"
            want = f"{blob.digest}  {blob.size_bytes:,} bytes"
            yield _other(f"{label} is not what was locked", self._where(repository), want, have)

    def tag(self, repository: str, tag: str, want: str, label: str) -> Iterator[Expected]:
        where = f"{self._where(repository)}:{tag}"
        have = self._registry.manifest_digest(repository, tag, to_push=False)
        if have is None:
            yield _missing(f"{label} has no tag `{tag}` in {self._where(repository)}\n  want  {want}\n  have  nothing")
        elif have != want:
            yield _other(f"the tag of {label} names something else", where, want, have)

    def _referrer(self, repository: str, referrer: LockedReferrer, image: LockedImage) -> Iterator[Expected]:
        label = f"`{referrer.artifact_type or 'what refers to it'}` of image `{image.reference}`"
        if referrer.tag is not None:
            yield from self.tag(repository, referrer.tag, referrer.digest, label)
        elif referrer.digest not in {one.digest for one in self._registry.listed(repository, referrer.subject)}:
            where = f"{self._where(repository)}, as referring to {referrer.subject}"
            yield _missing(f"{label} is not listed in {where}\n  want  {referrer.digest}\n  have  nothing")

    def _chart(self, chart: LockedChart, task: Task) -> Iterator[Expected]:
        repository = self._registry.place.repository(chart.name)
        tag = chart.version.replace("+", "_")
        if self._registry.manifest_digest(repository, tag, to_push=False) is None:
            self._progress.say(f"note: chart {chart.file} is not in {self._where(repository)}; a folder may have it")
            return
        label, where = f"chart `{chart.file}`", f"{self._where(repository)}:{tag}"
        found = self._registry.manifest(repository, tag)
        try:
            read = parse(found.data, media_type=found.media_type, where=where)
        except ValueError as error:
            yield _other(f"{label} is not what was locked", where, "a chart", str(error))
            return
        layers = [layer.digest for layer in read.layers] if isinstance(read, Manifest) else []
        if chart.digest not in layers:
            yield _other(f"{label} is not what was locked", where, chart.digest, ", ".join(layers) or "no chart")
            return
        yield from self._blob(repository, LockedBlob(chart.digest, chart.size_bytes, "layer"), label, task)

    def _where(self, repository: str) -> str:
        return f"{self._registry.place.origin}/{repository}"


def _is_manifest(blob: LockedBlob) -> bool:
    return kind_of_blob(blob.media_type) == "manifest"


def _missing(message: str) -> NotThere:
    return NotThere(message, hint="`sie-airgap mirror images` brings what is missing, `mirror chart` a chart")


def _other(message: str, where: str, want: str, have: str) -> TrustError:
    hint = "`sie-airgap mirror images` puts tags right; other bytes under a digest are the registry's own damage"
    return TrustError(message, where=where, want=want, have=have, hint=hint)
