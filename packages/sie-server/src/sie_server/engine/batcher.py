"""Which waiting jobs run together: the oldest, and those nearest to it in length, within a token budget.

Grouping by length is what makes a batch cheap (attention is paid on a grid as wide as the longest item);
starting from the oldest is what keeps everybody moving: cheapest first would starve long items. There is
no timer: a device that is free takes what is there. A timer that waits for more only adds latency, since
under load jobs gather by themselves while the device is busy.

Pure: no clock, no threads. `scheduler` guards it with a lock.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Final, Generic, Protocol, TypeVar

GRID: Final = 4
"""A batch's longest item times its items, in budgets, at most. A cell without a token costs a tenth of one with, but
five hundred texts of one token beside one of five hundred tokens would be a quarter of a million cells."""


class Costed(Protocol):
    """What can be batched: anything with a cost in tokens, fixed while it waits."""

    @property
    def tokens(self) -> int: ...


J = TypeVar("J", bound=Costed)


class Batcher(Generic[J]):
    """The jobs that wait for one model.

    Attributes:
        budget_tokens: the most tokens in one batch, and a quarter of the most cells of its grid; one job alone may be
            longer.
        tokens: sum over all that wait.
    """

    def __init__(self, budget_tokens: int) -> None:
        if budget_tokens < 1:
            raise ValueError(f"the budget is {budget_tokens} tokens, want at least 1")
        self.budget_tokens = budget_tokens
        self.tokens = 0
        self._by_age: dict[int, J] = {}
        self._by_length: list[tuple[int, int]] = []
        self._next_number = 0

    def __len__(self) -> int:
        return len(self._by_age)

    def add(self, jobs: Iterable[J]) -> None:
        """Later jobs are younger."""
        for job in jobs:
            self._by_age[self._next_number] = job
            insort(self._by_length, (job.tokens, self._next_number))
            self.tokens += job.tokens
            self._next_number += 1

    @property
    def oldest(self) -> J | None:
        return self._by_age[next(iter(self._by_age))] if self._by_age else None

    def take(self, *, share: int = 1) -> list[J]:
        """The next batch, oldest job first; empty when nothing waits.

        Args:
            share: how many devices would start now. What waits is then cut into that many like parts, so that
                one of them does not take all of a small queue while the others idle.
        """
        if not self._by_age:
            return []
        oldest = next(iter(self._by_age))
        first, last = self._window(oldest, min(self.budget_tokens, -(-self.tokens // share)))
        numbers = sorted(number for _, number in self._by_length[first:last])
        del self._by_length[first:last]
        batch = [self._by_age.pop(number) for number in numbers]
        self.tokens -= sum(job.tokens for job in batch)
        return batch

    def _window(self, oldest: int, budget_tokens: int) -> tuple[int, int]:
        """The span of `_by_length` around the oldest job that fits the budget, grown towards the nearer length."""
        waiting = self._by_length
        length = self._by_age[oldest].tokens
        first = bisect_left(waiting, (length, oldest))
        last = first + 1
        left = budget_tokens - length
        while True:
            longest, items = waiting[last - 1][0], last - first + 1
            shorter = waiting[first - 1][0] if first > 0 and self._on_grid(items, longest) else None
            longer = waiting[last][0] if last < len(waiting) and waiting[last][0] <= left else None
            if longer is not None and not self._on_grid(items, longer):
                longer = None
            if longer is not None and (shorter is None or longer - length <= length - shorter):
                last += 1
                left -= longer
            elif shorter is not None and shorter <= left:
                first -= 1
                left -= shorter
            else:
                return first, last

    def _on_grid(self, items: int, longest: int) -> bool:
        return items * longest <= GRID * self.budget_tokens
