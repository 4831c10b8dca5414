"""ColBERT beside sentence-transformers' MultiVectorEncoder: tiny checkpoints as ColBERT, pylate and it save them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_core.catalog.spec import ModelSpec, MultivectorHead, ScoreHead
from sie_core.ids import ModelId
from sie_sdk.scoring import maxsim
from sie_server.models.calls import Encode, Score
from sie_server.models.muvera import Muvera, encoded
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


MARKED = len(tiny_bert.VOCABULARY)
"""Id of the first marker that is added to the vocabulary."""


def save_parts(folder: Path, length: int = 40) -> Path:
    """A transformer as transformers saves it, with pylate's markers in its tokenizer."""
    torch.manual_seed(0)
    network = transformers.BertModel(
        transformers.BertConfig(**tiny_bert.CONFIG | {"vocab_size": MARKED + 2}), add_pooling_layer=False
    )
    with torch.no_grad():
        for weight in network.parameters():
            drawn = 0.3 * torch.randn_like(weight)
            weight.copy_(drawn if weight.ndim > 1 else weight + drawn)
    network.save_pretrained(folder)
    added = [
        {"id": MARKED + index, "content": name, "special": False, "normalized": True}
        | {"single_word": False, "lstrip": False, "rstrip": False}
        for index, name in enumerate(("[Q] ", "[D] "))
    ]
    tokenizer = {**tiny_bert.TOKENIZER, "added_tokens": [*tiny_bert.TOKENIZER["added_tokens"], *added]}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    names = {f"{role}_token": f"[{role.upper()}]" for role in ("pad", "mask", "cls", "sep", "unk")}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


PYLATE = {
    "model_type": "ColBERT",
    "query_prefix": "[Q] ",
    "document_prefix": "[D] ",
    "query_length": 16,
    "document_length": 30,
    "do_query_expansion": True,
    "attend_to_expansion_tokens": False,
    "skiplist_words": ["!", "?"],
}


def save_pylate(folder: Path, **knobs: Any) -> Path:
    save_parts(folder)
    kinds = [("", "sentence_transformers.models.Transformer"), ("1_Dense", "pylate.models.Dense.Dense")]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": kind} for place, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 39, "do_lower_case": False}))
    identity = {"activation_function": "torch.nn.modules.linear.Identity"}
    dense = {"in_features": tiny_bert.HIDDEN, "out_features": 8, "bias": False} | identity
    (folder / "1_Dense").mkdir()
    (folder / "1_Dense" / "config.json").write_text(json.dumps(dense))
    weight = {"linear.weight": torch.randn(8, tiny_bert.HIDDEN)}
    pytest.importorskip("safetensors.torch").save_file(weight, folder / "1_Dense" / "model.safetensors")
    said = {name: value for name, value in (PYLATE | knobs).items() if value is not None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"attend_to_expansion_tokens": True},
        {"do_query_expansion": False},
        {"skiplist_words": None},
        {"skiplist_words": [], "query_length": 8, "document_length": 10},
    ],
    ids=["as published", "attended", "not filled", "punctuation", "short"],
)
def test_a_folder_of_pylate(load_model: Any, tmp_path: Path, knobs: dict[str, Any]) -> None:
    folder = save_pylate(tmp_path, **knobs)

    for is_query in (True, False):
        assert difference(ours(load_model, folder, is_query=is_query), theirs(folder, is_query)) <= WITHIN


@pytest.mark.parametrize(
    ("is_query", "wrong"),
    [
        (True, {"query_marker": "[D] "}),
        (True, {"query_tokens": 15}),
        (True, {"attend_expansion": True}),
        (False, {"document_marker": "[Q] "}),
        (False, {"document_tokens": 29}),
        (False, {"skip_punctuation": False}),
    ],
)
def test_a_wrong_rule_of_pylate_is_noticed(
    load_model: Any, tmp_path: Path, is_query: bool, wrong: dict[str, Any]
) -> None:
    folder = save_pylate(tmp_path)

    assert difference(ours(load_model, folder, is_query=is_query, **wrong), theirs(folder, is_query)) > 100 * WITHIN


def save_native(folder: Path, *, expansion: dict[str, Any] | None, **lengths: int) -> Path:
    modules = references.multi_vector_encoder.modules
    general = references.sentence_transformer.modules
    parts = [
        general.Transformer(str(save_parts(folder / "plain")), query_expansion=expansion, **lengths),
        general.Dense(
            tiny_bert.HIDDEN,
            8,
            bias=False,
            activation_function=torch.nn.Identity(),
            module_input_name="token_embeddings",
        ),
        modules.MultiVectorMask(skiplist_words=["!"]),
        general.Normalize(module_input_name="token_embeddings"),
    ]
    prompts = {"query": "ask ", "document": "say "}
    references.MultiVectorEncoder(modules=parts, prompts=prompts, device="cpu").save(str(folder / "saved"))
    return folder / "saved"


@pytest.mark.parametrize(
    ("expansion", "lengths"),
    [
        (None, {}),
        (None, {"query_length": 12, "document_length": 20}),
        ({"strategy": "fixed", "length": 20}, {"document_length": 24}),
        ({"strategy": "fixed", "length": 20, "attend": True}, {}),
    ],
)
def test_a_folder_of_sentence_transformers(
    load_model: Any, tmp_path: Path, expansion: dict[str, Any] | None, lengths: dict[str, int]
) -> None:
    folder = save_native(tmp_path, expansion=expansion, **lengths)

    for is_query in (True, False):
        assert difference(ours(load_model, folder, is_query=is_query), theirs(folder, is_query)) <= WITHIN


def test_a_score_is_the_sum_over_the_querys_tokens(load_model: Any, tmp_path: Path) -> None:
    folder = save_pylate(tmp_path)
    spec = ModelSpec(id=ModelId("acme/colbert"), multivector=MultivectorHead(dim=8), score=ScoreHead(head="vectors"))
    model = load_model(spec, folder)
    call = Score(TEXTS[0], tuple(TEXTS))
    prepared = model.prepare(call)
    scores = model.finish(call, prepared, model.run(prepared, stream=0))

    assert scores == pytest.approx(maxsim(theirs(folder, True)[0], theirs(folder, False)), abs=1e-4)


def test_an_encoding_is_of_the_vectors_that_the_reference_has(load_model: Any, tmp_path: Path) -> None:
    folder = save_pylate(tmp_path)
    model = load_model(ModelSpec(id=ModelId("acme/colbert"), multivector=MultivectorHead(dim=8)), folder)
    for is_query in (True, False):
        call = Encode(tuple(TEXTS), ("dense",), is_query=is_query, options={"muvera": {"final_projection_dim": 512}})
        prepared = model.prepare(call)
        results = model.finish(call, prepared, model.run(prepared, stream=0))
        wanted = [
            encoded(vectors, Muvera(final_projection_dim=512), is_query=is_query)
            for vectors in theirs(folder, is_query)
        ]

        assert [result.multivector for result in results] == [None] * len(TEXTS)
        assert np.abs(np.array([result.dense for result in results]) - np.array(wanted)).max() <= 1e-3
