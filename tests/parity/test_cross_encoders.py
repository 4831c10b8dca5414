"""Small seeded cross-encoders of every architecture, saved by transformers, scored by sentence-transformers and us."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_core.catalog.spec import ModelSpec, ScoreHead
from sie_core.errors import ApiError
from sie_core.ids import ModelId
from sie_server.models.calls import LoadError, Score
from sie_server.models.heads import classify
from sie_server.models.ops.plan import LAST
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
references = pytest.importorskip("sentence_transformers")
safetensors = pytest.importorskip("safetensors.numpy")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-4
SPEC = ModelSpec(id=ModelId("acme/reranker"), score=ScoreHead(head="classify"))
LONGEST = 40
QUERIES = ("which one", "", "ab " * 40)
DOCUMENTS = ("this one", "", "a", "Á b? 中 😀 שלום", "😀", *("ab c " * n for n in (2, 5, 9, 12, 30)))

SHAPE: dict[str, Any] = {
    "vocab_size": len(tiny_bert.VOCABULARY),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
    "pad_token_id": 0,
    "num_labels": 1,
}
DEBERTA: dict[str, Any] = {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "layer_norm_eps": 1e-7,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {}),
    "roberta": ("Roberta", {"pad_token_id": 1, "type_vocab_size": 1}),
    "xlm-roberta": ("XLMRoberta", {"pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "camembert": ("Camembert", {"pad_token_id": 1, "type_vocab_size": 1}),
    "distilbert": ("DistilBert", {"hidden_dim": 48}),
    "electra": ("Electra", {"embedding_size": 16}),
    "mpnet": ("MPNet", {}),
    "deberta-v2": ("DebertaV2", DEBERTA),
    "deberta-v2, other pooler": ("DebertaV2", DEBERTA | {"pooler_hidden_act": "tanh"}),
    "deberta-v2, types": ("DebertaV2", DEBERTA | {"type_vocab_size": 2}),
}
TWO_SEPARATORS = ("Roberta", "XLMRoberta", "Camembert", "MPNet")
NO_TYPES = (*TWO_SEPARATORS, "DistilBert")

Save = Callable[..., Path]
Scores = Callable[..., np.ndarray]


def tokenizer_files(name: str, max_tokens: int) -> dict[str, Any]:
    """Pairs as the architecture's own tokenizer puts them together."""
    tokenizer: dict[str, Any] = copy.deepcopy(dict(tiny_bert.TOKENIZER))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "pad_token": "[PAD]",
        "model_max_length": max_tokens,
    }
    if name in TWO_SEPARATORS:
        pair = tokenizer["post_processor"]["pair"]
        pair.insert(3, copy.deepcopy(pair[2]))
    if name in NO_TYPES:
        settings["model_input_names"] = ["input_ids", "attention_mask"]
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": settings}


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """A snapshot as rerankers are published: a network of transformers and its tokenizer."""

    def saved(kind: str, *, max_tokens: int = LONGEST, seed: int = 0, **shape: Any) -> Path:
        torch.manual_seed(seed)
        name, own = KINDS[kind]
        config = getattr(transformers, f"{name}Config")(**(SHAPE | own | shape))
        network = getattr(transformers, f"{name}ForSequenceClassification")(config)
        with torch.no_grad():
            for weight in network.parameters():
                drawn = 0.3 * torch.randn_like(weight)
                weight.copy_(drawn if weight.ndim > 1 else weight + drawn)
        folder = tmp_path / "reranker"
        network.save_pretrained(folder)
        for file, content in tokenizer_files(name, max_tokens).items():
            (folder / file).write_text(json.dumps(content))
        return folder

    return saved


@pytest.fixture
def ours(load_model: Any) -> Scores:
    def scores(
        folder: Path,
        queries: tuple[str, ...] = QUERIES,
        documents: tuple[str, ...] = DOCUMENTS,
        *,
        spec: ModelSpec = SPEC,
        **call: Any,
    ) -> np.ndarray:
        model = load_model(spec, folder)
        found = []
        for query in queries:
            asked = Score(query, documents, **call)
            prepared = model.prepare(asked)
            found.append(model.finish(asked, prepared, model.run(prepared, stream=0)))
        return np.array(found)

    return scores


def theirs(
    folder: Path, queries: tuple[str, ...] = QUERIES, documents: tuple[str, ...] = DOCUMENTS, **how: Any
) -> np.ndarray:
    model = references.CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32}, **how)
    return np.array([model.predict([(query, document) for document in documents]) for query in queries])


def rewritten(folder: Path, name: str = "config.json", **keys: Any) -> Path:
    read = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    (folder / name).write_text(json.dumps(read | keys))
    return folder


def as_logits(folder: Path) -> Path:
    """What rounding and a mistake do to a score is not flattened by a sigmoid."""
    return rewritten(folder, sbert_ce_default_activation_function="torch.nn.modules.linear.Identity")


@pytest.mark.parametrize("kind", KINDS)
def test_logits_of_every_kind(save: Save, ours: Scores, kind: str) -> None:
    folder = as_logits(save(kind, seed=len(kind)))
    wanted = theirs(folder)

    assert np.ptp(wanted) > 1000 * WITHIN
    assert np.abs(ours(folder) - wanted).max() <= WITHIN


@pytest.mark.parametrize("tokenizer_class", ["BertTokenizer", "ElectraTokenizerFast", "PreTrainedTokenizerFast", None])
def test_a_network_has_types_where_its_tokenizer_s_class_has_them(
    save: Save, ours: Scores, tokenizer_class: str | None
) -> None:
    """transformers tells a network of no types by default, even one that has them."""
    folder = as_logits(save("bert"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["model_input_names"]
    settings["tokenizer_class"] = tokenizer_class
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))

    assert np.abs(ours(folder) - theirs(folder)).max() <= WITHIN


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_every_kind(save: Save, ours: Scores, kind: str) -> None:
    folder = save(kind)

    assert np.abs(ours(folder) - theirs(folder)).max() <= WITHIN / 10


def test_as_a_cross_encoder_saves_itself(save: Save, ours: Scores, tmp_path: Path) -> None:
    references.CrossEncoder(str(save("bert")), device="cpu").save_pretrained(str(tmp_path / "saved"))

    assert np.abs(ours(tmp_path / "saved") - theirs(tmp_path / "saved")).max() <= WITHIN / 10


SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"
IDENTITY_THERE = {"activation_fn": IDENTITY}
SAID: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "the older key": ({"sbert_ce_default_activation_function": IDENTITY}, {}),
    "the newer key": ({"sentence_transformers": {"activation_fn": IDENTITY, "version": "4.0.0"}}, {}),
    "both keys": (
        {
            "sentence_transformers": {"activation_fn": SIGMOID},
            "sbert_ce_default_activation_function": IDENTITY,
        },
        {},
    ),
    "the newer key without it": (
        {"sentence_transformers": {"version": "4.0.0"}, "sbert_ce_default_activation_function": IDENTITY},
        {},
    ),
    "a file that is not of a cross-encoder": ({"sentence_transformers": {"activation_fn": SIGMOID}}, IDENTITY_THERE),
    "code of the snapshot's": ({"sentence_transformers": {"activation_fn": "acme.Activation"}}, {}),
}


@pytest.mark.parametrize("said", SAID)
def test_the_activation_is_the_one_that_the_snapshot_says(save: Save, ours: Scores, said: str) -> None:
    config, own_file = SAID[said]
    folder = rewritten(save("bert"), **config)
    if own_file:
        rewritten(folder, "config_sentence_transformers.json", **own_file)

    assert np.abs(ours(folder) - theirs(folder)).max() <= WITHIN


OWN: dict[str, dict[str, Any]] = {
    "activation": {"activation_fn": IDENTITY},
    "activation that is code": {"activation_fn": "acme.Activation"},
    "prompt": {"prompts": {"query": "no: ", "asked": "yes: "}, "default_prompt_name": "asked"},
    "prompts for nothing": {"prompts": {"query": "no: ", "document": "nor: "}},
    "another kind of model": {"model_type": "SentenceTransformer", "activation_fn": SIGMOID},
}


@pytest.mark.parametrize("kind", OWN)
def test_what_a_cross_encoder_writes_beside_its_modules(save: Save, ours: Scores, tmp_path: Path, kind: str) -> None:
    """The default prompt stands before the query alone."""
    references.CrossEncoder(str(as_logits(save("bert"))), device="cpu").save_pretrained(str(tmp_path / "saved"))
    folder = rewritten(tmp_path / "saved", "config_sentence_transformers.json", **OWN[kind])

    assert np.abs(ours(folder) - theirs(folder)).max() <= WITHIN


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("longest", [8, 17, 100])
def test_an_option_makes_pairs_shorter_and_never_longer(save: Save, ours: Scores, kind: str, longest: int) -> None:
    folder = as_logits(save(kind))
    wanted = theirs(folder, max_length=min(longest, LONGEST))

    assert np.abs(ours(folder, options={"max_seq_length": longest}) - wanted).max() <= WITHIN


@pytest.mark.parametrize("kind", ["bert", "deberta-v2"])
def test_one_alone_is_as_in_a_batch_of_several_calls(save: Save, load_model: Any, kind: str) -> None:
    model = load_model(SPEC, as_logits(save(kind)))
    prepared = [one for query in QUERIES for one in model.prepare(Score(query, DOCUMENTS))]
    together = [output.logits for output in model.run(prepared[::-1], stream=0)][::-1]
    alone = [model.run([one], stream=0)[0].logits for one in prepared]

    assert np.abs(np.array(together) - np.array(alone)).max() <= WITHIN / 10


MXBAI = DEBERTA | {"position_buckets": 256, "max_relative_positions": -1, "max_position_embeddings": 512}


def test_items_of_512_tokens_by_the_configuration_of_mxbai_rerank_large(save: Save, ours: Scores) -> None:
    """Distances from 129 on share a bucket."""
    folder = as_logits(save("deberta-v2", max_tokens=512, **MXBAI))
    documents = tuple("ab c " * n for n in (1, 50, 90, 140, 300))

    assert np.abs(ours(folder, QUERIES, documents) - theirs(folder, QUERIES, documents)).max() <= WITHIN


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "distilbert"])
def test_a_wrong_epsilon_is_noticed(save: Save, ours: Scores, kind: str) -> None:
    folder = as_logits(save(kind))
    wanted = theirs(folder)

    assert np.abs(ours(rewritten(folder, layer_norm_eps=1e-3)) - wanted).max() > 10 * WITHIN


@pytest.mark.parametrize("kind", KINDS)
def test_another_token_than_the_first_is_noticed(
    save: Save, ours: Scores, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = as_logits(save(kind))
    wanted = theirs(folder)
    others = {name: replace(layers, place=LAST) for name, layers in classify.LAYERS.items()}
    monkeypatch.setattr(classify, "LAYERS", others)

    assert np.abs(ours(folder) - wanted).max() > 100 * WITHIN


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_activation_of_the_head_is_noticed(
    save: Save, ours: Scores, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = as_logits(save(kind))
    wanted = theirs(folder)
    right = classify.LAYERS[json.loads((folder / "config.json").read_text())["model_type"]]
    wrong = classify.Layers(right.dense, lambda config: "silu", right.classifier)
    monkeypatch.setattr(classify, "LAYERS", dict.fromkeys(classify.LAYERS, wrong))

    assert np.abs(ours(folder) - wanted).max() > 10 * WITHIN


@pytest.mark.parametrize("kind", ["bert", "electra", "deberta-v2, types"])
def test_the_second_text_without_its_type_is_noticed(save: Save, ours: Scores, kind: str) -> None:
    folder = as_logits(save(kind))
    wanted = theirs(folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for piece in tokenizer["post_processor"]["pair"]:
        next(iter(piece.values()))["type_id"] = 0
    rewritten(folder, "tokenizer.json", **tokenizer)

    assert np.abs(ours(folder) - wanted).max() > 100 * WITHIN


def test_a_missing_separator_is_noticed(save: Save, ours: Scores) -> None:
    folder = as_logits(save("roberta"))
    wanted = theirs(folder)
    rewritten(folder, "tokenizer.json", post_processor=tiny_bert.TOKENIZER["post_processor"])

    assert np.abs(ours(folder) - wanted).max() > 100 * WITHIN


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "mpnet"])
def test_positions_off_by_one_are_noticed(save: Save, ours: Scores, kind: str) -> None:
    folder = as_logits(save(kind))
    wanted = theirs(folder)
    weights = safetensors.load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("position_embeddings.weight"))
    safetensors.save_file(weights | {name: np.roll(weights[name], -1, axis=0)}, folder / "model.safetensors")

    assert np.abs(ours(folder) - wanted).max() > 100 * WITHIN


def test_a_spec_says_the_activation_before_the_snapshot(save: Save, ours: Scores) -> None:
    folder = save("bert")
    spec = ModelSpec(id=SPEC.id, score=ScoreHead(head="classify", activation="identity"))
    logits = ours(folder, spec=spec)

    assert np.abs(1 / (1 + np.exp(-logits)) - theirs(folder)).max() <= WITHIN / 10
    assert np.abs(logits - theirs(folder)).max() > 100 * WITHIN


def test_several_labels_are_no_score(save: Save, ours: Scores) -> None:
    folder = save("bert", num_labels=3, id2label={0: "no", 1: "so so", 2: "yes"})

    with pytest.raises(LoadError, match=r"`config.json` has 3 labels: `no`, `so so`, `yes`; a score is of 1"):
        ours(folder)


def test_a_model_without_a_classifier_is_none(save_network: Any, ours: Scores) -> None:
    folder = save_network(transformers.BertModel(transformers.BertConfig(**SHAPE)))

    with pytest.raises(LoadError, match=r"bert.pooler.dense.weight|classifier.weight"):
        ours(folder)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"max_seq_length": 0}, "`max_seq_length` is `0`: want a whole number from 1"),
        ({"max_seq_length": "512"}, "`max_seq_length` is `512`: want a whole number from 1"),
        ({"max_len": 1}, "has no option `max_len`"),
    ],
)
def test_options_that_are_none_are_refused(save: Save, ours: Scores, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ApiError, match=why):
        ours(save("bert"), options=options)
