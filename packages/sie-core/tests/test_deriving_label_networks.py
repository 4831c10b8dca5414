"""GLiNER models with a network of their own for labels: where it and its tokenizer are, and what is refused."""

import json
from typing import Any

import pytest

from sie_core.catalog.derive import LabelNetwork, derive
from sie_core.catalog.spec import ExtractHead, ModelSpec, Source, check_spec
from sie_core.ids import ModelId

TEXTS = {"encoder_config": {"model_type": "modernbert", "max_position_embeddings": 90}, "max_len": 384}
NETWORK = {"model_type": "bert", "max_position_embeddings": 40}
BARE = TEXTS | {"labels_encoder": "acme/labels", "labels_encoder_config": None}
WHOLE = BARE | {"labels_encoder_config": NETWORK | {"max_position_embeddings": 30}}
TOKENIZER = {"model_max_length": 25}
BASE = {"config.json": NETWORK, "tokenizer_config.json": {"model_max_length": 35}}
OWN = {"labels_tokenizer/tokenizer_config.json": TOKENIZER}


def labels(said: dict[str, Any], base: dict[str, Any] | None = None, *, repo: str = "acme/labels") -> LabelNetwork:
    source = None if base is None else Source(ModelId(repo))
    spec = ModelSpec(id=ModelId("acme/one"), extract=ExtractHead("spans"), labels_base=source)
    own = {"tokenizer_config.json": TOKENIZER} | said
    files = [{path: json.dumps(one).encode() for path, one in some.items()} for some in (own, base or {})]
    found = derive(spec, files[0].get, labels_base=files[1].get).labels
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("own", "max_tokens", "tokenizer"),
    [
        ({"gliner_config.json": BARE}, 35, None),
        ({"gliner_config.json": WHOLE}, 30, None),
        ({"gliner_config.json": BARE} | OWN, 25, "labels_tokenizer"),
        ({"gliner_config.json": WHOLE} | OWN, 25, "labels_tokenizer"),
    ],
)
def test_what_it_has_is_its_own_and_the_rest_its_bases(
    own: dict[str, Any], max_tokens: int, tokenizer: str | None
) -> None:
    found = labels(own, BASE)

    assert (found.architecture, found.max_tokens, found.tokenizer) == ("bert", max_tokens, tokenizer)


def test_a_model_that_has_everything_needs_no_base() -> None:
    assert labels({"gliner_config.json": WHOLE} | OWN).architecture == "bert"


@pytest.mark.parametrize("own", [{"gliner_config.json": BARE} | OWN, {"gliner_config.json": WHOLE}])
def test_without_a_base_the_key_to_set_is_named_and_what_to(own: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Set `labels_base\.repo` in the spec of `acme/one`.* is `acme/labels`"):
        labels(own)


def test_a_base_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`labels_base\.repo` .* is `acme/other`, `labels_encoder` .* `acme/labels`"):
        labels({"gliner_config.json": BARE}, BASE, repo="acme/other")


@pytest.mark.parametrize("lost", BASE)
def test_a_base_that_lacks_a_file_is_refused(lost: str) -> None:
    with pytest.raises(ValueError, match=f"`acme/labels`, which `labels_base` names, has no `{lost}`"):
        labels({"gliner_config.json": BARE}, {path: file for path, file in BASE.items() if path != lost})


def test_a_base_for_labels_that_are_read_with_the_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has `labels_base`, and `gliner_config\.json` no `labels_encoder`"):
        labels({"gliner_config.json": TEXTS}, BASE)


@pytest.mark.parametrize("kind", ["t5", "clip"])
def test_a_network_that_there_is_no_backbone_for_is_refused(kind: str) -> None:
    said = BARE | {"labels_encoder_config": {"model_type": kind}}

    with pytest.raises(ValueError, match=rf"`labels_encoder_config` in `gliner_config.json` is `{kind}`: supported"):
        labels({"gliner_config.json": said} | OWN)


def test_it_is_for_spans_alone() -> None:
    spec = ModelSpec(id=ModelId("acme/one"), extract=ExtractHead("labels"), labels_base=Source(ModelId("acme/labels")))

    with pytest.raises(ValueError, match="`labels_base` is for the head `spans`"):
        check_spec(spec)
