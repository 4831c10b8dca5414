"""The whole way into the docker project's registry, with TLS and a password, and what others read there."""

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import yaml

from sie_airgap.charts.package import pack
from sie_airgap.cli import cli
from sie_airgap.cli.outcome import run
from sie_airgap.oci.copy import resolve_image
from sie_airgap.oci.sources import ImageSources, parse_elsewhere
from sie_airgap.store.blobs import BlobFolder, write_lock
from sie_airgap.store.contents import LOCK_NAME
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import Lock, LockedChart
from sie_testing import parts
from sie_testing.authority import Authority
from sie_testing.images import NAMES, write_images
from sie_testing.nginx import nginx_program, serving_nginx
from sie_testing.registry.docker import (
    PASSWORD,
    USER,
    docker_registry_program,
    serving_docker_registry,
)

pytestmark = pytest.mark.skipif(
    docker_registry_program() is None, reason="docker-registry is not installed (Debian package `docker-registry`)"
)
has_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed (Debian package)")
has_podman = pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed (Debian package)")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BlobFolder:
    """A whole store: three images and a chart."""
    folder = tmp_path_factory.mktemp("carried")
    layout = write_images(folder / "layout", padding_bytes=3 << 20)
    with ImageSources([parse_elsewhere(f"ghcr.io/superlinked=oci:{layout.folder}")]) as sources:
        images = tuple(resolve_image(name, sources.find(name), why=["the test"]) for name in sorted(NAMES))
    chart = folder / "tiny"
    chart.mkdir()
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: tiny\nversion: 0.3.1\nappVersion: v0.3.1\n")
    tgz = pack(chart)
    store = BlobFolder(folder / "store")
    shutil.copytree(layout.folder / "blobs", store.root / "blobs")
    locked = LockedChart("tiny", "0.3.1", "tiny-0.3.1.tgz", store.add(tgz), len(tgz))
    write_lock(store.root / LOCK_NAME, Lock(1, 1, None, (), images, (locked,), ()))
    return store


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def _docker_config(folder: Path, host: str, password: str = PASSWORD) -> Path:
    folder.mkdir(exist_ok=True)
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return folder


@dataclass(frozen=True)
class Guarded:
    """A registry that holds everything, by TLS and for whoever has the password."""

    host: str
    docker_config: Path
    authority: Authority
    said: str

    @property
    def environment(self) -> dict[str, str]:
        """What programs of others find the login and the authority by."""
        auth = str(self.docker_config / "config.json")
        return {**os.environ, "SSL_CERT_FILE": str(self.authority.certificate), "REGISTRY_AUTH_FILE": auth}


@pytest.fixture(scope="module")
def guarded(store: BlobFolder, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    with serving_docker_registry(folder / "registry", with_password=True, authority=authority) as origin:
        host = origin.removeprefix("https://")
        config = _docker_config(folder / "docker", host)
        kept = {"DOCKER_CONFIG": str(config), "SSL_CERT_FILE": str(authority.certificate)}
        said = ""
        for what in ("images", "chart"):
            command = ["mirror", what, f"https://{host}/sie", "--from", str(store.root)]
            done = _sie_airgap(*command, home=folder, **kept)
            assert done.returncode == 0, done.stderr
            said += done.stderr
        yield Guarded(host, config, authority, said)


def _sie_airgap(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sie_airgap", *arguments]
    kept = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_STATE_HOME": str(home / "state"), **environment}
    return subprocess.run(command, env=kept, capture_output=True, text=True, timeout=120)


@has_skopeo
def test_skopeo_reads_what_was_mirrored_with_every_platform(guarded: Guarded, store: BlobFolder) -> None:
    lock = msgspec.json.decode((store.root / LOCK_NAME).read_bytes(), type=Lock)
    image = f"docker://{guarded.host}/sie/sie-server:v0.3.1"
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", image], env=guarded.environment, capture_output=True, timeout=60
    )
    assert raw.returncode == 0, raw.stderr

    [locked] = [one for one in lock.images if "sie-server" in one.reference]
    assert digest_of(raw.stdout) == locked.digest
    for platform in locked.platforms:
        name, _, architecture = platform.partition("/")
        override = ["--override-os", name, "--override-arch", architecture]
        shown = subprocess.run(
            ["skopeo", *override, "inspect", image], env=guarded.environment, capture_output=True, timeout=60
        )
        assert json.loads(shown.stdout)["Architecture"] == architecture


@pytest.mark.gap_servers
@has_podman
def test_podman_pulls_what_was_mirrored(guarded: Guarded) -> None:
    image = f"{guarded.host}/sie/sie-gateway:v0.3.1"
    with tempfile.TemporaryDirectory(prefix="podman-") as short:  # podman takes no run root of 50 letters
        store = ["--root", f"{short}/root", "--runroot", f"{short}/run", "--storage-driver", "vfs"]
        podman = ["podman", *store, "--cgroup-manager", "cgroupfs"]
        pulled = subprocess.run([*podman, "pull", image], env=guarded.environment, capture_output=True, timeout=100)
        assert pulled.returncode == 0, pulled.stderr
        shown = subprocess.run([*podman, "inspect", image], env=guarded.environment, capture_output=True, timeout=60)

    assert json.loads(shown.stdout)[0]["Labels"] == {"stand-in": "true"}


@pytest.mark.parametrize("version", [parts.HELM_3, parts.HELM_4])
def test_helm_logs_in_and_pulls_the_chart_by_tls(
    guarded: Guarded, store: BlobFolder, version: str, tmp_path: Path
) -> None:
    kept = {name: str(tmp_path / name) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    environment = {**guarded.environment, **kept}
    helm = str(parts.helm(version=version))
    reference = f"oci://{guarded.host}/sie/tiny"
    how = ["--version", "0.3.1", "--registry-config", str(guarded.docker_config / "config.json")]
    how += ["--ca-file", str(guarded.authority.certificate)]
    shown = subprocess.run(
        [helm, "show", "chart", reference, *how], env=environment, capture_output=True, text=True, timeout=60
    )
    assert shown.returncode == 0, shown.stderr
    assert yaml.safe_load(shown.stdout)["appVersion"] == "v0.3.1"
    pull = [helm, "pull", reference, *how, "--destination", str(tmp_path)]
    subprocess.run(pull, env=environment, capture_output=True, timeout=60, check=True)

    locked = msgspec.json.decode((store.root / LOCK_NAME).read_bytes(), type=Lock).charts[0]
    assert digest_of((tmp_path / "tiny-0.3.1.tgz").read_bytes()) == locked.digest


@pytest.mark.parametrize("version", [parts.KUBECTL_34, parts.KUBECTL_37])
def test_the_pull_secret_that_is_printed_is_one_that_kubectl_makes(guarded: Guarded, version: str) -> None:
    [printed] = re.findall(r"`(kubectl create secret [^`]+)`", guarded.said)
    assert "password" not in printed
    words = shlex.split(printed.replace("NAMESPACE", "sie"))
    command = [str(parts.kubectl(version=version)), *words[1:], "--dry-run=client", "-o", "yaml"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "KUBECONFIG": "/x"})
    assert made.returncode == 0, made.stderr
    secret = yaml.safe_load(made.stdout)

    assert (secret["kind"], secret["type"], secret["metadata"]["name"]) == (
        "Secret",
        "kubernetes.io/dockerconfigjson",
        "regcred",
    )
    assert guarded.host in json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))["auths"]


def test_an_unknown_authority_a_wrong_password_and_a_wrong_scheme_are_told_apart(
    guarded: Guarded, store: BlobFolder, tmp_path: Path
) -> None:
    known = {"DOCKER_CONFIG": str(guarded.docker_config), "SSL_CERT_FILE": str(guarded.authority.certificate)}
    wrong = {**known, "DOCKER_CONFIG": str(_docker_config(tmp_path / "docker", guarded.host, "wrong"))}
    place, carried = f"https://{guarded.host}/sie", ("--from", str(store.root), "--dry-run")

    stranger = _sie_airgap("mirror", "images", place, *carried, home=tmp_path, DOCKER_CONFIG=str(tmp_path))
    assert (stranger.returncode, "`SSL_CERT_FILE` names the file" in stranger.stderr) == (5, True), stranger.stderr
    assert "again in" not in stranger.stderr
    refused = _sie_airgap("mirror", "images", place, *carried, home=tmp_path, **wrong)
    assert (refused.returncode, "`sie/sie-config`" in refused.stderr) == (6, True), refused.stderr
    plain = _sie_airgap("mirror", "images", f"http://{guarded.host}/sie", *carried, home=tmp_path, **known)
    assert plain.returncode not in (0, 1), plain.stderr
    assert "https" in plain.stderr.lower()


@pytest.mark.skipif(nginx_program() is None, reason="nginx is not installed (Debian package `nginx-light`)")
def test_behind_a_proxy_that_ends_tls_and_limits_bodies_all_of_it_arrives(
    store: BlobFolder, authority: Authority, tmp_path: Path
) -> None:
    """It answers with `http://` places, since nothing tells it of TLS, and lets 1 MB through."""
    with (
        serving_docker_registry(tmp_path / "registry") as inner,
        serving_nginx(tmp_path / "nginx", inner, authority=authority) as outer,
    ):
        command = ("mirror", "images", f"{outer}/sie", "--from", str(store.root))
        kept = {"SSL_CERT_FILE": str(authority.certificate), "DOCKER_CONFIG": str(tmp_path)}
        done = _sie_airgap(*command, home=tmp_path, **kept)
        assert done.returncode == 0, done.stderr
        again = _sie_airgap(*command, "--output", "json", home=tmp_path, **kept)

    assert "limits bodies: parts of" in done.stderr
    assert json.loads(again.stdout) == {"registry": f"{outer}/sie", "images": 0, "bytes": 0}


def test_a_registry_without_tls_is_spoken_to_by_http_where_that_is_said_or_on_loopback(
    store: BlobFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with serving_docker_registry(tmp_path / "registry") as origin:
        for place in (origin, origin.removeprefix("http://")):
            assert run(cli, ["mirror", "images", f"{place}/sie", "--from", str(store.root), "--dry-run"]) == 0
        by_tls = origin.replace("http://", "https://")
        assert run(cli, ["mirror", "images", f"{by_tls}/sie", "--from", str(store.root), "--dry-run"]) == 5

    assert f"is it `{origin}`?" in capsys.readouterr().err
