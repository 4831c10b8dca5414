"""The real `huggingface_hub` against the stand-in, through `HF_ENDPOINT`: this environment's version, and older ones.

The older ones are installed by pip once (`.cache/hub-versions`), which takes a network: `-m hub_versions`.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sie_core.ids import Revision
from sie_testing.hub import Fault, FaultKind, Hub, serving_hub
from sie_testing.hub.clients import OLDER, Client, installed_client, older_client

PIN = Revision("5617a9f61b028005a4858fdac845db406aefb181")
WEIGHTS = bytes(range(256)) * 4000
FILES = {"1_Pooling/config.json": b"{}", "config.json": b'{"hidden_size": 8}', "model.safetensors": WEIGHTS}

SCRIPT = """
import hashlib, json, pathlib, sys
import huggingface_hub as hub
from huggingface_hub.utils import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

def refused(call):
    try:
        call()
    except (EntryNotFoundError, RevisionNotFoundError, RepositoryNotFoundError) as error:
        return type(error).__name__

api, name, sha, folder = hub.HfApi(), "acme/tiny", sys.argv[1], pathlib.Path(sys.argv[2])
info = api.model_info(name, files_metadata=True)
tree = [entry for entry in api.list_repo_tree(name, revision=sha, recursive=True) if hasattr(entry, "blob_id")]
snapshot = pathlib.Path(hub.snapshot_download(name, cache_dir=folder / "cache"))
one = hub.hf_hub_download(name, "model.safetensors", revision=sha, local_dir=folder / "one")
print(json.dumps({
    "sha": info.sha,
    "sizes": {s.rfilename: s.size for s in info.siblings},
    "lfs": {s.rfilename: s.lfs.sha256 for s in info.siblings if s.lfs},
    "tree": {entry.path: entry.size for entry in tree},
    "tree_lfs": {entry.path: entry.lfs.sha256 for entry in tree if entry.lfs},
    "snapshot": snapshot.name,
    "files": {p.relative_to(snapshot).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
              for p in snapshot.rglob("*") if p.is_file()},
    "one": hashlib.sha256(pathlib.Path(one).read_bytes()).hexdigest(),
    "refused": [
        refused(lambda: hub.hf_hub_download(name, "nothing.json", cache_dir=folder / "cache")),
        refused(lambda: api.model_info(name, revision="v9")),
        refused(lambda: api.model_info("acme/other")),
    ],
}))
"""


@pytest.fixture(
    params=["installed", *(pytest.param(version, marks=pytest.mark.hub_versions) for version in OLDER)], scope="module"
)
def client(request: pytest.FixtureRequest) -> Client:
    return installed_client() if request.param == "installed" else older_client(request.param)


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    for path, content in FILES.items():
        file = tmp_path / "hub" / "acme" / "tiny" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return Hub(tmp_path / "hub", pins={"acme/tiny": PIN}, lfs_above_bytes=1000, token="secret", page_entries=2)


@pytest.fixture
def environment(hub: Hub, tmp_path: Path) -> Iterator[dict[str, str]]:
    with serving_hub(hub) as endpoint:
        yield {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "secret"}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_library_lists_fetches_and_reads_refusals(
    client: Client, hub: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    ran = client.python(SCRIPT, PIN, str(tmp_path), environment=environment)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)

    assert told["sha"] == told["snapshot"] == PIN
    assert told["sizes"] == told["tree"] == {path: len(content) for path, content in FILES.items()}
    assert told["lfs"] == told["tree_lfs"] == {"model.safetensors": _sha256(WEIGHTS)}
    assert told["files"] == {path: _sha256(content) for path, content in FILES.items()}
    assert told["one"] == _sha256(WEIGHTS)
    assert [name.removeprefix("Remote") for name in told["refused"]] == [
        "EntryNotFoundError",
        "RevisionNotFoundError",
        "RepositoryNotFoundError",
    ]


def test_command_downloads_into_a_cache_and_the_token_stays_with_the_hub(
    client: Client, hub: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    ran = client.command("download", "acme/tiny", "--cache-dir", str(tmp_path / "weights"), environment=environment)
    assert ran.returncode == 0, ran.stderr

    model = tmp_path / "weights" / "models--acme--tiny"
    snapshot = model / "snapshots" / PIN
    assert {path: (snapshot / path).read_bytes() for path in FILES} == FILES
    assert (model / "refs" / "main").read_text() == PIN
    fetched = [seen for seen in hub.seen if seen.origin == "blobs"]
    assert fetched
    if not client.version.startswith("0."):
        assert not any(seen.has_token for seen in fetched)


def test_gated_repository_is_named_as_such(
    client: Client, hub: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    hub.set_faults(Fault(FaultKind.GATED))
    script = (
        "import sys, huggingface_hub as hub; hub.hf_hub_download('acme/tiny', 'config.json', cache_dir=sys.argv[1])"
    )
    ran = client.python(script, str(tmp_path), environment=environment)

    assert ran.returncode == 1
    assert "GatedRepoError" in ran.stderr


def test_body_cut_short_once_is_fetched_to_its_end(
    client: Client, hub: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    hub.set_faults(Fault(FaultKind.TRUNCATE, match="*" + _sha256(WEIGHTS), methods=("GET",), after_bytes=9, times=1))
    script = """
import sys, huggingface_hub as hub
try:
    path = hub.hf_hub_download('acme/tiny', 'model.safetensors', cache_dir=sys.argv[1])
except Exception:
    path = hub.hf_hub_download('acme/tiny', 'model.safetensors', cache_dir=sys.argv[1])
print(path)
"""
    ran = client.python(script, str(tmp_path), environment=environment)

    assert ran.returncode == 0, ran.stderr
    assert Path(ran.stdout.strip()).read_bytes() == WEIGHTS
