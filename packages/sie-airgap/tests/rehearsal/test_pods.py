"""What a rehearsal reads from the rendered chart is what a kubelet would start."""

from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.failures import Misused
from sie_airgap.rehearsal.pod_roots import outermost
from sie_airgap.rehearsal.pods import ManifestError, hosts_file, read

CLAIM = {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}
PROJECTED = {"secretName": "keys", "items": [{"key": "k", "path": "../../etc/passwd"}]}
ADDRESSES = ("10.77.0.10", "10.77.0.11", "10.77.0.12")


def deployment(name: str = "worker", **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "r/i:t", "command": ["serve"], **spec.pop("container", {})}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container], **spec.pop("pod", {})}}
    return {"kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": 1, "template": template, **spec}}


def service(name: str = "front", *, app: str = "worker", port: int = 8080, target: int | str = 8080) -> dict[str, Any]:
    ports = [{"port": port, "targetPort": target}]
    return {"kind": "Service", "metadata": {"name": name}, "spec": {"selector": {"app": app}, "ports": ports}}


def secret(name: str = "keys", **data: str) -> dict[str, Any]:
    encoded = {key: b64encode(value.encode()).decode() for key, value in data.items()}
    return {"kind": "Secret", "metadata": {"name": name}, "data": encoded}


def cluster(*objects: dict[str, Any]):
    return read(objects, namespace="sie", addresses=iter(ADDRESSES))


def environment(*env: dict[str, Any], beside: tuple[dict[str, Any], ...] = (), **container: Any) -> dict[str, str]:
    read_cluster = cluster(deployment(container={"env": list(env), **container}), *beside)
    return {name: value.reveal() for name, value in read_cluster.pods[0].containers[0].env.items()}


def test_environment_is_exactly_the_rendered_one():
    assert environment({"name": "A", "value": "1"}, {"name": "B"}) == {"A": "1", "B": ""}


def test_references_are_expanded_in_order_and_in_arguments():
    container = {
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(LATER)-$$(A)"},
            {"name": "LATER", "value": "x"},
        ],
        "args": ["--a=$(A)", "$(NOBODY)"],
    }

    main = cluster(deployment(container=container)).pods[0].containers[0]

    assert main.env["B"].reveal() == "1-$(LATER)-$(A)"
    assert main.argv == ("serve", "--a=1", "$(NOBODY)")


def test_secret_and_field_values_are_resolved_and_never_shown():
    from_secret = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}}
    from_field = {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    read_cluster = cluster(deployment(container={"env": [from_secret, from_field]}), secret(k="hush"))

    env = read_cluster.pods[0].containers[0].env

    assert (env["KEY"].reveal(), env["IP"].reveal()) == ("hush", ADDRESSES[0])
    assert "hush" not in repr(read_cluster)


def test_env_from_a_secret_comes_before_named_variables():
    source = {"envFrom": [{"secretRef": {"name": "keys"}, "prefix": "P_"}]}

    assert environment({"name": "P_k", "value": "own"}, beside=(secret(k="hush", l="m"),), **source) == {
        "P_k": "own",
        "P_l": "m",
    }


@pytest.mark.parametrize(
    ("beside", "said"),
    [((), "Secret `keys` is named by the chart"), ((secret(other="x"),), "no key `k`; it has `other`")],
)
def test_missing_secret_or_key_is_named_with_exit_code_4(beside: tuple[dict[str, Any], ...], said: str):
    variable = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}}

    with pytest.raises(ManifestError, match=said) as refused:
        environment(variable, beside=beside)

    assert refused.value.exit_code == 4


def test_optional_secret_that_is_not_there_leaves_the_variable_out():
    variable = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k", "optional": True}}}

    assert environment(variable) == {}


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        (deployment(container={"command": None}), "has no `command`"),
        (deployment(container={"readinessProbe": {"exec": {"command": ["true"]}}}), "is not an httpGet probe"),
        (
            deployment(pod={"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
            "persistentVolumeClaim",
        ),
        (deployment(replicas=0), "no workload with a replica"),
    ],
)
def test_what_a_rehearsal_cannot_do_is_refused_by_name(workload: dict[str, Any], said: str):
    with pytest.raises(ManifestError, match=said):
        cluster(workload)


def mounted(**mount: str) -> dict[str, Any]:
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/models", **mount}]}
    return deployment(container=mounts, pod={"volumes": [{"name": "v", "emptyDir": {}}]})


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ((deployment("../worker"),), "a Deployment is called `../worker`"),
        ((deployment(container={"name": "x; reboot"}),), "a container is called `x; reboot`"),
        ((deployment(pod={"volumes": [{"name": "..", "emptyDir": {}}]}),), "a volume is called `..`"),
        ((mounted(mountPath="/models/../../etc"),), "`mountPath` of volume `v` is `/models/../../etc`"),
        ((mounted(subPath="../../.."),), "`subPath` of volume `v` is `../../..`"),
        ((deployment(), secret(**{"../../../etc/passwd": "x"})), "Secret `keys` has the key `../../../etc/passwd`"),
        (
            (deployment(pod={"volumes": [{"name": "v", "hostPath": {"path": "/data/../etc"}}]}),),
            "`hostPath` of volume `v` is `/data/../etc`",
        ),
        (
            (deployment(pod={"volumes": [{"name": "v", "secret": PROJECTED}]}), secret(k="x")),
            "a path of volume `v` is `../../etc/passwd`",
        ),
    ],
)
def test_names_and_paths_that_no_api_server_takes_reach_no_disk(objects: tuple[dict[str, Any], ...], said: str):
    """A rehearsal makes files and shell scripts of them, as root."""
    with pytest.raises(Misused) as refused:
        cluster(*objects)

    assert said in str(refused.value)


def test_service_that_moves_a_port_is_refused_with_both():
    with pytest.raises(ManifestError, match="listens on 80 and its pod `worker` on 8080"):
        cluster(deployment(), service(port=80))


def test_service_port_by_name_is_the_containers():
    named = deployment(container={"ports": [{"name": "http", "containerPort": 8080}]})

    assert cluster(named, service(target="http")).services[0].ports == (8080,)


def test_headless_service_has_a_line_for_each_pod():
    read_cluster = cluster(deployment("a"), deployment("b"), service("all", app="a"), service("none", app="c"))
    addresses = {"a": ADDRESSES[0], "b": ADDRESSES[1]}

    hosts = hosts_file(read_cluster, addresses, own_name="a-0", own_address=ADDRESSES[0])

    assert f"{ADDRESSES[0]} all all.sie all.sie.svc all.sie.svc.cluster.local" in hosts.splitlines()
    assert "none" not in hosts


def test_replicas_are_capped_at_one_and_said():
    read_cluster = cluster(deployment(replicas=3))

    assert len(read_cluster.pods) == 1
    assert "replicas (one of 3 of worker)" in read_cluster.not_honoured


def test_probe_on_a_named_port_has_kubernetes_defaults():
    container = {
        "ports": [{"name": "http", "containerPort": 8080}],
        "startupProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "failureThreshold": 30},
    }

    probe = cluster(deployment(container=container)).pods[0].containers[0].startup

    assert probe is not None
    assert (probe.path, probe.port, probe.period_s, probe.failures) == ("/healthz", 8080, 10.0, 30)


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))))
def test_every_bound_folder_is_inside_exactly_one_that_is_kept(paths: list[str]):
    kept = outermost(paths)

    for path in paths:
        assert sum((path + "/").startswith(each + "/") for each in kept) == 1
