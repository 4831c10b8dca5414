"""Small seeded GLiNERs, saved by gliner, asked by it and by us: `make parity` has an environment for it."""

import json
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
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.timeout(600),
    # gliner says that it cuts a text.
    pytest.mark.filterwarnings("ignore:Sentence of length:UserWarning"),
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
LABELS = ("per", "a", "org", "per")
NETWORKS: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", "max_position_embeddings": 200},
    "deberta-v2": {
        "model_type": "deberta-v2",
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
        "max_position_embeddings": 200,
    },
}
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}
KINDS: dict[str, dict[str, Any]] = {
    "as is": {},
    "no lstm": {"num_rnn_layers": 0},
    "two lstms": {"num_rnn_layers": 2},
    "narrow": {"hidden_size": 20, "max_width": 3},
    "after the marker": {"embed_ent_token": False},
    "token level": {"span_mode": "token_level"},
    "token level, no lstm": {"span_mode": "token_level", "num_rnn_layers": 0},
    "few words": {"max_len": 9},
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
    def made(network: str = "bert", *, seed: int = 0, **shape: Any) -> Path:
        torch.manual_seed(seed)
        base, saved = tmp_path / "base", tmp_path / "saved"
        base.mkdir(exist_ok=True)
        (base / "tokenizer.json").write_text(json.dumps(tiny_bert.TOKENIZER))
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "model_max_length": 200,
        }
        (base / "tokenizer_config.json").write_text(json.dumps(settings))
        inside = SHAPE | NETWORKS[network] | {"vocab_size": len(tiny_bert.VOCABULARY)}
        config = {"model_name": str(base), "encoder_config": inside, "hidden_size": 32, "max_width": 5} | shape
        model = gliner.GLiNER.from_config(config, backbone_from_pretrained=False)
        with torch.no_grad():
            for weight in model.parameters():
                drawn = 0.3 * torch.randn_like(weight)
                weight.copy_(drawn if weight.ndim > 1 else weight + drawn)
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


def telling(save: Save, network: str = "bert", **shape: Any) -> Path:
    """Of some seeds all scores are next to 0, and two empty answers say nothing."""
    made = (save(network, seed=seed, **shape) for seed in range(30))
    return next(folder for folder in made if sum(map(len, theirs(folder))) > 5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("network", NETWORKS)
def test_entities_are_gliners(load_model: Load, save: Save, network: str, kind: str) -> None:
    folder = telling(save, network, **KINDS[kind])
    model = load_model(SPEC, folder)
    seen = 0

    for settings in SETTINGS:
        wanted = theirs(folder, **settings)
        seen += sum(len(one) for one in wanted)
        assert not differ(ours(model, **settings), wanted)

    assert seen > 20


def test_one_by_one_is_together(load_model: Load, save: Save) -> None:
    model = load_model(SPEC, save())

    alone = [ours(model, (text,))[0] for text in TEXTS]

    assert not differ(alone, ours(model))


@pytest.mark.parametrize(
    ("key", "value"), [("max_width", 1), ("num_rnn_layers", 0), ("embed_ent_token", False), ("max_len", 3)]
)
def test_a_wrong_width_a_missing_lstm_a_wrong_offset_are_noticed(
    load_model: Load, save: Save, key: str, value: object
) -> None:
    folder = telling(save)
    wanted = theirs(folder, threshold=0.2)
    config = json.loads((folder / "gliner_config.json").read_text())
    (folder / "gliner_config.json").write_text(json.dumps(config | {key: value}))

    assert differ(ours(load_model(SPEC, folder), threshold=0.2), wanted)


def bared(folder: Path, **ids: int) -> Path:
    """As the first GLiNERs were published: the rest is in the repository that `model_name` names, which is returned."""
    config = json.loads((folder / "gliner_config.json").read_text())
    base = Path(config["model_name"])
    (base / "config.json").write_text(json.dumps(config["encoder_config"] | {"vocab_size": len(tiny_bert.VOCABULARY)}))
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "gliner_config.json").write_text(json.dumps(config | {"encoder_config": None} | ids))
    return base


@pytest.mark.parametrize("ids", [{"class_token_index": -1, "vocab_size": -1}, {"class_token_index": -1}])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_model_whose_tokenizer_is_elsewhere_is_gliners(
    load_model: Load, save: Save, network: str, ids: dict[str, int]
) -> None:
    folder = telling(save, network)
    whole = theirs(folder, threshold=0.2)
    base = bared(folder, **ids)
    spec = ModelSpec(id=SPEC.id, extract=SPEC.extract, base=Source(ModelId("acme/network")))

    assert not differ(ours(load_model(spec, folder, base=base), threshold=0.2), theirs(folder, threshold=0.2))
    assert not differ(theirs(folder, threshold=0.2), whole)


def test_neighbours_become_one(load_model: Load, save: Save) -> None:
    folder = telling(save, span_mode="token_level")
    model = load_model(SPEC, folder)
    apart, merged = ours(model, threshold=0.2), ours(model, threshold=0.2, merge_adjacent_entities=True)

    assert sum(map(len, merged)) < sum(map(len, apart))
    for text, item in zip(TEXTS, merged, strict=True):
        assert all(text[one["start"] : one["end"]] == one["text"] for one in item)


def test_what_cannot_be_asked_is_named(load_model: Load, save: Save) -> None:
    model = load_model(SPEC, save())
    asked: tuple[tuple[str, Extract], ...] = (
        ("params.labels", Extract(TEXTS)),
        (r"params.labels\[1\]", Extract(TEXTS, labels=("a", " "))),
        ("<<SEP>>", Extract(TEXTS, labels=("a <<SEP>>",))),
        ("leave no room", Extract(TEXTS, labels=("a b " * 120,))),
        ("no option `task`", Extract(TEXTS, labels=("a",), options={"task": "x"})),
    )
    for message, call in asked:
        with pytest.raises(ApiError, match=message):
            model.prepare(call)


@pytest.mark.parametrize(("key", "value"), [("span_mode", "conv_max"), ("fuse_layers", True), ("labels_decoder", "x")])
def test_a_part_that_is_not_served_is_refused_by_name(load_model: Load, save: Save, key: str, value: object) -> None:
    folder = save()
    config = json.loads((folder / "gliner_config.json").read_text())
    (folder / "gliner_config.json").write_text(json.dumps(config | {key: value}))

    with pytest.raises(LoadError, match=key):
        load_model(SPEC, folder)
