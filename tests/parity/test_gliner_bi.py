"""Small seeded GLiNERs with a network of their own for labels, saved by gliner, asked by it and by us."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sie_core.catalog.spec import ExtractHead, ModelSpec, Source
from sie_core.errors import ApiError
from sie_core.ids import ModelId
from sie_server.models.calls import Extract, Extracted, LoadError
from sie_testing import tiny_bert

gliner = pytest.importorskip("gliner")
torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.timeout(600),
    # gliner says that it cuts a text, and that it adds no tokens.
    pytest.mark.filterwarnings("ignore:Sentence of length:UserWarning"),
    pytest.mark.filterwarnings("ignore:Resizing embeddings:UserWarning"),
]

WITHIN = 1e-4
SPEC = ModelSpec(id=ModelId("acme/gliner"), extract=ExtractHead(head="spans"))
TEXTS = (
    "ab c, de! fg",
    "",
    "a",
    "Á b? 中 😀 c-d e_f",
    "שלום ab",
    "ab cd ef gh ij kl mn op qr st uv wx yz " * 2,
    "x" * 30,
)
LABELS = ("per", "a", "org of b", "per", "中 x")
WORDS = len(tiny_bert.VOCABULARY)
SHAPE = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
NETWORKS: dict[str, dict[str, Any]] = {
    "bert": SHAPE | {"model_type": "bert", "hidden_size": 32, "max_position_embeddings": 200},
    "narrow": SHAPE | {"model_type": "bert", "hidden_size": 16, "max_position_embeddings": 60},
    "modernbert": SHAPE
    | {
        "model_type": "modernbert",
        "hidden_size": 32,
        "max_position_embeddings": 200,
        "local_attention": 8,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "as is": ("bert", "bert", {}),
    "both are projected": ("modernbert", "narrow", {"hidden_size": 24}),
    "labels are projected": ("modernbert", "narrow", {}),
    "no lstm": ("bert", "bert", {"num_rnn_layers": 0}),
    "short spans of few words": ("bert", "narrow", {"max_width": 2, "max_len": 9}),
}
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"threshold": 0.2},
    {"flat_ner": False},
    {"multi_label": True},
    {"flat_ner": False, "multi_label": True, "threshold": 0.3},
)

Save = Callable[..., Path]
Load = Callable[..., Any]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def repository(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_text(json.dumps(tiny_bert.TOKENIZER))
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "model_max_length": 60 if name == "labels" else 200,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return folder

    def made(text: str = "bert", labels: str = "bert", *, seed: int = 0, **shape: Any) -> Path:
        torch.manual_seed(seed)
        config = {
            "model_name": str(repository("base")),
            "labels_encoder": str(repository("labels")),
            "encoder_config": NETWORKS[text] | {"vocab_size": WORDS},
            "labels_encoder_config": NETWORKS[labels] | {"vocab_size": WORDS},
            "hidden_size": 32,
            "max_width": 5,
        }
        model = gliner.GLiNER.from_config(config | shape, backbone_from_pretrained=False)
        with torch.no_grad():
            for weight in model.parameters():
                drawn = 0.3 * torch.randn_like(weight)
                weight.copy_(drawn if weight.ndim > 1 else weight + drawn)
        saved = tmp_path / "saved"
        shutil.rmtree(saved, ignore_errors=True)
        model.save_pretrained(saved)
        return saved

    return made


def ours(model: Any, texts: tuple[str, ...] = TEXTS, **options: Any) -> list[list[dict[str, Any]]]:
    call = Extract(texts, labels=LABELS, options=options)
    prepared = model.prepare(call)
    found = model.finish(call, prepared, model.run(prepared, stream=0))
    assert all(isinstance(one, Extracted) for one in found)
    names = ("start", "end", "text", "label", "score")
    return [[{name: getattr(one, name) for name in names} for one in item.entities] for item in found]


def theirs(folder: Path, **options: Any) -> list[list[dict[str, Any]]]:
    model = gliner.GLiNER.from_pretrained(str(folder), local_files_only=True)
    found: list[list[dict[str, Any]]] = model.inference(list(TEXTS), list(LABELS), **options)
    return found


def differ(mine: list[list[dict[str, Any]]], other: list[list[dict[str, Any]]]) -> str:
    """Nothing, or what is not the same."""
    for index, (one, two) in enumerate(zip(mine, other, strict=True)):
        places = [
            [(found["start"], found["end"], found["text"], found["label"]) for found in each] for each in (one, two)
        ]
        if places[0] != places[1]:
            return f"text {index}: {places[0]} and {places[1]}"
        apart = max((abs(a["score"] - b["score"]) for a, b in zip(one, two, strict=True)), default=0.0)
        if apart > WITHIN:
            return f"text {index}: scores are {apart} apart"
    return ""


def telling(save: Save, text: str = "bert", labels: str = "bert", **shape: Any) -> Path:
    """Of some seeds all scores are next to 0, and two empty answers say nothing."""
    made = (save(text, labels, seed=seed, **shape) for seed in range(30))
    return next(folder for folder in made if sum(map(len, theirs(folder))) > 5)


@pytest.mark.parametrize("kind", KINDS)
def test_entities_are_gliners(load_model: Load, save: Save, kind: str) -> None:
    text, labels, shape = KINDS[kind]
    folder = telling(save, text, labels, **shape)
    model = load_model(SPEC, folder)
    seen = 0

    for settings in SETTINGS:
        wanted = theirs(folder, **settings)
        seen += sum(len(one) for one in wanted)
        assert not differ(ours(model, **settings), wanted)

    assert seen > 20


def test_what_a_label_is_like_is_kept_and_one_by_one_is_together(load_model: Load, save: Save) -> None:
    model = load_model(SPEC, telling(save))
    together = ours(model)
    model.text.labels.network.close()

    alone = [ours(model, (text,))[0] for text in TEXTS]

    assert not differ(alone, together)


def said(folder: Path, **keys: object) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "gliner_config.json").read_text()) | keys
    (folder / "gliner_config.json").write_text(json.dumps(config))
    return config


@pytest.mark.parametrize("wrong", ["max_width", "max_len", "epsilon of labels", "tokens of labels"])
def test_a_wrong_width_epsilon_or_tokenizer_is_noticed(load_model: Load, save: Save, wrong: str) -> None:
    folder = telling(save)
    wanted = theirs(folder, threshold=0.2)
    network = said(folder)["labels_encoder_config"]
    match wrong:
        case "max_width" | "max_len":
            said(folder, **{wrong: 1})
        case "epsilon of labels":
            said(folder, labels_encoder_config=network | {"layer_norm_eps": 0.1})
        case _:
            (folder / "labels_tokenizer" / "tokenizer.json").write_text(
                json.dumps(dict(tiny_bert.TOKENIZER) | {"post_processor": None})
            )

    assert differ(ours(load_model(SPEC, folder), threshold=0.2), wanted)


def bared(folder: Path) -> Path:
    """As the first such models were published: the rest is in the repository that `labels_encoder` names."""
    config = said(folder)
    base = Path(config["labels_encoder"])
    (base / "config.json").write_text(json.dumps(config["labels_encoder_config"]))
    said(folder, labels_encoder_config=None)
    shutil.rmtree(folder / "labels_tokenizer")
    return base


@pytest.mark.parametrize("labels", ["bert", "narrow"])
def test_a_model_whose_labels_tokenizer_is_elsewhere_is_gliners(load_model: Load, save: Save, labels: str) -> None:
    folder = telling(save, "modernbert", labels)
    whole = theirs(folder, threshold=0.2)
    base = bared(folder)
    spec = ModelSpec(id=SPEC.id, extract=SPEC.extract, labels_base=Source(ModelId("acme/labels")))

    assert not differ(ours(load_model(spec, folder, labels_base=base), threshold=0.2), theirs(folder, threshold=0.2))
    assert not differ(theirs(folder, threshold=0.2), whole)


def test_what_cannot_be_asked_is_named(load_model: Load, save: Save) -> None:
    model = load_model(SPEC, save())
    asked: tuple[tuple[str, Extract], ...] = (
        ("params.labels", Extract(TEXTS)),
        (r"params.labels\[1\]", Extract(TEXTS, labels=("a", " "))),
        (r"`params.labels\[1\]` has more than the 60 tokens", Extract(TEXTS, labels=("a", "b " * 80))),
        ("has 1,025 labels", Extract(TEXTS, labels=tuple(f"a{number}" for number in range(1025)))),
        ("no option `task`", Extract(TEXTS, labels=("a",), options={"task": "x"})),
    )
    for message, call in asked:
        with pytest.raises(ApiError, match=message):
            model.prepare(call)


@pytest.mark.parametrize(
    ("key", "value"), [("span_mode", "token_level"), ("post_fusion_schema", "l2l-l2t"), ("fuse_layers", True)]
)
def test_a_part_that_is_not_served_is_refused_by_name(load_model: Load, save: Save, key: str, value: object) -> None:
    folder = save()
    said(folder, **{key: value})

    with pytest.raises(LoadError, match=key):
        load_model(SPEC, folder)
