"""Texts to token ids."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sie_server.models.calls import LoadError
from sie_server.models.tokenizing import FILE, SETTINGS, TextTokenizer, load_tokenizer
from sie_testing import tiny_bert

CLS, SEP, UNK = (tiny_bert.VOCABULARY.index(name) for name in ("[CLS]", "[SEP]", "[UNK]"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_bert.write(tmp_path)


@pytest.fixture
def tokenizer(folder: Path) -> TextTokenizer:
    return load_tokenizer(folder, max_tokens=10, lower_case=False)


def ids(tokenizer: TextTokenizer, text: str) -> list[int]:
    return tokenizer([text])[0].ids.tolist()


def pieces(*names: str) -> list[int]:
    return [CLS, *(tiny_bert.VOCABULARY.index(name) for name in names), SEP]


def test_special_tokens_stand_around_the_text(tokenizer: TextTokenizer) -> None:
    assert ids(tokenizer, "abc") == pieces("a", "##b", "##c")


def test_an_empty_text_is_its_special_tokens(tokenizer: TextTokenizer) -> None:
    assert ids(tokenizer, "") == [CLS, SEP]
    assert ids(tokenizer, " \n\t") == [CLS, SEP]


def test_a_long_text_is_cut_on_the_right_and_says_so(tokenizer: TextTokenizer) -> None:
    short, long = tokenizer(["abcdefgh", "abcdefghi"])

    assert len(short.ids) == len(long.ids) == 10
    assert long.ids.tolist() == short.ids.tolist() == pieces("a", *(f"##{letter}" for letter in "bcdefgh"))
    assert (short.truncated, long.truncated) == (False, True)


def test_the_file_s_own_truncation_and_padding_do_not_count(folder: Path) -> None:
    """They are those of whoever saved it: here 8 tokens, in the model's files more."""
    saved = json.loads((folder / FILE).read_text())
    saved["padding"] = {
        "strategy": {"Fixed": 12},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    (folder / FILE).write_text(json.dumps(saved))

    tokenizer = load_tokenizer(folder, max_tokens=10, lower_case=False)
    assert len(ids(tokenizer, "abcdefghijk")) == 10
    assert len(ids(tokenizer, "a")) == 3


def test_unknown_and_chinese_characters(tokenizer: TextTokenizer) -> None:
    assert ids(tokenizer, "😀") == [CLS, UNK, SEP]
    assert ids(tokenizer, "a中b") == pieces("a", "中", "b")


def test_the_settings_beside_the_tokenizer_win(folder: Path) -> None:
    (folder / SETTINGS).write_text(json.dumps({"do_lower_case": False, "strip_accents": True}))
    tokenizer = load_tokenizer(folder, max_tokens=10, lower_case=False)

    assert ids(tokenizer, "A") == [CLS, UNK, SEP]
    assert ids(tokenizer, "á") == pieces("a")


def test_lower_case_comes_before_the_tokenizer(folder: Path) -> None:
    (folder / SETTINGS).write_text(json.dumps({"do_lower_case": False}))
    tokenizer = load_tokenizer(folder, max_tokens=10, lower_case=True)

    assert ids(tokenizer, "AB") == pieces("a", "##b")


def test_many_threads_get_what_one_gets(tokenizer: TextTokenizer) -> None:
    texts = [tiny_bert.VOCABULARY[5 + index % 26] * (index % 12) for index in range(200)]
    alone = [ids(tokenizer, text) for text in texts]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda text: ids(tokenizer, text), texts))

    assert together == alone


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"no `tokenizer.json` in"):
        load_tokenizer(tmp_path, max_tokens=10, lower_case=False)


def test_a_broken_tokenizer_is_named(folder: Path) -> None:
    (folder / FILE).write_text("{")

    with pytest.raises(LoadError, match=r"tokenizer.json` cannot be read"):
        load_tokenizer(folder, max_tokens=10, lower_case=False)


def test_broken_settings_are_named(folder: Path) -> None:
    (folder / SETTINGS).write_text('{"do_lower_case": 3}')

    with pytest.raises(LoadError, match=r"tokenizer_config.json` cannot be read"):
        load_tokenizer(folder, max_tokens=10, lower_case=False)
