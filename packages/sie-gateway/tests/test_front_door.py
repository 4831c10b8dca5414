"""What the gateway answers itself: waits, refusals, the cluster's state, tokens; and whom it hears."""

from typing import Any

import msgspec
import pytest

from sie_core.catalog.catalog import Bundle, Catalog
from sie_core.catalog.export import EXPORT_PATH, encode_export, export_of
from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.ids import BundleName, ModelId
from sie_core.settings import Secret
from sie_testing.stand_in_worker import Line, Received, raw, reply

MODEL = "org/one"


def test_nobody_there_is_202_with_when_to_come_back(world: Any) -> None:
    answer = world.gateway().encode(X_SIE_Machine_Profile="l4")

    assert (answer.status, answer.headers["Retry-After"]) == (202, "30")
    assert answer.json == {
        "status": "provisioning",
        "gpu": "l4",
        "bundle": "default",
        "estimated_wait_s": 30.0,
        "message": "there is no worker with bundle `default` on `l4`",
    }


def test_worker_that_gets_ready_is_waited_for_and_then_called(world: Any) -> None:
    worker = world.worker(ready=False)
    door = world.open(worker)
    door.wait_until(lambda said: said["workers"])
    first = door.encode()
    worker.status = msgspec.structs.replace(worker.status, ready=True)
    door.wait_for(worker)

    assert (first.status, first.headers["Retry-After"]) == (202, "5")
    assert door.encode().status == 200


def test_worker_that_comes_back_at_its_address_is_called_again(world: Any) -> None:
    worker = world.worker()
    door = world.gateway(worker)
    worker.close()
    while (lost := door.encode()).status == 503:
        assert lost.code == "WORKER_LOST"
    again = world.worker("w2", port=worker.port)
    door.wait_for(again)

    assert lost.status == 202
    assert door.encode().headers["X-SIE-Worker"] == "w2"


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 X\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 200 X\r\nContent-Length: 100006\r\n\r\n" + b'{"x":' + b"[" * 100_001,
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
)
def test_address_that_says_no_status_is_no_worker(world: Any, said: bytes) -> None:
    stranger, good = world.worker("stranger"), world.worker("good")
    stranger.heartbeat = raw(said)
    door = world.open(stranger, good)
    door.wait_for(good)
    asked = len(stranger.heartbeats)
    while len(stranger.heartbeats) < asked + 3:
        pass

    assert [one["name"] for one in door.ask("GET", "/health").json["workers"]] == ["good"]
    assert door.encode().headers["X-SIE-Worker"] == "good"


@pytest.mark.parametrize("said", [{"name": "w\r\nX-Forged: 1"}, {"machine_profile": "l4\n"}, {"pool": "l\x1b"}])
def test_worker_whose_names_cannot_stand_in_headers_is_none(world: Any, said: dict[str, str]) -> None:
    stranger, good = world.worker(**({"name": "stranger"} | said)), world.worker("good")
    door = world.open(stranger, good)
    door.wait_for(good)
    asked = len(stranger.heartbeats)
    while len(stranger.heartbeats) < asked + 3:
        pass

    assert [one["name"] for one in door.ask("GET", "/health").json["workers"]] == ["good"]


def test_unknown_pool_is_404_with_those_there_are(world: Any) -> None:
    door = world.gateway(world.worker(pool="day"))

    answer = door.encode(X_SIE_Pool="night")

    assert (answer.status, answer.code) == (404, "NOT_FOUND")
    assert answer.json["detail"]["hint"] == "pools are `day`"


def test_unknown_model_is_404_with_the_nearest_and_the_keys_of_every_client(world: Any) -> None:
    answer = world.gateway().encode(model="org/tow")

    assert (answer.status, answer.code) == (404, "MODEL_NOT_FOUND")
    assert "did you mean `org/two`" in answer.json["detail"]["hint"]
    assert answer.json["detail"] == answer.json["error"]
    assert answer.json["message"] == answer.json["detail"]["message"]


def test_profile_that_is_not_configured_is_503_with_those_that_are(world: Any) -> None:
    answer = world.gateway(configured_gpus=("l4", "cpu")).encode(X_SIE_Machine_Profile="h100")

    assert (answer.status, answer.code) == (503, "GPU_NOT_CONFIGURED")
    assert answer.json["status"] == "gpu_not_configured"
    assert answer.json["configured_gpu_types"] == ["l4", "cpu"]
    assert "Retry-After" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "said"),
    [({"X_SIE_Timeout_Ms": "soon"}, "X-SIE-Timeout-Ms"), ({"X_SIE_Machine_Profile": "L 4"}, "machine profile")],
)
def test_header_that_cannot_be_meant_is_400(world: Any, headers: dict[str, str], said: str) -> None:
    answer = world.gateway().encode(**headers)

    assert (answer.status, answer.code) == (400, "INVALID_INPUT")
    assert said in answer.json["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/encode/org/one", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/v1/models", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/encode/", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/v1/encode/", 400, "INVALID_INPUT"),
        ("GET", "/v1/nothing", 404, "NOT_FOUND"),
        ("GET", "/v1/models/org/none", 404, "MODEL_NOT_FOUND"),
        ("GET", "/v1/pools", 501, "NOT_IMPLEMENTED"),
        ("GET", "/v1/configs/models", 501, "NOT_IMPLEMENTED"),
        ("GET", "/ws/cluster-status", 501, "NOT_IMPLEMENTED"),
    ],
)
def test_what_is_not_served_is_told_truly(world: Any, method: str, path: str, status: int, code: str) -> None:
    answer = world.gateway().ask(method, path)

    assert (answer.status, answer.code) == (status, code)


def test_models_are_the_catalogs_and_the_workers(world: Any) -> None:
    worker = world.worker(models=["org/one", "org/new"], loaded=["org/new"])
    door = world.gateway(worker)
    listed = door.ask("GET", "/v1/models").json
    one = door.ask("GET", "/v1/models/org/one").json

    assert listed["object"] == "list"
    assert listed["models"] == listed["data"]
    facts = [(entry["name"], entry["state"], entry["worker_count"], entry["bundles"]) for entry in listed["data"]]
    assert facts == [
        ("org/new", "loaded", 1, ["default"]),
        ("org/one", "available", 1, ["default"]),
        ("org/two", "available", 0, ["default"]),
    ]
    assert (one["id"], one["object"], one["dims"], one["workers"]) == ("org/one", "model", {"dense": 8}, ["w1"])


def test_health_has_the_shape_that_clients_read(world: Any) -> None:
    worker = world.worker(gpu_count=2, queued_tokens=7)
    said = world.gateway(worker, configured_gpus=("l4", "cpu")).ask("GET", "/health").json

    assert (said["status"], said["type"]) == ("healthy", "gateway")
    assert (said["configured_gpu_types"], said["live_gpu_types"]) == (["l4", "cpu"], ["l4"])
    assert said["cluster"] == {"worker_count": 1, "gpu_count": 2, "models_loaded": 1, "total_qps": 0.0}
    facts = said["workers"][0]
    assert (facts["name"], facts["url"], facts["gpu"], facts["queue_depth"]) == ("w1", worker.url, "l4", 7)
    assert said["models"][0] == {
        "name": "org/one",
        "state": "loaded",
        "worker_count": 1,
        "gpu_types": ["l4"],
        "total_queue_depth": 7,
    }


def test_probes_answer_without_a_worker(world: Any) -> None:
    door = world.gateway()

    assert door.ask("GET", "/healthz").json == {"status": "ok"}
    assert door.ask("GET", "/readyz").json == {"status": "ready", "healthy_workers": 0}
    assert door.ask("GET", "/health").json["status"] == "degraded"
    assert b"/v1/models" in door.ask("GET", "/").body
    assert door.ask("HEAD", "/healthz").body == b""


def test_metrics_tell_calls_waits_and_workers(world: Any) -> None:
    worker = world.worker()
    door = world.gateway(worker)
    door.encode()
    door.encode(X_SIE_Machine_Profile="cpu")
    door.encode(model="org/none")
    page = door.ask("GET", "/metrics").body.decode().splitlines()

    for line in (
        'sie_gateway_requests_total{endpoint="encode",status="200"} 1',
        'sie_gateway_requests_total{endpoint="encode",status="202"} 1',
        'sie_gateway_rejected_total{reason="model_not_found"} 1',
        'sie_gateway_demand{bundle="default",gpu="cpu",pool=""} 1',
        'sie_gateway_workers{freshness="fresh"} 1',
        'sie_gateway_request_duration_seconds_count{endpoint="encode"} 3',
    ):
        assert line in page


def test_tokens_are_wanted_for_calls_and_not_for_probes(world: Any) -> None:
    door = world.gateway(auth_mode="token", auth_token=Secret("one"), auth_exempt_operational=True)
    statuses = {token: door.encode(Authorization=f"Bearer {token}").status for token in ("one", "two")}

    assert statuses == {"one": 202, "two": 401}
    assert door.encode().code == "UNAUTHORIZED"
    assert [door.ask("GET", path).status for path in ("/healthz", "/readyz", "/metrics", "/v1/models")] == [
        200,
        200,
        200,
        401,
    ]


def test_catalog_of_the_config_service_is_followed(world: Any) -> None:
    """The stand-in for the config service is any server that answers the export."""
    newer = Catalog.of(
        [ModelSpec(id=ModelId("org/newer"), dense=DenseHead())], [Bundle(name=BundleName("default"), models="all")]
    )
    asked: list[Received] = []

    def export(request: Received, line: Line) -> None:
        asked.append(request)
        known = request.headers["If-None-Match"] == '"1"'
        body = b"" if known else encode_export(export_of(newer, epoch=1, generated_at=""))
        reply(304 if known else 200, body, {"ETag": '"1"'})(request, line)

    service = world.worker("config", answer=export)
    door = world.gateway(config_service_url=service.url, auth_token=Secret("read"))
    while [entry["name"] for entry in door.ask("GET", "/v1/models").json["data"]] != ["org/newer"]:
        pass

    assert asked[0].target == EXPORT_PATH
    assert asked[0].headers["Authorization"] == "Bearer read"
    assert door.encode(model="org/one").status == 404
