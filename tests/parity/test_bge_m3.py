"""bge-m3's three vectors of one pass, and scores of them, beside FlagEmbedding's rule over transformers' XLM-R.

The rule is that of FlagEmbedding 1.4 `finetune/embedder/encoder_only/m3/modeling.py` and
`inference/embedder/encoder_only/m3.py`, written out.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_core.catalog.spec import DenseHead, ModelSpec, MultivectorHead, ScoreHead, SparseHead
from sie_core.ids import ModelId
from sie_server.models.calls import Encode, Score
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-5
TEXTS = ["hello world", "", "hello hello", "x" * 60, "a b? !"]
WIDTH = 32
SPECIAL = (0, 1, 2, 3)


def spec(**head: Any) -> ModelSpec:
    keys: dict[str, Any] = {"weights": "colbert_linear.pt", "skip_first": True} | head
    return ModelSpec(
        id=ModelId("acme/m3"),
        max_tokens=40,
        dense=DenseHead(pooling="cls", normalize=True),
        sparse=SparseHead(head="lexical", weights="sparse_linear.pt"),
        multivector=MultivectorHead(**keys),
        score=ScoreHead(head="vectors"),
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.XLMRobertaConfig(
        vocab_size=len(tiny_bert.VOCABULARY),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=50,
        type_vocab_size=1,
        pad_token_id=0,
    )
    network = transformers.XLMRobertaModel(config, add_pooling_layer=False)
    with torch.no_grad():
        for weight in network.parameters():
            drawn = 0.3 * torch.randn_like(weight)
            weight.copy_(drawn if weight.ndim > 1 else weight + drawn)
    network.save_pretrained(tmp_path)
    for name, size in (("sparse", 1), ("colbert", WIDTH)):
        torch.save(torch.nn.Linear(WIDTH, size).state_dict(), tmp_path / f"{name}_linear.pt")
    (tmp_path / "tokenizer.json").write_text(json.dumps(tiny_bert.TOKENIZER))
    names = {"cls_token": "[CLS]", "eos_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}))
    return tmp_path


def theirs(folder: Path, ids: list[int]) -> tuple[np.ndarray, dict[int, float], np.ndarray]:
    network = transformers.XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False)
    of_sparse, of_colbert = torch.nn.Linear(WIDTH, 1), torch.nn.Linear(WIDTH, WIDTH)
    of_sparse.load_state_dict(torch.load(folder / "sparse_linear.pt"))
    of_colbert.load_state_dict(torch.load(folder / "colbert_linear.pt"))
    with torch.no_grad():
        hidden = network(input_ids=torch.tensor([ids])).last_hidden_state[0]
        weights = torch.relu(of_sparse(hidden))[:, 0].tolist()
        dense = torch.nn.functional.normalize(hidden[0], dim=-1).numpy()
        colbert = torch.nn.functional.normalize(of_colbert(hidden[1:]), dim=-1).numpy()
    lexical: dict[int, float] = {}
    for one, weight in zip(ids, weights, strict=True):
        if one not in SPECIAL and weight > 0:
            lexical[one] = max(lexical.get(one, 0.0), weight)
    return dense, lexical, colbert


def test_three_vectors_of_one_pass(load_model: Any, saved: Path) -> None:
    model = load_model(spec(), saved)
    prepared = model.prepare(Encode(tuple(TEXTS), ("dense", "sparse", "multivector")))

    found_any = False
    for item, output in zip(prepared, model.run(prepared, stream=0), strict=True):
        dense, lexical, colbert = theirs(saved, item.ids.tolist())
        assert np.abs(output.dense - dense).max() <= WITHIN
        assert output.sparse.indices.tolist() == sorted(lexical)
        assert np.abs(output.sparse.values - [lexical[one] for one in sorted(lexical)]).max(initial=0) <= WITHIN
        assert output.multivector.shape == colbert.shape
        assert np.abs(output.multivector - colbert).max() <= WITHIN
        found_any |= bool(lexical)
    assert found_any


def test_vectors_that_are_not_scaled_are_noticed(load_model: Any, saved: Path) -> None:
    model = load_model(spec(normalize=False), saved)
    prepared = model.prepare(Encode(("hello world",), ("multivector",)))
    [output] = model.run(prepared, stream=0)

    assert np.abs(output.multivector - theirs(saved, prepared[0].ids.tolist())[2]).max() > 100 * WITHIN


@pytest.mark.parametrize("mode", ["dense", "sparse", "colbert", "hybrid"])
def test_scores_of_each_kind(load_model: Any, saved: Path, mode: str) -> None:
    model = load_model(spec(), saved)
    call = Score("hello", tuple(TEXTS), options={"score_mode": mode})
    prepared = model.prepare(call)
    scores = model.finish(call, prepared, model.run(prepared, stream=0))
    (dense, lexical, colbert), *items = [theirs(saved, item.ids.tolist()) for item in prepared]
    wanted = [
        {
            "dense": float(dense @ other),
            "sparse": sum(weight * words.get(one, 0.0) for one, weight in lexical.items()),
            "colbert": float((colbert @ rows.T).max(axis=1).mean()),
        }
        for other, words, rows in items
    ]
    kinds = {"dense": 0.4, "sparse": 0.2, "colbert": 0.4} if mode == "hybrid" else {mode: 1.0}

    assert [item.item for item in prepared] == [-1, *range(len(TEXTS))]
    assert scores == pytest.approx([sum(kinds[kind] * one[kind] for kind in kinds) for one in wanted], abs=1e-4)
