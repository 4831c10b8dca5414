"""What a chart renders to against the lock: images by digest, the pin, the models that are preloaded."""

from typing import Any

import msgspec
import pytest

from sie_airgap.verifying.rendered import differences
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.lock import Lock, LockedBlob, LockedImage, lock_digest
from sie_testing.carried import make_lock

INDEX, MANIFEST = digest_of(b"index"), digest_of(b"manifest")
NAME = "ghcr.io/superlinked/sie-server:v0.3.1"


def _image() -> LockedImage:
    blobs = tuple(
        LockedBlob(digest, 1, "application/vnd.oci.image.index.v1+json") for digest in sorted([INDEX, MANIFEST])
    )
    return LockedImage(NAME, INDEX, blobs[0].media_type, {"linux/amd64": MANIFEST}, blobs, (), ("chart",))


LOCK: Lock = msgspec.structs.replace(make_lock({"org/a": {"model.safetensors": b"x"}}), images=(_image(),))


def _worker(image: str, **variables: str) -> Any:
    env = [{"name": name, "value": value} for name, value in variables.items()]
    containers = [{"name": "worker", "image": image, "env": env}]
    return {"kind": "Deployment", "metadata": {"name": "w"}, "spec": {"template": {"spec": {"containers": containers}}}}


def _pinned(digest: Digest | None = None, **more: str) -> dict[str, str]:
    return {"SIE_CLUSTER_CACHE": "s3://b/w/", "SIE_CLUSTER_CACHE_LOCK": digest or lock_digest(LOCK), **more}


@pytest.mark.parametrize("image", [NAME, f"r.example/sie/sie-server@{INDEX}", f"r.example/s:v0.3.1@{MANIFEST}"])
def test_images_of_the_lock_by_digest_or_by_their_own_name_are_the_locks(image: str) -> None:
    assert list(differences(LOCK, [_worker(image, **_pinned(SIE_PRELOAD_MODELS="org/a"))])) == []


@pytest.mark.parametrize("image", ["r.example/sie/sie-server:v0.3.1", f"{NAME}@{digest_of(b'other')}", "nginx", "UP:x"])
def test_a_tag_elsewhere_may_mean_anything(image: str) -> None:
    (found,) = differences(LOCK, [_worker(image, **_pinned())])

    assert f"`{image}` is rendered by Deployment/w, container worker" in str(found)
    assert found.exit_code == 8


def test_a_worker_is_pinned_to_this_lock() -> None:
    (other,) = differences(LOCK, [_worker(NAME, **_pinned(digest_of(b"other lock")))])
    (none,) = differences(LOCK, [_worker(NAME, SIE_CLUSTER_CACHE="s3://b/w/")])

    assert f"have  {digest_of(b'other lock')}" in str(other)
    assert "have  none" in str(none)


def test_a_model_that_is_preloaded_is_of_the_lock() -> None:
    (found,) = differences(LOCK, [_worker(NAME, **_pinned(SIE_PRELOAD_MODELS="org/a,org/b"))])

    assert "`org/b` is preloaded" in str(found)


def test_what_only_looks_like_an_image_is_not_judged() -> None:
    guessed = {"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"x": "image: docker.io/library/nginx:1"}}

    assert list(differences(LOCK, [guessed, _worker(NAME, **_pinned())])) == []
