"""Small seeded tables of static embeddings, saved and read back by model2vec and by sentence-transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.ids import ModelId
from sie_server.models import build
from sie_server.models.calls import Encode, LoadError
from sie_testing import tiny_bert

safetensors = pytest.importorskip("safetensors.numpy")
pytestmark = pytest.mark.parity

WITHIN = 1e-5
DIM = 24
TEXTS = ["hello world", "", "a", "中文 😀", "Á b? 中 😀 c", "x" * 60, *("ab " * n for n in range(9)), "word " * 150]


def tokenizer() -> Any:
    return Tokenizer.from_str(json.dumps(tiny_bert.TOKENIZER))


def table(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)


def ours(folder: Path, texts: list[str] = TEXTS, **dense: Any) -> np.ndarray:
    spec = ModelSpec(id=ModelId("acme/static"), dense=DenseHead(**dense))
    model = build.load(spec, folder, precision="f32", streams=1, threads=1)
    return np.array([output.dense for output in model.run(model.prepare(Encode(tuple(texts))), stream=0)])


def of_sentence_transformers(
    folder: Path, *, normalize: bool = True, dtype: Any = np.float32, truncate_dim: int | None = None
) -> Path:
    references = pytest.importorskip("sentence_transformers", exc_type=ImportError)
    kinds = references.sentence_transformer.modules
    known = tokenizer()
    static = kinds.StaticEmbedding(known, embedding_weights=table(known.get_vocab_size()).astype(dtype))
    modules = [static, *([kinds.Normalize()] if normalize else [])]
    references.SentenceTransformer(modules=modules, device="cpu", truncate_dim=truncate_dim).save(str(folder))
    return folder


def their_sentence_transformers(folder: Path) -> np.ndarray:
    references = pytest.importorskip("sentence_transformers", exc_type=ImportError)
    return np.asarray(references.SentenceTransformer(str(folder), device="cpu").encode(TEXTS))


def of_model2vec(folder: Path, *, quantized: bool = False, **more: Any) -> Path:
    """`quantized`: fewer rows than tokens, each token with its row and its weight."""
    model2vec = pytest.importorskip("model2vec")
    known = tokenizer()
    count, mapping, weights = known.get_vocab_size(), None, None
    rows = table(count)
    if quantized:
        rows = rows[:10]
        mapping, weights = np.arange(count) % 10, np.random.default_rng(1).random(count).astype(np.float32)
    config = {"model_type": "model2vec", "architectures": ["StaticModel"]}
    more = {"normalize": True, "weights": weights, "token_mapping": mapping, **more}
    model2vec.StaticModel(rows, known, config, **more).save_pretrained(folder)
    return folder


def their_model2vec(folder: Path) -> np.ndarray:
    model2vec = pytest.importorskip("model2vec")
    return np.asarray(model2vec.StaticModel.from_pretrained(folder).encode(TEXTS))


@pytest.mark.parametrize("normalize", [True, False])
def test_as_sentence_transformers(tmp_path: Path, normalize: bool) -> None:
    folder = of_sentence_transformers(tmp_path, normalize=normalize)

    assert np.abs(ours(folder) - their_sentence_transformers(folder)).max() <= WITHIN


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("max_length", [512, 7, None])
def test_as_model2vec(tmp_path: Path, normalize: bool, quantized: bool, max_length: int | None) -> None:
    folder = of_model2vec(tmp_path, normalize=normalize, quantized=quantized, max_length=max_length)

    assert np.abs(ours(folder) - their_model2vec(folder)).max() <= WITHIN


def test_together_and_alone_are_the_same(tmp_path: Path) -> None:
    folder = of_sentence_transformers(tmp_path)
    alone = np.concatenate([ours(folder, [text]) for text in TEXTS])

    assert np.abs(alone - ours(folder)).max() <= WITHIN
    assert np.abs(alone[::-1] - ours(folder, TEXTS[::-1])).max() <= WITHIN


def test_a_text_without_tokens_is_noughts(tmp_path: Path) -> None:
    assert not ours(of_sentence_transformers(tmp_path), [""]).any()


def written(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    """As model2vec writes it, without model2vec."""
    safetensors.save_file(tensors, folder / "model.safetensors")
    tokenizer().save(str(folder / "tokenizer.json"))
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": False}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_unknown_tokens_are_left_out_of_model2vecs_mean_and_stay_in_the_others(tmp_path: Path) -> None:
    known = tokenizer()
    unknown, rows = known.token_to_id("[UNK]"), table(known.get_vocab_size())
    a = rows[known.token_to_id("a")]
    folder = written(tmp_path, {"embeddings": rows})

    assert np.abs(ours(folder, ["a 😀"]) - a).max() <= WITHIN
    written(tmp_path, {"embedding.weight": rows})
    assert np.abs(ours(folder, ["a 😀"]) - (a + rows[unknown]) / 2).max() <= WITHIN


def test_a_table_in_half_width_is_added_up_as_it_is_written(tmp_path: Path) -> None:
    rows = table(tokenizer().get_vocab_size()).astype(np.float16)
    folder = written(tmp_path, {"embeddings": rows})
    ids = tokenizer().encode("hello", add_special_tokens=False).ids

    assert np.abs(ours(folder, ["hello"])[0] - rows[ids].astype(np.float32).mean(0)).max() <= WITHIN


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"embeddings": table(5)}, r"`embeddings` has 5 vectors, and the tokenizer 70 tokens"),
        ({"other": table(70)}, r"`embeddings` is not in `model.safetensors`"),
        ({"embeddings": table(5), "mapping": np.full(70, 9)}, r"`mapping` names the rows 9 to 9, `embeddings` has 5"),
        ({"embeddings": table(5), "mapping": np.zeros(70)}, r"`mapping` of .* is F64 \[70\]: want I64 or I32 \[70\]"),
        ({"embeddings": table(70)[:, 0]}, r"is \[70\]: want one vector for each token"),
    ],
    ids=["few", "none", "rows that are not there", "no indices", "no vectors"],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray], why: str) -> None:
    assert tokenizer().get_vocab_size() == 70

    with pytest.raises(LoadError, match=why):
        ours(written(tmp_path, tensors), ["a"])


def test_a_snapshot_that_cuts_its_vectors(tmp_path: Path) -> None:
    """After they are scaled; not where the spec says that they have length 1."""
    folder = of_sentence_transformers(tmp_path, truncate_dim=8)
    theirs = their_sentence_transformers(folder)

    assert np.abs(ours(folder, dim=8) - theirs).max() <= WITHIN
    assert np.abs(ours(folder, normalize=True) - theirs).max() > 100 * WITHIN


def test_a_wrong_size_in_the_spec_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, {"embeddings": table(70)})

    with pytest.raises(LoadError, match=r"`dense.dim` is 25, `embeddings` .* makes vectors of 24"):
        ours(folder, ["a"], dim=25)
