"""The genuine all-MiniLM-L6-v2, ours and theirs."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.ids import ModelId
from sie_server.models import build
from sie_server.models.model import LoadedModel
from sie_testing.parts import minilm_folder

SPEC = ModelSpec(id=ModelId("sentence-transformers/all-MiniLM-L6-v2"), dense=DenseHead(dim=384))

# The references ask their hub whether a folder on disk is a repository there.
os.environ["HF_HUB_OFFLINE"] = "1"


Load = Callable[[ModelSpec, Path], LoadedModel]


@pytest.fixture(params=["openvino"])
def load_model(request: pytest.FixtureRequest) -> Load:
    """Loads a spec's folder in float32, on each engine in turn."""
    return lambda spec, folder: build.load(spec, folder, precision="f32", streams=1, threads=2)


@pytest.fixture(scope="session")
def minilm() -> Path:
    return minilm_folder()


@pytest.fixture(scope="session")
def ours(minilm: Path) -> LoadedModel:
    return build.load(SPEC, minilm, precision="f32", streams=2, threads=1)


@pytest.fixture(scope="session")
def theirs(minilm: Path) -> Any:
    references = pytest.importorskip("sentence_transformers")
    return references.SentenceTransformer(str(minilm), device="cpu")
