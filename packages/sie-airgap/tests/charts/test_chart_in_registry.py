"""The chart in a registry, as the real Helm reads it; and beside it what Helm itself pushes."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sie_airgap.charts.package import pack
from sie_airgap.mirror.images import ChartArtifact, chart_artifact, mirror_chart, plan_chart, read_chart
from sie_airgap.oci.manifest import Manifest, parse
from sie_airgap.oci.reference import parse_place
from sie_airgap.oci.registry import Registry
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.lock import LockedChart
from sie_testing import parts
from sie_testing.registry import Registry as StandIn
from sie_testing.registry import serving_registry


@pytest.fixture
def tgz(tmp_path: Path) -> bytes:
    folder = tmp_path / "tiny"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text(
        "apiVersion: v2\nname: tiny\nversion: 0.3.1\nappVersion: v0.3.1\ndescription: says hello\n"
    )
    (folder / "values.yaml").write_text("greeting: hello\n")
    (folder / "templates" / "map.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: tiny\ndata:\n  said: {{ .Values.greeting }}\n"
    )
    return pack(folder)


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[str]:
    with serving_registry(StandIn(tmp_path / "registry")) as origin:
        yield origin


@pytest.fixture(params=[parts.HELM_3, parts.HELM_4])
def helm(request: pytest.FixtureRequest) -> Path:
    return parts.helm(version=request.param)


def _run(helm: Path, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    folders = {name: str(home / name) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HOME")}
    command = [str(helm), *arguments]
    return subprocess.run(
        command, env={"PATH": os.defpath, **folders}, capture_output=True, text=True, timeout=60, check=True
    )


def _mirror(artifact: ChartArtifact, origin: str) -> bool:
    """Whether anything had to be done."""
    with Registry(parse_place(f"{origin}/sie/charts")) as registry:
        plan = plan_chart(artifact, registry)
        mirror_chart(artifact, registry, plan, Silent())
    return not plan.is_done


def test_helm_pulls_the_very_chart_that_was_mirrored(tgz: bytes, origin: str, helm: Path, tmp_path: Path) -> None:
    assert _mirror(chart_artifact(tgz), origin)
    assert not _mirror(chart_artifact(tgz), origin)
    reference = f"oci://{origin.partition('//')[2]}/sie/charts/tiny"
    at = ("--version", "0.3.1", "--plain-http")

    shown = _run(helm, "show", "chart", reference, *at, home=tmp_path)
    assert "appVersion: v0.3.1" in shown.stdout
    rendered = _run(helm, "template", "x", reference, *at, home=tmp_path)
    assert "said: hello" in rendered.stdout
    _run(helm, "pull", reference, *at, "--destination", str(tmp_path), home=tmp_path)
    assert (tmp_path / "tiny-0.3.1.tgz").read_bytes() == tgz


def test_it_lies_there_as_helm_itself_would_put_it(tgz: bytes, origin: str, helm: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny-0.3.1.tgz").write_bytes(tgz)
    target = f"oci://{origin.partition('//')[2]}/pushed"
    _run(helm, "push", str(tmp_path / "tiny-0.3.1.tgz"), target, "--plain-http", home=tmp_path)
    ours = parse(chart_artifact(tgz).root().data, media_type="", where="ours")
    with Registry(parse_place(origin)) as registry:
        theirs = parse(registry.manifest("pushed/tiny", "0.3.1").data, media_type="", where="theirs")

    assert isinstance(ours, Manifest)
    assert isinstance(theirs, Manifest)
    assert [layer.digest for layer in ours.layers] == [layer.digest for layer in theirs.layers]
    assert [layer.media_type for layer in ours.layers] == [layer.media_type for layer in theirs.layers]
    assert ours.config.media_type == theirs.config.media_type


def test_the_same_chart_is_the_same_manifest(tgz: bytes) -> None:
    assert chart_artifact(tgz).root() == chart_artifact(tgz).root()


def test_a_version_with_a_plus_is_tagged_as_helm_does(tgz: bytes, origin: str) -> None:
    artifact = chart_artifact(tgz)
    with Registry(parse_place(origin)) as registry:
        plus = ChartArtifact("tiny", "1.0.0+build.5", artifact.manifest_content, artifact.config, tgz)

        assert plan_chart(plus, registry).target.tag == "1.0.0_build.5"


@pytest.mark.parametrize("data", [b"", b"not a tar", pytest.param(None, id="cut short")])
def test_what_is_no_packaged_chart_is_refused(data: bytes | None, tgz: bytes) -> None:
    with pytest.raises(ValueError, match="not a packaged chart"):
        chart_artifact(tgz[:40] if data is None else data)


def test_a_carried_chart_is_checked_when_it_is_read(tgz: bytes, tmp_path: Path) -> None:
    store = BlobFolder(tmp_path / "store")
    locked = LockedChart("tiny", "0.3.1", "tiny-0.3.1.tgz", digest_of(tgz), len(tgz))
    with pytest.raises(NotThere):
        read_chart(locked, store)
    store.add(tgz)
    assert read_chart(locked, store) == tgz
    store.path(locked.digest).write_bytes(tgz + b"x")

    with pytest.raises(TrustError, match=f"(?s)tiny-0.3.1.tgz.*want  {locked.digest}"):
        read_chart(locked, store)
