"""A lock, a store and an archive that hold what it names, a hub that has its models, and the program to run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sie_airgap.archive.cut import plan_archive
from sie_airgap.archive.medium import VolumeSize
from sie_airgap.archive.packing import pack
from sie_airgap.cli import cli
from sie_airgap.cli.outcome import run
from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder
from sie_core.artifacts.lock import Lock
from sie_core.ids import Revision
from sie_testing.carried import FILES, Run, filled_store, make_lock
from sie_testing.errands import make_errands
from sie_testing.hub import Hub as Fake
from sie_testing.hub import serving_hub
from sie_testing.tiny_worker import tiny_worker


@pytest.fixture
def lock() -> Lock:
    return make_lock(FILES)


@pytest.fixture
def store(tmp_path: Path, lock: Lock) -> BlobFolder:
    return filled_store(tmp_path / "store", lock, FILES)


@pytest.fixture
def airgap(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(cli, [str(word) for word in words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return command


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    for model, files in FILES.items():
        for path, data in files.items():
            file = tmp_path / "hub" / model / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    return Fake(tmp_path / "hub", pins=dict.fromkeys(FILES, "ab" * 20), lfs_above_bytes=1000)  # type: ignore[arg-type]


@pytest.fixture
def hub(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with serving_hub(fake) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield fake


@pytest.fixture
def archive(tmp_path: Path, lock: Lock, store: BlobFolder) -> Path:
    cut = plan_archive(lock, store, name="sie-test", size=VolumeSize(1 << 20))
    pack(cut, store, tmp_path / "archive", progress=Silent())
    return tmp_path / "archive"


@pytest.fixture(autouse=True)
def _state_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No command of a test remembers anything in the home of whoever runs it, or of another test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


@pytest.fixture(scope="session")
def worker() -> Iterator[str]:
    with tiny_worker() as url:
        yield url


@pytest.fixture(scope="session")
def hub_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A hub with the models of `FILES`, for all tests together."""
    folder = tmp_path_factory.mktemp("hub")
    for model, files in FILES.items():
        for path, data in files.items():
            (folder / model / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / model / path).write_bytes(data)
    with serving_hub(Fake(folder, pins=dict.fromkeys(FILES, Revision("ab" * 20)))) as url:
        yield url


@pytest.fixture(scope="session")
def errands(tmp_path_factory: pytest.TempPathFactory, hub_url: str, worker: str) -> Path:
    """A folder in which every verb has what it works on, made once: a test works in a copy."""
    here = tmp_path_factory.mktemp("errands")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("HF_ENDPOINT", hub_url)
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state of the errands")))
        make_errands(here, tmp_path_factory.mktemp("images"), worker=worker)
    return here
