"""Small seeded BERTs of several shapes, saved by the references themselves and read back by both."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.ids import ModelId
from sie_server.models.calls import Encode
from sie_server.models.model import LoadedModel
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
references = pytest.importorskip("sentence_transformers")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

Load = Callable[[ModelSpec, Path], LoadedModel]

WITHIN = 1e-5
TEXTS = ["hello world", "", "a", "the quick brown fox", "x" * 60, "Á b? 中 😀", *("ab " * n for n in range(12))]
SHAPES: dict[str, dict[str, Any]] = {
    "as is": {},
    "one head": {"num_attention_heads": 1},
    "many heads": {"num_attention_heads": 16, "hidden_size": 64},
    "wide": {"hidden_size": 48, "intermediate_size": 200},
    "deep": {"num_hidden_layers": 5},
    "large epsilon": {"layer_norm_eps": 1e-2},
    "one type": {"type_vocab_size": 1},
}


def save(
    folder: Path,
    *,
    seed: int = 0,
    pooling: str = "mean",
    normalize: bool = True,
    dtype: Any = torch.float32,
    **shape: Any,
) -> Path:
    """A random BERT as sentence-transformers saves it; weights large enough for every part to matter."""
    torch.manual_seed(seed)
    config = transformers.BertConfig(**(tiny_bert.CONFIG | shape), initializer_range=0.3)
    network = transformers.BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:
                weight += 0.3 * torch.randn_like(weight)
    plain = tiny_bert.write(folder / "plain", **shape)
    network.to(dtype).save_pretrained(plain)
    kinds = references.sentence_transformer.modules
    transformer = kinds.Transformer(str(plain), max_seq_length=tiny_bert.MAX_TOKENS)
    modules = [transformer, kinds.Pooling(config.hidden_size, pooling), *([kinds.Normalize()] if normalize else [])]
    references.SentenceTransformer(modules=modules, device="cpu").save(str(folder / "saved"))
    return folder / "saved"


def ours(load_model: Load, folder: Path) -> np.ndarray:
    model = load_model(ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead()), folder)
    return np.array([output.dense for output in model.run(model.prepare(Encode(tuple(TEXTS))), stream=0)])


def theirs(folder: Path) -> np.ndarray:
    model = references.SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    return np.asarray(model.encode(TEXTS))


def difference(load_model: Load, folder: Path) -> float:
    return float(np.abs(ours(load_model, folder) - theirs(folder)).max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pooling", ["cls", "mean", "lasttoken"])
def test_every_shape_and_pooling(load_model: Load, tmp_path: Path, shape: str, pooling: str) -> None:
    assert difference(load_model, save(tmp_path, seed=len(shape), pooling=pooling, **SHAPES[shape])) <= WITHIN


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_checkpoints_of_half_width_are_computed_in_f32(load_model: Load, tmp_path: Path, dtype: Any) -> None:
    assert difference(load_model, save(tmp_path, dtype=dtype)) <= WITHIN


def test_without_the_last_module(load_model: Load, tmp_path: Path) -> None:
    assert difference(load_model, save(tmp_path, normalize=False)) <= WITHIN


def rewritten(folder: Path, name: str, **keys: Any) -> Path:
    """Changes what we read, after they have read it."""
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | keys))
    return folder


@pytest.mark.parametrize("pooling", ["cls", "mean", "lasttoken"])
def test_a_wrong_pooling_is_noticed(load_model: Load, tmp_path: Path, pooling: str) -> None:
    folder = save(tmp_path, pooling=pooling)
    wanted = theirs(folder)
    wrong = rewritten(folder, "1_Pooling/config.json", pooling_mode="mean" if pooling == "cls" else "cls")

    assert np.abs(ours(load_model, wrong) - wanted).max() > 100 * WITHIN


def test_a_wrong_epsilon_is_noticed(load_model: Load, tmp_path: Path) -> None:
    folder = save(tmp_path)
    wanted = theirs(folder)

    assert np.abs(ours(load_model, rewritten(folder, "config.json", layer_norm_eps=1e-3)) - wanted).max() > 10 * WITHIN


def test_positions_off_by_one_are_noticed(load_model: Load, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = save(tmp_path)
    wanted = theirs(folder)
    weights = safetensors.load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("position_embeddings.weight"))
    weights[name] = np.roll(weights[name], -1, axis=0)
    safetensors.save_file(weights, folder / "model.safetensors")

    assert np.abs(ours(load_model, folder) - wanted).max() > 100 * WITHIN


def test_unscaled_vectors_are_noticed(load_model: Load, tmp_path: Path) -> None:
    folder = save(tmp_path)
    wanted = theirs(folder)
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:-1]))

    assert np.abs(ours(load_model, folder) - wanted).max() > 100 * WITHIN
