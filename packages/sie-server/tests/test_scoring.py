"""Scores of a small seeded cross-encoder, and what a classifier's configuration may say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_core.catalog.spec import ModelSpec, ScoreHead
from sie_core.errors import ApiError
from sie_core.ids import ModelId
from sie_server.models import build
from sie_server.models.calls import Encode, LoadError, Picture, Score
from sie_server.models.heads.classify import read_classify
from sie_server.models.model import LoadedModel
from sie_testing import tiny_bert
from sie_testing.tiny_bert import HIDDEN, MAX_TOKENS

ITEMS = ("hello", "", "a b c", "ab " * 30)


def write(folder: Path, *, labels: int = 1, **config: Any) -> Path:
    """A BERT with a pooler and a classifier."""
    random = np.random.default_rng(1)
    shapes = {
        "bert.pooler.dense.weight": (HIDDEN, HIDDEN),
        "bert.pooler.dense.bias": (HIDDEN,),
        "classifier.weight": (labels, HIDDEN),
        "classifier.bias": (labels,),
    }
    named = {str(index): f"label {index}" for index in range(labels)}
    tiny_bert.write(folder, **({"id2label": named} | config))
    (folder / "modules.json").unlink()
    arrays = {f"bert.{name}": array for name, array in tiny_bert.weights(0)}
    arrays |= {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    tiny_bert.write_safetensors(folder / "model.safetensors", arrays)
    return folder


def load(folder: Path, **head: Any) -> LoadedModel:
    spec = ModelSpec(id=ModelId("acme/reranker"), score=ScoreHead(head="classify", **head))
    return build.load(spec, folder, precision="f32", streams=1, threads=1)


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(write(tmp_path_factory.mktemp("reranker")))


def scores(model: LoadedModel, query: str = "who", items: tuple[str, ...] = ITEMS, **call: Any) -> np.ndarray:
    asked = Score(query, items, **call)
    prepared = model.prepare(asked)
    return np.array(model.finish(asked, prepared, model.run(prepared, stream=0)))


def test_every_item_has_the_score_it_has_alone(reranker: LoadedModel) -> None:
    together = scores(reranker)

    assert len(set(together.tolist())) == len(ITEMS)
    assert np.abs(together - [scores(reranker, items=(item,))[0] for item in ITEMS]).max() <= 1e-6
    assert np.abs(together - scores(reranker, items=ITEMS[::-1])[::-1]).max() <= 1e-6


def test_the_query_comes_first(reranker: LoadedModel) -> None:
    assert abs(scores(reranker, "a", ("b",))[0] - scores(reranker, "b", ("a",))[0]) > 1e-3


def test_a_score_is_the_sigmoid_of_a_logit_that_the_spec_may_ask_for(reranker: LoadedModel, tmp_path: Path) -> None:
    logits = scores(load(write(tmp_path), activation="identity"))

    assert np.abs(scores(reranker) - 1 / (1 + np.exp(-logits))).max() <= 1e-6


def test_an_option_shortens_pairs_and_never_lengthens_them(reranker: LoadedModel) -> None:
    lengths = [
        reranker.prepare(Score("who", ITEMS, options={} if most is None else {"max_seq_length": most}))[-1].tokens
        for most in (None, 12, 1000)
    ]

    assert lengths == [MAX_TOKENS, 12, MAX_TOKENS]


def test_a_cut_pair_is_told(reranker: LoadedModel) -> None:
    assert [one.truncated for one in reranker.prepare(Score("who", ITEMS))] == [False, False, False, True]


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (Score(Picture(b""), ("a",)), "`query` is a picture, and model `acme/reranker` takes text only"),
        (Score("a", ("a", Picture(b""))), r"`items\[1\]` is a picture"),
        (Score("a", ("a",), options={"max_seq_length": 0.5}), "want a whole number from 1"),
        (
            Score("a", ("a",), options={"normalize": True}),
            "model `acme/reranker` has no option `normalize`",
        ),
        (Encode(("a",)), "does not declare the task `encode`"),
    ],
)
def test_what_is_no_score_is_refused(reranker: LoadedModel, call: Any, why: str) -> None:
    with pytest.raises(ApiError, match=why):
        reranker.prepare(call)


def test_what_would_stand_beside_so_many_items_that_no_memory_holds_it_is_refused(reranker: LoadedModel) -> None:
    call = Score("a", ("b",) * 10_000, instruction="c" * 10_000)

    with pytest.raises(ApiError, match="`instruction` has 10,000 characters, and stands beside each of 10,000 items: "):
        reranker.prepare(call)


def test_an_item_that_failed_has_its_error_and_the_others_their_scores(reranker: LoadedModel) -> None:
    asked = Score("who", ITEMS[:2])
    prepared = reranker.prepare(asked)
    error = ApiError("INTERNAL_ERROR", "lost")
    found = reranker.finish(asked, prepared, [error, reranker.run(prepared[1:], stream=0)[0]])

    assert found[0] is error
    assert isinstance(found[1], float)


def test_a_model_of_several_labels_is_no_reranker(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"has 2 labels: `label 0`, `label 1`; a score is of 1"):
        load(write(tmp_path, labels=2))


def test_a_classifier_of_another_size_than_its_labels_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, labels=2, id2label={"0": "one"})

    with pytest.raises(LoadError, match=r"classifier.weight"):
        load(folder)


def test_labels_are_in_the_order_of_the_logits() -> None:
    config = {"model_type": "bert", "hidden_size": 8, "id2label": {"10": "k", "2": "c", "0": "a", "1": "b"}}
    config["id2label"] |= {str(index): str(index) for index in range(3, 10)}  # type: ignore[operator]

    assert read_classify(json.dumps(config).encode()).labels == ("a", "b", "c", *"3456789", "k")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "t5", "hidden_size": 8}, "`model_type` is `t5`: supported as classifiers are `bart`"),
        ({"model_type": "bert"}, "has no `hidden_size`"),
        ({"model_type": "bert", "hidden_size": 8, "id2label": {"0": "a", "2": "b"}}, "has the keys `0`, `2`"),
        ({"model_type": "deberta-v2", "hidden_size": 8, "pooler_hidden_act": "mish"}, "`pooler_hidden_act` is `mish`"),
        ({"model_type": "deberta-v2", "hidden_size": 8, "pooler_hidden_size": 4}, "`pooler_hidden_size` is 4"),
    ],
)
def test_a_head_that_is_not_served_is_named(config: dict[str, Any], why: str) -> None:
    with pytest.raises(LoadError, match=why):
        read_classify(json.dumps(config).encode())
