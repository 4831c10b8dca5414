"""What runs, as `kubectl get pods -o json` says it, against the lock's images."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sie_airgap.failures import Misused
from sie_airgap.store.blobs import write_lock
from sie_airgap.verifying.pods import differences, namespaces, read_pods, started_s
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import Lock, LockedBlob, LockedImage
from sie_testing.carried import Run, make_lock

INDEX, MANIFEST, CONFIG, LAYER = (digest_of(name) for name in (b"index", b"manifest", b"config", b"layer"))
_OCI = "application/vnd.oci.image."
IMAGE = LockedImage(
    reference="ghcr.io/superlinked/sie-server:v0.3.1",
    digest=INDEX,
    media_type=f"{_OCI}index.v1+json",
    platforms={"linux/amd64": MANIFEST},
    blobs=tuple(
        LockedBlob(digest, 1, _OCI + kind)
        for digest, kind in sorted(
            [
                (INDEX, "index.v1+json"),
                (MANIFEST, "manifest.v1+json"),
                (CONFIG, "config.v1+json"),
                (LAYER, "layer.v1.tar"),
            ]
        )
    ),
    referrers=(),
    why=("chart",),
)


def _lock() -> Lock:
    return msgspec.structs.replace(make_lock({}), images=(IMAGE,))


def _pod(image_id: str, *, name: str = "worker-0", init: str | None = None, started: str | None = None) -> Any:
    state = {"running": {"startedAt": started}} if started is not None else {"waiting": {"reason": "Pulling"}}
    ran = {"name": "server", "image": "sie-server:v0.3.1", "imageID": image_id, "state": state, "ready": True}
    before = [] if init is None else [{"name": "weights", "image": "x", "imageID": init}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "sie"},
        "status": {"phase": "Running", "containerStatuses": [ran], "initContainerStatuses": before},
    }


def _found(*pods: Any) -> list[str]:
    read = read_pods(json.dumps({"kind": "List", "items": list(pods)}).encode(), where="pods.json")
    return [str(one) for one in differences(_lock(), read, where="pods.json")]


@pytest.mark.parametrize(
    "image_id",
    [
        f"private-registry.example.com/sie/sie-server@{INDEX}",
        f"private-registry.example.com/sie/sie-server@{MANIFEST}",
        f"docker-pullable://private-registry.example.com/sie/sie-server@{MANIFEST}",
        CONFIG,
        f"docker://{CONFIG}",
    ],
)
def test_an_image_of_the_lock_is_known_by_any_name_that_a_node_has_for_it(image_id: str) -> None:
    assert _found(_pod(image_id, init=image_id)) == []


@pytest.mark.parametrize("image_id", [f"sie-server@{digest_of(b'another')}", LAYER, "sie-server:v0.3.1"])
def test_what_was_not_locked_is_named_with_its_container(image_id: str) -> None:
    (found,) = _found(_pod(INDEX), _pod(image_id, name="worker-1"))

    assert "container `server` of pod `sie/worker-1` runs what was not locked" in found
    assert f"have  {image_id}" in found


def test_an_init_container_counts_too() -> None:
    (found,) = _found(_pod(INDEX, init=str(LAYER)))

    assert "container `weights`" in found


def test_a_container_that_has_not_started_is_no_evidence() -> None:
    (found,) = _found(_pod(""))
    (none,) = _found({"metadata": {"name": "p"}, "status": {"phase": "Pending"}})
    (empty,) = _found()

    assert "has not started" in found
    assert "pod `default/p` has no container: Pending" in none
    assert "no pod is in pods.json" in empty


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b'{"items":[{"kind":"Service","metadata":{"name":"x"}}]}'])
def test_what_is_no_list_of_pods_is_a_mistake(data: bytes) -> None:
    with pytest.raises(Misused, match="is") as raised:
        read_pods(data, where="pods.json")

    assert raised.value.hint is not None


def test_when_the_last_container_was_started() -> None:
    pods = [_pod(INDEX, started="2026-11-20T10:00:00Z"), _pod(INDEX, started="2026-11-21T10:00:00Z"), _pod(INDEX)]
    read = read_pods(json.dumps({"items": [*pods, _pod(INDEX, started="yesterday")]}).encode(), where="x")

    assert started_s(read) == 1_795_255_200
    assert started_s(read[2:]) is None
    assert namespaces(read) == ("sie",)


def test_pods_and_models_together_are_what_is_running(airgap: Run, tmp_path: Path) -> None:
    """This lock has no models, so the pods are all there is to look at; the ladder stands without them, too."""
    write_lock(tmp_path / "airgap.lock", _lock())
    pods = [_pod(f"r.example/sie/sie-server@{MANIFEST}", started="2026-11-20T10:00:00Z")]
    (tmp_path / "pods.json").write_text(json.dumps({"items": pods}))

    code, out, err = airgap("status", "--lock", "airgap.lock", "--pods", "pods.json", "--output", "json")
    assert (code, err) == (0, "")
    running = json.loads(out)["levels"][6]
    assert (running["state"], running["lacking"]) == ("holds", [])
    assert running["places"][0]["said"] == "1 pod, 1 container: every image is the lock's"
    code, out, _ = airgap("status", "--lock", "airgap.lock", "--output", "json")
    assert json.loads(out)["levels"][6]["state"] == "held"
