"""Texts to token ids."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors

from sie_server.models.calls import LoadError
from sie_server.models.tokenizer_settings import Settings, read_settings
from sie_server.models.tokenizing import FILE, SETTINGS, TextTokenizer, load_tokenizer
from sie_testing import tiny_bert
from sie_testing.watched import WatchedTokenizer

CLS, SEP, UNK = (tiny_bert.VOCABULARY.index(name) for name in ("[CLS]", "[SEP]", "[UNK]"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_bert.write(tmp_path)


@pytest.fixture
def tokenizer(folder: Path) -> TextTokenizer:
    return load_tokenizer(folder, max_tokens=10, lower_case=False)


def ids(tokenizer: TextTokenizer, text: str) -> list[int]:
    found: list[int] = tokenizer([text])[0].ids.tolist()
    return found


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
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')

    with pytest.raises(LoadError, match=r"no `tokenizer.json` in .* cannot be built: it has `config.json`"):
        load_tokenizer(tmp_path, max_tokens=10, lower_case=False)


def test_a_broken_tokenizer_is_named(folder: Path) -> None:
    (folder / FILE).write_text("{")

    with pytest.raises(LoadError, match=r"tokenizer.json` cannot be read"):
        load_tokenizer(folder, max_tokens=10, lower_case=False)


def test_broken_settings_are_named(folder: Path) -> None:
    (folder / SETTINGS).write_text('{"do_lower_case": 3}')

    with pytest.raises(LoadError, match=r"tokenizer_config.json` cannot be read"):
        load_tokenizer(folder, max_tokens=10, lower_case=False)


# Pairs.


def test_a_pair_has_the_types_of_its_texts(tokenizer: TextTokenizer) -> None:
    pair = tokenizer.pairs([("a", "bc")])[0]

    assert pair.ids.tolist() == [*pieces("a"), *pieces("b", "##c")[1:]]
    assert pair.types is not None
    assert (pair.ids.dtype.name, pair.types.dtype.name) == ("int32", "int32")
    assert pair.types.tolist() == [0, 0, 0, 1, 1, 1]


def test_one_text_has_no_types(tokenizer: TextTokenizer) -> None:
    assert tokenizer(["abc"])[0].types is None


def test_empty_texts_of_a_pair_are_special_tokens(tokenizer: TextTokenizer) -> None:
    empty, half = tokenizer.pairs([("", ""), ("a", "")])

    assert empty.ids.tolist() == [CLS, SEP, SEP]
    assert half.ids.tolist() == [*pieces("a"), SEP]
    assert tokenizer.pairs([]) == []


@settings(deadline=None)
@given(first=st.integers(0, 20), second=st.integers(0, 20), limit=st.integers(3, 25), left=st.booleans())
def test_a_pair_is_cut_as_the_library_cuts_it(first: int, second: int, limit: int, left: bool) -> None:
    library = Tokenizer.from_str(json.dumps(tiny_bert.TOKENIZER))
    library.enable_truncation(limit, direction="left" if left else "right")
    texts = "abcdefghijklmnopqrstuvwxyz"[:first], "zyxwvutsrqponmlkjihgfedcba"[:second]
    want = library.encode(*texts)
    raw = Tokenizer.from_str(json.dumps(tiny_bert.TOKENIZER))
    raw.no_truncation()
    ours = TextTokenizer(raw, Settings(), max_tokens=limit, side="left" if left else "right")

    pair = ours.pairs([texts])[0]
    assert pair.ids.tolist() == want.ids
    assert ([0] * len(want.ids) if pair.types is None else pair.types.tolist()) == want.type_ids
    assert pair.truncated == (first + second + 3 > limit)


def test_the_second_text_alone_is_cut_where_asked(tokenizer: TextTokenizer) -> None:
    pair = tokenizer.pairs([("abcde", "abcde")], truncate="only_second")[0]

    assert pair.ids.tolist() == [*pieces("a", "##b", "##c", "##d", "##e"), *pieces("a", "##b")[1:]]
    assert pair.truncated


def test_two_long_texts_are_no_more_work_than_their_length(tokenizer: TextTokenizer) -> None:
    """The library would make a million combinations of what it cuts off, each as long as an item."""
    long = "abcdefghi " * 1000

    assert [len(item.ids) for item in tokenizer.pairs([(long, long + "a")])] == [10]


@pytest.mark.parametrize("truncate", ["longest_first", "only_first", "only_second"])
def test_a_pair_with_a_very_long_text_is_cut_as_if_all_of_it_had_been_tokenised(
    tokenizer: TextTokenizer, truncate: Any
) -> None:
    """A reranker keeps some hundred tokens of a document, which may be as long as a body."""
    long, short = "abcdefghi " * 3000, "abc d"
    library = Tokenizer.from_str(json.dumps(tiny_bert.TOKENIZER))
    library.enable_truncation(10, strategy=truncate)

    for pair in ((long, short), (short, long)):
        if truncate == "longest_first" or pair[truncate == "only_second"] == long:
            found = tokenizer.pairs([pair], truncate=truncate)[0]
            assert found.truncated
            assert found.ids.tolist() == library.encode(*pair).ids


def test_of_a_long_text_only_a_beginning_is_tokenised(tokenizer: TextTokenizer) -> None:
    long = "abcdefghi " * 3000
    begun, whole = tokenizer.begun([long], most=10)[0], tokenizer.plain([long])[0]

    assert 10 < len(begun) < len(whole) / 10
    assert begun[:10].tolist() == whole[:10].tolist()
    assert tokenizer.begun(["ab", ""], most=10)[0].tolist() == tokenizer.plain(["ab"])[0].tolist()


def test_more_text_than_is_tokenised_at_once_comes_back_in_its_order(tokenizer: TextTokenizer) -> None:
    # A word that long is one unknown token.
    texts = [letter + " x" * count + " " + "a" * 600_000 for count, letter in enumerate("abcd")]

    assert tokenizer.counts(texts) == [2, 3, 4, 5]
    assert [ids[0] for ids in tokenizer.plain(texts)] == [tokenizer.token_id(letter) for letter in "abcd"]
    assert [item.ids[1] for item in tokenizer(texts)] == [tokenizer.token_id(letter) for letter in "abcd"]
    assert [item.ids[1] for item in tokenizer.located(texts)] == [tokenizer.token_id(letter) for letter in "abcd"]


def test_a_tokenizer_that_is_not_for_pairs_says_so(folder: Path) -> None:
    raw = json.loads((folder / FILE).read_text())
    raw["post_processor"]["pair"] = [{"Sequence": {"id": name, "type_id": 0}} for name in "BA"]
    (folder / FILE).write_text(json.dumps(raw))
    tokenizer = load_tokenizer(folder, max_tokens=10, lower_case=False)

    assert ids(tokenizer, "a") == pieces("a")
    with pytest.raises(LoadError, match="does not put two texts one after another"):
        tokenizer.pairs([("a", "b")])


@pytest.mark.parametrize("kind", ["roberta", "bert", "sequence"])
def test_every_way_to_put_a_pair_together_is_learned(folder: Path, kind: str) -> None:
    library = Tokenizer.from_file(str(folder / FILE))
    cls, sep = ("[CLS]", CLS), ("[SEP]", SEP)
    library.post_processor = {
        "roberta": processors.RobertaProcessing(sep, cls),
        "bert": processors.BertProcessing(sep, cls),
        "sequence": processors.Sequence([processors.ByteLevel(), processors.BertProcessing(sep, cls)]),
    }[kind]
    library.no_truncation()
    library.save(str(folder / FILE))
    tokenizer = load_tokenizer(folder, max_tokens=20, lower_case=False)
    texts = [("ab", "cde"), ("", "a"), ("a", "")]

    assert [item.ids.tolist() for item in tokenizer.pairs(texts)] == [library.encode(*pair).ids for pair in texts]


# Parts, places, names.


def test_parts_are_whole_and_without_special_tokens(tokenizer: TextTokenizer) -> None:
    long = "abcdefghijklmnop"

    assert [part.tolist() for part in tokenizer.plain(["", "ab"])] == [[], pieces("a", "##b")[1:-1]]
    assert len(tokenizer.plain([long])[0]) == len(long)
    assert tokenizer.counts(["", "ab", long]) == [0, 2, len(long)]


def test_places_are_counted_in_characters(tokenizer: TextTokenizer) -> None:
    text = "😀 a中 👍🏽b"
    item = tokenizer.located([text])[0]

    assert [text[first:end] for first, end in item.spans[1:-1]] == ["😀", "a", "中", "👍🏽b"]
    assert item.words.tolist() == [-1, 0, 1, 2, 3, -1]
    assert item.spans[[0, -1]].tolist() == [[0, 0], [0, 0]]


def test_words_keep_their_numbers(tokenizer: TextTokenizer) -> None:
    item, empty = tokenizer.words([["ab", "", "c", "d?e"], []])

    assert item.words.tolist() == [-1, 0, 0, 2, 3, 3, 3, -1]
    assert item.spans[1:-1].tolist() == [[0, 1], [1, 2], [0, 1], [0, 1], [1, 2], [2, 3]]
    assert empty.ids.tolist() == [CLS, SEP]
    assert tokenizer.words([["abcdef", "ghijkl"]])[0].truncated


def test_of_a_long_word_and_of_a_long_text_only_a_beginning_is_tokenised_for_places(folder: Path) -> None:
    library = WatchedTokenizer(Tokenizer.from_file(str(folder / FILE)))
    tokenizer = TextTokenizer(library, read_settings(folder), max_tokens=10, side="right")
    long = ",." * 500_000
    item, short = tokenizer.words([["a", long, "b"], ["a"]])
    place = tokenizer.located([long])[0]

    assert item.truncated
    assert not short.truncated
    assert item.words.tolist() == [-1, 0, *[1] * 7, -1]
    assert place.spans[1:-1].tolist() == [[at, at + 1] for at in range(8)]
    assert library.most < 20_000


def test_a_token_is_found_by_its_name(tokenizer: TextTokenizer) -> None:
    assert tokenizer.token_id("[MASK]") == tiny_bert.VOCABULARY.index("[MASK]")
    with pytest.raises(LoadError, match=r"`\[Q\]` is not among the \d+ tokens of the vocabulary"):
        tokenizer.token_id("[Q]")


def test_special_tokens_are_known_by_what_they_are_for(folder: Path) -> None:
    tokenizer = with_settings(folder, {"mask_token": {"content": "[MASK]"}, "cls_token": "[CLS]"})

    assert tokenizer.special_id("mask") == tiny_bert.VOCABULARY.index("[MASK]")
    assert (tokenizer.special_id("cls"), tokenizer.special_id("bos")) == (CLS, None)


# What `tokenizer_config.json` says.


def with_settings(folder: Path, said: Mapping[str, Any]) -> TextTokenizer:
    (folder / SETTINGS).write_text(json.dumps(said))
    return load_tokenizer(folder, max_tokens=6, lower_case=False)


def test_texts_are_cut_on_the_side_that_is_said(folder: Path) -> None:
    assert ids(with_settings(folder, {"truncation_side": "left"}), "abcdef") == pieces("##c", "##d", "##e", "##f")
    assert ids(with_settings(folder, {}), "abcdef") == pieces("a", "##b", "##c", "##d")


def test_an_unknown_side_is_refused(folder: Path) -> None:
    with pytest.raises(LoadError, match=r"tokenizer_config.json` cannot be read: Invalid enum value 'middle'"):
        with_settings(folder, {"truncation_side": "middle"})


def test_the_end_token_is_added_where_it_is_asked_for(folder: Path) -> None:
    """And kept when the text is cut: the vector is taken from it."""
    asked = {"add_eos_token": True, "eos_token": "[MASK]"}
    end = tiny_bert.VOCABULARY.index("[MASK]")

    assert ids(with_settings(folder, asked), "a") == [*pieces("a"), end]
    assert ids(with_settings(folder, asked), "abcdef") == [*pieces("a", "##b", "##c"), end]


def test_each_text_of_a_pair_has_its_end_token(folder: Path) -> None:
    raw = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**raw, "post_processor": None}))
    a, b, end = (tiny_bert.VOCABULARY.index(name) for name in ("a", "b", "[MASK]"))

    pair = with_settings(folder, {"add_eos_token": True, "eos_token": "[MASK]"}).pairs([("a", "b")])[0]
    assert pair.ids.tolist() == [a, end, b, end]
    assert pair.types is not None
    assert pair.types.tolist() == [0, 0, 1, 1]


def test_the_end_token_is_not_added_twice(folder: Path) -> None:
    assert ids(with_settings(folder, {"add_eos_token": True, "eos_token": "[SEP]"}), "a") == pieces("a")


@pytest.mark.parametrize("said", [{}, {"eos_token": "<end>"}])
def test_an_end_token_that_is_none_is_refused(folder: Path, said: dict[str, str]) -> None:
    with pytest.raises(LoadError, match=r"`add_eos_token` is true .* has no `eos_token`"):
        with_settings(folder, {"add_eos_token": True, **said})


def test_added_tokens_are_looked_for_in_texts(folder: Path) -> None:
    size = len(tiny_bert.VOCABULARY)
    added = {"content": "aa", "special": False, "normalized": False}
    tokenizer = with_settings(folder, {"added_tokens_decoder": {str(size): added}})

    assert ids(tokenizer, "b aa b") == [*pieces("b")[:-1], size, *pieces("b")[1:]]
    assert tokenizer.plain(["aa"])[0].tolist() == [size]


def test_an_added_token_of_another_id_is_refused(folder: Path) -> None:
    size = len(tiny_bert.VOCABULARY)

    with pytest.raises(LoadError, match=rf"`aa` is 7 in `tokenizer_config.json` .* and {size} in its vocabulary"):
        with_settings(folder, {"added_tokens_decoder": {"7": {"content": "aa"}}})


# Without a `tokenizer.json`.


def write_vocabulary(folder: Path, **said: Any) -> Path:
    (folder / FILE).unlink()
    (folder / "vocab.txt").write_text("\n".join(tiny_bert.VOCABULARY) + "\n")
    (folder / SETTINGS).write_text(json.dumps(said))
    return folder


NAMES = ["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "ElectraTokenizer", None]


@pytest.mark.parametrize("name", NAMES)
def test_a_vocabulary_alone_makes_the_same_tokenizer(folder: Path, name: str | None) -> None:
    texts = ["", "abc", "Á b? 中 😀", "[MASK] a", "x" * 200]
    saved = load_tokenizer(folder, max_tokens=10, lower_case=False)
    said = {} if name is None else {"tokenizer_class": name}
    built = load_tokenizer(write_vocabulary(folder, **said), max_tokens=10, lower_case=False)

    assert [ids(built, text) for text in texts] == [ids(saved, text) for text in texts]
    assert built.special_id("mask") == tiny_bert.VOCABULARY.index("[MASK]")


def test_a_vocabulary_without_its_special_tokens_is_refused(folder: Path) -> None:
    write_vocabulary(folder, cls_token="<s>")

    with pytest.raises(LoadError, match=r"vocab.txt` has no `<s>`, which every item is to have"):
        load_tokenizer(folder, max_tokens=10, lower_case=False)


def test_a_class_that_is_not_built_is_named(folder: Path) -> None:
    write_vocabulary(folder, tokenizer_class="FunnelTokenizer")

    with pytest.raises(LoadError, match=r"its `FunnelTokenizer` cannot be built: it has .*`vocab.txt`"):
        load_tokenizer(folder, max_tokens=10, lower_case=False)


@pytest.mark.parametrize("name", ["sentencepiece.bpe.model", "spm.model", "tokenizer.model"])
def test_a_sentencepiece_model_alone_is_refused_with_the_fix(folder: Path, name: str) -> None:
    (folder / FILE).rename(folder / name)

    with pytest.raises(LoadError, match=rf"`{name}` of .* is a sentencepiece model") as refused:
        load_tokenizer(folder, max_tokens=10, lower_case=False)
    assert "`sie-airgap lock` converts it" in (refused.value.hint or "")


def test_a_broken_vocabulary_is_named(folder: Path) -> None:
    write_vocabulary(folder)
    (folder / "vocab.txt").write_bytes(b"\xff\xfe\n")

    with pytest.raises(LoadError, match=r"`vocab.txt` of .* cannot be read"):
        load_tokenizer(folder, max_tokens=10, lower_case=False)
