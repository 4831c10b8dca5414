"""Static embeddings hold little at once, however long a text is: `tests/parity` has what they come to."""

import tracemalloc
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from sie_server.models.checkpoint import Weight
from sie_server.models.cutting import AT_ONCE
from sie_server.models.heads.features import FEATURES
from sie_server.models.ops.plan import plan_batch
from sie_server.models.static import StaticTable, StaticTokenizer
from sie_server.models.tokens import pack
from sie_testing.watched import WatchedTokenizer

DIM = 512
ROWS = np.random.default_rng(0).standard_normal((100, DIM)).astype(np.float32)


def watched() -> WatchedTokenizer:
    made: Any = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return WatchedTokenizer(made)


def tokens_of(*lengths: int) -> list[np.ndarray]:
    return [np.random.default_rng(length).integers(0, 100, length).astype(np.int32) for length in lengths]


def test_the_mean_of_many_rows_is_exact_wherever_they_are_parted() -> None:
    items = tokens_of(20_000, 1, 3, 8_191, 8_192, 30_000, 1)
    found = StaticTable(Weight("F32", ROWS), None, None).run(plan_batch(pack(items)), stream=0)[FEATURES]

    for item, vector in zip(items, found, strict=True):
        assert np.abs(vector - ROWS[item].mean(0, dtype=np.float64)).max() <= 1e-7


def test_a_text_of_a_million_tokens_does_not_gather_all_of_their_rows() -> None:
    plan = plan_batch(pack(tokens_of(1_000_000)))
    table = StaticTable(Weight("F32", ROWS), None, None)
    tracemalloc.start()
    try:
        table.run(plan, stream=0)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 100 * 2**20 < ROWS.itemsize * DIM * 1_000_000 / 10


def test_no_call_is_tokenised_all_at_once_and_its_ids_are_the_same() -> None:
    library = watched()
    tokenizer = StaticTokenizer(library, max_tokens=10**9, as_model2vec=False)
    texts = ["a b " * (AT_ONCE // 2), "b", "a " * (AT_ONCE // 3), "b " * (AT_ONCE // 3), ""]
    found = tokenizer(texts)

    assert library.most <= AT_ONCE
    assert [len(one.ids) for one in found] == [AT_ONCE, 1, AT_ONCE // 3, AT_ONCE // 3, 1]
    assert found[0].ids.tolist() == [1, 2] * (AT_ONCE // 2)
    assert not any(one.truncated for one in found)


def test_a_long_text_ends_where_the_model_has_enough() -> None:
    library = watched()
    tokenizer = StaticTokenizer(library, max_tokens=700_001, as_model2vec=False)
    found = tokenizer(["a b " * AT_ONCE, "a b " * 350_000])

    assert [(len(one.ids), one.truncated) for one in found] == [(700_001, True), (700_000, False)]
    assert found[0].ids.tolist() == [1, 2] * 350_000 + [1]
