"""Small seeded XLM-RoBERTas under the names of Jina's code: with rotary positions beside transformers, which saves
them so, and with learned ones beside the same network under its usual names."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sie_core.catalog.spec import DenseHead, ModelSpec, MultivectorHead, ScoreHead
from sie_core.ids import ModelId
from sie_server.models.calls import Encode, LoadError, Score
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
references = pytest.importorskip("sentence_transformers")
safetensors = pytest.importorskip("safetensors.numpy")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-5
TEXTS = ("hello world", "", "a", "x" * 60, "Á b? 中 😀 שלום", *("ab " * n for n in range(1, 14, 3)))
SHAPE: dict[str, Any] = {
    "vocab_size": len(tiny_bert.VOCABULARY),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
}
PUBLISHED: dict[str, Any] = {
    "model_type": "xlm-roberta",
    "position_embedding_type": "rotary",
    "rotary_emb_base": 20000.0,
}

Arrays = dict[str, NDArray[np.float32]]
Load = Callable[..., Any]


def changed(folder: Path, **keys: Any) -> Path:
    """Says what is published, and not what transformers writes."""
    config = json.loads((folder / "config.json").read_text()) | keys
    del config["rope_parameters"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def dense(load_model: Load, folder: Path) -> NDArray[np.float32]:
    model = load_model(ModelSpec(id=ModelId("acme/flash"), dense=DenseHead()), folder)
    return np.array([output.dense for output in model.run(model.prepare(Encode(TEXTS)), stream=0)])


@pytest.fixture
def rotary(save_network: Any) -> Path:
    network = transformers.JinaEmbeddingsV3Model(transformers.JinaEmbeddingsV3Config(**SHAPE))
    saved: Path = save_network(network, max_tokens=60)
    return saved


def theirs(folder: Path) -> NDArray[np.float32]:
    return np.asarray(references.SentenceTransformer(str(folder), device="cpu").encode(list(TEXTS)))


def test_with_rotary_positions_it_is_transformers(load_model: Load, rotary: Path) -> None:
    wanted = theirs(rotary)

    assert np.abs(dense(load_model, changed(rotary, **PUBLISHED)) - wanted).max() <= WITHIN


@pytest.mark.parametrize("wrong", [{"rotary_emb_base": 300.0}, {"layer_norm_eps": 0.1}, {"hidden_act": "relu"}])
def test_a_wrong_theta_epsilon_or_activation_is_noticed(load_model: Load, rotary: Path, wrong: dict[str, Any]) -> None:
    wanted = theirs(rotary)

    assert np.abs(dense(load_model, changed(rotary, **PUBLISHED | wrong)) - wanted).max() > 100 * WITHIN


def test_a_colberts_projection_stands_beside_it(load_model: Load, rotary: Path) -> None:
    arrays = safetensors.load_file(rotary / "model.safetensors")
    arrays = {"roberta." + name: array for name, array in arrays.items()}
    over = np.random.default_rng(1).normal(0, 0.3, (16, 32)).astype(np.float32)
    network = transformers.AutoModel.from_pretrained(rotary)
    safetensors.save_file(arrays | {"linear.weight": over}, rotary / "model.safetensors")
    for file in ("modules.json", "1_Pooling/config.json"):
        (rotary / file).unlink()
    changed(rotary, **PUBLISHED, architectures=["HF_ColBERT"])
    head = MultivectorHead(dim=16, query_marker="[CLS]", document_marker="[SEP]", skip_punctuation=False)
    model = load_model(ModelSpec(id=ModelId("acme/flash"), max_tokens=60, multivector=head), rotary)

    prepared = model.prepare(Encode(TEXTS, ("multivector",)))
    for item, output in zip(prepared, model.run(prepared, stream=0), strict=True):
        with torch.no_grad():
            hidden = network(torch.tensor(item.ids[None]).long()).last_hidden_state[0].numpy()
        vectors = hidden @ over.T
        assert np.abs(output.multivector - vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).max() <= WITHIN


def flash(arrays: Arrays) -> Arrays:
    """XLM-RoBERTa's tensors as Jina's code calls them."""
    renamed: Arrays = {}
    for name, array in arrays.items():
        at = name.replace("encoder.layer.", "encoder.layers.").replace("embeddings.LayerNorm", "emb_ln")
        at = at.replace("attention.output.dense", "mixer.out_proj").replace("attention.output.LayerNorm", "norm1")
        at = at.replace("intermediate.dense", "mlp.fc1").replace("output.dense", "mlp.fc2")
        at = at.replace("output.LayerNorm", "norm2")
        if (part := re.search(r"attention\.self\.(query|key|value)\.", at)) is None:
            renamed[at] = array
        elif part[1] == "query":
            three = [arrays[name.replace("query", one)] for one in ("query", "key", "value")]
            renamed[at.replace(part[0], "mixer.Wqkv.")] = np.concatenate(three)
    return renamed


def test_with_learned_positions_it_is_xlm_roberta(load_model: Load, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = SHAPE | {"type_vocab_size": 1, "num_labels": 1}
    network = transformers.XLMRobertaForSequenceClassification(transformers.XLMRobertaConfig(**shape))
    with torch.no_grad():
        for weight in network.parameters():
            drawn = 0.3 * torch.randn_like(weight)
            weight.copy_(drawn if weight.ndim > 1 else weight + drawn)
    network.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tiny_bert.TOKENIZER))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    spec = ModelSpec(id=ModelId("acme/flash"), max_tokens=60, score=ScoreHead(head="classify"))

    def scores() -> list[float]:
        model, call = load_model(spec, tmp_path), Score("ab c", TEXTS)
        prepared = model.prepare(call)
        found: list[float] = model.finish(call, prepared, model.run(prepared, stream=0))
        return found

    usual = scores()
    arrays = safetensors.load_file(tmp_path / "model.safetensors")
    renamed = flash(arrays)
    assert "roberta.encoder.layers.2.mixer.Wqkv.weight" in renamed
    assert not any("attention" in name for name in renamed)
    safetensors.save_file(renamed, tmp_path / "model.safetensors")

    assert np.abs(np.array(scores()) - np.array(usual)).max() <= WITHIN
    safetensors.save_file(
        {name: array for name, array in renamed.items() if "norm2" not in name}, tmp_path / "model.safetensors"
    )
    with pytest.raises(LoadError, match=r"`roberta.encoder.layers.0.norm2.weight` is not in"):
        scores()
