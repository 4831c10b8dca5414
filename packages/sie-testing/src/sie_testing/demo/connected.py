"""The connected side: lock, fetch and try what will be carried, and cut it into volumes. At its end the hub is gone."""

import json
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT
from urllib.parse import urlsplit

from sie_airgap.oci.copy import copy_image
from sie_airgap.oci.reference import mirrored, parse_place, parse_reference
from sie_airgap.oci.registry import Registry
from sie_airgap.oci.sources import ImageSources, parse_elsewhere
from sie_testing import parts
from sie_testing.demo.stage import BIN, COMMIT, MODEL, DemoFailed, Folder, Screen, server, wait_for
from sie_testing.images import NAMES, write_images
from sie_testing.programs import free_port

CHECKOUT = Path(__file__).parents[5]
CHART = CHECKOUT / "charts" / "sie-cluster"
VOLUME_SIZE = "32MiB"
_PACKAGES = ("core", "sdk", "airgap")


@dataclass(frozen=True)
class Sources:
    """Where models and images come from as long as there is a connection."""

    hub: str
    registry: str


def run(screen: Screen, folder: Folder) -> None:
    """Steps 1 to the archive."""
    side = folder.root / "connected"
    side.mkdir(parents=True)
    airgap = str(BIN / "sie-airgap")
    with _sources(side) as sources:
        screen.title(f"Connected side: a hub at {sources.hub}, a registry at {sources.registry}")
        wheels = _build_wheels(side / "wheels")
        images = ["--image-source", f"ghcr.io/superlinked={sources.registry}/superlinked"]
        chart = ["--chart", str(CHART), "--helm", str(parts.helm()), "--wheels", str(wheels), "--incomplete-wheels"]
        env = {"HF_ENDPOINT": sources.hub}
        screen.step("lock", [airgap, "lock", "--model", MODEL, *chart, *images], env=env, cwd=side)
        screen.step("snapshot", [airgap, "snapshot", *images], env=env, cwd=side)
        _record(screen, side, airgap)
        screen.step("pack", [airgap, "pack", str(folder.archive), "--volume-size", VOLUME_SIZE], cwd=side)
    _show_gone(screen, sources)


@contextmanager
def _sources(side: Path) -> Iterator[Sources]:
    with ExitStack() as stack:
        model = side / "hub" / MODEL
        model.parent.mkdir(parents=True)
        model.symlink_to(parts.minilm_folder())
        hub_argv = [sys.executable, "-m", "sie_testing.hub", "--root", str(side / "hub"), "--pin", f"{MODEL}={COMMIT}"]
        hub = stack.enter_context(server(hub_argv, side / "hub.log"))
        registry_argv = [sys.executable, "-m", "sie_testing.registry", "--root", str(side / "registry")]
        registry = stack.enter_context(server(registry_argv, side / "registry.log"))
        sources = Sources(
            hub=wait_for(side / "hub.log", "hub: ", hub).removeprefix("hub: "),
            registry=wait_for(side / "registry.log", "registry: ", registry).removeprefix("registry: "),
        )
        _publish_images(side / "images", sources.registry)
        yield sources


def _publish_images(layout: Path, registry_url: str) -> None:
    """The small stand-ins, under the names that the chart asks for."""
    write_images(layout)
    place = parse_place(f"{registry_url}/superlinked")
    rule = parse_elsewhere(f"ghcr.io/superlinked=oci:{layout}")
    with ImageSources([rule]) as images, Registry(place) as registry:
        for name in NAMES:
            copy_image(images.find(name), registry, mirrored(parse_reference(name), place), advance=lambda _: None)


def _build_wheels(folder: Path) -> Path:
    """Wheels of the toolkit and of what it stands on, from this checkout and from nowhere else."""
    folder.mkdir()
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    building = {
        name: subprocess.Popen(argv, cwd=CHECKOUT / "packages" / f"sie-{name}", stdout=PIPE, stderr=STDOUT, text=True)
        for name in _PACKAGES
    }
    for name, process in building.items():
        said, _ = process.communicate()
        if process.returncode != 0:
            raise DemoFailed(f"the wheel of sie-{name} was not built\n{said}")
    return folder


def _record(screen: Screen, side: Path, airgap: str) -> None:
    """What a worker answers here, from exactly the files that will be carried."""
    bucket = f"file://{side / 'weights'}"
    screen.step("mirror weights", [airgap, "mirror", "weights", bucket], cwd=side)
    log = side / "worker.log"
    argv = [str(BIN / "sie-server"), "serve", "--models", MODEL, "--local-cache", str(side / "cache")]
    env = {"SIE_CLUSTER_CACHE": bucket, "SIE_SERVER_PORT": str(free_port()), "SIE_SERVER_HOST": "127.0.0.1"}
    url = f"http://127.0.0.1:{env['SIE_SERVER_PORT']}"
    with server(argv, log, env=env) as worker:
        wait_for(log, "ready", worker)
        screen.step("golden record", [airgap, "golden", "record", "--url", url], cwd=side)
        served = json.load(urllib.request.urlopen(f"{url}/v1/models/{MODEL}"))  # noqa: S310 - a loopback address
    if served["revision"] != COMMIT or not served["verified"]:
        raise DemoFailed(f"the worker served {served['revision']}, verified: {served['verified']}")
    shutil.rmtree(side / "cache")


def _show_gone(screen: Screen, sources: Sources) -> None:
    for url in (sources.hub, sources.registry):
        host, port = urlsplit(url).hostname, urlsplit(url).port
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0:
                raise DemoFailed(f"{url} still answers")
    screen.line("the hub is gone", "hub and registry are stopped and refuse connections")
