"""Which labels follow from a text, before any network is asked: `tests/parity` has the scores."""

from pathlib import Path

import pytest

from sie_core.errors import ApiError
from sie_server.models.calls import Extract
from sie_server.models.tasks.entailment import ExtractEntailed
from sie_server.models.tokenizing import load_tokenizer
from sie_testing import tiny_bert


@pytest.fixture
def entailed(tmp_path: Path) -> ExtractEntailed:
    tokenizer = load_tokenizer(tiny_bert.write(tmp_path), max_tokens=16, lower_case=False)
    return ExtractEntailed("acme/nli", tokenizer, 16, "it is {}", multi_label=False)


def test_every_item_is_read_once_with_each_label(entailed: ExtractEntailed) -> None:
    prepared = entailed.prepare(Extract(("a", "b"), labels=("c", "d", "e")))

    assert [one.item for one in prepared] == [0, 0, 0, 1, 1, 1]


def test_more_pairs_of_items_and_labels_than_memory_holds_are_refused_before_they_are_made(
    entailed: ExtractEntailed,
) -> None:
    many = tuple("a" * 20_000)

    with pytest.raises(ApiError, match=r"`items` has 20,000 and `params.labels` 20,000, .* up to 65,536 times a call"):
        entailed.prepare(Extract(many, labels=many))
