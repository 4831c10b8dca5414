"""Small stand-in images under the names that the chart asks for, as an OCI layout: the same bytes each time.

Each is an index for amd64 and arm64. The layer of one platform is a tar with one text file that says what it
stands in for; a layer that all of them share stands for a base image, so that mounting has something to mount.

    python -m sie_testing.images FOLDER
"""

import hashlib
import io
import sys
import tarfile
from pathlib import Path

import msgspec

from sie_airgap.oci.image import Content
from sie_airgap.oci.layout import LayoutFolder
from sie_airgap.oci.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor, Index, Manifest, Platform, encode
from sie_core.artifacts.digest import Digest, digest_of

VERSION = "v0.3.1"
NAMES = tuple(f"ghcr.io/superlinked/{program}:{VERSION}" for program in ("sie-server", "sie-gateway", "sie-config"))
ARCHITECTURES = ("amd64", "arm64")

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_EPOCH = "1970-01-01T00:00:00Z"


def write_images(folder: Path, *, names: tuple[str, ...] = NAMES, padding_bytes: int = 0) -> LayoutFolder:
    """Writes a layout that holds an image for each name; each platform's own layer is longer by about the padding."""
    layout = LayoutFolder(folder)
    for name in names:
        entries = tuple(_platform_image(layout, name, architecture, padding_bytes) for architecture in ARCHITECTURES)
        layout.add_image(name, _content(OCI_INDEX, encode(Index(manifests=entries, media_type=OCI_INDEX))))
    return layout


def _platform_image(layout: LayoutFolder, name: str, architecture: str, padding_bytes: int) -> Descriptor:
    platform = Platform(architecture, "linux")
    said = f"This stands in for {name} on {platform}.\n".encode()
    base = _tar({"etc/os-release": f"ID=stand-in-{architecture}\n".encode()})
    own = _tar({"stand-in.txt": said, "padding": _incompressible(said, padding_bytes)})
    layers = tuple(Descriptor(_LAYER, layout.add_blob(layer), len(layer)) for layer in (base, own))
    config = _config(name, platform, tars=(base, own))
    manifest = Manifest(
        config=Descriptor(_CONFIG, layout.add_blob(config), len(config)), layers=layers, media_type=OCI_MANIFEST
    )
    data = encode(manifest)
    return Descriptor(OCI_MANIFEST, layout.add_blob(data), len(data), platform=platform)


def _config(name: str, platform: Platform, *, tars: tuple[bytes, ...]) -> bytes:
    program = name.rpartition("/")[2].partition(":")[0]
    return msgspec.json.encode(
        {
            "architecture": platform.architecture,
            "os": platform.os,
            "created": _EPOCH,
            "config": {"User": "65532", "Cmd": [program, "serve"], "Labels": {"stand-in": "true"}},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
            "history": [{"created": _EPOCH} for _ in tars],
        }
    )


def _tar(files: dict[str, bytes]) -> bytes:
    """With nothing of this machine in it: times, owners and modes are fixed."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def _incompressible(seed: bytes, size_bytes: int) -> bytes:
    """Bytes that follow from the seed and repeat nowhere."""
    return hashlib.shake_256(seed).digest(size_bytes)


def _content(media_type: str, data: bytes) -> Content:
    return Content(media_type, data, digest_of(data))


def root_digests(layout: LayoutFolder) -> dict[str, Digest]:
    """Name → digest of its index."""
    return {entry.annotations["org.opencontainers.image.ref.name"]: entry.digest for entry in layout.entries()}


if __name__ == "__main__":
    for written, digest in root_digests(write_images(Path(sys.argv[1]))).items():
        print(f"{written}  {digest}")
