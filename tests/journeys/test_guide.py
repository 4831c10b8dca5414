"""The guide from end to end on one machine, without namespaces: what each command leaves is what the next one reads.

`test_demo.py` does the same with a real bucket, a registry and the chart, where the kernel counts what leaves.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sie_core.artifacts.lock import decode_lock, lock_digest
from sie_sdk import SIEClient
from sie_testing.cluster import gateway, program, worker
from sie_testing.demo.stage import COMMIT, MODEL

TEXT = "hello world"
SAME_ARITHMETIC = {"SIE_PRECISION": "f32"}
"""Left alone, each worker probes whether bf16 is faster, and two may differ on a busy machine."""


def first_vector(url: str, **options: Any) -> NDArray[np.float32]:
    """The guide's call."""
    with SIEClient(url) as client:
        vector: NDArray[np.float32] = client.encode(MODEL, {"text": TEXT}, **options)["dense"]
    return vector


def test_weights_from_a_hub_answer_the_same_behind_a_gateway_where_there_is_no_hub(tmp_path: Path, airgap, hub_of):
    online, offline = tmp_path / "online", tmp_path / "offline"
    online.mkdir()
    offline.mkdir()

    # A workstation with a connection: what is to be carried is locked, fetched, and tried.
    with hub_of(tmp_path / "hub") as hub:
        here = {"HF_ENDPOINT": hub}
        airgap("lock", "--model", MODEL, cwd=online, env=here)
        airgap("snapshot", cwd=online, env=here)
        laptop = ["serve", "--models", MODEL, "--local-cache", str(online / "cache"), "--port", "0"]
        with program("sie-server", laptop, log=online / "worker.log", env={**here, **SAME_ARITHMETIC}) as served:
            recorded = first_vector(served.url)
    airgap("pack", "media", "--volume-size", "32MiB", cwd=online)

    # Somebody carries the media. From here on there is no hub, and no byte of the workstation is used.
    (online / "media").rename(offline / "media")
    assert len(list((offline / "media").glob("v*.tar"))) >= 3
    airgap("verify", "media", cwd=offline)
    airgap("unpack", "media", cwd=offline)
    bucket = (offline / "bucket").as_uri()
    airgap("mirror", "weights", bucket, cwd=offline)

    # The cluster: workers that read the bucket and serve nothing but what was locked, behind a gateway.
    lock = decode_lock((offline / "airgap-store" / "airgap.lock").read_bytes())
    pinned = {
        "SIE_CLUSTER_CACHE_LOCK": lock_digest(lock),
        "SIE_CLUSTER_CACHE_REQUIRE_VERIFIED": "true",
        "SIE_MACHINE_PROFILE": "l4",
        **SAME_ARITHMETIC,
    }
    with (
        worker(offline, bucket=bucket, env=pinned) as served,
        gateway(offline, [served.url], env={"SIE_GATEWAY_CONFIGURED_GPUS": "l4"}) as door,
    ):
        vector = first_vector(door.url, gpu="l4", wait_for_capacity=True, provision_timeout_s=600)
        with SIEClient(served.url) as client:
            model = client.get_model(MODEL)

    assert vector.shape == (384,)
    np.testing.assert_array_equal(vector, recorded)
    assert (lock.models[0].revision, model["revision"], model["verified"]) == (COMMIT, COMMIT, True)
