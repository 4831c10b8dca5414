"""`snapshot --from`: what is on this disk already is copied, whoever wrote it there; the hub gives the rest."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.store.candidates import Found, Likeness, candidates
from sie_airgap.store.disk_source import DiskSource, copy_all
from sie_airgap.store.snapshot import missing, snapshot
from sie_airgap.verifying.store import verify_store
from sie_core.artifacts.digest import digest_of, hex_of
from sie_core.artifacts.errors import NoSpace
from sie_core.artifacts.hf_layout import git_blob_id
from sie_core.artifacts.lock import Lock, LockedFile
from sie_core.artifacts.stores.hub import Hub
from sie_testing.carried import CHART, FILES, WHEEL, make_lock
from sie_testing.hub import Hub as Fake
from sie_testing.hub import serving_hub
from sie_testing.hub.clients import OLDER, Client, installed_client, older_client

COMMIT = "ab" * 20
WEIGHTS = FILES["org/large"]["model.safetensors"]
SHA256 = hex_of(digest_of(WEIGHTS))


@pytest.fixture(
    params=["installed", *(pytest.param(version, marks=pytest.mark.hub_versions) for version in OLDER)], scope="module"
)
def client(request: pytest.FixtureRequest) -> Client:
    return installed_client() if request.param == "installed" else older_client(request.param)


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    for model, files in FILES.items():
        write_folder(tmp_path / "repositories" / model, files)
    pins = dict.fromkeys(FILES, COMMIT)
    return Fake(tmp_path / "repositories", pins=pins, lfs_above_bytes=1000, xet=True)  # type: ignore[arg-type]


@pytest.fixture
def hub(fake: Fake) -> Iterator[Hub]:
    with serving_hub(fake) as endpoint:
        yield Hub(endpoint)


@pytest.fixture
def fresh(tmp_path: Path) -> BlobFolder:
    """A store as `lock` leaves it: wheels and charts are there."""
    store = BlobFolder(tmp_path / "fresh")
    store.add(WHEEL)
    store.add(CHART)
    return store


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    for path, data in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def downloaded(client: Client, hub: Hub, *words: str | Path) -> None:
    """`hf download` of both models with these options."""
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": "/nonexistent/home"}
    for model in FILES:
        ran = client.command("download", model, *(str(word) for word in words), environment=environment)
        assert ran.returncode == 0, ran.stderr


def state(folder: Path) -> dict[str, tuple[int, int, int, str]]:
    """Everything there that a reader must not change."""
    found = {}
    for path in folder.rglob("*"):
        about = path.lstat()
        target = str(path.readlink()) if path.is_symlink() else ""
        found[str(path)] = (about.st_ino, about.st_size, about.st_mtime_ns, target)
    return found


def taken(lock: Lock, store: BlobFolder, folder: Path, hub: Hub | None = None) -> list[str]:
    """`snapshot --from folder`; what was said. Without a hub nothing answers for it."""
    said: list[str] = []

    class Heard(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    source = DiskSource(folder, say=said.append)
    hub = hub or Hub("http://127.0.0.1:9")
    snapshot(
        lock,
        store,
        hub=hub,
        open_blob=None,  # type: ignore[arg-type]
        progress=Heard(),
        source=source,
        wait=lambda seconds: None,
    )
    assert verify_store(lock, store, progress=Silent()) == []
    assert not list((store.root / "blobs" / "sha256").glob("*.*"))
    return said


def test_cache_that_a_real_client_wrote_needs_no_hub_and_stays_as_it_is(
    client: Client, hub: Hub, lock: Lock, fresh: BlobFolder, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    downloaded(client, hub, "--cache-dir", cache)
    before = state(cache)

    assert taken(lock, fresh, cache) == [f"5 files copied from {cache}, 3.1 MB; 0 were not there"]
    assert state(cache) == before


def test_folder_that_a_real_client_wrote_is_one_too(
    client: Client, hub: Hub, lock: Lock, fresh: BlobFolder, tmp_path: Path
) -> None:
    """`--local-dir` leaves no trace of repository or commit in the names; both models lie in one folder."""
    folder = tmp_path / "models"
    for model in FILES:
        ran = client.command(
            *("download", model, "--local-dir", str(folder / model)),
            environment={"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")},
        )
        assert ran.returncode == 0, ran.stderr

    assert "0 were not there" in taken(lock, fresh, folder)[0]


SHARE = """
import sys
from pathlib import Path
from huggingface_hub.utils._shared_blobs import publish_blob_to_shared_store
cache, sha256, xet = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
blob = cache / "models--org--large" / "blobs" / sha256
assert publish_blob_to_shared_store(
    blob_path=str(blob), xet_hash=xet, cache_dir=str(cache), expected_size=blob.stat().st_size, replace_existing=False
)
"""


@pytest.fixture
def shared(hub: Hub, tmp_path: Path) -> Path:
    """A cache of 2.x where the weights lie in the cache's own `blobs/`, under a hash that is no sha256 of them."""
    cache, client, xet = tmp_path / "cache", installed_client(), "c0ffee" + "5" * 58
    downloaded(client, hub, "--cache-dir", cache)
    ran = client.python(SHARE, str(cache), SHA256, xet, environment={"HF_HOME": str(tmp_path / "home")})
    assert ran.returncode == 0, ran.stderr
    assert (cache / "blobs" / "c0" / xet).read_bytes() == WEIGHTS
    assert (cache / "models--org--large" / "blobs" / SHA256).is_symlink()
    return cache


@pytest.mark.parametrize("below", ["", "models--org--large", f"models--org--large/snapshots/{COMMIT}"])
def test_blobs_that_a_cache_shares_are_found_from_wherever_one_looks(
    shared: Path, lock: Lock, fresh: BlobFolder, hub: Hub, below: str
) -> None:
    said = taken(lock, fresh, shared / below, hub)

    assert f"copied from {shared / below}" in said[0]
    assert fresh.path(digest_of(WEIGHTS)).read_bytes() == WEIGHTS
    assert not any("leads out" in text for text in said)


def test_home_of_the_hub_s_libraries_is_recognised(shared: Path, lock: Lock, fresh: BlobFolder, tmp_path: Path) -> None:
    home = tmp_path / "another home"
    home.mkdir()
    shared.rename(home / "hub")

    assert "0 were not there" in taken(lock, fresh, home)[0]


def test_what_is_not_there_yet_comes_from_the_hub(
    shared: Path, lock: Lock, fresh: BlobFolder, fake: Fake, hub: Hub
) -> None:
    """Half a file under the name that a client gives it, beside its lock."""
    blobs = shared / "models--org--small" / "blobs"
    vocabulary = hex_of(digest_of(FILES["org/small"]["sub/vocab.txt"]))
    (blobs / vocabulary).rename(blobs / f"{vocabulary}.incomplete")
    fake.seen.clear()

    assert "4 files copied" in taken(lock, fresh, shared, hub)[0]
    assert {seen.path.rpartition("/")[2] for seen in fake.seen} == {"vocab.txt", vocabulary}


def test_altered_blob_is_named_and_fetched(shared: Path, lock: Lock, fresh: BlobFolder, hub: Hub) -> None:
    blob = shared / "models--org--large" / "blobs" / SHA256
    altered = bytearray(WEIGHTS)
    altered[7] ^= 1
    target = blob.resolve()
    target.chmod(0o644)
    target.write_bytes(bytes(altered))
    before = state(shared)

    said = taken(lock, fresh, shared, hub)
    assert f"blobs/{SHA256} is not what its name says: it holds {digest_of(bytes(altered))}" in said[0]
    assert state(shared) == before


def test_links_that_lead_out_are_refused_by_name(lock: Lock, fresh: BlobFolder, hub: Hub, tmp_path: Path) -> None:
    """Even to the right bytes: somebody else's folder is not what was named."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    write_folder(elsewhere, FILES["org/large"])
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(elsewhere / "model.safetensors")
    (folder / "all").symlink_to(elsewhere)
    (folder / "nowhere").symlink_to("nothing")
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "fifo")

    said = taken(lock, fresh, folder, hub)
    assert said == [
        f"not read: {folder}/all is a link to a folder",
        f"not read: {folder}/model.safetensors leads out of {folder}, to {elsewhere}/model.safetensors",
        f"0 files copied from {folder}, 0 B; 5 were not there",
    ]


def test_names_that_say_nothing_are_no_hindrance(lock: Lock, fresh: BlobFolder, tmp_path: Path) -> None:
    folder = tmp_path / "recovered"
    everything = [data for files in FILES.values() for data in files.values()]
    write_folder(folder, {f"file{number:04}.dat": data for number, data in enumerate(everything)})
    write_folder(folder, {"another of its length.dat": bytes(len(WEIGHTS))})

    assert "5 files copied" in taken(lock, fresh, folder)[0]


def test_rest_of_an_interrupted_fetch_may_lie_on_the_disk(
    lock: Lock, fresh: BlobFolder, fake: Fake, hub: Hub, tmp_path: Path
) -> None:
    """Half of it came from the hub in an earlier run, and half of that was spoilt since."""
    write_folder(tmp_path / "folder", FILES["org/large"])
    target = fresh.path(digest_of(WEIGHTS))
    target.with_name(target.name + ".incoming").write_bytes(bytes(1_000_000))

    taken(lock, fresh, tmp_path / "folder", hub)
    assert not any("large" in seen.path for seen in fake.seen)


def test_copy_that_fails_stops_the_others_and_is_taken_up_again(lock: Lock, fresh: BlobFolder, tmp_path: Path) -> None:
    for model, files in FILES.items():
        write_folder(tmp_path / "folder" / model, files)
    moved: list[int] = []

    def advance(size_bytes: int) -> None:
        moved.append(size_bytes)
        if sum(moved) > 1_000_000:
            raise NoSpace("the disk is full")

    source = DiskSource(tmp_path / "folder", say=print)
    with pytest.raises(NoSpace):
        copy_all(source, missing(lock, fresh).files, fresh.path, advance=advance)
    assert sum(moved) < 3_000_000
    assert "0 were not there" in taken(lock, fresh, tmp_path / "folder")[0]


def test_likeliest_file_is_tried_first() -> None:
    model = make_lock(FILES).models[0]
    file = next(file for file in model.files if file.path == "model.safetensors")
    size = file.size_bytes
    paths = [
        "x.bin",
        "other/model.safetensors",
        "org/large/model.safetensors",
        f"models--org--large/snapshots/{COMMIT}/model.safetensors",
        f"models--org--large/blobs/{SHA256}",
    ]
    found = [Found(path, f"/{path}", size) for path in paths]

    ranked = candidates([*found, Found("model.safetensors", "/short", size - 1)], model, file)
    assert [one.path for _, one in ranked] == [paths[4], paths[3], paths[2], paths[1], paths[0]]
    assert [likeness for likeness, _ in ranked] == [
        Likeness.NAMED_BY_CONTENT,
        Likeness.SAME_FILE,
        Likeness.SAME_FILE,
        Likeness.SAME_PATH,
        Likeness.SAME_LENGTH,
    ]


def test_small_file_is_known_by_git_s_name_for_it() -> None:
    model = make_lock(FILES).models[0]
    file = LockedFile("config.json", digest_of(b"{}"), 2, git_blob_id(b"{}"))
    found = Found("blobs/9e26dfeeb6e641a33dae4961196235bdb965b21b", "/x", 2)

    assert candidates([found], model, file) == [(Likeness.NAMED_BY_CONTENT, found)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_that_may_not_be_read_is_said_and_fetched(lock: Lock, fresh: BlobFolder, hub: Hub, tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", FILES["org/large"])
    (tmp_path / "folder" / "model.safetensors").chmod(0)

    assert "may not be read" in taken(lock, fresh, tmp_path / "folder", hub)[0]


def test_cache_on_a_read_only_medium_will_do(shared: Path, lock: Lock, fresh: BlobFolder, tmp_path: Path) -> None:
    copy = tmp_path / "medium"
    shutil.copytree(shared, copy, symlinks=True)
    for folder in [copy, *(path for path in copy.rglob("*") if path.is_dir())]:
        folder.chmod(0o555)
    try:
        assert "0 were not there" in taken(lock, fresh, copy)[0]
    finally:
        for folder in [copy, *(path for path in copy.rglob("*") if path.is_dir())]:
            folder.chmod(0o755)
