"""all-MiniLM-L6-v2 beside sentence-transformers, live, on the same files."""

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from sie_core.catalog.spec import DenseHead, ModelSpec, Pooling
from sie_core.ids import ModelId
from sie_server.models import build
from sie_server.models.calls import Encode, LoadError
from sie_server.models.model import LoadedModel
from sie_server.models.ops.openvino import precision_for

pytest.importorskip("sentence_transformers")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-5
TEXTS = {
    "one token": "a",
    "empty": "",
    "white space": " \t\n ",
    "longest": "word " * 254,
    "one too long": "word " * 255,
    "far too long": "The quick brown fox jumps over the lazy dog. " * 500,
    "accents": "Ünïcödé ÀÉÎ naïve coöperation e\u0301",
    "emoji": "😀 👩‍👩‍👧 🏳️‍🌈 ❤️",
    "chinese": "北京大学的学生在图书馆学习",
    "japanese": "日本語のテキストを埋め込む",
    "korean": "한국어 문장 임베딩",
    "right to left": "مرحبا بالعالم שלום עולם",
    "both ways": "english עברית english العربية",
    "special tokens": "[CLS] in a [SEP] text [MASK] [PAD] [UNK]",
    "controls": "a\x00b\x07c\u200bd\ufeffe\u00a0f",
    "long word": "x" * 101 + " y",
    "numbers and signs": "3.14159 $1,000.00 -- (a+b)^2 = c; https://example.org/?q=1&r=2",
}
ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz",
    "ÀÉÎÕÜßçñ",
    "абвгдежз",
    "中文字符日本",
    "مرحباשלום",
    "0123456789",
    "😀🎉🚀",
    ".,;:!?'-",
)


def mixed_texts(count: int, seed: int = 0) -> list[str]:
    """Words of several scripts, mostly Latin; lengths as of natural texts, some beyond what the model takes."""
    random = np.random.default_rng(seed)

    def word() -> str:
        alphabet = ALPHABETS[0] if random.random() < 0.8 else ALPHABETS[random.integers(len(ALPHABETS))]
        return "".join(random.choice(list(alphabet), random.integers(1, 10)))

    # Most words are five tokens.
    lengths = np.clip(random.lognormal(1.9, 1.0, count).astype(int), 0, 300)
    return [" ".join(word() for _ in range(length)) for length in lengths]


def vectors_of(model: LoadedModel, texts: list[str], *, at_once: int = 16, **call: Any) -> np.ndarray:
    items = model.prepare(Encode(tuple(texts), **call))
    batches = [items[first : first + at_once] for first in range(0, len(items), at_once)]
    return np.array([output.dense for batch in batches for output in model.run(batch, stream=0)])


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max())


@pytest.fixture(scope="module")
def mixed() -> list[str]:
    return mixed_texts(1000)


@pytest.fixture(scope="module")
def mixed_theirs(theirs: Any, mixed: list[str]) -> np.ndarray:
    return np.asarray(theirs.encode(mixed, batch_size=32))


def changed(minilm: Path, folder: Path, name: str, **keys: Any) -> Path:
    """A copy of the snapshot with some keys of one of its files replaced."""
    shutil.copytree(minilm, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").symlink_to(minilm / "model.safetensors")
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | keys))
    return folder


def load(folder: Path, dense: DenseHead | None = None) -> LoadedModel:
    spec = ModelSpec(id=ModelId("acme/changed"), dense=dense or DenseHead())
    return build.load(spec, folder, precision="f32", streams=1, threads=2)


@pytest.mark.parametrize("kind", TEXTS)
def test_each_kind_of_text_alone(ours: LoadedModel, theirs: Any, kind: str) -> None:
    assert difference(vectors_of(ours, [TEXTS[kind]]), theirs.encode([TEXTS[kind]])) <= WITHIN


def test_all_kinds_packed_are_the_kinds_padded(ours: LoadedModel, theirs: Any) -> None:
    """They pad every item of a batch to the longest; we have no padding between items."""
    texts = list(TEXTS.values())

    assert difference(vectors_of(ours, texts, at_once=len(texts)), theirs.encode(texts, batch_size=32)) <= WITHIN


def test_token_ids_are_equal(ours: LoadedModel, theirs: Any, mixed: list[str]) -> None:
    texts = [*TEXTS.values(), *mixed]
    wanted = theirs.tokenizer(texts, truncation=True)["input_ids"]

    assert [item.ids.tolist() for item in ours.prepare(Encode(tuple(texts)))] == wanted


def test_what_is_cut_is_what_would_have_been_longer(ours: LoadedModel, theirs: Any, mixed: list[str]) -> None:
    texts = [*TEXTS.values(), *mixed]
    whole = theirs.tokenizer(texts, truncation=False)["input_ids"]

    assert [item.truncated for item in ours.prepare(Encode(tuple(texts)))] == [len(ids) > 256 for ids in whole]


def test_a_thousand_mixed_items(ours: LoadedModel, mixed: list[str], mixed_theirs: np.ndarray) -> None:
    assert difference(vectors_of(ours, mixed), mixed_theirs) <= WITHIN


def test_batch_alone_and_any_order_are_the_same(ours: LoadedModel, mixed: list[str]) -> None:
    some = mixed[:120]
    order = np.random.default_rng(1).permutation(len(some))
    together = vectors_of(ours, some, at_once=40)
    alone = vectors_of(ours, some, at_once=1)
    shuffled = vectors_of(ours, [some[index] for index in order], at_once=7)

    assert difference(together, alone) <= 1e-6
    assert difference(together[order], shuffled) <= 1e-6


def test_raw_vectors_too(ours: LoadedModel, theirs: Any) -> None:
    """Without the last module, sentence-transformers leaves vectors as long as they are."""
    raw = theirs[1](theirs[0](theirs.preprocess(["some text"])))["sentence_embedding"].detach().numpy()

    assert difference(vectors_of(ours, ["some text"], options={"normalize": False}), raw) <= WITHIN


@pytest.mark.parametrize("pooling", [mode for mode in get_args(Pooling) if mode != "mean"])
def test_a_wrong_pooling_is_noticed(minilm: Path, theirs: Any, pooling: Pooling) -> None:
    wrong = load(minilm, DenseHead(pooling=pooling))

    assert difference(vectors_of(wrong, ["some text"]), theirs.encode(["some text"])) > 100 * WITHIN


def test_a_wrong_epsilon_is_noticed(minilm: Path, theirs: Any, tmp_path: Path, mixed: list[str]) -> None:
    """1e-3 for 1e-12."""
    wrong = load(changed(minilm, tmp_path / "wrong", "config.json", layer_norm_eps=1e-3))

    assert difference(vectors_of(wrong, mixed[:32]), theirs.encode(mixed[:32])) > 10 * WITHIN


def test_a_wrong_length_is_noticed(minilm: Path, theirs: Any, tmp_path: Path) -> None:
    """255 tokens for 256."""
    wrong = load(changed(minilm, tmp_path / "wrong", "sentence_bert_config.json", max_seq_length=255))
    longest = [TEXTS["longest"]]

    assert difference(vectors_of(wrong, longest), theirs.encode(longest)) > WITHIN


def test_wrong_letter_case_is_noticed(minilm: Path, theirs: Any, tmp_path: Path) -> None:
    wrong = load(changed(minilm, tmp_path / "wrong", "tokenizer_config.json", do_lower_case=False))

    assert difference(vectors_of(wrong, ["Some Text"]), theirs.encode(["Some Text"])) > 100 * WITHIN


def test_bf16_keeps_the_direction(minilm: Path, mixed: list[str], mixed_theirs: np.ndarray) -> None:
    try:
        precision_for("bf16")
    except LoadError as error:
        pytest.skip(str(error))
    spec = ModelSpec(id=ModelId("acme/bf16"), dense=DenseHead())
    model = build.load(spec, minilm, precision="bf16", streams=2, threads=1)

    assert model.precision == "bf16"
    assert np.sum(vectors_of(model, mixed) * mixed_theirs, axis=1).min() >= 0.9999
