"""One suite for two registries: the stand-in, and the real docker-registry where it is installed.

What only the stand-in can show (token dance, referrers, faults, refusals by rule) comes after.
"""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2
import pytest

from sie_core.artifacts.digest import Digest, digest_of
from sie_testing.faults import Fault, FaultKind
from sie_testing.registry import Access, Registry, serving_registry
from sie_testing.registry.docker import docker_registry_program, serving_docker_registry

CONFIG, LAYER = b"{}", bytes(range(256)) * 64
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
OCTETS = {"Content-Type": "application/octet-stream"}

real = pytest.mark.skipif(
    docker_registry_program() is None, reason="docker-registry is not installed (Debian package `docker-registry`)"
)


def _client(origin: str) -> httpx2.Client:
    return httpx2.Client(base_url=origin, trust_env=False, timeout=20)


@pytest.fixture(params=["stand-in", pytest.param("docker-registry", marks=real)], scope="module")
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    root = tmp_path_factory.mktemp("registry")
    served: AbstractContextManager[str] = serving_docker_registry(root)
    if request.param == "stand-in":
        served = serving_registry(Registry(root, referrers_api=False))
    with served as origin, _client(origin) as client:
        yield client


def _push_blob(client: httpx2.Client, name: str, content: bytes) -> Digest:
    upload = client.post(f"/v2/{name}/blobs/uploads/")
    where = httpx2.URL(upload.headers["Location"]).copy_merge_params({"digest": digest_of(content)})
    answer = client.put(where, content=content, headers=OCTETS)
    assert answer.status_code == 201, answer.text
    return digest_of(content)


def _manifest(layer: bytes = LAYER, **more: object) -> bytes:
    config = {"mediaType": CONFIG_TYPE, "digest": digest_of(CONFIG), "size": len(CONFIG)}
    layers = [{"mediaType": LAYER_TYPE, "digest": digest_of(layer), "size": len(layer)}]
    content = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers, **more}
    return json.dumps(content).encode()


def _put_manifest(
    client: httpx2.Client, name: str, reference: str, content: bytes, media_type: str = MANIFEST_TYPE
) -> httpx2.Response:
    return client.put(f"/v2/{name}/manifests/{reference}", content=content, headers={"Content-Type": media_type})


def _push_image(client: httpx2.Client, name: str, tag: str) -> Digest:
    _push_blob(client, name, CONFIG)
    _push_blob(client, name, LAYER)
    answer = _put_manifest(client, name, tag, _manifest())
    assert answer.status_code == 201, answer.text
    return Digest(answer.headers["Docker-Content-Digest"])


def test_blob_pushed_whole_is_read_back_whole_and_in_part(client: httpx2.Client) -> None:
    url = f"/v2/team/whole/blobs/{_push_blob(client, 'team/whole', LAYER)}"

    assert client.head(url).headers["Content-Length"] == str(len(LAYER))
    assert client.get(url, follow_redirects=True).content == LAYER
    part = client.get(url, headers={"Range": "bytes=5-9"}, follow_redirects=True)
    assert (part.status_code, part.content) == (206, LAYER[5:10])


def test_blob_pushed_in_chunks_says_how_far_it_is(client: httpx2.Client) -> None:
    where = client.post("/v2/team/chunks/blobs/uploads/").headers["Location"]
    first = client.patch(where, content=LAYER[:1000], headers=OCTETS)
    assert (first.status_code, first.headers["Range"]) == (202, "0-999")
    progress = client.get(first.headers["Location"])
    assert (progress.status_code, progress.headers["Range"]) == (204, "0-999")
    second = client.patch(first.headers["Location"], content=iter([LAYER[1000:2000], LAYER[2000:]]), headers=OCTETS)
    end = httpx2.URL(second.headers["Location"]).copy_merge_params({"digest": digest_of(LAYER)})

    assert client.put(end).status_code == 201
    assert client.get(f"/v2/team/chunks/blobs/{digest_of(LAYER)}", follow_redirects=True).content == LAYER


def test_blob_of_another_digest_is_refused_and_not_kept(client: httpx2.Client) -> None:
    where = client.post("/v2/team/wrong/blobs/uploads/").headers["Location"]
    declared = digest_of(b"something else")
    answer = client.put(httpx2.URL(where).copy_merge_params({"digest": declared}), content=LAYER, headers=OCTETS)

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["code"] == "DIGEST_INVALID"
    assert client.head(f"/v2/team/wrong/blobs/{declared}").status_code == 404


def test_blob_is_mounted_from_another_repository(client: httpx2.Client) -> None:
    digest = _push_blob(client, "team/source", LAYER)
    mounted = client.post(f"/v2/team/mounted/blobs/uploads/?mount={digest}&from=team/source")

    assert mounted.status_code == 201
    assert client.head(f"/v2/team/mounted/blobs/{digest}").status_code == 200


def test_mount_from_what_is_no_repository_name_begins_an_upload(client: httpx2.Client) -> None:
    digest = _push_blob(client, "team/source", LAYER)
    answer = client.post(f"/v2/team/mounted/blobs/uploads/?mount={digest}&from=../repositories/team/source")

    assert answer.status_code == 202


def test_mount_of_what_is_not_there_begins_an_upload(client: httpx2.Client) -> None:
    unknown = digest_of(b"never pushed")
    answer = client.post(f"/v2/team/mounted/blobs/uploads/?mount={unknown}&from=team/source")

    assert answer.status_code == 202
    assert "Location" in answer.headers


def test_blob_of_one_repository_is_not_in_another(client: httpx2.Client) -> None:
    digest = _push_blob(client, "team/private", b"only here")

    assert client.head(f"/v2/team/elsewhere/blobs/{digest}").status_code == 404


def test_manifest_is_read_by_tag_and_by_digest(client: httpx2.Client) -> None:
    digest = _push_image(client, "team/image", "v1")
    accept = {"Accept": MANIFEST_TYPE}

    assert digest == digest_of(_manifest())
    for reference in ("v1", digest):
        answer = client.get(f"/v2/team/image/manifests/{reference}", headers=accept)
        assert (answer.content, answer.headers["Content-Type"]) == (_manifest(), MANIFEST_TYPE)
    assert client.head("/v2/team/image/manifests/v1", headers=accept).headers["Docker-Content-Digest"] == digest


def test_manifest_whose_blobs_are_missing_is_refused(client: httpx2.Client) -> None:
    answer = _put_manifest(client, "team/empty", "v1", _manifest(b"not pushed"))

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")


def test_index_comes_after_its_children(client: httpx2.Client) -> None:
    child = digest_of(_manifest())
    entry = {"mediaType": MANIFEST_TYPE, "digest": child, "size": len(_manifest())}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]}).encode()

    assert _put_manifest(client, "team/index", "v1", index, INDEX_TYPE).status_code == 400
    _push_image(client, "team/index", "child")
    assert _put_manifest(client, "team/index", "v1", index, INDEX_TYPE).status_code == 201
    got = client.get("/v2/team/index/manifests/v1", headers={"Accept": INDEX_TYPE})
    assert got.content == index


def test_manifest_comes_only_to_a_caller_that_accepts_it(client: httpx2.Client) -> None:
    _push_image(client, "team/accept", "v1")
    docker_only = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}

    assert client.get("/v2/team/accept/manifests/v1", headers=docker_only).status_code == 404


def test_manifest_put_under_another_digest_is_refused(client: httpx2.Client) -> None:
    answer = _put_manifest(client, "team/image", digest_of(b"another"), _manifest())

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "DIGEST_INVALID")


def test_tag_moves(client: httpx2.Client) -> None:
    _push_image(client, "team/moving", "latest")
    annotated = _manifest(annotations={"build": "2"})
    _put_manifest(client, "team/moving", "latest", annotated)

    got = client.get("/v2/team/moving/manifests/latest", headers={"Accept": MANIFEST_TYPE})
    assert got.content == annotated


def test_tags_are_listed(client: httpx2.Client) -> None:
    for tag in ("v2", "v1", "v3"):
        _push_image(client, "team/tags", tag)

    assert sorted(client.get("/v2/team/tags/tags/list").json()["tags"]) == ["v1", "v2", "v3"]


@pytest.mark.parametrize("path", ["/v2/team/none/manifests/v1", f"/v2/team/none/blobs/{digest_of(b'')}x"])
def test_what_is_not_there_is_refused_with_a_code(client: httpx2.Client, path: str) -> None:
    answer = client.get(path, headers={"Accept": MANIFEST_TYPE})

    assert answer.status_code in (400, 404)
    assert answer.json()["errors"][0]["code"]


def test_deleted_manifest_is_gone(client: httpx2.Client) -> None:
    digest = _push_image(client, "team/deleted", "v1")
    url = f"/v2/team/deleted/manifests/{digest}"

    assert client.delete(url).status_code == 202
    assert client.get(url, headers={"Accept": MANIFEST_TYPE}).status_code == 404


@pytest.mark.parametrize("kind", ["stand-in", pytest.param("docker-registry", marks=real)])
def test_password_is_asked_for(kind: str, tmp_path: Path) -> None:
    served = serving_docker_registry(tmp_path, with_password=True)
    if kind == "stand-in":
        served = serving_registry(Registry(tmp_path, access=Access("tester", "secret")))
    with served as origin, _client(origin) as client:
        refused, allowed = client.get("/v2/"), client.get("/v2/", auth=("tester", "secret"))

    assert (refused.status_code, allowed.status_code) == (401, 200)
    assert refused.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


@pytest.fixture
def alone(registry: Registry) -> Iterator[httpx2.Client]:
    with serving_registry(registry) as origin, _client(origin) as client:
        yield client


def test_token_is_got_for_a_password_and_opens_its_scope_only(tmp_path: Path) -> None:
    registry = Registry(tmp_path, access=Access("tester", "secret", with_tokens=True))
    with serving_registry(registry) as origin, _client(origin) as client:
        challenge = client.get("/v2/team/a/tags/list").headers["WWW-Authenticate"]
        assert client.get("/token").status_code == 401
        basic = {"Authorization": "Basic " + base64.b64encode(b"tester:secret").decode()}
        url = "/token?service=stand-in&scope=repository:team/a:pull,push"
        bearer = {"Authorization": f"Bearer {client.get(url, headers=basic).json()['token']}"}
        inside = client.post("/v2/team/a/blobs/uploads/", headers=bearer)
        outside = client.post("/v2/team/b/blobs/uploads/", headers=bearer)

    assert challenge == f'Bearer realm="{origin}/token",service="stand-in",scope="repository:team/a:pull"'
    assert (inside.status_code, outside.status_code) == (202, 401)


def test_read_only_registry_refuses_a_push_with_403(tmp_path: Path) -> None:
    registry = Registry(tmp_path, access=Access("tester", "secret", read_only=True))
    with serving_registry(registry) as origin, _client(origin) as client:
        answer = client.post("/v2/team/a/blobs/uploads/", auth=("tester", "secret"))

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (403, "DENIED")


def test_referrers_are_listed_and_filtered(registry: Registry, alone: httpx2.Client) -> None:
    subject = _push_image(alone, "team/image", "v1")
    named = {"mediaType": MANIFEST_TYPE, "digest": subject, "size": len(_manifest())}
    signature = _manifest(subject=named, artifactType="application/vnd.acme.signature")
    answer = _put_manifest(alone, "team/image", digest_of(signature), signature)

    assert answer.headers["OCI-Subject"] == subject
    listed = alone.get(f"/v2/team/image/referrers/{subject}").json()["manifests"]
    assert [entry["digest"] for entry in listed] == [digest_of(signature)]
    other = alone.get(f"/v2/team/image/referrers/{subject}?artifactType=application/vnd.acme.sbom")
    assert other.json()["manifests"] == []
    registry.referrers_api = False
    assert alone.get(f"/v2/team/image/referrers/{subject}").status_code == 404


def test_tags_come_in_pages(alone: httpx2.Client) -> None:
    for tag in ("v1", "v2", "v3"):
        _push_image(alone, "team/tags", tag)
    first = alone.get("/v2/team/tags/tags/list?n=2")
    second = alone.get(first.links["next"]["url"])

    assert (first.json()["tags"], second.json()["tags"]) == (["v1", "v2"], ["v3"])
    assert alone.get("/v2/_catalog").json() == {"repositories": ["team/tags"]}


@pytest.mark.parametrize("name", ["Team/image", "team//image", "team/../image", "-team"])
def test_name_that_is_none_is_refused(alone: httpx2.Client, name: str) -> None:
    answer = alone.post(f"/v2/{name.replace('..', '%2e%2e')}/blobs/uploads/")

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "NAME_INVALID")


def test_manifest_over_four_mebibytes_is_refused(alone: httpx2.Client) -> None:
    assert _put_manifest(alone, "team/image", "v1", b" " * (4 << 20) + b"{}").status_code == 413


def test_chunk_out_of_order_is_refused(alone: httpx2.Client) -> None:
    """docker-registry 2.8 takes it, and finds out by the digest at the end."""
    where = alone.post("/v2/team/order/blobs/uploads/").headers["Location"]
    answer = alone.patch(where, content=b"abc", headers={**OCTETS, "Content-Range": "7-9"})

    assert answer.status_code == 416


def test_cancelled_upload_is_gone(alone: httpx2.Client) -> None:
    where = alone.post("/v2/team/image/blobs/uploads/").headers["Location"]

    assert alone.delete(where).status_code == 204
    assert alone.patch(where, content=b"x").status_code == 404


def test_fault_meets_the_request_it_names(registry: Registry, alone: httpx2.Client) -> None:
    registry.set_faults(Fault(FaultKind.STATUS, match="*/uploads/*", methods=("PUT",), status=503, times=1))
    where = alone.post("/v2/team/image/blobs/uploads/").headers["Location"]
    url = httpx2.URL(where).copy_merge_params({"digest": digest_of(LAYER)})

    assert [alone.put(url, content=LAYER).status_code for _ in range(2)] == [503, 201]
    assert [seen.status for seen in registry.seen] == [202, 503, 201]


def test_process_of_its_own_keeps_what_was_pushed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sie_testing.registry", "--root", str(tmp_path), "--htpasswd", "a:b"]
    for expected in (201, 200):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            origin = process.stdout.readline().removeprefix("registry: ").strip()
            with httpx2.Client(base_url=origin, auth=("a", "b"), trust_env=False) as client:
                url = f"/v2/team/image/blobs/{digest_of(LAYER)}"
                if expected == 201:
                    _push_blob(client, "team/image", LAYER)
                else:
                    assert client.get(url).content == LAYER
            process.terminate()
        assert process.returncode == 0
