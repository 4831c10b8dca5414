"""What a rendered chart needs: every image that Kubernetes would pull, and what looks like one."""

import pytest

from sie_airgap.inventory import ImageUse, conditionals, images


def _pod(**spec):
    return {"kind": "Pod", "metadata": {"name": "p"}, "spec": spec}


def test_containers_of_every_kind_of_workload_are_found():
    container = {"name": "c", "image": "r.example/a:1"}
    cron = {"jobTemplate": {"spec": {"template": {"spec": {"containers": [container]}}}}}

    found = images([{"kind": "CronJob", "metadata": {"name": "nightly"}, "spec": cron}, _pod(containers=[container])])

    assert found == (ImageUse("r.example/a:1", ("CronJob/nightly, container c", "Pod/p, container c")),)


def test_init_and_ephemeral_containers_and_image_volumes_are_found():
    found = images(
        [
            _pod(
                initContainers=[{"name": "i", "image": "a:1"}],
                ephemeralContainers=[{"name": "e", "image": "b:1"}],
                volumes=[{"name": "v", "image": {"reference": "c:1"}}],
            )
        ]
    )

    assert [use.reference for use in found] == ["a:1", "b:1", "c:1"]
    assert not any(use.is_guess for use in found)


def test_image_of_a_custom_resource_is_found_however_deep():
    resource = {"kind": "Prometheus", "metadata": {"name": "p"}, "spec": {"thanos": {"image": "quay.io/thanos:v1"}}}

    assert [use.reference for use in images([resource])] == ["quay.io/thanos:v1"]


def test_hook_is_said_to_be_one():
    hook = _pod(containers=[{"name": "c", "image": "a:1"}])
    hook["metadata"]["annotations"] = {"helm.sh/hook": "pre-install"}

    assert images([hook])[0].why == ("Pod/p (hook pre-install), container c",)


@pytest.mark.parametrize(
    "text",
    [
        "--reloader=quay.io/operator/reloader:v0.79.2",
        "image: registry.internal:5000/team/app@sha256:" + "0" * 64,
        "a line\nproxy_image = localhost:5000/x:1\n",
        '{"image":"ghcr.io/org/app:v1@sha256:' + "a" * 64 + '"}',
    ],
)
def test_text_that_looks_like_an_image_is_a_guess(text):
    in_argument = images([_pod(containers=[{"name": "c", "args": [text]}])])
    in_map = images([{"kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": text}}])

    assert len(in_argument) == len(in_map) == 1
    assert in_argument[0].is_guess
    assert in_argument[0].reference == in_map[0].reference
    assert in_argument[0].reference in text


@pytest.mark.parametrize(
    "text",
    [
        "http://sie-sie-cluster-config:8080",
        "s3://sie-models-private/weights/",
        "https://minio.storage.internal:9000",
        "https://hub.internal/api/models:1",
        "10.20.0.0/16",
        "/etc/sie/ca/ca.crt",
        "BAAI/bge-m3",
        "sha256:" + "0" * 64,
        "12:30",
    ],
)
def test_addresses_paths_and_models_are_not_images(text):
    assert images([_pod(containers=[{"name": "c", "args": [text], "env": [{"name": "X", "value": text}]}])]) == ()


def test_short_name_is_a_guess_only_in_a_variable_called_image():
    def of(name):
        return images([_pod(containers=[{"name": "c", "env": [{"name": name, "value": "alpine:3.19"}]}])])

    assert [use.reference for use in of("SIDECAR_IMAGE")] == ["alpine:3.19"]
    assert of("SIDECAR") == ()


def test_what_is_seen_pulled_is_no_guess_though_text_names_it_too():
    found = images([_pod(containers=[{"name": "c", "image": "r.example/a:1", "args": ["r.example/a:1"]}])])

    assert found == (ImageUse("r.example/a:1", ("Pod/p, container c", "Pod/p, container c, argument")),)


def test_every_switch_that_is_off_is_switched_on_alone():
    values = {"a": {"enabled": False, "size": 3}, "b": True, "c": {"d": {"create": False}}, "e": None, "f": [False]}

    assert list(conditionals(values)) == [
        ("a.enabled", {"a": {"enabled": True}}),
        ("c.d.create", {"c": {"d": {"create": True}}}),
    ]
