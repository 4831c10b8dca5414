"""Small seeded GLiClass models, saved by gliclass, asked by its pipeline and by us."""

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_core.catalog.spec import ExtractHead, ModelSpec
from sie_core.ids import ModelId
from sie_server.models.calls import Extract, Extracted, LoadError, Output
from sie_server.models.heads.gliclass_marks import Marks
from sie_server.models.model import LoadedModel
from sie_server.models.ops.plan import Feed
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
gliclass = pytest.importorskip("gliclass")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-4
LONGEST = 40
LABELS = ("travel", "a", "b c", "dreams 中", "!")
TEXTS = ("one day i will see the world", "", "a", "Á b? 中 😀 שלום", "😀", *("ab c " * n for n in (2, 5, 9, 60)))

MARKS = ("<<LABEL>>", "<<SEP>>", "<<EXAMPLE>>")
WORDS = len(tiny_bert.VOCABULARY)
SHAPE: dict[str, Any] = {
    "vocab_size": WORDS + len(MARKS),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
    "pad_token_id": 0,
}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "deberta-v2": (
        "DebertaV2Config",
        {
            "relative_attention": True,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": "p2c|c2p",
            "position_biased_input": False,
            "layer_norm_eps": 1e-7,
            "type_vocab_size": 0,
        },
    ),
    "modernbert": ("ModernBertConfig", {"local_attention": 8, "global_attn_every_n_layers": 2}),
    "bert": ("BertConfig", {}),
    "xlm-roberta": ("XLMRobertaConfig", {"pad_token_id": 1, "type_vocab_size": 1, "max_position_embeddings": 50}),
}
HEADS: dict[str, dict[str, Any]] = {
    "labels first": {"prompt_first": True},
    "text first": {},
    "weighted dot": {"prompt_first": True, "scorer_type": "weighted-dot"},
    "mlp": {"prompt_first": True, "scorer_type": "mlp"},
    "cross-attention": {
        "prompt_first": True,
        "scorer_type": "cross-attn",
        "pooling_strategy": "pass",
        "scorer_num_heads": 4,
        "scorer_mlp_hidden_size": 24,
    },
    "cross-attention of the text": {
        "prompt_first": True,
        "scorer_type": "cross-attn",
        "pooling_strategy": "pass",
        "scorer_num_heads": 2,
        "scorer_mlp_hidden_size": 24,
        "extract_text_features": True,
        "class_token_pooling": "average",
    },
    "segments": {
        "prompt_first": True,
        "use_segment_embeddings": True,
        "class_token_pooling": "average",
        "scorer_type": "mlp",
    },
    "text alone": {"prompt_first": True, "extract_text_features": True},
    "mean of labels": {"prompt_first": True, "class_token_pooling": "average"},
    "mean of labels without their tokens": {
        "prompt_first": True,
        "class_token_pooling": "average",
        "embed_class_token": False,
        "extract_text_features": True,
    },
    "token after": {"prompt_first": True, "embed_class_token": False},
    "mean": {"prompt_first": True, "pooling_strategy": "avg"},
    "largest": {"prompt_first": True, "pooling_strategy": "max"},
    "last": {"prompt_first": True, "pooling_strategy": "last"},
    "of length 1": {"prompt_first": True, "normalize_features": True},
    "wider projection": {"prompt_first": True, "hidden_size": 48, "projector_hidden_act": "relu"},
}

SPEC = ModelSpec(
    id=ModelId("acme/labels"), architecture="gliclass", max_tokens=LONGEST, extract=ExtractHead(head="labels")
)

Save = Callable[..., Path]


def tokenizer_file() -> dict[str, Any]:
    tokenizer: dict[str, Any] = copy.deepcopy(dict(tiny_bert.TOKENIZER))
    settings = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer["added_tokens"] += [{"id": WORDS + at, "content": mark} | settings for at, mark in enumerate(MARKS)]
    return tokenizer


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """A snapshot as gliclass saves it, its weights drawn large enough for every part to matter."""

    def saved(network: str = "deberta-v2", *, seed: int = 0, **head: Any) -> Path:
        torch.manual_seed(seed)
        kind, own = NETWORKS[network]
        encoder = getattr(transformers, kind)(**(SHAPE | own))
        config = gliclass.GLiClassModelConfig(
            encoder_config=encoder,
            encoder_model="acme/network",
            class_token_index=WORDS,
            text_token_index=WORDS + 1,
            **head,
        )
        model = gliclass.GLiClassModel(config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                # A product of products: of logits in the hundreds rounding leaves no four digits.
                drawn = (0.2 if name.startswith("model.scorer.out_mlp") else 0.3) * torch.randn_like(weight)
                weight.copy_(drawn if weight.ndim > 1 else weight + drawn)
        folder = tmp_path / "labels"
        model.save_pretrained(folder)
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer_file()))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return folder

    return saved


def pipeline(folder: Path, kind: str = "single-label") -> Any:
    model = gliclass.GLiClassModel.from_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    return gliclass.ZeroShotClassificationPipeline(
        model, tokenizer, max_length=LONGEST, classification_type=kind, device="cpu", progress_bar=False
    )


def theirs(folder: Path, texts: tuple[str, ...] = TEXTS, labels: tuple[str, ...] = LABELS) -> list[np.ndarray]:
    """One text at a time: what they pool, they pool over padding too."""
    return [one["logits"] for one in pipeline(folder).pipe.get_embeddings(list(texts), list(labels), batch_size=1)]


def run(model: LoadedModel, texts: tuple[str, ...], labels: tuple[str, ...], **call: Any) -> list[Output]:
    return model.run(model.prepare(Extract(texts, labels, **call)), stream=0)


def logits(model: LoadedModel, texts: tuple[str, ...] = TEXTS, labels: tuple[str, ...] = LABELS) -> list[np.ndarray]:
    return [output.logits for output in run(model, texts, labels) if output.logits is not None]


def furthest(ours: list[np.ndarray], others: list[np.ndarray]) -> float:
    assert [one.shape for one in ours] == [one.shape for one in others]
    return max(float(np.abs(one - other).max()) for one, other in zip(ours, others, strict=True))


def fitting(texts: tuple[str, ...], head: dict[str, Any]) -> tuple[str, ...]:
    """Where labels come last, theirs of a text that is too long are cut off."""
    return texts if head.get("prompt_first") else tuple(text for text in texts if len(text) < LONGEST // 2)


def said(folder: Path, **changed: Any) -> None:
    """Makes the snapshot say something else than it is."""
    config = json.loads((folder / "config.json").read_text())
    assert any(config[name] != value for name, value in changed.items())
    (folder / "config.json").write_text(json.dumps(config | changed))


def extracted(model: LoadedModel, texts: tuple[str, ...], **call: Any) -> list[dict[str, float]]:
    """Each text's labels and scores, in their order."""
    asked = Extract(texts, call.pop("labels", LABELS), **call)
    prepared = model.prepare(asked)
    found = model.finish(asked, prepared, model.run(prepared, stream=0))
    return [{one.label: one.score for one in item.classifications} for item in found if isinstance(item, Extracted)]


@pytest.mark.parametrize("head", HEADS)
def test_logits_are_theirs_of_every_head(head: str, save: Save, load_model: Any) -> None:
    folder = save(**HEADS[head])
    texts = fitting(TEXTS, HEADS[head])
    expected = theirs(folder, texts)
    assert max(float(np.ptp(one)) for one in expected) > 500 * WITHIN
    assert furthest(logits(load_model(SPEC, folder), texts), expected) <= WITHIN


@pytest.mark.parametrize(
    ("network", "head"),
    [
        ("modernbert", "segments"),
        ("modernbert", "cross-attention of the text"),
        ("bert", "segments"),
        ("xlm-roberta", "labels first"),
    ],
)
def test_logits_are_theirs_of_every_network(network: str, head: str, save: Save, load_model: Any) -> None:
    folder = save(network, **HEADS[head])
    assert furthest(logits(load_model(SPEC, folder)), theirs(folder)) <= WITHIN


@pytest.mark.parametrize("labels", [("a",), ("a", "a"), tuple("abcdefghijklm")])
def test_logits_are_theirs_of_any_number_of_labels(labels: tuple[str, ...], save: Save, load_model: Any) -> None:
    folder = save(**HEADS["mlp"])
    assert furthest(logits(load_model(SPEC, folder), labels=labels), theirs(folder, labels=labels)) <= WITHIN


@pytest.mark.parametrize(("kind", "multi_label"), [("single-label", False), ("multi-label", True)])
def test_scores_are_those_of_their_pipeline(kind: str, multi_label: bool, save: Save, load_model: Any) -> None:
    folder = save(**HEADS["of length 1"])
    ours = extracted(load_model(SPEC, folder), TEXTS, options={"multi_label": multi_label})
    others = [pipeline(folder, kind)(text, list(LABELS), return_hierarchical=True)[0] for text in TEXTS]
    for found, other in zip(ours, others, strict=True):
        assert found == pytest.approx(other, abs=WITHIN)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert len({round(score, 3) for score in found.values()}) > 1


def test_a_threshold_leaves_out_what_their_pipeline_leaves_out(save: Save, load_model: Any) -> None:
    folder = save(**HEADS["of length 1"])
    model = load_model(SPEC, folder)
    scores = sorted(score for one in extracted(model, TEXTS, options={"multi_label": True}) for score in one.values())
    least = (scores[len(scores) // 2 - 1] + scores[len(scores) // 2]) / 2
    found = extracted(model, TEXTS, options={"multi_label": True, "threshold": least})
    others = pipeline(folder, "multi-label")(list(TEXTS), list(LABELS), threshold=least, batch_size=1)
    assert [set(one) for one in found] == [{each["label"] for each in one} for one in others]
    assert 0 < sum(map(len, found)) < len(scores)


@pytest.mark.parametrize("head", ["labels first", "text first"])
def test_an_instruction_is_their_prompt(head: str, save: Save, load_model: Any) -> None:
    folder = save(**HEADS[head])
    model, texts = load_model(SPEC, folder), ("", "a", "b 中")
    asked = [pipeline(folder).pipe.get_embeddings([text], list(LABELS), prompt="which one") for text in texts]
    found = [output.logits for output in run(model, texts, LABELS, instruction="which one")]
    assert furthest([one for one in found if one is not None], [one[0]["logits"] for one in asked]) <= WITHIN
    assert furthest(logits(model, texts), [one[0]["logits"] for one in asked]) > 100 * WITHIN


def test_a_text_with_the_labels_token_in_it_scores_as_theirs(save: Save, load_model: Any) -> None:
    folder, texts = save(**HEADS["labels first"]), ("a <<LABEL>> b <<SEP>>", "a")
    assert furthest(logits(load_model(SPEC, folder), texts), theirs(folder, texts)) <= WITHIN


@pytest.mark.parametrize("head", ["labels first", "cross-attention of the text", "mean of labels", "text first"])
def test_a_batch_gives_what_each_text_gives_alone(head: str, save: Save, load_model: Any) -> None:
    model = load_model(SPEC, save(**HEADS[head]))
    alone = [logits(model, (text,))[0] for text in TEXTS]
    turned = tuple(reversed(TEXTS))
    assert furthest(logits(model), alone) <= WITHIN
    assert furthest(list(reversed(logits(model, turned))), alone) <= WITHIN


def test_calls_of_different_labels_share_a_batch(save: Save, load_model: Any) -> None:
    model = load_model(SPEC, save(**HEADS["cross-attention"]))
    calls = [Extract((TEXTS[0],), LABELS), Extract((TEXTS[2], TEXTS[3]), ("b",)), Extract(("z",), LABELS[:2])]
    batch = [one for call in calls for one in model.prepare(call)]
    found = [output.logits for output in model.run(batch, stream=0) if output.logits is not None]
    alone = [output.logits for one in batch for output in model.run([one], stream=0) if output.logits is not None]
    assert furthest(found, alone) <= WITHIN


def test_of_a_text_before_its_labels_that_is_too_long_the_end_is_lost(save: Save, load_model: Any) -> None:
    folder = save(**HEADS["text first"])
    model = load_model(SPEC, folder)
    # 40 tokens without two special ones, and the labels' 17 with theirs.
    (long,), (short,) = (model.prepare(Extract(("a " * count,), ("bcd", "efghij"))) for count in (60, 26))
    assert long.truncated
    assert not short.truncated
    assert long.ids.tolist() == short.ids.tolist()


@pytest.mark.parametrize(
    ("head", "wrong"),
    [
        ("labels first", {"embed_class_token": False}),
        ("labels first", {"class_token_pooling": "average"}),
        ("labels first", {"pooling_strategy": "avg"}),
        ("labels first", {"extract_text_features": True}),
        ("labels first", {"normalize_features": True}),
        ("labels first", {"projector_hidden_act": "relu"}),
        ("labels first", {"prompt_first": False}),
        ("mlp", {"scorer_type": "simple"}),
        ("segments", {"use_segment_embeddings": False}),
        ("mean of labels without their tokens", {"embed_class_token": True}),
        ("cross-attention", {"scorer_num_heads": 2}),
        ("cross-attention", {"extract_text_features": True}),
    ],
)
def test_a_wrong_setting_is_noticed(head: str, wrong: dict[str, Any], save: Save, load_model: Any) -> None:
    folder = save(**HEADS[head])
    expected = theirs(folder)
    said(folder, **wrong)
    assert furthest(logits(load_model(SPEC, folder)), expected) > 100 * WITHIN


@pytest.mark.parametrize("mark", ["rows", "items", "tokens"])
def test_a_label_one_row_off_is_noticed(
    mark: str, save: Save, load_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(**HEADS["cross-attention" if mark == "tokens" else "labels first"])
    right = getattr(Marks, mark).func

    def shifted(marks: Marks) -> Feed:
        feed: Feed = right(marks)
        return replace(feed, make=lambda plan: np.maximum(feed.make(plan) - 1, 0))

    monkeypatch.setattr(Marks, mark, property(shifted))
    assert furthest(logits(load_model(SPEC, folder)), theirs(folder)) > 100 * WITHIN


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"squeeze_layers": True}, "`squeeze_layers` in `config.json` is `true`"),
        ({"architecture_type": "bi-encoder"}, "`architecture_type` in `config.json` is `bi-encoder`"),
        ({"class_token_index": 3}, "`<<LABEL>>` is the tokenizer's token"),
        ({"scorer_type": "mlp"}, "model.scorer.mlp.0.weight"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    wrong: dict[str, Any], named: str, save: Save, load_model: Any
) -> None:
    folder = save(**HEADS["labels first"])
    said(folder, **wrong)
    with pytest.raises(LoadError, match=re.escape(named)):
        load_model(SPEC, folder)
