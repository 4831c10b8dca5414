"""Small seeded classifiers of entailment, saved by transformers, asked by its pipeline and by us."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sie_core.catalog.spec import ExtractHead, ModelSpec
from sie_core.errors import ApiError
from sie_core.ids import ModelId
from sie_server.models.calls import Extract, Extracted, LoadError
from sie_server.models.heads.entailment import Entailment
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-4
LONGEST = 40
SPEC = ModelSpec(id=ModelId("acme/nli"), max_tokens=LONGEST, extract=ExtractHead(head="entailment"))
TEXTS = ("this one", "a", "ab c " * 4, "ab c " * 40, "Á b? 中 😀 שלום")
LABELS = ("it", "abc", "so", "中")
SHAPE: dict[str, Any] = {
    "vocab_size": len(tiny_bert.VOCABULARY),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
DEBERTA = {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}
MODERN = {"bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "local_attention": 8}
BART = {
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "decoder_layers": 3,
    "decoder_attention_heads": 2,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "decoder_start_token_id": 3,
    "forced_eos_token_id": None,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "bart": ("Bart", BART),
    "bart, scaled": ("Bart", BART | {"scale_embedding": True, "decoder_start_token_id": 2}),
    "bert": ("Bert", {}),
    "deberta-v2": ("DebertaV2", DEBERTA),
    "modernbert": ("ModernBert", MODERN),
}
NAMES = {
    "first": ("entailment", "not_entailment"),
    "middle": ("contradiction", "Entailment", "neutral"),
    "last": ("contradiction", "neutral", "entailed"),
}

Save = Callable[..., Path]
Load = Callable[[ModelSpec, Path], Any]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def made(kind: str = "bert", names: tuple[str, ...] = NAMES["last"]) -> Path:
        torch.manual_seed(len(kind) + len(names))
        prefix, shape = KINDS[kind]
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: at for at, name in enumerate(names)}}
        config = getattr(transformers, f"{prefix}Config")(**SHAPE | shape | labels)
        network = getattr(transformers, f"{prefix}ForSequenceClassification")(config)
        with torch.no_grad():
            for weight in network.parameters():
                drawn = 0.3 * torch.randn_like(weight)
                weight.copy_(drawn if weight.ndim > 1 else weight + drawn)
        network.eval().save_pretrained(tmp_path)
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "attention_mask", *(["token_type_ids"] if kind == "bert" else [])],
            "pad_token": "[PAD]",
            "model_max_length": LONGEST,
        }
        (tmp_path / "tokenizer.json").write_text(json.dumps(tiny_bert.TOKENIZER))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        return tmp_path

    return made


def ours(model: Any, labels: tuple[str, ...] = LABELS, **options: Any) -> list[dict[str, float]]:
    call = Extract(TEXTS, labels=labels, options=options)
    prepared = model.prepare(call)
    found = model.finish(call, prepared, model.run(prepared, stream=0))
    assert all(isinstance(one, Extracted) for one in found)
    scores = [[one.score for one in item.classifications] for item in found]
    assert scores == [sorted(item, reverse=True) for item in scores]
    return [{one.label: one.score for one in item.classifications} for item in found]


def theirs(folder: Path, labels: tuple[str, ...] = LABELS, **options: Any) -> list[dict[str, float]]:
    asked = transformers.pipeline("zero-shot-classification", model=str(folder), device="cpu")
    found = asked(list(TEXTS), candidate_labels=list(labels), **options)
    return [dict(zip(one["labels"], one["scores"], strict=True)) for one in found]


def difference(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    return max(abs(mine[label] - theirs[label]) for mine, theirs in zip(one, other, strict=True) for label in mine)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_pipelines(load_model: Load, save: Save, kind: str, names: str, multi_label: bool) -> None:
    folder = save(kind, NAMES[names])

    found = ours(load_model(SPEC, folder), multi_label=multi_label)

    assert difference(found, theirs(folder, multi_label=multi_label)) <= WITHIN


def test_a_call_is_admitted_for_each_of_its_labels(load_model: Load, save: Save) -> None:
    model = load_model(SPEC, save())
    call = Extract(("a " * 100,), labels=tuple(f"label {number}" for number in range(50)))

    assert model.estimate_tokens(call) == sum(one.tokens for one in model.prepare(call)) == 50 * model.max_tokens


def test_one_label_and_a_template_of_the_callers(load_model: Load, save: Save) -> None:
    folder = save()
    model = load_model(SPEC, folder)
    template = "so it is {}"

    for labels in (("it",), LABELS):
        wanted = theirs(folder, labels, hypothesis_template=template)
        assert difference(ours(model, labels, hypothesis_template=template), wanted) <= WITHIN


def test_a_wrong_logit_and_a_wrong_template_are_noticed(
    load_model: Load, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save()
    wanted = theirs(folder)
    assert difference(ours(load_model(SPEC, folder), hypothesis_template="that is {}"), wanted) > 100 * WITHIN
    read = Entailment.read
    monkeypatch.setattr(Entailment, "read", lambda self, done: [one[::-1] for one in read(self, done)])

    assert difference(ours(load_model(SPEC, folder)), wanted) > 100 * WITHIN


@pytest.mark.parametrize("wrong", [{"decoder_start_token_id": 5}, {"scale_embedding": True}, {"decoder_layers": 2}])
def test_a_decoder_that_begins_otherwise_is_noticed(load_model: Load, save: Save, wrong: dict[str, Any]) -> None:
    folder = save("bart")
    wanted = theirs(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | wrong))

    assert difference(ours(load_model(SPEC, folder)), wanted) > 10 * WITHIN


@pytest.mark.parametrize("kind", ["bert", "bart"])
def test_one_by_one_is_together(load_model: Load, save: Save, kind: str) -> None:
    model = load_model(SPEC, save(kind))
    prepared = model.prepare(Extract(TEXTS, labels=LABELS))

    alone = [model.run([one], stream=0)[0].logits for one in prepared]
    together = [one.logits for one in model.run(prepared, stream=0)]

    assert max(abs(a - b).max() for a, b in zip(alone, together, strict=True)) <= WITHIN


def test_what_cannot_be_asked_is_named(load_model: Load, save: Save) -> None:
    model = load_model(SPEC, save())
    asked: tuple[tuple[str, Extract], ...] = (
        ("params.labels", Extract(TEXTS)),
        ("hypothesis_template", Extract(TEXTS, labels=LABELS, options={"hypothesis_template": "nothing"})),
        (r"params.labels\[1\]", Extract(TEXTS, labels=("a", "b" * 60))),
        ("no option `threshold`", Extract(TEXTS, labels=LABELS, options={"threshold": 0.5})),
    )
    for message, call in asked:
        with pytest.raises(ApiError, match=message):
            model.prepare(call)


def test_a_snapshot_that_names_no_entailment_is_refused(load_model: Load, save: Save) -> None:
    folder = save("bert", ("yes", "no"))

    with pytest.raises(LoadError, match="begins with `entail`"):
        load_model(SPEC, folder)
