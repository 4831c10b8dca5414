"""SPLADE beside sentence-transformers' SparseEncoder, on tiny language models with their own or a shared decoder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_core.catalog.spec import ModelSpec, SparseHead
from sie_core.ids import ModelId
from sie_server.models.calls import Encode
from sie_server.models.model import LoadedModel
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
references = pytest.importorskip("sentence_transformers")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-4
TEXTS = ["hello world", "", "a", "Á b? 中 😀 مرحبا", "x" * 60, "ab " * 30]
WORDS = len(tiny_bert.VOCABULARY)
SIZES = {"vocab_size": WORDS, "pad_token_id": 0}
WIDE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 48,
}
NETWORKS = {
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SIZES, **WIDE)),
    "bert, a decoder of its own": lambda: transformers.BertForMaskedLM(
        transformers.BertConfig(**SIZES, **WIDE, tie_word_embeddings=False)
    ),
    "distilbert": lambda: transformers.DistilBertForMaskedLM(
        transformers.DistilBertConfig(**SIZES, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=48)
    ),
    "roberta": lambda: transformers.RobertaForMaskedLM(
        transformers.RobertaConfig(**SIZES, **WIDE | {"max_position_embeddings": 50}, type_vocab_size=1)
    ),
    "mpnet": lambda: transformers.MPNetForMaskedLM(
        transformers.MPNetConfig(**SIZES, **WIDE | {"max_position_embeddings": 50})
    ),
    "modernbert": lambda: transformers.ModernBertForMaskedLM(
        transformers.ModernBertConfig(**SIZES, **WIDE, bos_token_id=2, cls_token_id=2, eos_token_id=3, sep_token_id=3)
    ),
}


def save(folder: Path, network: Any, activation: str = "relu") -> Path:
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            drawn = 0.3 * torch.randn_like(weight)
            weight.copy_(drawn if weight.ndim > 1 else weight + drawn)
    plain = folder / "plain"
    network.save_pretrained(plain)
    (plain / "tokenizer.json").write_text(json.dumps(tiny_bert.TOKENIZER))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    (plain / "tokenizer_config.json").write_text(json.dumps(settings))
    modules = references.sparse_encoder.modules
    transformer = references.sentence_transformer.modules.Transformer(
        str(plain), max_seq_length=40, transformer_task="fill-mask"
    )
    parts = [transformer, modules.SpladePooling(activation_function=activation)]
    references.SparseEncoder(modules=parts, device="cpu").save(str(folder / "saved"))
    return folder / "saved"


def theirs(folder: Path) -> np.ndarray:
    return references.SparseEncoder(str(folder), device="cpu").encode(TEXTS, convert_to_sparse_tensor=False).numpy()


def ours(model: LoadedModel) -> np.ndarray:
    rows = np.zeros((len(TEXTS), WORDS), np.float32)
    for row, output in zip(rows, model.run(model.prepare(Encode(tuple(TEXTS), ("sparse",))), stream=0), strict=True):
        assert output.sparse is not None
        assert np.all(np.diff(output.sparse.indices) > 0)
        assert np.all(output.sparse.values > 0)
        row[output.sparse.indices] = output.sparse.values
    return rows


def spec(**head: Any) -> ModelSpec:
    return ModelSpec(id=ModelId("acme/sparse"), sparse=SparseHead(head="splade", **head))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_language_model_head(load_model: Any, tmp_path: Path, name: str) -> None:
    folder = save(tmp_path, NETWORKS[name]())
    wanted = theirs(folder)

    assert (wanted > 0).sum() > 50
    assert np.abs(ours(load_model(spec(), folder)) - wanted).max() <= WITHIN


def test_the_logarithm_twice_and_that_once_is_noticed(load_model: Any, tmp_path: Path) -> None:
    folder = save(tmp_path, NETWORKS["bert"](), "log1p_relu")
    wanted = theirs(folder)

    assert np.abs(ours(load_model(spec(), folder)) - wanted).max() <= WITHIN
    assert np.abs(ours(load_model(spec(activation="log1p"), folder)) - wanted).max() > 100 * WITHIN
