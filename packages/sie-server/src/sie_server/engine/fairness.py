"""Whose turn it is on the device, when several models have work: whoever has had least of it.

Each model's use is counted in device time, not in batches: one model's batches may take a hundred times as long
as another's. A model that had nothing to do is brought up to where the others are, since time that nobody wanted
is not saved up. This is start-time fair queueing (Goyal, Vin, Cheng 1996) with equal weights: over any time in
which two models both have work, what they got differs by no more than one batch of each.

A batch counts from when it is handed out, by an estimate, and what it took in truth replaces that: else a second
device thread would hand the next turn to the same model.

Pure: no clock, no threads. `executor` guards it with a lock.
"""

from collections.abc import Hashable, Iterable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_NEWEST: Final = 0.3
"""How much the latest batch counts in what a token is taken to cost."""


class Shares(Generic[K]):
    """Device time by model, in seconds."""

    def __init__(self) -> None:
        self._had_s: dict[K, float] = {}
        self._per_token_s: dict[K, float] = {}
        self._turn_s = 0.0

    def wake(self, key: K) -> None:
        """It has work again, after having had none."""
        self._had_s[key] = max(self._had_s.get(key, 0.0), self._turn_s)

    def order(self, waiting: Iterable[tuple[K, float]]) -> list[K]:
        """Whose turn it is first.

        Args:
            waiting: those that have work, each with the time since when its oldest job waits; that decides between
                models that have had the same.
        """
        turns = [
            (self._had_s.get(key, self._turn_s), oldest_s, index, key) for index, (key, oldest_s) in enumerate(waiting)
        ]
        return [key for *_, key in sorted(turns, key=lambda turn: turn[:3])]

    def begin(self, key: K, tokens: int) -> float:
        """It gets a batch of so many tokens; what to tell `end`."""
        self._turn_s = max(self._turn_s, self._had_s.setdefault(key, self._turn_s))
        charged_s = tokens * self._per_token_s.get(key, 0.0)
        self._had_s[key] += charged_s
        return charged_s

    def end(self, key: K, *, charged_s: float, tokens: int, took_s: float) -> None:
        """Its batch has ended and took so long."""
        if key not in self._had_s:  # forgotten meanwhile
            return
        self._had_s[key] += took_s - charged_s
        per_token_s = took_s / max(1, tokens)
        known_s = self._per_token_s.get(key, per_token_s)
        self._per_token_s[key] = known_s + _NEWEST * (per_token_s - known_s)

    def forget(self, key: K) -> None:
        self._had_s.pop(key, None)
        self._per_token_s.pop(key, None)
