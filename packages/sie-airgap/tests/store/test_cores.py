"""Work on several files at a time answers in order, counts every byte, and ends soon when one of them fails."""

from threading import Barrier, Event

import pytest

from sie_airgap.store.cores import Advance, on_all_cores


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)


def test_answers_come_in_the_order_of_the_items() -> None:
    second_is_done = Event()

    def action(item: int, advance: Advance) -> int:
        if item == 0:
            second_is_done.wait(timeout=60)
        if item == 1:
            second_is_done.set()
        advance(item)
        return item * item

    moved: list[int] = []
    answers = on_all_cores(action, range(40), advance=moved.append)

    assert answers == [item * item for item in range(40)]
    assert sorted(moved) == list(range(40))


def test_nobody_tells_of_bytes_while_another_does() -> None:
    inside = 0

    def advance(size_bytes: int) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        inside -= 1

    def action(item: int, report: Advance) -> None:
        for _ in range(200):
            report(1)

    assert on_all_cores(action, range(8), advance=advance) == [None] * 8


@pytest.mark.parametrize("items", [["bad", "good", "never"], ["good", "bad", "never"]])
def test_a_failure_ends_the_others_at_the_piece_that_they_are_at(items: list[str]) -> None:
    both, pieces, begun = Barrier(2, timeout=60), [0], []

    def action(item: str, advance: Advance) -> None:
        begun.append(item)
        both.wait()
        if item == "bad":
            raise KeyError(item)
        for _ in range(100_000_000):
            advance(1)

    def count(size_bytes: int) -> None:
        pieces[0] += size_bytes

    with pytest.raises(KeyError, match="bad"):
        on_all_cores(action, items, advance=count)

    assert sorted(begun) == ["bad", "good"]
    assert pieces[0] < 100_000_000
