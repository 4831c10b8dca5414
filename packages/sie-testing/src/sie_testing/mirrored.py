"""A registry that holds what a lock names: two stand-in images, mirrored as the toolkit does."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from sie_airgap.mirror.images import mirror_images, plan_images
from sie_airgap.oci.copy import resolve_image
from sie_airgap.oci.reference import parse_place
from sie_airgap.oci.registry import Registry
from sie_airgap.oci.sources import ImageSources, parse_elsewhere
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder, write_lock
from sie_core.artifacts.lock import Lock, LockedBlob
from sie_testing.images import NAMES, write_images


@dataclass(frozen=True)
class Mirrored:
    """A registry that holds what the lock names, under `/sie`."""

    origin: str
    root: Path
    lock: Lock
    lock_path: Path

    @property
    def url(self) -> str:
        return f"oci://{self.origin.removeprefix('http://')}/sie"

    def blob(self, at: int = 0) -> LockedBlob:
        """A layer of the first image."""
        layers = [blob for blob in self.lock.images[0].blobs if "layer" in blob.media_type]
        return layers[at]

    def path(self, blob: LockedBlob) -> Path:
        """Where the registry's disk has it."""
        hexa = blob.digest.removeprefix("sha256:")
        found = [path for path in self.root.rglob("*") if path.is_file() and hexa in str(path)]
        return next(path for path in found if path.stat().st_size == blob.size_bytes)


def mirrored_images(folder: Path, origin: str) -> Mirrored:
    layout = write_images(folder / "layout", names=NAMES[:2])
    with ImageSources([parse_elsewhere(f"ghcr.io/superlinked=oci:{layout.folder}")]) as sources:
        images = tuple(resolve_image(name, sources.find(name), why=["the test"]) for name in sorted(NAMES[:2]))
    shutil.copytree(layout.folder / "blobs", folder / "images" / "blobs")
    lock = Lock(version=1, serial=1, previous=None, models=(), images=images, charts=(), wheels=())
    write_lock(folder / "airgap.lock", lock)
    store = BlobFolder(folder / "images")
    with Registry(parse_place(f"{origin}/sie")) as registry:
        mirror_images(images, store, registry, plan_images(images, store, registry), Silent())
    return Mirrored(origin, folder / "registry", lock, folder / "airgap.lock")
