"""GLiNER models: what a snapshot says of its network and tokenizer, what its base says, and what is refused."""

import json
from typing import Any

import pytest

from sie_core.catalog.derive import Derived, derive
from sie_core.catalog.spec import ExtractHead, ModelSpec, Source
from sie_core.ids import ModelId

NETWORK = {"model_type": "bert", "max_position_embeddings": 40}
BARE = {"model_name": "acme/network", "max_len": 384}
WHOLE = BARE | {"encoder_config": NETWORK | {"max_position_embeddings": 30}}
TOKENIZER = {"model_max_length": 25}
BASE = {"config.json": NETWORK, "tokenizer_config.json": TOKENIZER | {"model_max_length": 35}}


def derived(own: dict[str, Any], base: dict[str, Any] | None = None, *, repo: str = "acme/network") -> Derived:
    source = None if base is None else Source(ModelId(repo))
    spec = ModelSpec(id=ModelId("acme/one"), extract=ExtractHead("spans"), base=source)
    files = [{path: json.dumps(said).encode() for path, said in (one or {}).items()} for one in (own, base)]
    return derive(spec, files[0].get, files[1].get)


def test_a_model_that_has_everything_needs_no_base() -> None:
    found = derived({"gliner_config.json": WHOLE, "tokenizer_config.json": TOKENIZER})

    assert (found.architecture, found.max_tokens, found.borrowed) == ("bert", 25, False)


def test_what_it_lacks_is_the_bases() -> None:
    found = derived({"gliner_config.json": BARE}, BASE)

    assert (found.architecture, found.max_tokens, found.borrowed) == ("bert", 35, True)


@pytest.mark.parametrize(
    ("own", "max_tokens", "borrowed"),
    [
        ({"gliner_config.json": WHOLE}, 30, True),
        ({"gliner_config.json": BARE, "tokenizer_config.json": TOKENIZER}, 25, False),
        ({"gliner_config.json": WHOLE, "tokenizer_config.json": TOKENIZER}, 25, False),
    ],
)
def test_what_it_has_is_its_own(own: dict[str, Any], max_tokens: int, borrowed: bool) -> None:
    found = derived(own, BASE)

    assert (found.max_tokens, found.borrowed) == (max_tokens, borrowed)


@pytest.mark.parametrize(
    "own", [{"gliner_config.json": BARE, "tokenizer_config.json": TOKENIZER}, {"gliner_config.json": WHOLE}]
)
def test_without_a_base_the_key_to_set_is_named_and_what_to(own: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Set `base\.repo` in the spec of `acme/one`.* is `acme/network`"):
        derived(own)


def test_a_base_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`base\.repo` .* is `acme/other`, `model_name` .* is `acme/network`"):
        derived({"gliner_config.json": BARE}, BASE, repo="acme/other")


@pytest.mark.parametrize("name", [{}, {"model_name": "/home/somebody/network"}])
def test_any_base_will_do_where_the_authors_named_no_repository(name: dict[str, Any]) -> None:
    assert derived({"gliner_config.json": name}, BASE, repo="acme/other").architecture == "bert"


def test_what_is_null_in_the_base_is_not_said() -> None:
    base = BASE | {"config.json": NETWORK | {"architectures": None}}

    assert derived({"gliner_config.json": BARE}, base).architecture == "bert"


@pytest.mark.parametrize(
    ("lost", "said"),
    [("config.json", "nor its base says what the network is"), ("tokenizer_config.json", "nor its base has a")],
)
def test_a_base_that_lacks_it_too_is_refused(lost: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        derived({"gliner_config.json": BARE}, {path: file for path, file in BASE.items() if path != lost})
