"""The beginning of a long text gives the tokens that the whole text gives, and a megabyte is not tokenised for them."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from sie_server.models.cutting import CHARACTERS_PER_TOKEN, MARGIN, beginnings, parts
from sie_testing import tiny_bert

CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    "she sells sea shells by the sea shore, unbelievably so",
    "naïve façade coöperation; 日本語のテキスト と 中文 混ぜる",
    "def f(x): return x ** 2  # squares\n\treturn None",
    "abcdefghijklmnopqrstuvwxyz abcdefghijklmnopqrstuvwxyz",
    "🙂 emoji 👩‍🔬 and numbers 3.14159 2718281828 and שלום עולם",
] * 20


@cache
def tokenizer(kind: str) -> Any:
    match kind:
        case "wordpiece":
            made = Tokenizer.from_str(msgspec.json.encode(tiny_bert.TOKENIZER).decode())
            made.no_truncation()
            return made
        case "byte-level BPE":
            made = Tokenizer(models.BPE())
            made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer: Any = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
        case "sentencepiece BPE":
            made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
            made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            made.decoder = decoders.Replace("▁", " ")
            trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>"], show_progress=False)
            made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        case "unigram":
            made = Tokenizer(models.Unigram())
            made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(r" {2,}", " ")])
            made.pre_tokenizer = pre_tokenizers.Metaspace()
            trainer = trainers.UnigramTrainer(
                vocab_size=200, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
            )
    made.train_from_iterator(CORPUS, trainer)
    if kind == "sentencepiece BPE":  # as Llama and Mistral have it: the whole text is one piece
        made.pre_tokenizer = None
    return made


KINDS = ("wordpiece", "byte-level BPE", "sentencepiece BPE", "unigram")

pieces = st.sampled_from(
    [
        " ",
        "  ",
        "a",
        "fox ",
        "unbelievably ",
        "xyz",
        "日本語",
        "中",
        "🙂",
        "\n",
        "\t",
        "é",
        "e\u0301",
        "3.14159 ",
        "!",
        "ש",
    ]
)
texts = st.lists(st.tuples(pieces, st.integers(min_value=1, max_value=900)), max_size=8).map(
    lambda parts: "".join(piece * times for piece, times in parts)
)


def check(kind: str, many: Sequence[str], max_tokens: int) -> None:
    made = tokenizer(kind)

    def encode(batch: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in made.encode_batch_fast(list(batch), add_special_tokens=False)]

    cut = beginnings(many, lambda some: [len(ids) for ids in encode(some)], max_tokens=max_tokens)
    for beginning, whole in zip(encode(cut), encode(many), strict=True):
        assert beginning[:max_tokens] == whole[:max_tokens]
        assert (len(beginning) > max_tokens) == (len(whole) > max_tokens)


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(texts, min_size=1, max_size=3), st.integers(min_value=2, max_value=200))
def test_the_first_tokens_are_those_of_the_whole_text(kind: str, many: list[str], max_tokens: int) -> None:
    check(kind, many, max_tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_also_where_a_window_ends_at_the_last_token_that_is_kept(kind: str) -> None:
    """Tokens of 26 characters, with spaces and without, and words so long that they are one unknown token."""
    long = "abcdefghijklmnopqrstuvwxyz"
    many = [long * 300, f"{long} " * 300, ("x" * 101 + " ") * 100, ("x" * 4_000 + " ") * 10]

    for max_tokens in range(2, 70):
        check(kind, many, max_tokens)


@pytest.mark.parametrize("text", ["word " * 12_800_000, "x" * 64_000_000])
def test_of_sixty_four_megabytes_a_few_kilobytes_are_tokenised(text: str) -> None:
    tokenised: list[int] = []

    def count(some: list[str]) -> list[int]:
        tokenised.extend(len(one) for one in some)
        return [len(one) // 3 for one in some]

    (beginning,) = beginnings([text], count, max_tokens=512)

    assert sum(tokenised) + len(beginning) <= CHARACTERS_PER_TOKEN * 512 * 3


def test_a_window_grows_until_it_has_enough() -> None:
    """Spaces are no tokens: what comes after a page of them counts."""
    seen: list[int] = []

    def count(some: list[str]) -> list[int]:
        seen.extend(len(one) for one in some)
        return [len(one.split()) for one in some]

    (beginning,) = beginnings([" " * 20_000 + "a b c d"], count, max_tokens=3)

    assert beginning.split() == ["a", "b", "c", "d"]
    assert seen[0] < 2_000
    assert sum(seen) < 3 * 20_007


def test_only_long_texts_that_had_too_few_are_looked_at_again() -> None:
    batches: list[int] = []

    def count(some: list[str]) -> list[int]:
        batches.append(len(some))
        return [len(one.split()) for one in some]

    beginnings(["a", "b " * 5_000, " " * 5_000 + "c"], count, max_tokens=10)

    assert batches[0] == 2
    assert set(batches[1:]) == {1}


def test_short_texts_cost_nothing() -> None:
    def count(some: list[str]) -> list[int]:
        raise AssertionError(f"{some} are short")

    assert beginnings(["a", "b c"], count, max_tokens=10) == ["a", "b c"]


def test_a_text_that_is_cut_inside_a_word_has_tokens_to_spare() -> None:
    counts: list[int] = []

    def count(some: list[str]) -> list[int]:
        counts.extend(len(one) // 100 for one in some)
        return [len(one) // 100 for one in some]

    beginnings(["x" * 100_000], count, max_tokens=20)

    assert counts[-1] > 20 + MARGIN
    assert counts[-2] <= 20 + MARGIN


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level BPE", "unigram"])
@given(some=st.lists(pieces, max_size=40))
def test_a_text_in_parts_has_the_tokens_of_the_whole(kind: str, some: list[str]) -> None:
    """Wherever there is a space to part it at; none of the pieces is half as long as a part."""
    text = " ".join(some)
    cut = list(parts(text, characters=100))

    assert "".join(cut) == text
    assert max(map(len, cut)) <= 100
    if all(len(word) < 50 for word in some):
        found = [id_ for part in cut for id_ in tokenizer(kind).encode(part, add_special_tokens=False).ids]
        assert found == tokenizer(kind).encode(text, add_special_tokens=False).ids
