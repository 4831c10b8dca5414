"""What `mirror weights` writes, and what a worker keeps, is a cache that the hub's own clients resolve offline.

21 releases, each in the four ways that loaders call it. The older ones are installed by pip once
(`.cache/hub-versions`), which takes a network: `-m hub_versions`.
"""

import io
import json
from pathlib import Path

import pytest

from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.manifest import FileEntry, Manifest
from sie_core.artifacts.stores.local import LocalStore
from sie_core.artifacts.stores.memory import MemoryStore
from sie_core.artifacts.uploading import upload_snapshot
from sie_core.catalog.spec import ModelSpec
from sie_core.ids import ModelId, Revision
from sie_server import weights
from sie_testing.hub.clients import OFFLINE, Client, installed_client, older_client

MODEL = ModelId("acme/tiny-embedder")
COMMIT = Revision("1110a243fdf4706b3f48f1d95db1a4f5529b4d41")
FILES = {"1_Pooling/config.json": b"{}", "config.json": b'{"a": 1}', "model.safetensors": bytes(70_000)}
ABSENT = ("added_tokens.json",)

SCRIPT = """
import json, pathlib, sys
import huggingface_hub as hub
from huggingface_hub.errors import EntryNotFoundError

cache, name, commit = sys.argv[1:4]

def snapshot(**how):
    folder = pathlib.Path(hub.snapshot_download(name, cache_dir=cache, **how))
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

def missing(path):
    found = hub.try_to_load_from_cache(name, path, cache_dir=cache)
    return found is hub.file_download._CACHED_NO_EXIST

print(json.dumps({
    "file": pathlib.Path(hub.hf_hub_download(name, "1_Pooling/config.json", cache_dir=cache)).read_text(),
    "default": snapshot(),
    "commit": snapshot(revision=commit),
    "patterns": snapshot(allow_patterns=["*.json"]),
    "absent": missing("added_tokens.json"),
}))
"""


@pytest.fixture(
    params=["installed", *(pytest.param(version, marks=pytest.mark.hub_versions) for version in OFFLINE)],
    scope="module",
)
def client(request: pytest.FixtureRequest) -> Client:
    return installed_client() if request.param == "installed" else older_client(request.param)


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What a mirror wrote, what a worker made of it, and what a worker made of a bucket filled by hand."""
    root = tmp_path_factory.mktemp("caches")
    entries = tuple(FileEntry(path, digest_of(data), len(data)) for path, data in sorted(FILES.items()))
    mirrored = LocalStore(root / "mirrored")
    upload_snapshot(
        mirrored, lambda entry: io.BytesIO(FILES[entry.path]), Manifest(MODEL, COMMIT, entries), absent=ABSENT
    )
    weights.ensure(ModelSpec(id=MODEL), cache=root / "worker", cluster=mirrored)
    by_hand = MemoryStore("s3://models/")
    by_hand.files = {f"models--acme--tiny-embedder/snapshots/{COMMIT}/{path}": data for path, data in WHOLE.items()}
    weights.ensure(ModelSpec(id=MODEL), cache=root / "unverified", cluster=by_hand)
    return {name: root / name for name in ("mirrored", "worker", "unverified")}


HEADER = b'{"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
WHOLE = {
    **FILES,
    "model.safetensors": len(HEADER).to_bytes(8, "little") + HEADER + b"ab",
    "tokenizer.json": b"{}",
}


@pytest.mark.parametrize("kind", ["mirrored", "worker", "unverified"])
def test_it_resolves_offline_in_all_four_ways(
    client: Client, caches: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    ran = client.python(SCRIPT, str(caches[kind]), MODEL, COMMIT, environment=environment)
    assert ran.returncode == 0, ran.stderr[-1500:]
    told = json.loads(ran.stdout)

    every = sorted(WHOLE if kind == "unverified" else FILES)
    assert told == {
        "file": "{}",
        "default": every,
        "commit": every,
        "patterns": every,  # patterns choose what is fetched, and nothing is
        "absent": kind == "mirrored",
    }


def test_the_page_of_the_format_names_every_client() -> None:
    page = (Path(__file__).parents[3] / "docs" / "formats" / "bucket-layout.md").read_text(encoding="utf-8")

    assert [version for version in OFFLINE if version not in page] == []
