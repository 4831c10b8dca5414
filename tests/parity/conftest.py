"""The genuine all-MiniLM-L6-v2, ours and theirs."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.ids import ModelId
from sie_server.models import build
from sie_server.models.model import LoadedModel
from sie_testing import tiny_bert
from sie_testing.parts import minilm_folder

SPEC = ModelSpec(id=ModelId("sentence-transformers/all-MiniLM-L6-v2"), dense=DenseHead(dim=384))

# The references ask their hub whether a folder on disk is a repository there.
os.environ["HF_HUB_OFFLINE"] = "1"


Load = Callable[..., LoadedModel]


@pytest.fixture(params=["openvino", "torch", pytest.param("cuda", marks=pytest.mark.gpu)])
def load_model(request: pytest.FixtureRequest) -> Load:
    """Loads a spec's folder in float32, on each engine in turn; on a CUDA device only by `make gpu`."""
    if request.param == "cuda":
        return lambda spec, folder, **more: build.load(
            spec, folder, precision="f32", streams=1, threads=1, engine="torch", device="cuda", **more
        )
    return lambda spec, folder, **more: build.load(
        spec, folder, precision="f32", streams=1, threads=2, engine=request.param, **more
    )


SaveNetwork = Callable[..., Path]


@pytest.fixture
def save_network(tmp_path: Path) -> SaveNetwork:
    """Saves a network of transformers, its weights drawn anew, as sentence-transformers does: seeded, of kilobytes.

    The weights are large enough for every part to matter, and `scale` is how large. Its tokens are letters.
    """
    references = pytest.importorskip("sentence_transformers").sentence_transformer.modules
    torch = pytest.importorskip("torch")

    def save(
        network: Any,
        *,
        seed: int = 0,
        pooling: str = "mean",
        max_tokens: int = tiny_bert.MAX_TOKENS,
        scale: float = 0.3,
    ) -> Path:
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in network.parameters():
                drawn = scale * torch.randn_like(weight)
                weight.copy_(drawn if weight.ndim > 1 else weight + drawn)
        plain = tmp_path / "plain"
        network.save_pretrained(plain)
        (plain / "tokenizer.json").write_text(json.dumps(tiny_bert.TOKENIZER))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "mask_token": "[MASK]"}
        (plain / "tokenizer_config.json").write_text(json.dumps(settings))
        transformer = references.Transformer(str(plain), max_seq_length=max_tokens)
        modules = [transformer, references.Pooling(network.config.hidden_size, pooling), references.Normalize()]
        whole = pytest.importorskip("sentence_transformers").SentenceTransformer(modules=modules, device="cpu")
        whole.save(str(tmp_path / "saved"))
        return tmp_path / "saved"

    return save


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
