"""values-offline.yaml: what the lock says, under the guide's keys."""

import pytest
import yaml

from sie_airgap.charts.values import Bucket, PrivateRegistry, offline_values, offline_yaml
from sie_airgap.failures import Incomplete
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import Lock, LockedBlob, LockedFile, LockedImage, LockedModel, lock_digest
from sie_core.ids import ModelId, Revision

DIGEST = digest_of(b"an index")


def _image(reference):
    blob = LockedBlob(digest=DIGEST, size_bytes=8, media_type="application/vnd.oci.image.index.v1+json")
    return LockedImage(reference, DIGEST, blob.media_type, {"linux/amd64": DIGEST}, (blob,), (), ("chart",))


def _lock(*references):
    file = LockedFile(
        path="config.json", digest=digest_of(b"{}"), size_bytes=2, hub_id="9e26dfeeb6e641a33dae4961196235bdb965b21b"
    )
    model = LockedModel(
        id=ModelId("org/name"),
        repo=ModelId("org/name"),
        ref="main",
        revision=Revision("0" * 40),
        license=None,
        gated=False,
        why=("--model",),
        files=(file,),
        absent=(),
    )
    images = tuple(_image(reference) for reference in sorted(references))
    return Lock(version=1, serial=1, previous=None, models=(model,), images=images, charts=(), wheels=())


OURS = [f"ghcr.io/superlinked/{name}:v0.3.1" for name in ("sie-config", "sie-gateway", "sie-server")]
BUCKET = Bucket(url="s3://sie-models-private/weights/")
REGISTRY = PrivateRegistry(url="private-registry.example.com/sie", pull_secret="regcred")


def test_values_have_the_guides_keys_and_the_locks_digest():
    lock = _lock(*OURS)
    values = offline_values(lock, bucket=BUCKET, registry=REGISTRY)

    assert values["workers"]["common"]["clusterCache"] == {
        "enabled": True,
        "url": "s3://sie-models-private/weights/",
        "lock": lock_digest(lock),
        "requireVerified": True,
        "pathStyle": True,
    }
    assert values["workers"]["common"]["hfCache"] == {"home": "/models/huggingface", "tokenSecret": ""}
    assert values["workers"]["common"]["preloadModels"] == ["org/name"]
    assert values["hfToken"] == {"create": False}
    assert values["global"] == {"imagePullSecrets": [{"name": "regcred"}]}
    assert values["gateway"]["image"] == {
        "repository": "private-registry.example.com/sie/sie-gateway",
        "tag": "v0.3.1",
        "digest": DIGEST,
    }


@pytest.mark.parametrize(
    "bucket",
    [
        BUCKET,
        Bucket(url="gs://b/"),
        Bucket(url="file:///mnt/weights"),
        Bucket("s3://b/p/", "https://minio:9000", "eu-1", False, "minio-ca", "minio-credentials"),
    ],
)
def test_text_reads_back_as_the_same_values(bucket):
    lock = _lock(*OURS)

    text = offline_yaml(lock, bucket=bucket, registry=REGISTRY)

    assert yaml.safe_load(text) == offline_values(lock, bucket=bucket, registry=REGISTRY)


@pytest.mark.parametrize("url", ["file:///mnt/weights", "file://localhost/mnt/weights", "file:///mnt/weights/"])
def test_a_folder_of_the_nodes_is_an_absolute_path(url):
    values = offline_values(_lock(*OURS), bucket=Bucket(url=url))

    path = values["workers"]["common"]["clusterCache"]["volume"]["hostPath"]["path"]
    assert path.rstrip("/") == "/mnt/weights"


def test_text_names_the_lock_and_says_what_each_part_is_for():
    lock = _lock(*OURS)

    first, *rest = offline_yaml(lock, bucket=BUCKET, registry=REGISTRY).splitlines()

    assert lock_digest(lock) in first
    assert "    # Workers read weights from here. The hub is off as long as this is enabled." in rest


def test_image_that_the_lock_lacks_is_named():
    with pytest.raises(Incomplete, match="`sie-config`"):
        offline_values(_lock(*OURS[1:]), bucket=BUCKET, registry=REGISTRY)


def test_without_a_registry_the_charts_own_names_stay():
    values = offline_values(_lock(), bucket=BUCKET)

    assert "gateway" not in values
    assert "global" not in values
