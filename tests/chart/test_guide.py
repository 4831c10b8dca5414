"""The offline guide's values, as written, do what the guide says."""

import re
import subprocess

import pytest

from sie_airgap.charts.inventory import images
from sie_testing import parts

WORKER = "sie-sie-cluster-worker-l4"


@pytest.fixture
def objects(render, any_helm):
    return render("guide.yaml", program=any_helm)


def _env(objects, one, deployment):
    (container,) = one(objects, "Deployment", deployment)["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable.get("value") for variable in container["env"]}


def test_names_are_those_that_the_guide_calls(objects):
    services = {each["metadata"]["name"] for each in objects if each["kind"] == "Service"}

    assert services == {
        "sie-sie-cluster-gateway",
        "sie-sie-cluster-config",
        "sie-sie-cluster-worker",
        "sie-sie-cluster-worker-l4",
    }


def test_port_forward_of_the_guide_finds_port_8080(objects, one):
    service = one(objects, "Service", "sie-sie-cluster-gateway")
    deployment = one(objects, "Deployment", "sie-sie-cluster-gateway")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]

    assert [port["port"] for port in service["spec"]["ports"]] == [8080]
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_three_images_are_pulled_with_the_tags_as_written(objects):
    assert [use.reference for use in images(objects)] == [
        "private-registry.example.com/sie/sie-config:v0.3.1",
        "private-registry.example.com/sie/sie-gateway:v0.3.1",
        "private-registry.example.com/sie/sie-server:v0.3.1",
    ]


def test_pull_secret_as_a_map_is_on_every_pod(objects):
    pods = [each["spec"]["template"]["spec"] for each in objects if each["kind"] == "Deployment"]

    assert len(pods) == 3
    assert all(pod["imagePullSecrets"] == [{"name": "regcred"}] for pod in pods)


def test_workers_read_the_bucket_and_nothing_asks_the_hub(objects, one):
    env = _env(objects, one, WORKER)

    assert env["SIE_CLUSTER_CACHE"] == "s3://sie-models-private/weights/"
    assert env["SIE_HF_FALLBACK"] == "false"
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env["HF_HOME"] == "/models/huggingface"
    assert "HF_TOKEN" not in env
    assert not [each for each in objects if each["kind"] == "Secret"]


def test_bucket_is_checked_before_a_worker_starts(objects, one):
    pod = one(objects, "Deployment", WORKER)["spec"]["template"]["spec"]
    (init,), (worker,) = pod["initContainers"], pod["containers"]

    assert (init["command"], init["args"]) == (["sie-server"], ["weights"])
    assert (worker["command"], worker["args"]) == (["sie-server"], ["serve"])
    assert init["image"] == worker["image"]
    assert init["env"] == worker["env"]
    assert init["volumeMounts"] == worker["volumeMounts"]


def test_one_l4_worker_runs_and_the_gateway_knows_its_profile(objects, one):
    deployment = one(objects, "Deployment", WORKER)

    assert deployment["spec"]["replicas"] == 1
    assert _env(objects, one, WORKER)["SIE_MACHINE_PROFILE"] == "l4"
    assert _env(objects, one, "sie-sie-cluster-gateway")["SIE_GATEWAY_CONFIGURED_GPUS"] == "l4"


def test_gateway_finds_workers_by_a_headless_service_that_selects_them(objects, one):
    service = one(objects, "Service", "sie-sie-cluster-worker")
    worker = one(objects, "Deployment", WORKER)["spec"]["template"]

    assert _env(objects, one, "sie-sie-cluster-gateway")["SIE_GATEWAY_WORKERS"] == "http://sie-sie-cluster-worker:8080"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= worker["metadata"]["labels"].items()
    assert [port["port"] for port in service["spec"]["ports"]] == [8080]


def test_both_helms_render_the_same(render):
    old, new = (render("guide.yaml", program=parts.helm(version=each)) for each in (parts.HELM_3, parts.HELM_4))

    assert sorted(old, key=str) == sorted(new, key=str)


def test_notes_call_the_gateway_with_code_that_can_be_pasted(chart, helm_4):
    """Helm 4 alone: Helm 3 renders notes only with a cluster to talk to."""
    command = [str(helm_4), "install", "sie", str(chart), "--namespace", "sie", "--dry-run=client"]
    notes = subprocess.run(
        [*command, "--values", str(chart.parents[1] / "tests" / "chart" / "guide.yaml")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.partition("NOTES:")[2]

    (code,) = re.findall(r'^python3 -c "\n(.*?)^"$', notes, re.MULTILINE | re.DOTALL)
    compile(code, "NOTES.txt", "exec")
    assert "gpu='l4', wait_for_capacity=True, provision_timeout_s=600" in code
    assert "kubectl -n sie port-forward svc/sie-sie-cluster-gateway 8080:8080 &" in notes
    assert "Pending" in notes
    assert "the hub is off" in notes
