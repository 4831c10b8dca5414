"""What follows the pooling, by a snapshot's own files: layers, whether a prompt is pooled, where a vector is cut."""

import json
from typing import Any

import pytest

from sie_core.catalog.derive import Derived, Layer, derive
from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.ids import ModelId

TRANSFORMER = {"type": "sentence_transformers.models.Transformer", "path": ""}
POOLING = {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}
NORMALIZE = {"type": "sentence_transformers.models.Normalize", "path": "4_Normalize"}
IDENTITY, TANH = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Tanh"
GEMMA: dict[str, Any] = {
    "config.json": {"model_type": "bert", "hidden_size": 768, "max_position_embeddings": 2048},
    "modules.json": [
        TRANSFORMER,
        POOLING,
        {"type": "sentence_transformers.models.Dense", "path": "2_Dense"},
        {"type": "sentence_transformers.models.Dense", "path": "3_Dense"},
        NORMALIZE,
    ],
    "1_Pooling/config.json": {"word_embedding_dimension": 768, "pooling_mode_mean_tokens": True},
    "2_Dense/config.json": {
        "in_features": 768,
        "out_features": 3072,
        "bias": False,
        "activation_function": IDENTITY,
    },
    "3_Dense/config.json": {"in_features": 3072, "out_features": 512, "bias": True, "activation_function": TANH},
    "3_Dense_256/config.json": {"in_features": 768, "out_features": 256},
    "config_sentence_transformers.json": {},
}


HEAD = DenseHead()


def derived(head: DenseHead = HEAD, /, **changed: Any) -> Derived:
    """Of the files above, with keys of some of them changed; `own` is sentence-transformers' own."""
    files = {path: content | changed.pop(_name(path), {}) for path, content in GEMMA.items() if path != "modules.json"}
    files["modules.json"] = changed.pop("modules", GEMMA["modules.json"])
    assert not changed, changed
    bytes_of = {path: json.dumps(content).encode() for path, content in files.items()}
    return derive(ModelSpec(id=ModelId("acme/projected"), dense=head), bytes_of.get)


def _name(path: str) -> str:
    return "own" if path.startswith("config_") else path.removesuffix("/config.json").removesuffix(".json")


def test_layers_stand_in_their_order_each_with_its_bias_and_activation() -> None:
    found = derived()

    assert found.dense_layers == (
        Layer("2_Dense", "linear.", 768, 3072, bias=False, activation=None),
        Layer("3_Dense", "linear.", 3072, 512, bias=True, activation="tanh"),
    )
    assert found.dense is not None
    assert found.dense.dim == 512
    assert found.origins["dense.dim"] == "3_Dense/config.json"


def test_a_spec_picks_one_folder_whatever_the_modules_say() -> None:
    found = derived(DenseHead(projection="3_Dense_256", dim=256))

    assert found.dense_layers == (Layer("3_Dense_256", "linear.", 768, 256, bias=True, activation="tanh"),)


def test_an_activation_that_is_not_trusted_is_tanh_as_there() -> None:
    assert derived(**{"3_Dense": {"activation_function": "acme.Own"}}).dense_layers[1].activation == "tanh"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"in_features": 768}, "`3_Dense/config.json` takes vectors of 768, what comes to it has 3072"),
        (
            {"activation_function": "torch.nn.modules.activation.Hardtanh"},
            "`activation_function` in .*Hardtanh`: supported are",
        ),
        ({"module_input_name": "token_embeddings"}, "takes and makes `token_embeddings`: supported is `sentence_"),
        ({"module_output_name": "other"}, "takes and makes `other`, `sentence_embedding`"),
    ],
)
def test_a_layer_that_is_not_served_is_named(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        derived(**{"3_Dense": config})


def test_a_spec_of_another_width_than_the_last_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`dense.dim` is 768, `out_features` in `3_Dense/config.json` is 512"):
        derived(DenseHead(dim=768))


def test_a_cut_follows_the_last_layer() -> None:
    found = derived(own={"truncate_dim": 128})

    assert (found.truncate_dim, found.rescaled) == (128, False)
    assert found.dense is not None
    assert (found.dense.dim, found.origins["dense.dim"]) == (128, "config_sentence_transformers.json")


def test_a_cut_that_is_longer_than_the_vector_cuts_nothing() -> None:
    found = derived(own={"truncate_dim": 1024})

    assert found.dense is not None
    assert found.dense.dim == 512


def test_who_scales_in_the_spec_means_what_callers_get() -> None:
    assert derived(DenseHead(normalize=True), own={"truncate_dim": 128}).rescaled


@pytest.mark.parametrize("dim", [0, -1])
def test_a_cut_to_nothing_is_refused(dim: int) -> None:
    with pytest.raises(ValueError, match=f"`truncate_dim` in `config_sentence_transformers.json` is {dim}"):
        derived(own={"truncate_dim": dim})


def test_whether_a_prompt_is_pooled_is_the_poolings_to_say() -> None:
    assert derived().pools_prompt
    assert not derived(**{"1_Pooling": {"include_prompt": False}}).pools_prompt
