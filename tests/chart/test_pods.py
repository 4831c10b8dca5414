"""What every pod of the release is, whichever values are set: by schema, by policy, by what its program takes."""

import pytest
from kubernetes_validate import validate

from sie_config.cli import main as sie_config
from sie_config.settings import ConfigSettings
from sie_core.settings import NAMES, load
from sie_gateway.cli import main as sie_gateway
from sie_gateway.settings import GatewaySettings
from sie_server.cli import main as sie_server
from sie_server.settings import ServeSettings

FILES = ("guide.yaml", "every-knob.yaml", "hub.yaml", "folder.yaml")
PROGRAMS = {"gateway": "sie-gateway", "config": "sie-config", "worker": "sie-server", "weights": "sie-server"}
SETTINGS = {"sie-gateway": GatewaySettings, "sie-config": ConfigSettings, "sie-server": ServeSettings}
COMMANDS = {"sie-gateway": sie_gateway, "sie-config": sie_config, "sie-server": sie_server}


@pytest.mark.parametrize("minor", ["1.25", "1.29", "1.33", "1.37"])
@pytest.mark.parametrize("file", FILES)
def test_every_object_is_known_to_kubernetes(render, file, minor):
    """Strictly: an unknown field is an error, and so is a kind or version that this minor does not have."""
    for each in render(file):
        assert validate(each, minor, strict=True) == minor


@pytest.mark.parametrize("file", FILES)
def test_pods_are_within_restricted_pod_security(render, containers, file):
    objects = render(file)
    pods = [each["spec"]["template"]["spec"] for each in objects if each["kind"] == "Deployment"]

    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"].get("runAsUser") != 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all("hostPath" not in volume for volume in pod["volumes"])
    for where, container in containers(objects):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, where
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], where


@pytest.mark.parametrize("file", FILES)
def test_no_pod_is_given_the_variables_of_services(render, file):
    """A release named `sie` would get SIE_…_PORT variables, which programs that refuse unknown names die of."""
    pods = [each["spec"]["template"]["spec"] for each in render(file) if each["kind"] == "Deployment"]

    assert pods
    assert all(pod["enableServiceLinks"] is False for pod in pods)


@pytest.mark.parametrize("file", FILES)
def test_command_and_arguments_are_spelt_out(render, containers, file):
    for where, container in containers(render(file)):
        assert container["command"] == [PROGRAMS[container["name"]]], where
        assert container["args"] == (["weights"] if container["name"] == "weights" else ["serve"]), where


@pytest.mark.parametrize("file", FILES)
def test_probes_ask_the_port_that_the_program_listens_on(render, containers, file):
    ports = {"gateway": "SIE_GATEWAY_PORT", "config": "SIE_CONFIG_PORT", "worker": "SIE_SERVER_PORT"}
    for where, container in containers(render(file)):
        if container["name"] == "weights":
            continue
        env = {variable["name"]: variable.get("value") for variable in container["env"]}
        paths = {key: container[key]["httpGet"]["path"] for key in container if key.endswith("Probe")}
        assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}, where
        assert [str(port["containerPort"]) for port in container["ports"]] == [env[ports[container["name"]]]], where
        assert all(container[key]["httpGet"]["port"] == container["ports"][0]["name"] for key in paths), where


@pytest.mark.parametrize("file", FILES)
def test_every_variable_is_one_that_its_program_reads(render, containers, file):
    for where, container in containers(render(file)):
        names = [variable["name"] for variable in container["env"]]
        assert len(names) == len(set(names)), where
        for name in names:
            if name.startswith("SIE_"):
                assert PROGRAMS[container["name"]] in NAMES[name], f"{where}: {name}"


@pytest.mark.parametrize("file", FILES)
def test_every_program_takes_the_values_that_the_chart_sets(render, containers, file):
    for where, container in containers(render(file)):
        env = {variable["name"]: variable.get("value", "from-a-secret") for variable in container["env"]}
        settings = load(SETTINGS[PROGRAMS[container["name"]]], env=env).value
        if isinstance(settings, ServeSettings):
            assert settings.hf_home is not None, where
            assert settings.local_cache == settings.hf_home / "hub", where


@pytest.mark.parametrize(
    ("size", "expected"), [("50Gi", 51_002_736_640), ("1.5T", 1_425_000_000_000), ("1000000", 950_000)]
)
def test_workers_make_room_before_the_kubelet_would_evict_them(render, containers, size, expected):
    objects = render("guide.yaml", workers={"common": {"cacheStorageSize": size}})
    of_workers = [each for where, each in containers(objects) if each["name"] in ("worker", "weights")]

    assert of_workers
    for container in of_workers:
        env = {variable["name"]: variable.get("value", "from-a-secret") for variable in container["env"]}
        assert load(ServeSettings, env=env).value.local_cache_bytes == expected


@pytest.mark.parametrize("program", [*COMMANDS])
def test_every_program_has_the_command_that_the_chart_gives_it(render, containers, program):
    given = {
        container["args"][0] for _, container in containers(render("guide.yaml")) if container["command"] == [program]
    }

    assert given
    assert given <= set(COMMANDS[program].commands)


def test_extra_variable_replaces_the_charts_own(render, one):
    objects = render("guide.yaml", workers={"common": {"extraEnv": [{"name": "SIE_HF_FALLBACK", "value": "true"}]}})
    pod = one(objects, "Deployment", "sie-sie-cluster-worker-l4")["spec"]["template"]["spec"]

    for container in (*pod["initContainers"], *pod["containers"]):
        assert [each for each in container["env"] if each["name"] == "SIE_HF_FALLBACK"] == [
            {"name": "SIE_HF_FALLBACK", "value": "true"}
        ]


def test_secrets_are_referred_to_and_never_held(render, containers):
    said = str(list(containers(render("every-knob.yaml"))))

    assert "not-a-token" not in said
    assert "minio-credentials" in said


def test_users_can_be_left_to_the_platform(render):
    pods = [each["spec"]["template"]["spec"] for each in render("folder.yaml") if each["kind"] == "Deployment"]

    assert all(
        pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}} for pod in pods
    )


def test_selectors_choose_their_own_pods_and_no_others(render):
    deployments = [each for each in render("every-knob.yaml") if each["kind"] == "Deployment"]

    for each in deployments:
        chosen = [
            other["metadata"]["name"]
            for other in deployments
            if each["spec"]["selector"]["matchLabels"].items()
            <= other["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert chosen == [each["metadata"]["name"]]
