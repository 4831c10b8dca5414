"""Rules for nodes: as their readers take them, the real ones where they are installed."""

import os
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from sie_airgap.cli import cli
from sie_airgap.cli.outcome import run
from sie_airgap.mirror.rules import FORMATS, rules, where_to_put
from sie_airgap.oci.copy import copy_image
from sie_airgap.oci.reference import mirrored, parse_place, parse_reference
from sie_airgap.oci.registry import Registry
from sie_airgap.oci.sources import ImageSources, parse_elsewhere
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import LockedBlob, LockedImage
from sie_testing import registry as stand_in
from sie_testing.carried import FILES, filled_store, make_lock
from sie_testing.images import NAMES, write_images
from sie_testing.registry import serving_registry

PLACE = parse_place("mirror.example:5000/sie")
WANTED = (*NAMES, "busybox:1.36", "registry.k8s.io/pause@sha256:" + "a" * 64, "localhost:5001/x/y:1")


def test_containerd_gets_a_folder_a_registry_that_names_the_mirror_and_nothing_else() -> None:
    files = rules(WANTED, PLACE, form="hosts.toml")

    assert list(files) == [
        "docker.io/hosts.toml",
        "ghcr.io/hosts.toml",
        "localhost:5001/hosts.toml",
        "registry.k8s.io/hosts.toml",
    ]
    read = tomllib.loads(files["localhost:5001/hosts.toml"])
    url = "https://mirror.example:5000/v2/sie/localhost-5001"
    host = {"capabilities": ["pull", "resolve"], "override_path": True}
    assert read == {"server": url, **host, "host": {url: host}}


def test_openshift_gets_both_sets_and_never_contacts_the_source() -> None:
    [text] = rules(WANTED, PLACE, form="idms").values()
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(text))

    assert [each["kind"] for each in objects] == ["ImageDigestMirrorSet", "ImageTagMirrorSet"]
    assert {each["apiVersion"] for each in objects} == {"config.openshift.io/v1"}
    digests, tags = objects[0]["spec"]["imageDigestMirrors"], objects[1]["spec"]["imageTagMirrors"]
    assert digests == tags
    assert {each["mirrorSourcePolicy"] for each in digests} == {"NeverContactSource"}
    assert digests[0] == {
        "source": "docker.io/library/busybox",
        "mirrors": ["mirror.example:5000/sie/docker.io/library/busybox"],
        "mirrorSourcePolicy": "NeverContactSource",
    }
    assert "&id" not in text


def test_podman_and_cri_o_get_the_mirror_as_the_location() -> None:
    [text] = rules(NAMES, parse_place("http://10.0.0.5:5000/sie"), form="registries.conf").values()

    assert tomllib.loads(text)["registry"][0] == {
        "prefix": "ghcr.io/superlinked/sie-config",
        "location": "10.0.0.5:5000/sie/ghcr.io/superlinked/sie-config",
        "insecure": True,
    }


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_says_where_its_files_go(form: str) -> None:
    assert where_to_put(form, PLACE)


def test_what_the_rules_name_is_where_full_names_put_an_image() -> None:
    for name in WANTED:
        reference = parse_reference(name)
        target = mirrored(reference, PLACE, full_name=True)
        [file] = rules([name], PLACE, form="hosts.toml").values()
        server = tomllib.loads(file)["server"]

        assert f"https://{target.registry}/v2/{target.repository}" == f"{server}/{reference.repository}"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[stand_in.Registry, str]]:
    """A registry that holds the images under their full names, and its origin."""
    folder = tmp_path_factory.mktemp("mirror")
    layout = write_images(folder / "layout")
    there = stand_in.Registry(folder / "registry")
    with serving_registry(there) as origin, Registry(parse_place(f"{origin}/sie")) as registry:
        with ImageSources([parse_elsewhere(f"ghcr.io/superlinked=oci:{layout.folder}")]) as sources:
            for name in NAMES:
                target = mirrored(parse_reference(name), registry.place, full_name=True)
                copy_image(sources.find(name), registry, target, advance=lambda _: None)
        yield there, origin


def _written(folder: Path, origin: str, form: str) -> Path:
    for name, text in rules(NAMES, parse_place(f"{origin}/sie"), form=form).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@contextmanager
def _containerd(folder: Path) -> Iterator[str]:
    """containerd over a folder of its own, and the address of its socket."""
    config, socket = folder / "config.toml", folder / "c.sock"
    config.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{socket}"\n'
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["containerd", "--config", str(config)], stdout=log, stderr=log)
    try:
        until = time.monotonic() + 20
        while not socket.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        yield str(socket)
    finally:
        process.terminate()
        process.wait()


@pytest.mark.skipif(
    shutil.which("containerd") is None or os.geteuid() != 0,
    reason="containerd is not installed (Debian package `containerd`), or this is not root",
)
def test_containerd_fetches_by_the_rules_and_asks_nobody_else(
    mirror: tuple[stand_in.Registry, str], tmp_path: Path
) -> None:
    there, origin = mirror
    folder = _written(tmp_path / "certs.d", origin, "hosts.toml")
    with _containerd(tmp_path) as address:
        fetch = ["ctr", "-a", address, "content", "fetch", "--hosts-dir", str(folder)]
        got = subprocess.run([*fetch, NAMES[0]], capture_output=True, text=True, timeout=60)
        assert got.returncode == 0, got.stderr
        there.seen.clear()
        missing = subprocess.run([*fetch, "ghcr.io/superlinked/other:v1"], capture_output=True, text=True, timeout=60)

    assert "not found" in missing.stderr
    assert "ghcr.io/v2" not in missing.stderr  # what it says of whom it asks
    assert {seen.path for seen in there.seen} == {"/v2/sie/ghcr.io/superlinked/other/manifests/v1"}


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed (Debian package `skopeo`)")
def test_skopeo_reads_an_image_by_the_rules(mirror: tuple[stand_in.Registry, str], tmp_path: Path) -> None:
    _, origin = mirror
    folder = _written(tmp_path, origin, "registries.conf")
    rule = ["--registries-conf", str(folder / "sie-mirror.conf")]
    command = ["skopeo", *rule, "inspect", "--no-tags", f"docker://{NAMES[0]}"]
    got = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert got.returncode == 0, got.stderr
    assert '"stand-in": "true"' in got.stdout


@pytest.mark.parametrize("form", FORMATS)
def test_the_command_writes_files_or_prints_them_and_says_where_they_go(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blob = LockedBlob(digest_of(b"x"), 1, "x/y")
    images = (LockedImage(NAMES[0], blob.digest, "x/y", {}, (blob,), (), ("the test",)),)
    lock = msgspec.structs.replace(make_lock(FILES), images=images)
    store = filled_store(tmp_path / "store", lock, FILES)
    command = ["mirror", "rules", "mirror.example/sie", "--from", str(store.root), "--format", form]
    expected = rules([NAMES[0]], parse_place("mirror.example/sie"), form=form)

    assert run(cli, command) == 0
    printed = capsys.readouterr()
    assert all(text in printed.out for text in expected.values())
    assert run(cli, [*command, "-o", str(tmp_path / "rules")]) == 0
    assert {name: (tmp_path / "rules" / name).read_text() for name in expected} == expected
    assert where_to_put(form, parse_place("mirror.example/sie")) in capsys.readouterr().err
    assert run(cli, ["mirror", "rules", "ftp://x", *command[3:]]) == 2


def test_a_lock_without_images_has_no_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = make_lock(FILES)
    store = filled_store(tmp_path / "store", lock, FILES)

    assert run(cli, ["mirror", "rules", "mirror.example/sie", "--from", str(store.root), "--format", "idms"]) == 0
    assert "no images" in capsys.readouterr().out
