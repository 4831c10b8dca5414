"""A chart that hides an image in each place, and charts inside of charts, as real Helm programs render them."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sie_airgap.charts import images as chart_images
from sie_airgap.charts import package as chart_package
from sie_airgap.charts.choosing import Seen, unlocked, wanted
from sie_airgap.cli import cli
from sie_airgap.cli.outcome import run
from sie_airgap.failures import Incomplete, Misused
from sie_airgap.store.blobs import read_lock
from sie_testing.carried import FILES, Run
from sie_testing.hub import Hub, serving_hub
from sie_testing.images import NAMES, write_images

POD = """
kind: Pod
apiVersion: v1
metadata: {{name: {name}{annotations}}}
spec: {{containers: [{{name: c, image: "{image}"}}]}}
"""
HOOK = ', annotations: {{"helm.sh/hook": {hook}}}'


def pod(name: str, image: str, *, hook: str = "", only: str = "") -> str:
    text = POD.format(name=name, image=image, annotations=HOOK.format(hook=hook) if hook else "")
    return f"{{{{- if {only} }}}}{text}---{{{{- end }}}}\n" if only else f"{text}---\n"


TEMPLATES = {
    "hooks.yaml": pod("job", "hook:1", hook="pre-install") + pod("check", "test:1", hook="test"),
    "switches.yaml": pod("metrics", "metrics:1", only=".Values.metrics.enabled")
    + pod("both", "both:1", only="and .Values.metrics.enabled .Values.backup.schedule")
    + pod("backup", "backup:1", only=".Values.backup.schedule")
    + pod("replica", "replica:1", only="gt (int .Values.replicas) 0")
    + pod("tls", "tls:1", only='and .Values.tls.on (required "tls.secret is required" .Values.tls.secret)'),
    "custom.yaml": """
kind: Runner
apiVersion: example.com/v1
metadata: {name: r, annotations: {example.com/proxy-image: "annotated:1"}}
spec:
  image: {registry: r.example, repository: parts, tag: v1}
  podTemplate: {spec: {initContainers: [{name: i, image: "nested:1", args: ["--agent-image", "argument:1"]}]}}
""",
    "texts.yaml": """
kind: ConfigMap
apiVersion: v1
metadata: {name: m}
data:
  config.yaml: |
    sidecar: {image: "yaml:1"}
  config.json: '{"image": {"repository": "json", "tag": "1"}}'
---
kind: Secret
apiVersion: v1
metadata: {name: s}
stringData: {plain: "image: secret:1"}
data: {encoded: {{ "image: encoded:1" | b64enc }}}
""",
}
VALUES: dict[str, Any] = {
    "metrics": {"enabled": False},
    "backup": {"schedule": ""},
    "replicas": 0,
    "tls": {"on": False, "secret": None},
    "inner": {"extra": {"enabled": False}},
}


def chart(folder: Path, name: str, templates: dict[str, str], values: dict[str, Any], **about: Any) -> Path:
    root = folder / name
    (root / "templates").mkdir(parents=True)
    told = {"apiVersion": "v2", "name": name, "version": "1.0.0", **about}
    (root / "Chart.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
    (root / "values.yaml").write_text(json.dumps(values), encoding="utf-8")
    for file, text in templates.items():
        (root / "templates" / file).write_text(text, encoding="utf-8")
    return root


def packed(root: Path, folder: Path) -> Path:
    file = folder / chart_package.identify(root).file
    folder.mkdir(exist_ok=True, parents=True)
    file.write_bytes(chart_package.pack(root))
    return file


@pytest.fixture(scope="module")
def hiding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a chart inside, under another name and packed, that has one more inside of it."""
    folder = tmp_path_factory.mktemp("charts")
    deep = chart(folder, "deep", {"a.yaml": pod("deep", "deep:1")}, {})
    inner_templates = {"a.yaml": pod("extra", "inner:1", only=".Values.extra.enabled")}
    inside = [{"name": "deep", "version": "1.0.0", "condition": "deep.enabled"}]
    inner = chart(folder, "sub", inner_templates, {"deep": {"enabled": False}}, dependencies=inside)
    packed(deep, inner / "charts")
    outer = [{"name": "sub", "version": "1.0.0", "alias": "inner"}, {"name": "deep", "version": "1.0.0", "tags": ["t"]}]
    root = chart(folder, "hiding", TEMPLATES, {**VALUES, "tags": {"t": False}}, dependencies=outer)
    packed(inner, root / "charts")
    packed(deep, root / "charts")
    return packed(root, folder / "out")


def test_every_hidden_image_is_found_with_where_and_how_sure(hiding: Path, any_helm: Path) -> None:
    found = chart_images.read(any_helm, hiding, release="hiding", namespace="x")

    certain = {use.reference for use in found.needed if not use.is_guess}
    guessed = {use.reference for use in found.needed if use.is_guess}
    assert certain == {"hook:1", "test:1", "nested:1"}
    assert guessed == {
        "annotated:1",
        "argument:1",
        "encoded:1",
        "json:1",
        "r.example/parts:v1",
        "secret:1",
        "yaml:1",
    }
    switched = {image.use.reference: image.switches for image in found.otherwise.images}
    assert switched.pop("deep:1")
    assert switched.pop("both:1") == ("backup.schedule", "metrics.enabled")
    assert switched == {
        "backup:1": ("backup.schedule",),
        "inner:1": ("inner.extra.enabled",),
        "metrics:1": ("metrics.enabled",),
        "replica:1": ("replicas",),
        "tls:1": ("tls.on", "tls.secret"),
    }
    assert found.otherwise.not_tried == ()


def test_what_is_locked_is_what_the_operator_asks_for(hiding: Path, helm_4: Path) -> None:
    found = chart_images.read(helm_4, hiding, release="hiding", namespace="x")
    seen = Seen("hiding", found.needed, found.otherwise, is_extra=True)

    plain = wanted([seen])
    assert len(plain) == 10
    assert {use.reference: use.why for use in plain}["yaml:1"] == (
        "hiding: looks like one: ConfigMap/m, key config.yaml",
    )
    more = {use.reference: use.why for use in wanted([seen], switches=["tls.on"])}
    assert more["tls:1"] == ("hiding: only with `tls.on`, `tls.secret`: Pod/tls, container c",)
    assert len(more) == 11
    everything = wanted([seen], everything=True)
    assert unlocked(seen, {use.reference for use in everything}, {}) == ()
    left = unlocked(seen, {use.reference for use in plain} - {"yaml:1"}, {"yaml:1": "there is none"})
    assert {image.reference for image in left} == {use.reference for use in everything} - {
        use.reference for use in plain
    } | {"yaml:1"}
    with pytest.raises(Misused, match="no image is brought") as caught:
        wanted([seen], switches=["tls.onn"])
    assert caught.value.hint == "did you mean `tls.on`?"


def test_a_switch_of_the_operators_own_values_is_on_already(hiding: Path, helm_4: Path, tmp_path: Path) -> None:
    own = tmp_path / "values.yaml"
    own.write_text("metrics: {enabled: true}\n", encoding="utf-8")

    found = chart_images.read(helm_4, hiding, release="hiding", namespace="x", values=[own])
    assert "metrics:1" in {use.reference for use in found.needed}


def test_a_package_without_its_dependencies_is_refused_with_what_to_run(tmp_path: Path) -> None:
    root = chart(tmp_path, "lacking", {}, {}, dependencies=[{"name": "postgres", "version": "1.0.0"}])
    file = tmp_path / "lacking-1.0.0.tgz"
    with tarfile.open(file, "w:gz") as tar:
        tar.add(root, "lacking")

    with pytest.raises(Incomplete, match=r"`postgres` \(of `lacking`\)") as caught:
        chart_package.tree_of(file)
    assert "helm dependency build lacking" in (caught.value.hint or "")


@pytest.fixture
def small_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for path, data in FILES["org/small"].items():
        file = tmp_path / "hub" / "org/small" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    with serving_hub(Hub(tmp_path / "hub", lfs_above_bytes=1000)) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        yield endpoint


@pytest.fixture
def airgap(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helm_4: Path) -> Run:
    """`lock` with a chart of three images that are read from a layout, and whatever else is said."""
    write_images(tmp_path / "layout")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{helm_4.parent}:/usr/bin:/bin")

    def command(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(cli, [str(word) for word in words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return command


def own_and_extra(tmp_path: Path) -> list[str | Path]:
    first, second, third = NAMES[:3]
    ours = chart(tmp_path, "sie-cluster", {"a.yaml": pod("a", first)}, {})
    names = f"env: [{{name: AGENT_IMAGE, value: {second}}}, {{name: X_IMAGE, value: 'docker.io/library/gone:1'}}]"
    guessing = pod("b", first).replace('"}]}', f'", {names}}}]}}')
    only = pod("c", third, only=".Values.more.enabled")
    extra = chart(tmp_path, "keda", {"a.yaml": guessing + only}, {"more": {"enabled": False}})
    (tmp_path / "own.yaml").write_text("more: {color: blue}\n", encoding="utf-8")
    places = ["--image-source", "ghcr.io/superlinked=oci:layout", "--image-source", "docker.io=oci:layout"]
    model = ["--model", "org/small", *places]
    return ["lock", *model, "--chart", ours, "--extra-chart", f"{packed(extra, tmp_path / 'out')}=own.yaml"]


def test_an_extra_chart_is_locked_with_its_images_and_what_it_might_bring(
    airgap: Run, tmp_path: Path, small_hub: str
) -> None:
    code, _, err = airgap(*own_and_extra(tmp_path))
    assert code == 0, err
    lock = read_lock(tmp_path / "airgap.lock")

    assert [made.file for made in lock.charts] == ["keda-1.0.0.tgz", "sie-cluster-1.0.0.tgz"]
    assert lock.chart == lock.charts[1]
    why = {image.reference: image.why for image in lock.images}
    assert why == {
        NAMES[0]: ("Pod/a, container c", "keda: Pod/b, container c"),
        NAMES[1]: ("keda: looks like one: Pod/b, container c, variable AGENT_IMAGE",),
    }
    left = {image.reference: image.why for image in lock.charts[0].not_locked}
    assert set(left) == {NAMES[2], "docker.io/library/gone:1"}
    assert left[NAMES[2]] == ("keda: only with `more.enabled`: Pod/c, container c",)
    assert any("there is none" in reason for reason in left["docker.io/library/gone:1"])
    assert "note: not locked: docker.io/library/gone:1" in err
    assert "`--with VALUE`" in err

    assert airgap(*own_and_extra(tmp_path / "again"), "--locked")[0] == 0
    code, _, err = airgap(*own_and_extra(tmp_path / "more"), "--with", "more.enabled")
    assert code == 0, err
    assert len(read_lock(tmp_path / "airgap.lock").images) == 3
    code, out, _ = airgap("review")
    assert "note    unlocked    docker.io/library/gone:1: seen in keda-1.0.0.tgz and not carried" in out
    assert airgap("snapshot", "--image-source", "ghcr.io/superlinked=oci:layout")[0] == 0
    code, _, err = airgap("mirror", "chart", "./charts")
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "charts").iterdir()) == ["keda-1.0.0.tgz", "sie-cluster-1.0.0.tgz"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--extra-chart", "."], "--extra-chart wants --chart beside it"),
        (["--with", "a.b"], "--with wants --chart beside it"),
        (["--chart", ".", "--with", "a.b", "--all-conditionals"], "--with and --all-conditionals do not go together"),
        (["--chart", ".", "--extra-chart", "nowhere.tgz"], "'nowhere.tgz' does not exist"),
    ],
)
def test_options_of_charts_that_mean_nothing_are_refused(airgap: Run, words: list[str], said: str) -> None:
    code, _, err = airgap("lock", "--model", "org/small", *words)

    assert code == 2
    assert said in err
