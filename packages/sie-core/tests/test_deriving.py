"""A spec is completed from the snapshot's own files, each value with the file it came from."""

import json
from typing import Any

import pytest

from sie_core.catalog.derive import Derived, derive
from sie_core.catalog.spec import DenseHead, ModelSpec, ScoreHead, check_spec
from sie_core.ids import ModelId

SPEC = ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead())
TRANSFORMER, POOLING, NORMALIZE = (
    {"type": "sentence_transformers.models.Transformer", "path": ""},
    {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
    {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"},
)
MINILM: dict[str, Any] = {
    "config.json": {"model_type": "bert", "hidden_size": 384, "max_position_embeddings": 512},
    "modules.json": [TRANSFORMER, POOLING, NORMALIZE],
    "1_Pooling/config.json": {
        "word_embedding_dimension": 384,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    },
    "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
    "config_sentence_transformers.json": {"__version__": {"sentence_transformers": "2.0.0"}},
    "tokenizer_config.json": {"model_max_length": 512},
}


def derived(spec: ModelSpec = SPEC, /, **changed: Any) -> Derived:
    """Of MiniLM's files with some of them changed, keys of a file or whole files; None takes a file away."""
    files = dict(MINILM)
    for name, content in changed.items():
        path = next(path for path in files if path.replace("/", "_").removesuffix(".json") == name)
        whole = not (isinstance(content, dict) and isinstance(files[path], dict))
        files[path] = content if whole else files[path] | content
    bytes_of = {path: json.dumps(content).encode() for path, content in files.items() if content is not None}
    return derive(spec, bytes_of.get)


def dense(found: Derived) -> DenseHead:
    assert found.dense is not None
    return found.dense


def test_a_snapshot_says_all_that_its_spec_leaves_open() -> None:
    found = derived()

    assert found.spec == ModelSpec(id=SPEC.id, max_tokens=256, dense=DenseHead(pooling="mean", normalize=True, dim=384))
    assert (found.architecture, found.folder, found.lower_case) == ("bert", "", False)
    check_spec(found.spec)


def test_every_value_names_the_file_it_came_from() -> None:
    assert derived().origins == {
        "max_tokens": "sentence_bert_config.json",
        "dense.pooling": "1_Pooling/config.json",
        "dense.normalize": "modules.json",
        "dense.dim": "config.json",
        "query": "default",
        "document": "default",
    }


def test_what_the_spec_says_comes_first() -> None:
    head = DenseHead(pooling="cls", normalize=False, dim=384)
    spec = ModelSpec(id=SPEC.id, max_tokens=100, dense=head, query="q {text}", document="d {text}")
    found = derived(spec, config_sentence_transformers={"prompts": {"query": "other: ", "document": "other: "}})

    assert found.spec == spec
    assert set(found.origins.values()) == {"spec", "config.json"}


def test_a_completed_spec_says_the_same_again() -> None:
    found = derived()

    assert derived(found.spec).spec == found.spec


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "last"),
        ({"pooling_mode_mean_tokens": False}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": ["mean"]}, "mean"),
    ],
)
def test_pooling_is_read_from_flags_and_from_a_name(config: dict[str, Any], pooling: str) -> None:
    assert dense(derived(**{"1_Pooling_config": config})).pooling == pooling


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"pooling_mode_max_tokens": True}, "`mean`, `max`|`max`, `mean`"),
        ({"pooling_mode": "max"}, "`max`"),
        ({"pooling_mode": ["cls", "mean"]}, "`cls`, `mean`"),
        ({"pooling_mode_of_the_future": True}, "`pooling_mode_of_the_future`"),
    ],
)
def test_a_pooling_that_is_not_served_is_named(config: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"`1_Pooling/config.json` pools by .*({named}).*: supported is one of `cls`"):
        derived(**{"1_Pooling_config": config})


def test_without_modules_a_snapshot_is_a_transformer_and_its_mean() -> None:
    found = derived(modules=None)

    assert (dense(found).pooling, dense(found).normalize) == ("mean", False)
    assert found.origins["dense.pooling"] == "default"


def test_without_a_last_module_vectors_keep_their_length() -> None:
    assert dense(derived(modules=[TRANSFORMER, POOLING])).normalize is False


def test_a_transformer_in_a_folder_of_its_own_is_read_there() -> None:
    files = {f"0_Transformer/{path}" if "/" not in path else path: content for path, content in MINILM.items()}
    files["modules.json"] = [TRANSFORMER | {"path": "0_Transformer"}, POOLING]
    found = derive(SPEC, {path: json.dumps(content).encode() for path, content in files.items()}.get)

    assert found.folder == "0_Transformer"
    assert found.origins["max_tokens"] == "0_Transformer/sentence_bert_config.json"


@pytest.mark.parametrize(
    "modules",
    [
        [],
        [POOLING],
        [TRANSFORMER, NORMALIZE],
        [TRANSFORMER, POOLING, {"type": "sentence_transformers.models.WordWeights", "path": "2_WordWeights"}],
        [TRANSFORMER, POOLING, NORMALIZE, POOLING],
        [{"type": "acme.custom.Thing", "path": ""}, POOLING],
    ],
)
def test_modules_that_are_not_served_are_named(modules: list[Any]) -> None:
    listed = ", ".join(f"`{module['type'].rsplit('.', 1)[-1]}`" for module in modules) or "nothing"

    with pytest.raises(ValueError, match=f"`modules.json` lists {listed}: supported is `Transformer`"):
        derived(modules=modules)


POSITIONS: dict[str, tuple[dict[str, Any], int]] = {
    "after the padding's": ({"model_type": "xlm-roberta", "max_position_embeddings": 8194, "pad_token_id": 1}, 8192),
    "after a padding that is not said": ({"model_type": "roberta", "max_position_embeddings": 514}, 512),
    "after a padding of 0": (
        {"model_type": "camembert", "max_position_embeddings": 513, "pad_token_id": 0},
        512,
    ),
    "after the padding's, whatever is said": (
        {"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 7},
        512,
    ),
    "all of them": ({"model_type": "electra", "max_position_embeddings": 512, "pad_token_id": 1}, 512),
    "as many as transformers has": ({"model_type": "distilbert", "max_position_embeddings": None}, 512),
}


@pytest.mark.parametrize("kind", POSITIONS)
def test_a_token_has_a_position_of_those_that_are_for_tokens(kind: str) -> None:
    config, tokens = POSITIONS[kind]
    asked = ModelSpec(id=SPEC.id, max_tokens=tokens, dense=DenseHead())
    files = {"config": config, "sentence_bert_config": None, "tokenizer_config": None}

    assert (derived(**files).max_tokens, derived(asked, **files).max_tokens) == (tokens, tokens)
    with pytest.raises(ValueError, match=f"`max_tokens` is {tokens + 1}, `max_position_embeddings`"):
        derived(ModelSpec(id=SPEC.id, max_tokens=tokens + 1, dense=DenseHead()), **files)


def test_where_only_distances_count_the_spec_may_ask_for_more() -> None:
    config = {"model_type": "deberta-v2", "max_position_embeddings": 512, "position_biased_input": False}
    asked = ModelSpec(id=SPEC.id, max_tokens=2048, dense=DenseHead())
    found = [derived(spec, config=config, sentence_bert_config=None).max_tokens for spec in (SPEC, asked)]

    assert found == [512, 2048]


def test_what_distilbert_calls_its_width_is_one() -> None:
    assert dense(derived(config={"model_type": "distilbert", "hidden_size": None, "dim": 384})).dim == 384


@pytest.mark.parametrize("model_type", ["gpt2", "roformer", ""])
def test_an_architecture_that_is_not_served_is_named(model_type: str) -> None:
    with pytest.raises(ValueError, match=f"`model_type` in `config.json` is `{model_type}`: supported are `bart`"):
        derived(config={"model_type": model_type})


@pytest.mark.parametrize(
    ("changed", "tokens", "origin"),
    [
        ({"sentence_bert_config": None}, 512, "tokenizer_config.json"),
        ({"sentence_bert_config": {"max_seq_length": None}, "tokenizer_config": {"model_max_length": 128}}, 128,
         "tokenizer_config.json"),
        ({"sentence_bert_config": None, "tokenizer_config": {"model_max_length": 10**30}}, 512, "config.json"),
        ({"sentence_bert_config": None, "tokenizer_config": None}, 512, "config.json"),
        ({"sentence_bert_config": {"max_seq_length": 1024}}, 512, "config.json"),
        ({"config": {"max_position_embeddings": None}}, 256, "sentence_bert_config.json"),
    ],
)  # fmt: skip
def test_the_length_is_the_tokenizers_but_never_beyond_the_positions(
    changed: dict[str, Any], tokens: int, origin: str
) -> None:
    found = derived(**changed)

    assert (found.max_tokens, found.origins["max_tokens"]) == (tokens, origin)


def test_a_length_that_no_file_says_is_asked_for() -> None:
    config = {"model_type": "modernbert", "max_position_embeddings": None}
    with pytest.raises(ValueError, match="set `max_tokens` in the spec of `acme/tiny`"):
        derived(config=config, sentence_bert_config=None, tokenizer_config=None)


def test_a_spec_cannot_be_longer_than_the_positions() -> None:
    with pytest.raises(ValueError, match=r"`max_tokens` is 600, `max_position_embeddings` in `config.json` is 512"):
        derived(ModelSpec(id=SPEC.id, max_tokens=600, dense=DenseHead()))


def test_a_spec_and_a_snapshot_of_different_width_are_told_apart() -> None:
    with pytest.raises(ValueError, match=r"`dense.dim` is 768, `hidden_size` in `config.json` is 384"):
        derived(ModelSpec(id=SPEC.id, dense=DenseHead(dim=768)))


def test_files_of_different_width_are_told_apart() -> None:
    with pytest.raises(ValueError, match=r"`1_Pooling/config.json` pools vectors of 768, .* is 384"):
        derived(**{"1_Pooling_config": {"word_embedding_dimension": 768}})


@pytest.mark.parametrize(
    ("prompts", "query", "document"),
    [
        ({"prompts": {"query": "query: ", "document": "passage: "}}, "query: {text}", "passage: {text}"),
        ({"prompts": {"query": "q ", "passage": "p "}}, "q {text}", "p {text}"),
        ({"prompts": {"query": "", "document": ""}}, None, None),
        ({"prompts": {"sts": "s ", "query": "q "}, "default_prompt_name": "sts"}, "q {text}", "s {text}"),
        ({"prompts": {"sts": "s "}, "default_prompt_name": None}, None, None),
    ],
)
def test_prompts_become_templates(prompts: dict[str, Any], query: str | None, document: str | None) -> None:
    found = derived(config_sentence_transformers=prompts)

    assert (found.query, found.document) == (query, document)
    assert found.origins["query"] == ("config_sentence_transformers.json" if query else "default")


def test_a_default_prompt_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"`default_prompt_name` .* is `gone`, its prompts are `query`"):
        derived(config_sentence_transformers={"prompts": {"query": "q "}, "default_prompt_name": "gone"})


def test_whether_a_prompt_is_pooled_is_kept() -> None:
    assert derived().pools_prompt
    assert not derived(**{"1_Pooling_config": {"include_prompt": False}}).pools_prompt


@pytest.mark.parametrize("path", ["config.json", "1_Pooling/config.json"])
def test_a_file_that_must_be_there_is_named(path: str) -> None:
    bytes_of = {name: json.dumps(content).encode() for name, content in MINILM.items() if name != path}

    with pytest.raises(ValueError, match=f"the snapshot has no `{path}`"):
        derive(SPEC, bytes_of.get)


@pytest.mark.parametrize("path", sorted(set(MINILM) - {"tokenizer_config.json"}))
@pytest.mark.parametrize("content", [b"", b"{", b"3", b"\xff"])
def test_a_file_that_cannot_be_read_is_named(path: str, content: bytes) -> None:
    bytes_of = {name: json.dumps(content).encode() for name, content in MINILM.items()} | {path: content}

    with pytest.raises(ValueError, match=f"`{path}` cannot be read: "):
        derive(SPEC, bytes_of.get)


@pytest.mark.parametrize("path", ["../other", "/etc", "a/../../b"])
def test_module_outside_the_snapshot_is_refused_before_anything_is_read_there(path: str) -> None:
    with pytest.raises(ValueError, match="want a folder of the snapshot"):
        derived(modules=[TRANSFORMER | {"path": path}, POOLING])


@pytest.mark.parametrize("length", [-1, 0, 2])
def test_length_that_leaves_no_room_for_a_word_is_refused_with_its_file(length: int) -> None:
    with pytest.raises(ValueError, match=f"`sentence_bert_config.json` has an item be {length} tokens"):
        derived(sentence_bert_config={"max_seq_length": length})


def test_a_snapshot_of_another_architecture_than_the_spec_says_is_refused() -> None:
    spec = ModelSpec(id=SPEC.id, dense=DenseHead(), architecture="xlm-roberta")

    with pytest.raises(ValueError, match=r"`architecture` is `xlm-roberta`, `model_type` in `config.json` is `bert`"):
        derived(spec)


RERANKER = ModelSpec(id=SPEC.id, score=ScoreHead(head="classify"))
SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"
OWN_FILE, IN_CONFIG = "config_sentence_transformers.json", "config.json"
ACTIVATIONS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, str]]] = {
    "nothing": ({}, {}, ("sigmoid", "default")),
    "the older key": ({"sbert_ce_default_activation_function": IDENTITY}, {}, ("identity", IN_CONFIG)),
    "the newer key": (
        {"sbert_ce_default_activation_function": IDENTITY, "sentence_transformers": {"activation_fn": SIGMOID}},
        {},
        ("sigmoid", IN_CONFIG),
    ),
    "a file of its own": (
        {"sentence_transformers": {"activation_fn": SIGMOID}},
        {"model_type": "CrossEncoder", "activation_fn": IDENTITY},
        ("identity", OWN_FILE),
    ),
    "another model's file": ({}, {"activation_fn": IDENTITY}, ("sigmoid", "default")),
    "code": ({}, {"model_type": "CrossEncoder", "activation_fn": "acme.Own"}, ("sigmoid", "default")),
}


def reranker(spec: ModelSpec = RERANKER, *, config: dict[str, Any], own: dict[str, Any]) -> Derived:
    labels = {"id2label": {"0": "relevant"}}
    return derived(spec, config=labels | config, config_sentence_transformers=own)


@pytest.mark.parametrize("said", ACTIVATIONS)
def test_an_activation_is_looked_for_where_a_cross_encoder_does(said: str) -> None:
    config, own, wanted = ACTIVATIONS[said]
    found = reranker(config=config, own=own)

    assert found.score is not None
    assert (found.score.activation, found.origins["score.activation"]) == wanted


def test_a_spec_says_an_activation_first() -> None:
    spec = ModelSpec(id=SPEC.id, score=ScoreHead(head="classify", activation="identity"))
    found = reranker(spec, config={"sentence_transformers": {"activation_fn": SIGMOID}}, own={})

    assert (found.spec.score, found.origins["score.activation"]) == (spec.score, "spec")


def test_an_activation_that_is_not_served_is_named() -> None:
    with pytest.raises(ValueError, match=r"`config.json` has the activation `torch.nn.Tanh`: supported are `Sigmoid`"):
        reranker(config={"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}}, own={})


@pytest.mark.parametrize(("labels", "many"), [({"id2label": {"0": "no", "1": "yes"}}, 2), ({"id2label": None}, 2)])
def test_several_labels_are_no_score(labels: dict[str, Any], many: int) -> None:
    with pytest.raises(ValueError, match=f"`config.json` has {many} labels.*; a score is of 1"):
        reranker(config=labels, own={})


def test_of_a_pair_the_default_prompt_stands_before_the_query_alone() -> None:
    prompts = {"prompts": {"query": "q: ", "asked": "a: ", "document": "d: "}, "default_prompt_name": "asked"}
    found = reranker(config={}, own={"model_type": "CrossEncoder"} | prompts)

    assert (found.query, found.document) == ("a: {text}", None)
