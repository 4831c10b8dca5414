"""Small tokenizers of every kind, trained here and saved by transformers: the same ids from both."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from sie_core.artifacts.sentencepiece import kind_of, tokenizer_json
from sie_server.models.tokenizing import TextTokenizer, load_tokenizer
from sie_testing import tiny_spm
from sie_testing.tiny_spm import Piece

transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

MAX_TOKENS = 16
CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    "How do air-gapped clusters embed, rerank and extract? They don't phone home.",
    "naïve café crème brûlée — déjà vu, façade; Ünïcödé tëxt",
    "中文 文本 和 日本語 の テキスト",
    "العربية نص עברית טקסט",
    "emoji 😀 family 👨‍👩‍👧‍👦 flags 🇩🇪 and thumbs 👍🏽",
    "1234567890 3.14159 1,000,000 0x7f",
    "ＦＵＬＬ　ｗｉｄｔｈ ﬁ ligature ① Ⅳ ½",
] * 4
TEXTS = [
    "",
    " ",
    "a",
    "The quick brown FOX",
    "the quick brown fox jumps over the lazy dog " * 4,
    "naïve café — Ünïcödé",
    "中文文本 mixed with latin 日本語テキスト",
    "مرحبا بالعالم العربية שלום עולם",
    "😀 👨‍👩‍👧‍👦 🇩🇪 👍🏽",
    "tabs\tand\nnew\r\nlines  and   spaces\u00a0here\u3000there",
    "control\x00\x01\x07 \u200b zero\u200dwidth \ufeff bom \u202e turned",
    "[CLS] special [SEP] tokens <s> in </s> the <mask> text [MASK] <|endoftext|>",
    "ＦＵＬＬ　ｗｉｄｔｈ ﬁ ① Ⅳ ½ e\u0301 \u0130 ß ẞ",
    "x" * 300,
    "don't can't I'll we've they're it's",
    "\ud7ff \uffff \U0010ffff",
    "<here> the the <ctl> <unk>[UNK]",
]
PAIRS = [(first, second) for first in TEXTS for second in (*TEXTS[:6], TEXTS[9], TEXTS[11])]


@cache
def trained(kind: str) -> Tokenizer:
    model, trainer = {
        "wordpiece": (
            models.WordPiece(unk_token="[UNK]"),
            trainers.WordPieceTrainer(
                vocab_size=400,
                special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<pad>", "<mask>"],
            ),
        ),
        "bpe": (
            models.BPE(),
            trainers.BpeTrainer(
                vocab_size=500,
                special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|startoftext|>", "<|endoftext|>"],
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            ),
        ),
        "clip": (
            models.BPE(end_of_word_suffix="</w>"),
            trainers.BpeTrainer(
                vocab_size=700,
                special_tokens=["<|startoftext|>", "<|endoftext|>"],
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                end_of_word_suffix="</w>",
            ),
        ),
        "unigram": (
            models.Unigram(),
            trainers.UnigramTrainer(
                vocab_size=350, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>"
            ),
        ),
        "deberta": (
            models.Unigram(),
            trainers.UnigramTrainer(
                vocab_size=350, special_tokens=["[PAD]", "[CLS]", "[SEP]", "[UNK]"], unk_token="[UNK]"
            ),
        ),
    }[kind]
    tokenizer = Tokenizer(model)
    if kind == "wordpiece":
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    elif kind in ("bpe", "clip"):
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def vocabulary(kind: str) -> dict[str, int]:
    return dict(sorted(trained(kind).get_vocab().items(), key=lambda item: item[1]))


def merges(kind: str) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(trained(kind).to_str())["model"]["merges"]]


def scores(kind: str) -> list[tuple[str, float]]:
    return [(piece, score) for piece, score in json.loads(trained(kind).to_str())["model"]["vocab"]]


def qwen() -> Any:
    vocab = vocabulary("bpe")
    return transformers.Qwen2Tokenizer(vocab=vocab, merges=merges("bpe"))


def ends_with_eos() -> Any:
    """As Qwen3-Embedding's: the file itself says that every item ends with the end token."""
    from tokenizers import processors

    tokenizer = qwen()
    end = tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", pair="$A <|endoftext|> $B <|endoftext|>", special_tokens=[("<|endoftext|>", end)]
    )
    return tokenizer


MADE: dict[str, Callable[[], Any]] = {
    "bert": lambda: transformers.BertTokenizer(vocab=vocabulary("wordpiece")),
    "bert, cased": lambda: transformers.BertTokenizer(vocab=vocabulary("wordpiece"), do_lower_case=False),
    "bert, accents": lambda: transformers.BertTokenizer(vocab=vocabulary("wordpiece"), strip_accents=False),
    "bert, chinese": lambda: transformers.BertTokenizer(vocab=vocabulary("wordpiece"), tokenize_chinese_chars=False),
    "bert, left": lambda: transformers.BertTokenizer(vocab=vocabulary("wordpiece"), truncation_side="left"),
    "mpnet": lambda: transformers.MPNetTokenizer(vocab=vocabulary("wordpiece")),
    "roberta": lambda: transformers.RobertaTokenizer(vocab=vocabulary("bpe"), merges=merges("bpe")),
    "roberta, space": lambda: transformers.RobertaTokenizer(
        vocab=vocabulary("bpe"), merges=merges("bpe"), add_prefix_space=True
    ),
    "clip": lambda: transformers.CLIPTokenizer(vocab=vocabulary("clip"), merges=merges("clip")),
    "xlm-roberta": lambda: transformers.XLMRobertaTokenizer(vocab=[*scores("unigram"), ("<mask>", 0.0)]),
    "deberta": lambda: transformers.DebertaV2Tokenizer(vocab=[*scores("deberta"), ("[MASK]", 0.0)], unk_id=3),
    "qwen": qwen,
    "qwen, eos": ends_with_eos,
}


@pytest.fixture(params=MADE)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    MADE[request.param]().save_pretrained(tmp_path)
    return tmp_path


def reference(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


def both(folder: Path, max_tokens: int = MAX_TOKENS) -> tuple[TextTokenizer, Any]:
    return load_tokenizer(folder, max_tokens=max_tokens, lower_case=False), reference(folder)


def their_ids(theirs: Any, texts: list[str], **how: Any) -> list[list[int]]:
    ids: list[list[int]] = theirs(texts, truncation="longest_first", max_length=MAX_TOKENS, **how)["input_ids"]
    return ids


def assert_alike(folder: Path, other: Path | None = None) -> None:
    ours, theirs = both(folder)
    theirs = theirs if other is None else reference(other)
    assert [item.ids.tolist() for item in ours(TEXTS)] == their_ids(theirs, TEXTS)

    made = theirs(
        [first for first, _ in PAIRS],
        [second for _, second in PAIRS],
        truncation="longest_first",
        max_length=MAX_TOKENS,
    )
    of_all = made.get("token_type_ids", [[0] * len(ids) for ids in made["input_ids"]])
    for pair, item, ids, types in zip(PAIRS, ours.pairs(PAIRS), made["input_ids"], of_all, strict=True):
        assert item.ids.tolist() == ids, pair
        assert ([0] * len(ids) if item.types is None else item.types.tolist()) == types, pair


def test_texts_and_pairs(folder: Path) -> None:
    assert_alike(folder)


def test_what_was_cut_is_said(folder: Path) -> None:
    ours, theirs = both(folder)
    whole = [len(ids) for ids in theirs(TEXTS)["input_ids"]]
    pairs = [len(ids) for ids in theirs([one for one, _ in PAIRS], [two for _, two in PAIRS])["input_ids"]]

    assert [item.truncated for item in ours(TEXTS)] == [length > MAX_TOKENS for length in whole]
    assert [item.truncated for item in ours.pairs(PAIRS)] == [length > MAX_TOKENS for length in pairs]


@pytest.mark.parametrize("length", [5, 6, 7, 8, 11, 40])
def test_pairs_at_every_limit(folder: Path, length: int) -> None:
    ours, theirs = both(folder, length)
    made = theirs([one for one, _ in PAIRS], [two for _, two in PAIRS], truncation="longest_first", max_length=length)

    assert [item.ids.tolist() for item in ours.pairs(PAIRS)] == made["input_ids"]


def test_the_second_text_alone_is_cut(folder: Path) -> None:
    ours, theirs = both(folder)
    room = MAX_TOKENS - theirs.num_special_tokens_to_add(pair=True)
    pairs = [(one, two) for one, two in PAIRS if len(theirs(one, add_special_tokens=False)["input_ids"]) < room]
    made = theirs([one for one, _ in pairs], [two for _, two in pairs], truncation="only_second", max_length=MAX_TOKENS)

    assert [item.ids.tolist() for item in ours.pairs(pairs, truncate="only_second")] == made["input_ids"]


def test_parts_without_special_tokens(folder: Path) -> None:
    ours, theirs = both(folder)
    made = theirs(TEXTS, add_special_tokens=False)["input_ids"]

    assert [ids.tolist() for ids in ours.plain(TEXTS)] == made
    assert ours.counts(TEXTS) == [len(ids) for ids in made]


def test_where_tokens_stand(folder: Path) -> None:
    ours, theirs = both(folder)
    made = theirs(TEXTS, truncation="longest_first", max_length=MAX_TOKENS, return_offsets_mapping=True)
    for index, item in enumerate(ours.located(TEXTS)):
        assert item.ids.tolist() == made["input_ids"][index]
        assert item.spans.tolist() == [list(span) for span in made["offset_mapping"][index]]
        assert item.words.tolist() == [-1 if word is None else word for word in made.word_ids(index)]


def test_words_one_by_one(folder: Path) -> None:
    words = [text.split(" ") for text in TEXTS if text.strip()]
    ours, theirs = both(folder)
    made = theirs(
        words, is_split_into_words=True, truncation="longest_first", max_length=MAX_TOKENS, return_offsets_mapping=True
    )
    for index, item in enumerate(ours.words(words)):
        assert item.ids.tolist() == made["input_ids"][index]
        assert item.words.tolist() == [-1 if word is None else word for word in made.word_ids(index)]
        assert item.spans.tolist() == [list(span) for span in made["offset_mapping"][index]]


def test_tokens_by_name(folder: Path) -> None:
    ours, theirs = both(folder)

    for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        token = getattr(theirs, f"{role}_token")
        assert ours.special_id(role) == (None if token is None else theirs.convert_tokens_to_ids(token))
        if token is not None:
            assert ours.token_id(token) == theirs.convert_tokens_to_ids(token)


# Without a `tokenizer.json`.


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
    return folder


def vocab_txt() -> str:
    return "".join(f"{token}\n" for token in vocabulary("wordpiece"))


def merges_txt(kind: str) -> str:
    return "#version: 0.2\n" + "".join(f"{first} {second}\n" for first, second in merges(kind))


UNBUILT: dict[str, Callable[[], dict[str, Any]]] = {
    "bert": lambda: {"vocab.txt": vocab_txt(), "config.json": {"model_type": "bert"}},
    "bert, its class": lambda: {
        "vocab.txt": vocab_txt(),
        "config.json": {"model_type": "bert"},
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 512},
    },
    "bert, accents": lambda: {
        "vocab.txt": vocab_txt(),
        "config.json": {"model_type": "bert"},
        "tokenizer_config.json": {"strip_accents": False, "tokenize_chinese_chars": False},
    },
    "bert, named tokens": lambda: {
        "vocab.txt": vocab_txt(),
        "config.json": {"model_type": "bert"},
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizerFast"},
        "special_tokens_map.json": {"cls_token": "<s>", "sep_token": {"content": "</s>", "lstrip": True}},
    },
    "distilbert": lambda: {
        "vocab.txt": vocab_txt(),
        "config.json": {"model_type": "distilbert"},
        "tokenizer_config.json": {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": True},
    },
    "electra": lambda: {
        "vocab.txt": vocab_txt(),
        "config.json": {"model_type": "electra"},
        "tokenizer_config.json": {"do_lower_case": True},
    },
    "mpnet": lambda: {
        "vocab.txt": vocab_txt(),
        "config.json": {"model_type": "mpnet"},
        "tokenizer_config.json": {"tokenizer_class": "MPNetTokenizer", "do_lower_case": True},
    },
    "roberta": lambda: {
        "vocab.json": vocabulary("bpe"),
        "merges.txt": merges_txt("bpe"),
        "config.json": {"model_type": "roberta"},
    },
    "roberta, space": lambda: {
        "vocab.json": vocabulary("bpe"),
        "merges.txt": merges_txt("bpe"),
        "config.json": {"model_type": "roberta"},
        "tokenizer_config.json": {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True},
    },
    "clip": lambda: {
        "vocab.json": vocabulary("clip"),
        "merges.txt": merges_txt("clip"),
        "config.json": {"model_type": "clip"},
        "tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer", "errors": "replace"},
    },
}


@pytest.mark.parametrize("name", UNBUILT)
def test_from_a_vocabulary_alone(tmp_path: Path, name: str) -> None:
    assert_alike(write(tmp_path, UNBUILT[name]()))


# From a sentencepiece model, by way of what `sie-airgap lock` makes of it.

SPM: dict[str, tuple[str, str, list[Piece], int, dict[str, Any]]] = {
    "xlm-roberta": ("sentencepiece.bpe.model", "xlm-roberta", list(tiny_spm.XLM_ROBERTA), 0, {}),
    "deberta": ("spm.model", "deberta-v2", list(tiny_spm.DEBERTA), 3, {}),
    "deberta, lower case": ("spm.model", "deberta-v2", list(tiny_spm.DEBERTA), 3, {"do_lower_case": True}),
    "deberta, punctuation": ("spm.model", "deberta-v2", list(tiny_spm.DEBERTA), 3, {"split_by_punct": True}),
    "deberta, own pieces": (
        "spm.model",
        "deberta-v2",
        [*tiny_spm.DEBERTA, ("<here>", 0.0, tiny_spm.USER_DEFINED), ("the the", 0.0, tiny_spm.USER_DEFINED)],
        3,
        {"mask_token": "<here>"},
    ),
}


@pytest.mark.parametrize("name", SPM)
def test_from_a_sentencepiece_model(tmp_path: Path, name: str) -> None:
    pytest.importorskip("sentencepiece")
    file, model_type, first, unk_id, said = SPM[name]
    pieces = [*first, *((piece, score, tiny_spm.NORMAL) for piece, score in scores("unigram")[4:])]
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for folder in (theirs, ours):
        folder.mkdir()
        write(folder, {"config.json": {"model_type": model_type}, "tokenizer_config.json": said})
    (theirs / file).write_bytes(tiny_spm.sentencepiece_model(pieces, unk_id=unk_id))

    settings, config = ((ours / part).read_bytes() for part in ("tokenizer_config.json", "config.json"))
    kind = kind_of(file, settings, config)
    assert kind is not None
    (ours / "tokenizer.json").write_bytes(tokenizer_json((theirs / file).read_bytes(), kind, settings))
    assert_alike(ours, theirs)


# DeBERTa's own class takes nothing of `tokenizer.json` but its vocabulary.

DEBERTA: dict[str, tuple[dict[str, Any], bool]] = {
    "by its class": ({"tokenizer_class": "DebertaV2Tokenizer"}, True),
    "by its older class": ({"tokenizer_class": "DebertaV2TokenizerFast", "do_lower_case": True}, True),
    "by its model": ({"split_by_punct": True, "add_prefix_space": False}, True),
    "of no class": ({"tokenizer_class": "PreTrainedTokenizerFast"}, False),
}


@pytest.mark.parametrize("name", DEBERTA)
def test_a_deberta_as_it_was_published(tmp_path: Path, name: str) -> None:
    """Its file was written by transformers 4, and makes full-width forms and ligatures plain."""
    said, is_rebuilt = DEBERTA[name]
    MADE["deberta"]().save_pretrained(tmp_path)
    made = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    made.save(str(tmp_path / "tokenizer.json"))
    named = {f"{role}_token": f"[{role.upper()}]" for role in ("cls", "sep", "pad", "unk", "mask")}
    write(tmp_path, {"tokenizer_config.json": named | said, "config.json": {"model_type": "deberta-v2"}})

    assert_alike(tmp_path)
    ours = load_tokenizer(tmp_path, max_tokens=MAX_TOKENS, lower_case=False)
    wide, plain = ours.plain(["ＦＵＬＬ ﬁ", "FULL fi"])
    assert np.array_equal(wide, plain) != is_rebuilt


# What must not go unnoticed.


@pytest.mark.parametrize(
    ("name", "wrong"), [("bert", "bert, cased"), ("bert", "bert, accents"), ("bert", "bert, left"), ("bert", "mpnet")]
)
def test_another_tokenizer_is_noticed(tmp_path: Path, name: str, wrong: str) -> None:
    for one in (name, wrong):
        MADE[one]().save_pretrained(tmp_path / one)
    ours = both(tmp_path / wrong)[0]

    ids = [item.ids.tolist() for item in (*ours(TEXTS), *ours.pairs(PAIRS))]
    theirs = both(tmp_path / name)[1]
    pairs = theirs([one for one, _ in PAIRS], [two for _, two in PAIRS], truncation=True, max_length=MAX_TOKENS)
    assert ids != their_ids(theirs, TEXTS) + pairs["input_ids"]


def test_types_of_a_pair_are_the_second_text_s(tmp_path: Path) -> None:
    MADE["bert"]().save_pretrained(tmp_path)
    item = both(tmp_path)[0].pairs([("a", "the dog")])[0]

    assert item.types is not None
    assert np.array_equal(item.types, np.arange(len(item.ids)) >= 3)
