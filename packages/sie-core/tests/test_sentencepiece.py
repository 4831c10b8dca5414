"""Sentencepiece models as `tokenizer.json`: what is written, that it is the same every time, and what is refused."""

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.artifacts.sentencepiece import Kind, kind_of, tokenizer_json
from sie_testing.tiny_spm import (
    BPE,
    DEBERTA,
    NORMAL,
    USER_DEFINED,
    WORDS,
    XLM_ROBERTA,
    sentencepiece_model,
)

XLM: Kind = "XLMRobertaTokenizer"
DEB: Kind = "DebertaV2Tokenizer"
XLM_MODEL = sentencepiece_model([*XLM_ROBERTA, *WORDS], unk_id=0, charsmap=b"\1\2\3")
DEB_MODEL = sentencepiece_model([*DEBERTA, *WORDS], unk_id=3)


def made(model: bytes, kind: Kind, settings: dict[str, Any] | None = None) -> Any:
    return json.loads(tokenizer_json(model, kind, None if settings is None else json.dumps(settings).encode()))


def added(tokenizer: Any) -> dict[str, int]:
    return {token["content"]: token["id"] for token in tokenizer["added_tokens"]}


def test_xlm_roberta_has_fairseq_s_ids() -> None:
    tokenizer = made(XLM_MODEL, XLM)
    pieces = tokenizer["model"]["vocab"]

    assert pieces[:6] == [["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["▁", -2.5], ["▁the", -3.25]]
    assert pieces[-1] == ["<mask>", 0.0]
    assert tokenizer["model"]["unk_id"] == 3
    assert added(tokenizer) == {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": len(pieces) - 1}
    assert tokenizer["normalizer"] == {"type": "Precompiled", "precompiled_charsmap": "AQID"}


def test_deberta_keeps_its_ids_and_its_mask_comes_after_all_pieces() -> None:
    tokenizer = made(DEB_MODEL, DEB)

    assert tokenizer["model"]["vocab"][:4] == [["[PAD]", 0.0], ["[CLS]", 0.0], ["[SEP]", 0.0], ["[UNK]", 0.0]]
    assert tokenizer["model"]["unk_id"] == 3
    assert added(tokenizer)["[MASK]"] == len(tokenizer["model"]["vocab"]) == 4 + len(WORDS)
    assert [next(iter(piece.values()))["type_id"] for piece in tokenizer["post_processor"]["pair"]] == [0, 0, 0, 1, 1]


def test_what_the_settings_name_is_heeded() -> None:
    tokenizer = made(DEB_MODEL, DEB, {"do_lower_case": True, "split_by_punct": True, "mask_token": {"content": "▁fox"}})

    assert tokenizer["normalizer"]["normalizers"][0] == {"type": "Lowercase"}
    assert tokenizer["pre_tokenizer"]["pretokenizers"][0]["type"] == "Punctuation"
    assert "[MASK]" not in added(tokenizer)
    assert added(tokenizer)["▁fox"] == 7


def test_user_defined_pieces_are_looked_for_in_texts() -> None:
    model = sentencepiece_model([*DEBERTA, *WORDS, ("<here>", 0.0, USER_DEFINED)], unk_id=3)
    token = next(token for token in made(model, DEB)["added_tokens"] if token["content"] == "<here>")

    assert (token["id"], token["special"]) == (4 + len(WORDS), False)


def test_scores_are_the_model_s_to_the_last_bit() -> None:
    """A score is a float of 32 bits; another one would choose other pieces."""
    model = sentencepiece_model([*XLM_ROBERTA, ("a", -10.123456789, NORMAL)], unk_id=0)

    assert made(model, XLM)["model"]["vocab"][4] == ["a", -10.123456954956055]


def test_the_same_model_is_the_same_bytes() -> None:
    assert tokenizer_json(XLM_MODEL, XLM, None) == tokenizer_json(XLM_MODEL, XLM, b"{}")


@pytest.mark.parametrize(
    ("file", "settings", "config", "kind"),
    [
        ("spm.model", {"tokenizer_class": "DebertaV2Tokenizer"}, None, DEB),
        ("spm.model", {"tokenizer_class": "DebertaV2TokenizerFast"}, {"model_type": "bert"}, DEB),
        ("spm.model", {}, {"model_type": "deberta-v2"}, DEB),
        ("spm.model", None, {"model_type": "deberta-v2"}, DEB),
        ("sentencepiece.bpe.model", None, {"model_type": "xlm-roberta"}, XLM),
        ("sentencepiece.bpe.model", {"tokenizer_class": "CamembertTokenizer"}, {"model_type": "xlm-roberta"}, None),
        ("sentencepiece.bpe.model", None, {"model_type": "camembert"}, None),
        ("spm.model", {"tokenizer_class": "XLMRobertaTokenizer"}, None, None),
        ("tokenizer.model", {"tokenizer_class": "LlamaTokenizer"}, None, None),
        ("spm.model", None, None, None),
    ],
)
def test_only_kinds_that_are_known_are_converted(file: str, settings: Any, config: Any, kind: Kind | None) -> None:
    encoded = [None if value is None else json.dumps(value).encode() for value in (settings, config)]

    assert kind_of(file, *encoded) == kind


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (b"", "with 0 pieces"),
        (sentencepiece_model(WORDS, unk_id=0, model_type=BPE), "of type 2"),
        (sentencepiece_model(WORDS, unk_id=99), "the unknown piece is 99 of 34"),
        (sentencepiece_model([("a", math.inf, NORMAL)], unk_id=0), "has the score"),
        (DEB_MODEL[:-3], "cut short"),
        (b"\x0b", "wire type 3"),
        (b"\xff" * 11, "does not end"),
        (b"\x0a\x02\x08\x01", "a text of it is a number"),
    ],
)
def test_what_is_no_unigram_model_is_refused(model: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        tokenizer_json(model, DEB, None)


@pytest.mark.parametrize("settings", [b"", b"[]", b'{"mask_token": 3}', b"\xff"])
def test_settings_that_are_none_are_named(settings: bytes) -> None:
    with pytest.raises(ValueError, match=r"`tokenizer_config.json` cannot be read"):
        tokenizer_json(DEB_MODEL, DEB, settings)
    with pytest.raises(ValueError, match=r"`tokenizer_config.json` cannot be read"):
        kind_of("spm.model", settings, None)


@given(st.one_of(st.binary(), st.builds(lambda at, new: DEB_MODEL[:at] + new, st.integers(0, 900), st.binary())))
def test_any_bytes_are_converted_or_refused(model: bytes) -> None:
    with contextlib.suppress(ValueError):
        tokenizer_json(model, DEB, None)
