"""Which labels follow from a text, before any network is asked: `tests/parity` has the scores."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from sie_core.errors import ApiError
from sie_server.models.calls import Extract, Task
from sie_server.models.model import LoadedModel, OneNetwork, paired_bytes
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


def test_a_call_is_admitted_for_each_label_of_each_item(entailed: ExtractEntailed) -> None:
    """What is computed: 20 labels are 20 passes over the text, and not one that is a little longer."""
    no_network: Any = None
    tasks: dict[Task, Any] = {"extract": entailed}
    model = LoadedModel("acme/nli", {}, 16, OneNetwork(no_network, {}), tasks, labels_apart=True)
    call = Extract(("a " * 100, "b " * 100), labels=tuple(f"c {number}" for number in range(20)))

    assert sum(one.tokens for one in model.prepare(call)) == 2 * 20 * 16
    assert model.estimate_tokens(call) == 2 * 20 * 16
    assert replace(model, labels_apart=False).estimate_tokens(call) == 2 * 16


sizes = some.lists(some.integers(0, 50), max_size=8)


@given(sizes, sizes, some.integers(0, 60))
def test_pairs_are_summed_without_being_made(items: list[int], labels: list[int], most: int) -> None:
    assert paired_bytes(items, labels, most=most) == sum(min(one + label, most) for one in items for label in labels)
