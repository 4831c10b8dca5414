"""A lock, and a store that holds what it names."""

from pathlib import Path

import pytest

from sie_airgap.blobs import BlobFolder
from sie_core.artifacts.lock import Lock
from sie_testing.carried import FILES, filled_store, make_lock


@pytest.fixture
def lock() -> Lock:
    return make_lock(FILES)


@pytest.fixture
def store(tmp_path: Path, lock: Lock) -> BlobFolder:
    return filled_store(tmp_path / "store", lock, FILES)
