"""What a rendered chart needs: every image that Kubernetes would pull, and what looks like one."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.charts.inventory import ImageUse, images


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
        "app.kubernetes.io/name:web",
        "prometheus.io/port:9090",
        "github.com/org/repository:main",
        "https://docs.example.com/guides/install:1",
        "user@host.example.com:22/path",
        "1.2.3/4:5",
        "host:8080",
        "arn:aws:iam::1234:role/sie",
        "--listen=0.0.0.0:8080",
        "the image note: see below",
        "imagePullPolicy: IfNotPresent",
        "image: true",
        "image: {{ .Values.image }}:{{ .Values.tag }}",
        "https://cdn.example.com/image:1.png",
        "docker run --rm -p 8080:80",
        "redis://redis.svc:6379/0",
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


HEX = "0" * 64


def _map(**data):
    return {"kind": "ConfigMap", "metadata": {"name": "m"}, "data": data}


def _secret(text):
    encoded = base64.b64encode(text.encode()).decode()
    return {"kind": "Secret", "metadata": {"name": "s"}, "data": {"k": encoded, "binary": "/////w=="}}


def _custom(**spec):
    return {"kind": "Runner", "metadata": {"name": "r"}, "spec": spec}


def _annotated(**annotations):
    return {"kind": "Service", "metadata": {"name": "a", "annotations": annotations}}


def _container(**fields):
    return _pod(containers=[{"name": "c", **fields}])


def _variables(**values):
    return _container(env=[{"name": name, "value": value} for name, value in values.items()])


HIDDEN = [
    ("argument after an option", _container(args=["--sidecar-image", "alpine:3"]), "alpine:3"),
    ("script", _container(command=["sh", "-c", "set -e\ndocker run --rm alpine:3 true\n"]), "alpine:3"),
    ("script, by a variable", _container(args=["export PROXY_IMAGE=alpine:3; start"]), "alpine:3"),
    ("variable of an operator", _variables(RELATED_IMAGE_PROXY="alpine:3"), "alpine:3"),
    ("variables, in parts", _variables(X_IMAGE_REPOSITORY="q.io/a/b", X_IMAGE_TAG="v1"), "q.io/a/b:v1"),
    (
        "variables, with the registry",
        _variables(X_IMAGE_REGISTRY="q.io", X_IMAGE_NAME="a/b", X_IMAGE_VERSION="1"),
        "q.io/a/b:1",
    ),
    ("key of a ConfigMap", _map(sidecarImage="alpine:3"), "alpine:3"),
    ("YAML in a ConfigMap", _map(cfg="pod:\n  containers:\n  - image: alpine:3\n"), "alpine:3"),
    ("parts in YAML", _map(cfg="image:\n  repository: a/b\n  tag: v1\n"), "a/b:v1"),
    ("JSON in a ConfigMap", _map(cfg='{"init": {"args": ["--image", "alpine:3"]}}'), "alpine:3"),
    ("a template in a ConfigMap", _map(cfg="{{ if .x }}\n  image: alpine:3\n{{ end }}"), "alpine:3"),
    ("YAML in a Secret", _secret("image: alpine:3\n"), "alpine:3"),
    ("annotation", _annotated(note='[{"image":"q.io/a/b:v1"}]'), "q.io/a/b:v1"),
    ("annotation called image", _annotated(**{"inject.example/proxyImage": "alpine:3"}), "alpine:3"),
    (
        "parts in a custom resource",
        _custom(image={"registry": "q.io", "repository": "a/b", "tag": 1.5, "digest": f"sha256:{HEX}"}),
        f"q.io/a/b:1.5@sha256:{HEX}",
    ),
    ("an image with its tag beside it", _custom(image="a/b", tag="v1"), "a/b:v1"),
    ("a name in a custom resource", _custom(imageName="q.io/a/b:v1"), "q.io/a/b:v1"),
    ("arguments in a custom resource", _custom(extraArgs=["--agent-image=q.io/a/b:v1"]), "q.io/a/b:v1"),
]


@pytest.mark.parametrize(("place", "each", "reference"), HIDDEN, ids=[place for place, *_ in HIDDEN])
def test_hidden_image_is_a_guess_that_says_where_it_was_seen(place, each, reference):
    (use,) = images([each])

    assert (use.reference, use.is_guess) == (reference, True)
    assert all(why.startswith(f"{each['kind']}/{each['metadata']['name']}") for why in use.why)


def test_schema_of_custom_resources_names_no_image():
    described = {"image": {"type": "string", "description": "as quay.io/org/app:v1", "default": "alpine:3"}}
    schema = {"kind": "CustomResourceDefinition", "metadata": {"name": "x"}, "spec": {"properties": described}}

    assert images([schema]) == ()


@pytest.mark.parametrize("image", ["https://logo.example/a.svg", "{{ template }}", "data:image/png;base64,AA", ""])
def test_an_image_that_cannot_be_pulled_is_a_picture(image):
    assert images([_custom(image=image)]) == ()


def test_a_document_full_of_aliases_is_read_in_bounded_time():
    bomb = "a: &a [image, image]\n" + "".join(
        f"{name}: &{name} [*{before}, *{before}, *{before}, *{before}, *{before}, *{before}, *{before}, *{before}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )

    assert images([_map(cfg=bomb + "image: alpine:3\n")])[0].reference == "alpine:3"


@given(text=st.text(max_size=200) | st.from_regex(r"[a-z:/@.{}\[\]\n -]{0,80}", fullmatch=True))
def test_any_text_is_read_and_whatever_is_found_stands_in_it(text):
    for use in images([_map(image=text), _container(args=[text]), _variables(IMAGE=text)]):
        assert use.reference in text
