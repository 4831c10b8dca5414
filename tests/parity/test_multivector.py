"""ColBERT beside sentence-transformers' MultiVectorEncoder, on a tiny checkpoint as ColBERT itself saves one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_core.catalog.spec import ModelSpec, MultivectorHead
from sie_core.ids import ModelId
from sie_server.models.calls import Encode
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
references = pytest.importorskip("sentence_transformers")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-5
TEXTS = ["hello world", "", "a b! c?", "x" * 60]


def save(folder: Path, **metadata: Any) -> Path:
    """`!` stands for the query's marker's neighbour: markers are letters of the tiny vocabulary here."""
    torch.manual_seed(0)
    config = transformers.BertConfig(**tiny_bert.CONFIG)
    network = transformers.BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        for weight in network.parameters():
            drawn = 0.3 * torch.randn_like(weight)
            weight.copy_(drawn if weight.ndim > 1 else weight + drawn)
    state = {f"bert.{name}": tensor.clone() for name, tensor in network.state_dict().items()}
    state["linear.weight"] = torch.randn(8, config.hidden_size)
    folder.mkdir(exist_ok=True)
    pytest.importorskip("safetensors.torch").save_file(state, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_dict() | {"architectures": ["HF_ColBERT"]}))
    (folder / "tokenizer.json").write_text(json.dumps(tiny_bert.TOKENIZER))
    names = {f"{role}_token": f"[{role.upper()}]" for role in ("pad", "mask", "cls", "sep", "unk")}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 40, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    said = {"query_token_id": "9", "doc_token_id": "8", "query_maxlen": 16, "doc_maxlen": 30, "dim": 8}
    (folder / "artifact.metadata").write_text(json.dumps(said | metadata))
    return folder


def theirs(folder: Path, is_query: bool) -> list[np.ndarray]:
    model = references.MultiVectorEncoder(str(folder), device="cpu")
    found = (model.encode_query if is_query else model.encode_document)(TEXTS)
    return [np.asarray(one) for one in found]


def ours(load: Any, folder: Path, *, is_query: bool, **head: Any) -> list[np.ndarray]:
    model = load(ModelSpec(id=ModelId("acme/colbert"), multivector=MultivectorHead(dim=8, **head)), folder)
    prepared = model.prepare(Encode(tuple(TEXTS), ("multivector",), is_query=is_query))
    return [output.multivector for output in model.run(prepared, stream=0)]


def difference(mine: list[np.ndarray], other: list[np.ndarray]) -> float:
    if [one.shape for one in mine] != [one.shape for one in other]:
        return float("inf")
    return max(float(np.abs(a - b).max(initial=0)) for a, b in zip(mine, other, strict=True))


@pytest.mark.parametrize("attend", [False, True])
def test_queries_and_documents(load_model: Any, tmp_path: Path, attend: bool) -> None:
    folder = save(tmp_path, attend_to_mask_tokens=attend)

    for is_query in (True, False):
        assert difference(ours(load_model, folder, is_query=is_query), theirs(folder, is_query)) <= WITHIN


@pytest.mark.parametrize(
    ("is_query", "wrong"),
    [
        (True, {"attend_expansion": True}),
        (True, {"expand": False}),
        (True, {"query_marker": "7"}),
        (False, {"skip_punctuation": False}),
        (False, {"skip_first": True}),
        (False, {"normalize": False}),
    ],
)
def test_a_wrong_rule_is_noticed(load_model: Any, tmp_path: Path, is_query: bool, wrong: dict[str, Any]) -> None:
    folder = save(tmp_path)

    assert difference(ours(load_model, folder, is_query=is_query, **wrong), theirs(folder, is_query)) > 100 * WITHIN
