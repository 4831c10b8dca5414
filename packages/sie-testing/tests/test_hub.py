"""The hub's HTTP answers, looked at one by one; what the real clients make of them is in test_hub_clients.py."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from sie_core.ids import Revision
from sie_testing.hub import Fault, FaultKind, Hub, serving_hub
from sie_testing.hub.repository import git_blob_id

PIN = Revision("5617a9f61b028005a4858fdac845db406aefb181")
WEIGHTS = bytes(range(256)) * 40
RESOLVE = f"/acme/tiny/resolve/{PIN}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "hub" / "acme" / "tiny"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_bytes(b'{"hidden_size": 8}')
    (folder / "1_Pooling" / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return tmp_path / "hub"


@pytest.fixture
def hub(root: Path) -> Hub:
    return Hub(root, pins={"acme/tiny": PIN}, lfs_above_bytes=1000, page_entries=2)


@pytest.fixture
def client(hub: Hub) -> Iterator[httpx2.Client]:
    with serving_hub(hub) as endpoint, httpx2.Client(base_url=endpoint, trust_env=False) as client:
        yield client


def test_model_info_names_commit_and_files_and_with_blobs_their_ids(client: httpx2.Client) -> None:
    plain = client.get("/api/models/acme/tiny").json()
    full = client.get("/api/models/acme/tiny/revision/main?blobs=True").json()

    assert plain["sha"] == PIN
    assert plain["siblings"][0] == {"rfilename": "1_Pooling/config.json"}
    by_name = {sibling["rfilename"]: sibling for sibling in full["siblings"]}
    assert by_name["1_Pooling/config.json"]["blobId"] == git_blob_id(b"{}")
    assert by_name["model.safetensors"]["lfs"]["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()


@pytest.mark.parametrize("name", ["/etc", "..", "acme/..", "%2Fetc", ".hidden/x"])
def test_folder_outside_the_root_is_no_repository(client: httpx2.Client, name: str) -> None:
    assert client.get(f"/api/models/{name}").status_code == 404


def test_tree_comes_in_pages_that_link_to_the_next(client: httpx2.Client) -> None:
    paths, url = [], f"/api/models/acme/tiny/tree/{PIN}?recursive=true&expand=false"
    while url:
        page = client.get(url)
        paths += [entry["path"] for entry in page.json()]
        url = page.links.get("next", {}).get("url", "")

    assert paths == ["1_Pooling", "1_Pooling/config.json", "config.json", "model.safetensors"]


def test_tree_without_recursive_lists_one_folder(client: httpx2.Client) -> None:
    inside = client.get("/api/models/acme/tiny/tree/main/1_Pooling").json()

    assert [entry["path"] for entry in inside] == ["1_Pooling/config.json"]


def test_small_file_comes_from_here_with_git_id_as_etag(client: httpx2.Client) -> None:
    answer = client.get(f"{RESOLVE}/config.json")

    assert answer.content == b'{"hidden_size": 8}'
    assert answer.headers["X-Repo-Commit"] == PIN
    assert answer.headers["ETag"] == '"ae17b36e4ae15109840cad63099233fe8d2e16c8"'


def test_lfs_file_is_redirected_to_another_origin_with_its_size_and_sha256(client: httpx2.Client) -> None:
    answer = client.head(f"{RESOLVE}/model.safetensors")
    target = httpx2.URL(answer.headers["Location"])

    assert answer.status_code == 302
    assert answer.headers["X-Linked-Size"] == str(len(WEIGHTS))
    assert answer.headers["X-Linked-ETag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert target.port != client.base_url.port
    assert httpx2.get(target, trust_env=False).content == WEIGHTS


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, WEIGHTS[:10]),
        ("bytes=10000-", 206, WEIGHTS[10000:]),
        ("bytes=-5", 206, WEIGHTS[-5:]),
        ("bytes=10-99999", 206, WEIGHTS[10:]),
        ("bytes=99999-", 416, b""),
        ("lines=1-2", 200, WEIGHTS),
    ],
)
def test_ranges(client: httpx2.Client, asked: str, status: int, part: bytes) -> None:
    answer = client.get(f"{RESOLVE}/model.safetensors", headers={"Range": asked}, follow_redirects=True)

    assert (answer.status_code, answer.content) == (status, part)


def test_if_range_with_another_etag_gets_the_whole(client: httpx2.Client) -> None:
    headers = {"Range": "bytes=0-9", "If-Range": '"what-it-was-before"'}
    answer = client.get(f"{RESOLVE}/model.safetensors", headers=headers, follow_redirects=True)

    assert (answer.status_code, len(answer.content)) == (200, len(WEIGHTS))


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/models/acme/other", "RepoNotFound"),
        ("/api/models/acme", "RepoNotFound"),
        ("/api/models/acme/tiny/revision/v9", "RevisionNotFound"),
        (f"/acme/tiny/resolve/{'0' * 40}/config.json", "RevisionNotFound"),
        (f"{RESOLVE}/nothing.json", "EntryNotFound"),
        (f"{RESOLVE}/..%2f..%2ftiny/config.json", "EntryNotFound"),
        ("/acme%2f..%2f../etc/resolve/main/passwd", "RepoNotFound"),
    ],
)
def test_what_is_not_there_is_said_with_a_code(client: httpx2.Client, path: str, code: str) -> None:
    answer = client.get(path)

    assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, code)


def test_commit_follows_from_the_contents_unless_pinned(root: Path) -> None:
    before = Hub(root).repository("acme/tiny")
    (root / "acme" / "tiny" / "config.json").write_bytes(b'{"hidden_size": 16}')
    after = Hub(root).repository("acme/tiny")

    assert before is not None
    assert after is not None
    assert before.commit != after.commit
    assert Hub(root).repository("acme/tiny") == after


def test_changed_folder_is_read_again(hub: Hub, root: Path, client: httpx2.Client) -> None:
    (root / "acme" / "tiny" / "README.md").write_bytes(b"new")

    assert client.get(f"{RESOLVE}/README.md").content == b"new"


def test_truncated_body_keeps_the_promised_length(hub: Hub, client: httpx2.Client) -> None:
    hub.set_faults(Fault(FaultKind.TRUNCATE, match="*/config.json", after_bytes=5, times=1))

    with pytest.raises(httpx2.RemoteProtocolError):
        client.get(f"{RESOLVE}/config.json")
    assert client.get(f"{RESOLVE}/config.json").status_code == 200


def test_slow_body_arrives_whole(hub: Hub, client: httpx2.Client) -> None:
    hub.set_faults(Fault(FaultKind.SLOW, bytes_per_s=1 << 20))

    assert client.get(f"{RESOLVE}/model.safetensors", follow_redirects=True).content == WEIGHTS


def test_status_fault_says_when_to_come_back(hub: Hub, client: httpx2.Client) -> None:
    hub.set_faults(Fault(FaultKind.STATUS, status=429, retry_after_s=7, match="/api/*"))
    answer = client.get("/api/models/acme/tiny")

    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert client.get(f"{RESOLVE}/config.json").status_code == 200


def test_gated_repository_lists_its_files_and_gives_none(hub: Hub, client: httpx2.Client) -> None:
    hub.set_faults(Fault(FaultKind.GATED))
    answer = client.get(f"{RESOLVE}/config.json")

    assert (answer.status_code, answer.headers["X-Error-Code"]) == (401, "GatedRepo")
    assert client.get("/api/models/acme/tiny").status_code == 200


def test_etag_fault_makes_a_resumed_range_start_over(hub: Hub, client: httpx2.Client) -> None:
    target = client.head(f"{RESOLVE}/model.safetensors").headers["Location"]
    etag = httpx2.head(target, trust_env=False).headers["ETag"]
    hub.set_faults(Fault(FaultKind.ETAG))

    assert httpx2.head(target, trust_env=False).headers["ETag"] != etag


def test_token_is_asked_for_and_gated_refuses_it_with_403(root: Path) -> None:
    hub = Hub(root, token="secret", faults=[Fault(FaultKind.GATED)])
    with serving_hub(hub) as endpoint, httpx2.Client(base_url=endpoint, trust_env=False) as client:
        url, right = "/acme/tiny/resolve/main/config.json", {"Authorization": "Bearer secret"}

        assert client.get("/api/models/acme/tiny").status_code == 401
        assert client.get("/api/models/acme/tiny", headers=right).status_code == 200
        assert client.get(url, headers=right).status_code == 403


def test_faults_are_set_over_http_too(hub: Hub, client: httpx2.Client) -> None:
    url = "/api/models/acme/tiny"
    assert client.put("/_faults", json=[{"kind": "status", "status": 503}]).status_code == 204
    assert client.get(url).status_code == 503
    assert client.put("/_faults", json=[{"kind": "rain"}]).status_code == 400
    assert client.delete("/_faults").status_code == 204

    assert client.get(url).status_code == 200
    assert [seen["status"] for seen in client.get("/_seen").json()] == [503, 200]


def test_process_of_its_own_prints_its_endpoint_and_ends_at_sigterm(root: Path) -> None:
    command = [sys.executable, "-m", "sie_testing.hub", "--root", str(root), "--pin", f"acme/tiny={PIN}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().removeprefix("hub: ").strip()
        sha = httpx2.get(f"{endpoint}/api/models/acme/tiny", trust_env=False).json()["sha"]
        process.terminate()

    assert (sha, process.returncode) == (PIN, 0)
