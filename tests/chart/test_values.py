"""Values: what is taken, what is refused, and with which words."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sie_airgap.charts.helm import Refused
from sie_airgap.charts.inventory import images

HERE = Path(__file__).resolve().parent
FILES = ("guide.yaml", "every-knob.yaml", "hub.yaml", "folder.yaml")


def _leaves(tree, path=()):
    """The dotted paths of what is set; lists and maps without a fixed shape count as one value."""
    if isinstance(tree, dict) and tree:
        for key, below in tree.items():
            yield from _leaves(below, (*path, key))
    else:
        yield path


def test_schema_and_reference_are_what_values_yaml_says(chart):
    ended = subprocess.run(
        [sys.executable, str(chart.parents[1] / "tools" / "schema.py"), "--check"], capture_output=True, text=True
    )

    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("file", [*FILES, None])
def test_lint_is_clean(chart, any_helm, file):
    values = ["--values", str(HERE / file)] if file else []
    ended = subprocess.run(
        [str(any_helm), "lint", "--strict", str(chart), *values], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_knob_is_turned_in_some_file(default_values):
    turned = [yaml.safe_load((HERE / name).read_text(encoding="utf-8")) for name in FILES]

    def is_turned(path):
        for tree in turned:
            found, default = tree, default_values
            for part in path:
                if not isinstance(found, dict) or part not in found:
                    break
                found, default = found[part], default.get(part) if isinstance(default, dict) else None
            else:
                if found != default:
                    return True
        return False

    shipped = {("workers", "pools", name) for name in ("a100-40gb", "a100-80gb", "cpu")}
    wanted = [path for path in _leaves(default_values) if path[:3] not in shipped]

    # The digest is set where a tag beside it shows that the digest wins.
    assert [".".join(path) for path in wanted if not is_turned(path)] == ["gateway.image.digest", "config.image.digest"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"workers": {"common": {"clustercache": {"enabled": True}}}}, "clustercache"),
        ({"workers": {"common": {"clusterCache": {"URL": "s3://b"}}}}, "URL"),
        ({"workers": {"pools": {"l4": {"min_replicas": 2}}}}, "min_replicas"),
        ({"workers": {"pools": {"mine": {"replicas": 2}}}}, "replicas"),
        ({"workers": {"pools": {"Not_A_Name": {"enabled": True}}}}, "Not_A_Name"),
        ({"global": {"imagePullSecret": ["x"]}}, "imagePullSecret"),
        ({"gatway": {}}, "gatway"),
        ({"gateway": {"image": {"tag": 0.3}}}, "tag"),
        ({"gateway": {"auth": {"mode": "tokn"}}}, "mode"),
        ({"gateway": {"extraEnv": [{"name": "A", "value": 1}]}}, "value"),
        ({"workers": {"common": {"image": {"digest": "6f2ab1"}}}}, "digest"),
    ],
)
def test_misspelt_value_is_refused_by_name(render, any_helm, values, named):
    with pytest.raises(Refused, match=named):
        render(program=any_helm, **values)


def _nested(path, value):
    for part in reversed(path.replace("*", "l4").split(".")):
        value = {part: value}
    return value


def test_every_removed_value_is_refused_with_what_to_do_instead(render, chart, any_helm):
    removed = yaml.safe_load((chart / "removed.yaml").read_text(encoding="utf-8"))
    merged: dict = {}
    for path in removed:
        _merge(merged, _nested(path, False))

    with pytest.raises(Refused) as refused:
        render(program=any_helm, **merged)

    for path, instead in removed.items():
        assert f"`{path.replace('*', 'l4')}`: {instead}" in refused.value.message


def _merge(tree, other):
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


CACHE = {"enabled": True, "url": "s3://bucket/weights/"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"workers": {"common": {"clusterCache": {"enabled": True}}}}, "clusterCache.url is ``"),
        ({"workers": {"common": {"clusterCache": {"enabled": True, "url": "s3//b"}}}}, "clusterCache.url is `s3//b`"),
        ({"workers": {"common": {"clusterCache": {"enabled": True, "url": "file://w"}}}}, "is `file://w`"),
        ({"workers": {"common": {"clusterCache": {"enabled": True, "url": "file:///w"}}}}, "clusterCache.volume"),
        ({"workers": {"common": {"clusterCache": {"url": "s3://b/"}}}}, "`enabled` is false"),
        ({"workers": {"common": {"clusterCache": {**CACHE, "volume": {"nfs": {}}}}}}, "not a file:// path"),
        (
            {"workers": {"common": {"clusterCache": {"enabled": True, "url": "gs://b/", "endpoint": "http://x:1"}}}},
            "clusterCache.endpoint is for s3:// urls",
        ),
        ({"workers": {"common": {"clusterCache": {**CACHE, "requireVerified": True}}}}, "needs .*clusterCache.lock"),
        ({"workers": {"common": {"hub": {"enabled": False}}}}, "nowhere to read weights"),
        ({"workers": {"pools": {"l4": {"enabled": False}}}}, "no worker pool is on"),
        ({"gateway": {"auth": {"mode": "token"}}}, "gateway.auth.tokenSecretName"),
        ({"hfToken": {"create": True}}, "`hfToken.value` is empty"),
        ({"networkPolicy": {"enabled": True}}, "cut workers off the hub"),
        ({"networkPolicy": {"enabled": True}, "workers": {"common": {"clusterCache": CACHE}}}, "cut .* off the bucket"),
    ],
)
def test_values_that_contradict_each_other_stop_the_render(render, values, said):
    with pytest.raises(Refused, match=said):
        render(**values)


def test_pull_secrets_may_be_maps_and_strings(render):
    objects = render("every-knob.yaml")
    pods = [each["spec"]["template"]["spec"] for each in objects if each["kind"] == "Deployment"]

    assert all(pod["imagePullSecrets"] == [{"name": "regcred"}, {"name": "mirror-credentials"}] for pod in pods)


@pytest.mark.parametrize("file", FILES)
def test_no_image_but_ours_whatever_is_switched_on(render, file):
    names = {use.reference.rpartition("/")[2].partition(":")[0].partition("@")[0] for use in images(render(file))}

    assert names <= {"sie-gateway", "sie-config", "sie-server"}


def test_digest_stands_in_for_the_tag_and_a_pools_tag_for_the_common_digest(render):
    by_pool = {
        each["metadata"]["labels"]["sie/pool"]: each["spec"]["template"]["spec"]["containers"][0]["image"]
        for each in render("every-knob.yaml", workers={"pools": {"l4": {"enabled": True}}})
        if each["kind"] == "Deployment" and "sie/pool" in each["metadata"]["labels"]
    }

    assert by_pool["l4"] == "registry.internal:5000/sie/sie-server:v0.3.1-gpu"
    assert by_pool["cpu"] == by_pool["h100"]
    assert by_pool["cpu"].startswith("registry.internal:5000/sie/sie-server@sha256:6f2ab1")


def test_pool_asks_for_its_gpus_and_tolerates_their_taint(render, one):
    pod = one(render(), "Deployment", "sie-sie-cluster-worker-l4")["spec"]["template"]["spec"]
    bare = one(render(workers={"pools": {"l4": {"gpu": {"count": 0}}}}), "Deployment", "sie-sie-cluster-worker-l4")[
        "spec"
    ]["template"]["spec"]

    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in pod["initContainers"][0]["resources"]["limits"]
    assert [each["key"] for each in pod["tolerations"]] == ["nvidia.com/gpu"]
    assert "nvidia.com/gpu" not in bare["containers"][0]["resources"]["limits"]
    assert "tolerations" not in bare


def test_budget_is_there_only_where_more_than_one_runs(render):
    def budgets(objects):
        return [each["metadata"]["name"] for each in objects if each["kind"] == "PodDisruptionBudget"]

    assert budgets(render()) == []
    assert sorted(budgets(render("every-knob.yaml"))) == ["vectors-gateway", "vectors-worker-cpu"]


def test_shared_folder_is_mounted_read_only_where_its_url_says(render, one):
    pod = one(render("folder.yaml"), "Deployment", "sie-sie-cluster-worker-l4")["spec"]["template"]["spec"]

    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["cluster-cache"] == {"name": "cluster-cache", "mountPath": "/mnt/weights", "readOnly": True}
    assert {"name": "cluster-cache", "persistentVolumeClaim": {"claimName": "weights", "readOnly": True}} in pod[
        "volumes"
    ]


def test_hub_token_is_trimmed_and_changes_the_pods_that_hold_it(render, one):
    objects = render("hub.yaml")
    secret = one(objects, "Secret", "sie-sie-cluster-hf-token")
    template = one(objects, "Deployment", "sie-sie-cluster-worker-l4")["spec"]["template"]
    other = one(
        render("hub.yaml", hfToken={"create": True, "value": "another"}), "Deployment", "sie-sie-cluster-worker-l4"
    )["spec"]["template"]

    assert secret["stringData"] == {"token": "not-a-token"}
    assert template["metadata"]["annotations"] != other["metadata"]["annotations"]


def test_schema_is_closed_wherever_it_names_properties(chart):
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))

    def open_at(node, path):
        if isinstance(node, dict):
            if "properties" in node and node.get("additionalProperties", True) is not False:
                yield path
            for key, below in node.items():
                yield from open_at(below, f"{path}/{key}")

    assert list(open_at(schema, "")) == []
