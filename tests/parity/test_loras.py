"""LoRAs as peft saves them, beside the same model with the products added to its weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.parity.conftest import Load

from sie_core.catalog.spec import DenseHead, Lora, ModelSpec, Variant
from sie_core.ids import ModelId
from sie_server.models.calls import Encode, LoadError
from sie_server.models.model import LoadedModel
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-5
TEXTS = ("hello world", "a", "the quick brown fox", "x" * 60, "")
QUERY_AND_VALUE = ("attention.self.query", "attention.self.value")
EVERY_LAYER = (*QUERY_AND_VALUE, "attention.self.key", "attention.output.dense", "intermediate.dense", "output.dense")
VARIANTS = {name: Variant(lora=Lora(ModelId(f"acme/{name}"))) for name in ("banking", "medical")}
SPEC = ModelSpec(id=ModelId("acme/base"), dense=DenseHead(), variants=VARIANTS)


def factors(modules: tuple[str, ...], *, rank: int, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(rank, in) and (out, rank) by the path of the layer."""
    random = np.random.default_rng(seed)
    shapes = dict(tiny_bert.weights(0))
    found = {}
    for layer in range(tiny_bert.LAYERS):
        for module in modules:
            path = f"encoder.layer.{layer}.{module}"
            outputs, inputs = shapes[path + ".weight"].shape
            pair = random.normal(0, 0.3, (rank, inputs)), random.normal(0, 0.3, (outputs, rank))
            found[path] = tuple(array.astype(np.float32) for array in pair)
    return found  # type: ignore[return-value]


def write_lora(folder: Path, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], **config: Any) -> Path:
    rank = len(next(iter(pairs.values()))[0])
    folder.mkdir()
    tensors = {}
    for path, (down, up) in pairs.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = torch.from_numpy(down)
        tensors[f"base_model.model.{path}.lora_B.weight"] = torch.from_numpy(up)
    safetensors.save_file(tensors, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "bias": "none", "target_modules": ["query", "value"]}
    (folder / "adapter_config.json").write_text(json.dumps(said | config))
    return folder


def merged(folder: Path, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], scale: float) -> Path:
    """The base with the products in its weights: what a LoRA stands for."""
    tiny_bert.write(folder)
    arrays = dict(tiny_bert.weights(0))
    for path, (down, up) in pairs.items():
        arrays[path + ".weight"] = arrays[path + ".weight"] + np.float32(scale) * (up @ down)
    tiny_bert.write_safetensors(folder / "model.safetensors", arrays)
    return folder


def vectors_of(model: LoadedModel, variant: str | None = None, texts: tuple[str, ...] = TEXTS) -> np.ndarray:
    return np.stack(
        [np.asarray(output.dense) for output in model.run(model.prepare(Encode(texts, variant=variant)), stream=0)]
    )


def theirs(folder: Path) -> np.ndarray:
    reference = pytest.importorskip("sentence_transformers").SentenceTransformer(str(folder), device="cpu")
    return np.asarray(reference.encode(list(TEXTS)))


def difference(ours: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(ours - other).max())


@pytest.fixture
def base(load_model: Load, tmp_path: Path) -> LoadedModel:
    return load_model(SPEC, tiny_bert.write(tmp_path / "base"))


@pytest.mark.parametrize("modules", [QUERY_AND_VALUE, EVERY_LAYER])
def test_a_lora_is_its_product_added_to_the_weights(
    base: LoadedModel, tmp_path: Path, modules: tuple[str, ...]
) -> None:
    pairs = factors(modules, rank=4, seed=1)
    before = vectors_of(base)
    base.add_lora("banking", write_lora(tmp_path / "lora", pairs))

    assert difference(vectors_of(base, "banking"), theirs(merged(tmp_path / "merged", pairs, 16 / 4))) <= WITHIN
    assert difference(vectors_of(base), before) <= 1e-6
    assert difference(vectors_of(base, "banking"), before) > 100 * WITHIN


def test_the_rank_stabilised_scale_is_over_the_root_of_the_rank(base: LoadedModel, tmp_path: Path) -> None:
    pairs = factors(QUERY_AND_VALUE, rank=4, seed=1)
    base.add_lora("banking", write_lora(tmp_path / "lora", pairs, use_rslora=True))

    assert difference(vectors_of(base, "banking"), theirs(merged(tmp_path / "merged", pairs, 16 / 2))) <= WITHIN
    assert difference(vectors_of(base, "banking"), theirs(merged(tmp_path / "wrong", pairs, 16 / 4))) > 100 * WITHIN


def test_two_loras_and_none_share_a_batch(base: LoadedModel, tmp_path: Path) -> None:
    """Of different ranks and different layers: the second one gives the network new places."""
    ranks = {"banking": (QUERY_AND_VALUE, 4), "medical": (EVERY_LAYER, 2)}
    for seed, (name, (modules, rank)) in enumerate(ranks.items()):
        base.add_lora(name, write_lora(tmp_path / name, factors(modules, rank=rank, seed=seed)))
    alone = {variant: vectors_of(base, variant) for variant in ("banking", None, "medical")}
    items = [(index, variant) for index in range(len(TEXTS)) for variant in alone]
    batch = [base.prepare(Encode((TEXTS[index],), variant=variant))[0] for index, variant in items]
    together = base.run(batch, stream=0)

    for (index, variant), output in zip(items, together, strict=True):
        assert output.dense is not None
        assert difference(output.dense, alone[variant][index]) <= 1e-6
    for seed, (name, (modules, rank)) in enumerate(ranks.items()):
        whole = merged(tmp_path / f"merged {name}", factors(modules, rank=rank, seed=seed), 16 / rank)
        assert difference(alone[name], theirs(whole)) <= WITHIN


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "IA3"}, "`peft_type` in `.*` is `IA3`: supported is `LORA`"),
        ({"use_dora": True}, "`use_dora` in `.*` is `True`"),
        ({"bias": "all"}, "`bias` in `.*` is `all`"),
        ({"modules_to_save": ["classifier"]}, "`modules_to_save`"),
    ],
)
def test_what_a_lora_here_has_no_place_for_is_refused(
    base: LoadedModel, tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    folder = write_lora(tmp_path / "lora", factors(QUERY_AND_VALUE, rank=4, seed=1), **config)

    with pytest.raises(LoadError, match=said):
        base.add_lora("banking", folder)


def test_a_lora_of_another_base_is_refused_with_both_shapes(base: LoadedModel, tmp_path: Path) -> None:
    pairs = {"encoder.layer.0.attention.self.query": (np.zeros((4, 48), np.float32), np.zeros((48, 4), np.float32))}

    with pytest.raises(LoadError, match=r"is \[48, 4\] times \[4, 48\], `encoder.layer.0.*` of its base is \[32, 32\]"):
        base.add_lora("banking", write_lora(tmp_path / "lora", pairs))


def test_a_layer_that_the_base_has_not_is_named(base: LoadedModel, tmp_path: Path) -> None:
    pairs = {"encoder.layer.7.attention.self.query": (np.zeros((4, 32), np.float32), np.zeros((32, 4), np.float32))}

    with pytest.raises(
        LoadError, match=r"changes `encoder.layer.7.*query`, and the base model has no layer of that name"
    ):
        base.add_lora("banking", write_lora(tmp_path / "lora", pairs))
