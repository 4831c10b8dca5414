"""The toolkit's end of the chart: helm run, its package, its images, and the values that `sie-airgap values` writes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sie_airgap.charts import helm
from sie_airgap.charts import images as chart_images
from sie_airgap.charts import package as chart_package
from sie_airgap.charts import tree as chart_tree
from sie_airgap.charts.values import Bucket, PrivateRegistry, offline_yaml
from sie_airgap.failures import Incomplete
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import Lock, LockedBlob, LockedImage, lock_digest

RELEASE: dict[str, Any] = {"release": "sie", "namespace": "sie"}


@pytest.fixture(scope="module")
def package(chart, tmp_path_factory):
    path = tmp_path_factory.mktemp("package") / chart_package.identify(chart).file
    path.write_bytes(chart_package.pack(chart))
    return path


def _image(name):
    digest = digest_of(name.encode())
    blob = LockedBlob(digest=digest, size_bytes=len(name), media_type="application/vnd.oci.image.index.v1+json")
    return LockedImage(f"ghcr.io/superlinked/{name}:v0.3.1", digest, blob.media_type, {}, (blob,), (), ("chart",))


@pytest.fixture(scope="module")
def lock():
    images = tuple(_image(name) for name in ("sie-config", "sie-gateway", "sie-server"))
    return Lock(version=1, serial=1, previous=None, models=(), images=images, charts=(), wheels=())


def test_our_package_renders_as_the_folder_does(render, package, any_helm):
    assert package.name == "sie-cluster-0.3.1.tgz"
    assert helm.template(any_helm, package, **RELEASE) == render(program=any_helm)


def test_chart_with_every_switch_in_turn_pulls_no_image_but_three(package, helm_4):
    found = chart_images.read(helm_4, package, **RELEASE)

    assert [use.reference for use in found.needed] == [
        f"ghcr.io/superlinked/{name}:v0.3.1" for name in ("sie-config", "sie-gateway", "sie-server")
    ]
    assert found.otherwise.images == ()
    # Mappings with keys of their own; every-knob.yaml and its fellows set them.
    assert found.otherwise.not_tried == ("workers.common.clusterCache.volume", "workers.pools.l4.resources")


@pytest.mark.parametrize(
    "bucket",
    [
        Bucket(url="s3://b/weights/", endpoint="http://10.77.0.2:8333", credentials_secret="bucket", ca_secret="ca"),
        Bucket(url="gs://b/weights/"),
        Bucket(url="file:///mnt/weights"),
    ],
)
def test_values_that_the_toolkit_writes_are_values_that_the_chart_takes(
    chart, any_helm, lock, containers, tmp_path, bucket
):
    file = tmp_path / "values-offline.yaml"
    registry = PrivateRegistry("registry.internal:5000/sie", pull_secret="regcred")
    file.write_text(offline_yaml(lock, bucket=bucket, registry=registry), encoding="utf-8")

    objects = helm.template(any_helm, chart, values=[file], **RELEASE)

    env = [
        {variable["name"]: variable.get("value") for variable in container["env"]}
        for where, container in containers(objects)
        if where.endswith("/worker")
    ]
    assert [(each["SIE_CLUSTER_CACHE"], each["SIE_CLUSTER_CACHE_LOCK"]) for each in env] == [
        (bucket.url, lock_digest(lock))
    ]
    assert {container["image"] for _, container in containers(objects)} == {
        f"registry.internal:5000/sie/{name}@{digest_of(name.encode())}"
        for name in ("sie-config", "sie-gateway", "sie-server")
    }


def test_missing_helm_is_said_with_what_to_do(chart):
    with pytest.raises(Incomplete, match="is not a program") as raised:
        helm.find(Path("/no/such/helm"))

    assert raised.value.hint is not None
    assert raised.value.exit_code == 4


def test_missing_values_file_is_named(chart, helm_4, tmp_path):
    with pytest.raises(Incomplete, match="absent"):
        helm.template(helm_4, chart, values=[tmp_path / "absent.yaml"], **RELEASE)


def test_defaults_are_read_from_the_package(package, default_values):
    assert chart_tree.effective_values(chart_package.tree_of(package)) == default_values


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "just text"])
def test_what_is_no_kubernetes_object_is_refused(text):
    with pytest.raises(helm.Refused):
        helm.parse(text)


def test_lists_are_unfolded_and_empty_documents_left_out():
    text = "---\n# nothing\n---\n" + yaml.safe_dump({"kind": "List", "items": [{"kind": "A"}, {"kind": "B"}]})

    assert helm.parse(text) == [{"kind": "A"}, {"kind": "B"}]
