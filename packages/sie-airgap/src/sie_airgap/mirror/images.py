"""Mirroring images and charts: from the blobs of a store or an archive into a registry on the far side.

What there is to push is planned first (`plan_images`, which changes nothing) and carried out then
(`mirror_images`); both look at the registry, so that running twice pushes nothing the second time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import msgspec

from sie_airgap.charts.package import MEDIA_TYPE as CHART_CONTENT
from sie_airgap.charts.package import chart_yaml
from sie_airgap.failures import Misused
from sie_airgap.oci.copy import Copier, ImagePlan, Whole, plan_image, read_whole
from sie_airgap.oci.image import Content, Image
from sie_airgap.oci.manifest import MAX_MANIFEST_BYTES, OCI_MANIFEST, Descriptor, Manifest, encode
from sie_airgap.oci.reference import Place, Reference, mirrored, parse_reference
from sie_airgap.oci.referrers import Referring
from sie_airgap.oci.registry import Registry
from sie_airgap.oci.sessions import Sessions
from sie_airgap.patience import Say, patiently
from sie_airgap.progress import Task
from sie_airgap.store.blobs import Blobs
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.lock import LockedBlob, LockedChart, LockedImage
from sie_core.yaml_documents import document

HELM_CONFIG = "application/vnd.cncf.helm.config.v1+json"


@dataclass(frozen=True)
class CarriedImage:
    """An image as it lies in a store or an archive, blob by blob, under its lock."""

    image: LockedImage
    blobs: Blobs

    @property
    def where(self) -> str:
        return self.blobs.where

    def root(self) -> Content:
        return self.manifest(self.image.digest)

    def manifest(self, digest: Digest) -> Content:
        """Raises `NotThere`, and `TrustError` for bytes that are not what the lock calls so."""
        with self.blobs.open(digest) as stream:
            data = stream.read(MAX_MANIFEST_BYTES + 1)
        have = digest_of(data)
        if have != digest:
            message = f"a manifest of image `{self.image.reference}` is not what was locked"
            raise TrustError(message, where=self.where, want=digest, have=have)
        media_type = next((blob.media_type for blob in self.image.blobs if blob.digest == digest), "")
        return Content(media_type, data, digest)

    def open(self, digest: Digest, *, start: int = 0) -> BinaryIO:
        return self.blobs.open(digest, start=start)

    def referring(self, subject: Digest) -> Sequence[Referring]:
        return [Referring(one.subject, one.digest, one.tag) for one in self.image.referrers if one.subject == subject]


def targets(images: Sequence[LockedImage], place: Place, *, full_names: bool = False) -> dict[str, Reference]:
    """What each image is called at the place, by its name in the lock.

    Raises `Misused` when two different images would be called the same.
    """
    taken: dict[Reference, LockedImage] = {}
    named = {}
    for image in images:
        target = mirrored(parse_reference(image.reference), place, full_name=full_names)
        other = taken.setdefault(target, image)
        if other.digest != image.digest:
            message = f"`{other.reference}` and `{image.reference}` would both be called `{target}`"
            raise Misused(message, hint="`--full-names`, or a registry of its own for one of them")
        named[image.reference] = target
    return named


def plan_images(
    images: Sequence[LockedImage],
    blobs: Blobs,
    registry: Registry,
    *,
    full_names: bool = False,
    say: Say = lambda _: None,
) -> list[ImagePlan]:
    """What the registry lacks of each image, in the lock's order. Changes nothing.

    Raises `NotThere` where the blobs lack a manifest, `TrustError` for one that was altered, and what
    `Registry` raises.
    """
    named = targets(images, registry.place, full_names=full_names)
    plans = []
    for image in images:
        try:
            whole = read_whole(CarriedImage(image, blobs), name=image.reference)
        except ValueError as error:
            hint = "lock it again: an older toolkit locked what cannot be carried"
            raise TrustError(str(error), where=blobs.where, want="an image", have=image.digest, hint=hint) from error
        plans.append(patiently(partial(plan_image, whole, registry, named[image.reference]), say=say))
    return plans


def mirror_images(
    images: Sequence[LockedImage],
    blobs: Blobs,
    registry: Registry,
    plans: Sequence[ImagePlan],
    task: Task,
    *,
    sessions: Sessions | None = None,
    say: Say = lambda _: None,
) -> None:
    """Carries the plans out, one image after the other; `task` is told of every byte."""
    copier = Copier(registry, advance=task.advance, sessions=sessions, say=say)
    for image, plan in zip(images, plans, strict=True):
        task.at(image.reference)
        copier.copy(plan, CarriedImage(image, blobs))


def pull_secret(place: Place, docker_config: Path) -> str:
    """What to run so that pods may pull: the password is read from the file, and stands in no command line."""
    return (
        f"{place.host} wants a login, and so will the pods: `kubectl create secret docker-registry regcred "
        f"-n NAMESPACE --from-file=.dockerconfigjson={docker_config}` makes the secret that "
        "`sie-airgap values --pull-secret regcred` names, with every login of that file"
    )


@dataclass(frozen=True)
class ChartArtifact:
    """A packaged chart as Helm keeps it in a registry: its metadata as config, the `.tgz` as the only layer."""

    name: str
    version: str
    manifest_content: Content
    config: bytes
    tgz: bytes

    @property
    def where(self) -> str:
        return f"chart {self.name}-{self.version}"

    @property
    def image(self) -> Image:
        config = LockedBlob(digest_of(self.config), len(self.config), HELM_CONFIG)
        layer = LockedBlob(digest_of(self.tgz), len(self.tgz), CHART_CONTENT)
        return Image((self.manifest_content,), (config, layer), {})

    def root(self) -> Content:
        return self.manifest_content

    def manifest(self, digest: Digest) -> Content:
        raise NotThere(f"{self.where} has no manifest {digest} but its own")

    def open(self, digest: Digest, *, start: int = 0) -> BinaryIO:
        stream = BytesIO(self.tgz if digest == digest_of(self.tgz) else self.config)
        stream.seek(start)
        return stream

    def referring(self, subject: Digest) -> Sequence[Referring]:
        return ()


def chart_artifact(tgz: bytes) -> ChartArtifact:
    """What Helm would push, made from the `.tgz` alone, so that the same chart is the same manifest.

    Raises `ValueError` for a file that is no packaged chart.
    """
    about = _about(tgz)
    config = msgspec.json.encode(about, order="sorted")
    name, version = str(about.get("name", "")), str(about.get("version", ""))
    if not name or not version:
        raise ValueError("not a packaged chart: its Chart.yaml has no name or no version")
    manifest = Manifest(
        config=Descriptor(HELM_CONFIG, digest_of(config), len(config)),
        layers=(Descriptor(CHART_CONTENT, digest_of(tgz), len(tgz)),),
        annotations={"org.opencontainers.image.title": name, "org.opencontainers.image.version": version},
    )
    data = encode(manifest)
    return ChartArtifact(name, version, Content(OCI_MANIFEST, data, digest_of(data)), config, tgz)


def _about(tgz: bytes) -> dict[str, object]:
    try:
        about = document(chart_yaml(tgz) or b"", where="Chart.yaml")
    except ValueError as error:
        raise ValueError(f"not a packaged chart: {error}") from error
    if not isinstance(about, dict):
        raise ValueError("not a packaged chart: it has no NAME/Chart.yaml")
    return about


def read_chart(chart: LockedChart, blobs: Blobs) -> bytes:
    """The chart's `.tgz`. Raises `NotThere`, and `TrustError` for bytes that are not what was locked."""
    with blobs.open(chart.digest) as stream:
        tgz = stream.read(chart.size_bytes + 1)
    have = digest_of(tgz)
    if have != chart.digest:
        raise TrustError(
            f"chart `{chart.file}` is not what was locked", where=blobs.where, want=chart.digest, have=have
        )
    return tgz


def plan_chart(artifact: ChartArtifact, registry: Registry) -> ImagePlan:
    """What the registry lacks of a chart. Changes nothing.

    `+`, which a version may have and a tag may not, is `_` in the tag, as Helm does it.
    """
    place = registry.place
    target = Reference(place.host, place.repository(artifact.name), artifact.version.replace("+", "_"), None)
    return plan_image(Whole(artifact.image, {}), registry, target)


def mirror_chart(artifact: ChartArtifact, registry: Registry, plan: ImagePlan, task: Task) -> None:
    """Carries the plan out; then `helm pull oci://HOST/PREFIX/NAME --version VERSION` reads it."""
    task.at(f"{plan.target}")
    Copier(registry, advance=task.advance).copy(plan, artifact)
