"""Names of images and registries: what is read from them, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.oci.reference import Place, Reference, mirrored, parse_place, parse_reference, place_of

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "registry", "repository", "asked"),
    [
        ("ghcr.io/superlinked/sie-server:v0.3.1", "ghcr.io", "superlinked/sie-server", "v0.3.1"),
        ("10.77.0.2:5000/sie/sie-config:v0.3.1", "10.77.0.2:5000", "sie/sie-config", "v0.3.1"),
        ("localhost/x", "localhost", "x", "latest"),
        ("localhost:5000/x", "localhost:5000", "x", "latest"),
        ("alpine:3.19", "docker.io", "library/alpine", "3.19"),
        ("grafana/grafana", "docker.io", "grafana/grafana", "latest"),
        (f"quay.io/a/b@{DIGEST}", "quay.io", "a/b", DIGEST),
        (f"quay.io/a/b:v1@{DIGEST}", "quay.io", "a/b", DIGEST),
        ("[fd77::1]:5000/a", "[fd77::1]:5000", "a", "latest"),
    ],
)
def test_names_are_read_as_container_engines_read_them(text: str, registry: str, repository: str, asked: str) -> None:
    reference = parse_reference(text)

    assert (reference.registry, reference.repository, reference.asked) == (registry, repository, asked)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "Alpine",
        "a/../b",
        "a//b",
        "ghcr.io/a:",
        "ghcr.io/a:-x",
        "ghcr.io/a@sha256:abc",
        "https://x/y",
        "a b",
        "/a",
    ],
)
def test_what_no_registry_would_take_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        parse_reference(text)


@given(
    st.from_regex(r"[a-z0-9]{1,8}\.[a-z]{2,3}(:[0-9]{2,4})?", fullmatch=True),
    st.from_regex(r"[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,3}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True),
    st.booleans(),
)
def test_a_name_that_is_written_is_read_back(registry: str, repository: str, tag: str, with_digest: bool) -> None:
    reference = Reference(registry, repository, tag, parse_reference(f"a@{DIGEST}").digest if with_digest else None)

    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "origin", "prefix"),
    [
        ("private-registry.example.com/sie", "https://private-registry.example.com", "sie"),
        ("private-registry.example.com", "https://private-registry.example.com", ""),
        ("oci://private-registry.example.com/sie/charts/", "https://private-registry.example.com", "sie/charts"),
        ("127.0.0.1:5000/sie", "http://127.0.0.1:5000", "sie"),
        ("localhost:5000", "http://localhost:5000", ""),
        ("https://localhost:5000", "https://localhost:5000", ""),
        ("10.77.0.2:5000/sie", "https://10.77.0.2:5000", "sie"),
        ("http://10.77.0.2:5000/sie", "http://10.77.0.2:5000", "sie"),
    ],
)
def test_a_place_is_https_unless_it_is_loopback_or_says_http(text: str, origin: str, prefix: str) -> None:
    place = parse_place(text)

    assert (place.origin, place.prefix) == (origin, prefix)


@pytest.mark.parametrize("text", ["s3://bucket/x", "", "host/UPPER", "host:port/x", "https://", "user@host/x"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a registry"):
        parse_place(text)


def test_mirrored_images_keep_last_name_and_tag() -> None:
    place = parse_place("http://10.77.0.2:5000/sie")
    target = mirrored(parse_reference("ghcr.io/superlinked/sie-server:v0.3.1"), place)

    assert str(target) == "10.77.0.2:5000/sie/sie-server:v0.3.1"


def test_an_image_named_by_digest_alone_is_tagged_so_that_it_is_kept() -> None:
    target = mirrored(parse_reference(f"quay.io/a/b@{DIGEST}"), parse_place("reg.example/x"))

    assert target.tag == "sha256-abababababab"


def test_docker_hub_answers_under_another_host() -> None:
    assert place_of(parse_reference("alpine")) == Place("https://registry-1.docker.io", "docker.io", "")
