"""GLiClass models: what a snapshot says of its head and of the network inside, and what of it is refused."""

import json
from typing import Any

import pytest

from sie_core.catalog.derive import Derived, derive
from sie_core.catalog.spec import DenseHead, ExtractHead, ModelSpec
from sie_core.ids import ModelId

NETWORK = {"model_type": "modernbert", "max_position_embeddings": 8192, "architectures": None}
CONFIG = {"model_type": "GLiClass", "encoder_config": NETWORK, "prompt_first": True}


def derived(config: dict[str, Any], **spec: Any) -> Derived:
    files = {"config.json": json.dumps(config).encode()}
    said: dict[str, Any] = {"id": ModelId("acme/one"), "extract": ExtractHead("labels")} | spec
    return derive(ModelSpec(**said), files.get)


def test_the_network_inside_is_the_architecture_and_says_how_long_a_text_may_be() -> None:
    found = derived(CONFIG, architecture="gliclass")

    assert (found.architecture, found.inside, found.max_tokens) == ("modernbert", "encoder_config", 8192)
    assert found.extract == ExtractHead("labels", threshold=0.0, multi_label=False)
    assert found.origins["extract.threshold"] == "default"


def test_what_the_spec_says_of_its_labels_stands() -> None:
    found = derived(CONFIG, extract=ExtractHead("labels", threshold=0.4, multi_label=True))

    assert found.extract == ExtractHead("labels", threshold=0.4, multi_label=True)
    assert found.origins["extract.multi_label"] == "spec"


def test_a_network_that_does_not_say_what_it_is_is_a_deberta() -> None:
    assert derived(CONFIG | {"encoder_config": {"hidden_size": 8}}).architecture == "deberta-v2"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"architecture_type": "bi-encoder-fused"}, "`architecture_type` in `config.json` is `bi-encoder-fused`"),
        ({"squeeze_layers": True}, "`squeeze_layers` in `config.json` is `true`: supported is `false`"),
        ({"encoder_layer_id": 3}, "`encoder_layer_id` in `config.json` is `3`: supported is `-1`"),
        ({"use_lstm": True}, "`use_lstm`"),
        ({"use_calibrator": True}, "`use_calibrator`"),
        ({"scorer_type": "hopfield"}, "supported is `simple`, `weighted-dot`, `mlp`, `cross-attn`"),
        ({"pooling_strategy": "rms"}, "`pooling_strategy` in `config.json` is `rms`"),
        ({"pooling_strategy": "avg", "extract_text_features": True}, "is `avg`: supported is `first`$"),
        ({"scorer_type": "cross-attn"}, "`pooling_strategy` in `config.json` is `first`: supported is `pass`$"),
        ({"encoder_config": None}, "has no `encoder_config`"),
        ({"encoder_config": {"model_type": "t5"}}, "`model_type` in `config.json` is `t5`"),
        ({"model_type": "bert"}, "`model_type` in `config.json` is `bert`: the head `labels` is for `GLiClass`"),
    ],
)
def test_what_is_not_served_is_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        derived(CONFIG | wrong)


@pytest.mark.parametrize(
    "spec",
    [{"extract": None, "dense": DenseHead()}, {"extract": ExtractHead("entailment")}, {"dense": DenseHead()}],
)
def test_a_gliclass_has_no_other_head(spec: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="which classifies: the spec wants `extract` with `labels`"):
        derived(CONFIG, **spec)


def test_a_spec_of_another_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="`architecture` is `bert`"):
        derived(CONFIG, architecture="bert")
