"""Small seeded ModernBERTs, saved by transformers and read back by both."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_core.catalog.spec import DenseHead, ModelSpec, ScoreHead
from sie_core.ids import ModelId
from sie_server.models.calls import Encode, LoadError, Score
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
references = pytest.importorskip("sentence_transformers")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-5
TEXTS = ("hello world", "", "a", "x" * 60, "Á b? 中 😀 שלום", *("ab " * n for n in range(1, 14, 3)))
SHAPE: dict[str, Any] = {
    "vocab_size": len(tiny_bert.VOCABULARY),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "local_attention": 8,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "cls_token_id": 2,
    "sep_token_id": 3,
}
SHAPES: dict[str, dict[str, Any]] = {
    "as is": {},
    "all layers see all": {"global_attn_every_n_layers": 1},
    "odd window": {"local_attention": 5},
    "window of none": {"local_attention": 0},
    "biases": {"attention_bias": True, "mlp_bias": True, "norm_bias": True},
    "large epsilon": {"norm_eps": 1e-2},
    "other activation": {"hidden_activation": "silu"},
}

Ours = Callable[[Path], np.ndarray]


def network(**shape: Any) -> Any:
    return transformers.ModernBertModel(transformers.ModernBertConfig(**(SHAPE | shape)))


@pytest.fixture
def ours(load_model: Any) -> Ours:
    def vectors(folder: Path) -> np.ndarray:
        model = load_model(ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead()), folder)
        return np.array([output.dense for output in model.run(model.prepare(Encode(TEXTS)), stream=0)])

    return vectors


def theirs(folder: Path) -> np.ndarray:
    model = references.SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    return np.asarray(model.encode(list(TEXTS)))


def rewritten(folder: Path, **keys: Any) -> Path:
    """Changes what we read, after they have read it."""
    read = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(read | keys))
    return folder


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(save_network: Any, ours: Ours, shape: str) -> None:
    folder = save_network(network(**SHAPES[shape]), seed=len(shape))

    assert np.abs(ours(folder) - theirs(folder)).max() <= WITHIN


@pytest.mark.parametrize("pooling", ["cls", "lasttoken"])
def test_every_pooling(save_network: Any, ours: Ours, pooling: str) -> None:
    folder = save_network(network(), pooling=pooling)

    assert np.abs(ours(folder) - theirs(folder)).max() <= WITHIN


def test_the_older_form_of_its_configuration(save_network: Any, ours: Ours) -> None:
    """The published checkpoints have this one."""
    folder = save_network(network())
    wanted = theirs(folder)
    read = json.loads((folder / "config.json").read_text())
    del read["layer_types"], read["rope_parameters"]
    older = {"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
    (folder / "config.json").write_text(json.dumps(read | older))

    assert np.abs(ours(folder) - wanted).max() <= WITHIN


def test_one_alone_is_as_in_a_batch(save_network: Any, load_model: Any) -> None:
    model = load_model(ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead()), save_network(network()))
    prepared = model.prepare(Encode(TEXTS))
    together = [output.dense for output in model.run(prepared[::-1], stream=0)][::-1]
    alone = [model.run([one], stream=0)[0].dense for one in prepared]

    assert np.abs(np.array(together) - np.array(alone)).max() <= WITHIN


WRONG: dict[str, dict[str, Any]] = {
    "epsilon": {"norm_eps": 1e-3},
    "window, one too far": {"local_attention": 10},
    "window, one too near": {"local_attention": 6},
    "layers": {"layer_types": ["sliding_attention", *["full_attention"] * 4]},
    "theta of all": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 100_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        }
    },
    "theta of the window": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 160_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 20_000.0},
        }
    },
    "positions": {
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 160_000.0, "factor": 1.02},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        }
    },
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_noticed(save_network: Any, ours: Ours, what: str) -> None:
    folder = save_network(network())
    wanted = theirs(folder)

    assert np.abs(ours(rewritten(folder, **WRONG[what])) - wanted).max() > 10 * WITHIN


def test_a_wrong_pooling_is_noticed(save_network: Any, ours: Ours) -> None:
    folder = save_network(network())
    wanted = theirs(folder)
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"pooling_mode": "cls"}))

    assert np.abs(ours(folder) - wanted).max() > 100 * WITHIN


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "kind of layer": ({"layer_types": ["chunked_attention"] * 5}, "names `chunked_attention`"),
    "too few layers": ({"layer_types": ["full_attention"] * 4}, "names 4 layers, `num_hidden_layers` is 5"),
    "heads": ({"num_attention_heads": 5}, "is 32, which is not a multiple of `num_attention_heads`, 5"),
    "kind of positions": ({"rope_parameters": {"full_attention": {"rope_type": "longrope"}}}, "is `longrope`"),
    "activation": ({"hidden_activation": "mish"}, "`mish`|hidden_activation"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_it_does_not_do_is_refused(save_network: Any, ours: Ours, what: str) -> None:
    keys, why = REFUSED[what]
    folder = rewritten(save_network(network()), **keys)

    with pytest.raises(LoadError, match=why):
        ours(folder)


def test_causal_attention_is_refused(save_network: Any, load_model: Any) -> None:
    spec = ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead(), causal=True)

    with pytest.raises(LoadError, match="`causal` in the spec is true"):
        load_model(spec, save_network(network()))


CLASSIFIERS: dict[str, dict[str, Any]] = {
    "mean": {"classifier_pooling": "mean"},
    "first token": {"classifier_pooling": "cls"},
    "biases": {"classifier_pooling": "mean", "classifier_bias": True, "norm_bias": True},
    "other activation": {"classifier_pooling": "mean", "classifier_activation": "relu"},
}
DOCUMENTS = ("this one", "", "a", "Á b? 中 😀 שלום", *("ab c " * n for n in (2, 5, 9, 30)))


@pytest.fixture
def save_classifier(tmp_path: Path) -> Callable[..., Path]:
    def save(**shape: Any) -> Path:
        torch.manual_seed(1)
        config = transformers.ModernBertConfig(**(SHAPE | {"num_labels": 1} | shape))
        classifier = transformers.ModernBertForSequenceClassification(config)
        with torch.no_grad():
            for weight in classifier.parameters():
                drawn = 0.3 * torch.randn_like(weight)
                weight.copy_(drawn if weight.ndim > 1 else weight + drawn)
        classifier.save_pretrained(tmp_path)
        (tmp_path / "tokenizer.json").write_text(json.dumps(tiny_bert.TOKENIZER))
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "attention_mask"],
            "pad_token": "[PAD]",
            "model_max_length": 64,
        }
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        return tmp_path

    return save


@pytest.fixture
def our_scores(load_model: Any) -> Ours:
    def scores(folder: Path) -> np.ndarray:
        model = load_model(ModelSpec(id=ModelId("acme/tiny"), score=ScoreHead(head="classify")), folder)
        call = Score("which one", DOCUMENTS)
        prepared = model.prepare(call)
        return np.array(model.finish(call, prepared, model.run(prepared, stream=0)))

    return scores


def their_scores(folder: Path) -> np.ndarray:
    model = references.CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    return np.asarray(model.predict([("which one", document) for document in DOCUMENTS]))


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_every_classifier(save_classifier: Any, our_scores: Ours, kind: str) -> None:
    folder = save_classifier(**CLASSIFIERS[kind])
    wanted = their_scores(folder)

    assert np.ptp(wanted) > 0.01
    assert np.abs(our_scores(folder) - wanted).max() <= 1e-4


@pytest.mark.parametrize(
    "wrong", [{"classifier_pooling": "cls"}, {"classifier_activation": "silu"}, {"norm_eps": 1e-2}]
)
def test_a_wrong_classifier_is_noticed(save_classifier: Any, our_scores: Ours, wrong: dict[str, Any]) -> None:
    folder = save_classifier(**CLASSIFIERS["mean"])
    wanted = their_scores(folder)

    assert np.abs(our_scores(rewritten(folder, **wrong)) - wanted).max() > 1e-3
