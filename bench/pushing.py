"""Images into a registry: `sie-airgap mirror images` beside skopeo, into the docker project's registry on loopback.

Both push the same OCI layout of incompressible layers that are marked as compressed, so that neither compresses them.
skopeo sends six layers at a time, which is its default and its fastest. Every run gets an empty registry. What is timed
is the whole program, from its start to its end.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.measures import Row
from sie_airgap.oci.copy import resolve_image
from sie_airgap.oci.image import Content
from sie_airgap.oci.layout import LayoutFolder
from sie_airgap.oci.manifest import OCI_MANIFEST, Descriptor, Manifest, encode
from sie_airgap.oci.sources import ImageSources, parse_elsewhere
from sie_airgap.store.blobs import write_lock
from sie_airgap.store.contents import LOCK_NAME
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import Lock
from sie_testing.registry.docker import docker_registry_program, serving_docker_registry

NAME = "bench.example/pushed:v1"
LAYERS = 6
_CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%s]}}'
Say = Callable[[str], None]


def push(rounds: int, layer_bytes: int, folder: Path, say: Say) -> list[Row]:
    """One row; none where skopeo or docker-registry is not installed."""
    if shutil.which("skopeo") is None or docker_registry_program() is None:
        say("push: not measured, skopeo or docker-registry is not installed")
        return []
    layout = _layout(folder / "layout", layer_bytes)
    store = _store(layout, folder / "store")
    took: dict[str, list[float]] = {}
    ways = _ways(layout, store)
    for number in range(rounds + 1):
        for name in list(ways) if number % 2 else reversed(list(ways)):
            seconds = _timed(ways[name], folder / "registry", home=folder)
            if number:  # the first round only warms the page cache
                took.setdefault(name, []).append(seconds)
        say(f"push {number}/{rounds}  " + ", ".join(f"{name} {seconds[-1]:.2f} s" for name, seconds in took.items()))
    ours, peer = took["ours"], took["skopeo"]
    ratio = statistics.median(b / a for a, b in zip(ours, peer, strict=True))
    what = f"{LAYERS} layers of {layer_bytes >> 20} MiB into a registry"
    return [Row(what, "s", statistics.median(ours), statistics.median(peer), ratio, "peer: skopeo copy")]


def _layout(folder: Path, layer_bytes: int) -> LayoutFolder:
    layout = LayoutFolder(folder)
    layers = [Descriptor(OCI_MANIFEST, layout.add_blob(data), len(data)) for data in _layers(layer_bytes)]
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    layers = [Descriptor(kind, layer.digest, layer.size) for layer in layers]
    config = _CONFIG % b",".join(b'"%s"' % layer.digest.encode() for layer in layers)
    about = Descriptor("application/vnd.oci.image.config.v1+json", layout.add_blob(config), len(config))
    data = encode(Manifest(config=about, layers=tuple(layers), media_type=OCI_MANIFEST))
    layout.add_image(NAME, Content(OCI_MANIFEST, data, digest_of(data)))
    return layout


def _layers(layer_bytes: int) -> Sequence[bytes]:
    """With the first bytes of a gzip stream, or skopeo would pack them."""
    return [b"\x1f\x8b\x08\x00" + os.urandom(layer_bytes - 4) for _ in range(LAYERS)]


def _store(layout: LayoutFolder, store: Path) -> Path:
    with ImageSources([parse_elsewhere(f"bench.example=oci:{layout.folder}")]) as sources:
        image = resolve_image(NAME, sources.find(NAME), why=["the bench"])
    shutil.copytree(layout.folder / "blobs", store / "blobs", copy_function=os.link)
    write_lock(store / LOCK_NAME, Lock(1, 1, None, (), (image,), (), ()))
    return store


def _ways(layout: LayoutFolder, store: Path) -> dict[str, Callable[[str], list[str]]]:
    def ours(host: str) -> list[str]:
        return [sys.executable, "-m", "sie_airgap", "mirror", "images", f"http://{host}", "--from", str(store)]

    def theirs(host: str) -> list[str]:
        plain = ["skopeo", "copy", "--dest-tls-verify=false", "--preserve-digests"]
        return [*plain, f"oci:{layout.folder}:{NAME}", f"docker://{host}/pushed:v1"]

    return {"ours": ours, "skopeo": theirs}


def _timed(way: Callable[[str], list[str]], root: Path, *, home: Path) -> float:
    with serving_docker_registry(root) as origin:
        command = way(origin.removeprefix("http://"))
        environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
        began_s = time.monotonic()
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=600)
        seconds = time.monotonic() - began_s
    shutil.rmtree(root)
    return seconds
