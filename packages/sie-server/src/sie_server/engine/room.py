"""Who holds how much memory: the books that `memory` decides by, and the loads that wait for their turn.

A load claims what it will take before it takes it, so that two at once do not both count on the same bytes, and
waits in its own thread until there is room. Whoever must go for it is told by `evict`; its bytes count until they
have been given back. What a load took in truth replaces what was predicted, where it can be told.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from sie_core.ids import ModelId
from sie_server.engine.memory import Evict, Held, NoRoom, Phase, Refuse, Start, decide, surplus


class Use(Protocol):
    """A loaded model, as far as memory is concerned; read from any thread."""

    @property
    def calls(self) -> int: ...
    @property
    def used_s(self) -> float | None: ...
    @property
    def memory_bytes(self) -> int: ...


class Claim(Struct, eq=False):
    """One load's share, from before it begins until the memory is back.

    Attributes:
        beside: the loaded model that it is taken for and that cannot go for it, as a LoRA's; None for a model's own.
        predicted_bytes: None where nobody said.
        measured_bytes: by how much the process grew; None where other loads or unloadings fell into the same time.
        before_bytes: what the process had when the load began.
        moves: how many loads and unloadings there had been by then.
        beside_bytes: what was measured beyond what the model says of itself: its tokenizer, its graph.
    """

    number: int
    model_id: ModelId
    pinned: bool
    since_s: float
    phase: Phase = "waiting"
    predicted_bytes: int | None = None
    measured_bytes: int | None = None
    before_bytes: int | None = None
    moves: int = 0
    beside_bytes: int = 0
    use: Use | None = None
    beside: Use | None = None

    @property
    def size_bytes(self) -> int:
        """What it counts for. A model may grow after its load, and says so itself."""
        known = self.predicted_bytes if self.measured_bytes is None else self.measured_bytes
        return max(known or 0, 0 if self.use is None else self.use.memory_bytes + self.beside_bytes)

    def held(self, *, beside: Use | None = None) -> Held:
        """`beside`: a model that stays, whoever wants its memory."""
        use = self.use
        return Held(
            number=self.number,
            model_id=self.model_id,
            size_bytes=self.size_bytes,
            phase=self.phase,
            pinned=self.pinned or (use is not None and use is beside),
            calls=0 if use is None else use.calls,
            used_s=None if use is None else use.used_s,
            since_s=self.since_s,
        )


class Room:
    """The budget and who has which part of it; safe from any thread.

    Args:
        budget_bytes: None for as much as there is.
        evict: told, in a loading thread, which claims are to go; each is `leaving` by then, and `gone` must follow.
        measure: the memory of this process in bytes; None where it cannot be told.
    """

    def __init__(
        self,
        budget_bytes: int | None,
        *,
        evict: Callable[[Sequence[Claim]], None],
        measure: Callable[[], int | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget_bytes = budget_bytes
        self._evict = evict
        self._measure = measure
        self._clock = clock
        self._changed = threading.Condition()
        self._claims: dict[int, Claim] = {}
        self._next_number = 0
        self._moves = 0
        self._closing = False
        self.waiting = 0

    def claims(self) -> list[Claim]:
        with self._changed:
            return list(self._claims.values())

    def open(self, model_id: ModelId, *, pinned: bool, beside: Use | None = None) -> Claim:
        """A claim of nothing yet: how much is known when the files are there."""
        with self._changed:
            claim = Claim(self._next_number, model_id, pinned, self._clock(), beside=beside)
            self._next_number += 1
            return claim

    def take(self, claim: Claim, size_bytes: int, *, wanted: Callable[[], bool], say: Callable[[str], None]) -> None:
        """Returns when the memory is the claim's; in the thread of its load.

        Args:
            wanted: whether the load still makes sense; asked whenever something has changed.
            say: told what it is waiting for.

        Raises:
            NoRoom: it does not fit, whatever else goes.
            Abandoned: it is no longer wanted, or the process is stopping.
        """
        with self._changed:
            claim.predicted_bytes, claim.since_s = size_bytes, self._clock()
            self._claims[claim.number] = claim
            self.waiting += 1
            try:
                self._wait(claim, wanted, say)
            except BaseException:
                del self._claims[claim.number]
                raise
            finally:
                self.waiting -= 1
                self._changed.notify_all()
            self._begin(claim)

    def loaded(self, claim: Claim, use: Use) -> None:
        """The load has ended well. Where models now have more than the budget, idle ones go."""
        with self._changed:
            if claim.number not in self._claims:
                self._claims[claim.number] = claim
            elif self._moves == claim.moves and claim.before_bytes is not None:
                now_bytes = self._measure()
                if now_bytes is not None:
                    claim.measured_bytes = max(0, now_bytes - claim.before_bytes)
                    claim.beside_bytes = max(0, claim.measured_bytes - use.memory_bytes)
            claim.use, claim.phase, claim.since_s = use, "loaded", self._clock()
            self._moves += 1
            if self.budget_bytes is not None:
                held = [one.held() for one in self._claims.values()]
                self._send_away(surplus(held, budget_bytes=self.budget_bytes, now_s=self._clock()))
            self._changed.notify_all()

    def back(self, claim: Claim) -> None:
        """What was taken is back: of a load that has ended badly, or beside a model that says itself what it has."""
        with self._changed:
            self._drop([claim])

    def leaving(self, use: Use) -> None:
        """The model answers no new calls; the memory is still taken."""
        with self._changed:
            for claim in self._of(use):
                claim.phase = "leaving"

    def gone(self, use: Use) -> None:
        """The memory is back."""
        with self._changed:
            self._drop(self._of(use))

    def look_again(self) -> None:
        """A model may have become idle, or a load unwanted."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _wait(self, claim: Claim, wanted: Callable[[], bool], say: Callable[[str], None]) -> None:
        while True:
            if self._closing or not wanted():
                raise Abandoned
            if self.budget_bytes is None:
                return
            others = [one.held(beside=claim.beside) for one in self._claims.values() if one is not claim]
            now_s = self._clock()
            match decide(claim.held(), others, budget_bytes=self.budget_bytes, now_s=now_s):
                case Start():
                    return
                case Refuse() as refusal:
                    raise self._no_room(claim, refusal)
                case Evict(numbers):
                    self._send_away(numbers)
                case wait:
                    wanted_bytes, budget_bytes = size(claim.size_bytes), size(self.budget_bytes)
                    say(f"waiting for memory: it takes about {wanted_bytes} of the {budget_bytes} for models")
                    self._changed.wait(None if wait.until_s is None else wait.until_s - now_s)

    def _of(self, use: Use) -> list[Claim]:
        return [claim for claim in self._claims.values() if claim.use is use]

    def _drop(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self._claims.pop(claim.number, None)
            claim.use = claim.beside = None  # a claim in somebody's hand keeps no model in memory
        self._moves += 1
        self._changed.notify_all()

    def _begin(self, claim: Claim) -> None:
        self._moves += 1
        claim.moves = self._moves
        claim.phase = "loading"
        alone = not any(one.phase in ("loading", "leaving") for one in self._claims.values() if one is not claim)
        claim.before_bytes = self._measure() if alone else None

    def _send_away(self, numbers: Sequence[int]) -> None:
        going = [self._claims[number] for number in numbers]
        for claim in going:
            claim.phase = "leaving"
        if going:
            self._evict(going)

    def _no_room(self, claim: Claim, refusal: Refuse) -> NoRoom:
        stays = f", less {', '.join(f'`{one}`' for one in refusal.pinned)}" if refusal.pinned else ""
        return NoRoom(
            f"it takes about {size(claim.size_bytes)}, and models may have {size(refusal.left_bytes)}{stays}",
            hint="raise `SIE_MODEL_MEMORY_BYTES` and the memory of the machine or container, "
            "or name fewer models in `SIE_PRELOAD_MODELS`",
        )


class Abandoned(Exception):
    """A load that nobody wants any more."""


def size(size_bytes: int) -> str:
    """For people: `2.27 GB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.3g} {unit}"
    return f"{size_bytes} bytes"
