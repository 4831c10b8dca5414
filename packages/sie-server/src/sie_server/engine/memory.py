"""Whether a model may be loaded now, which others go for it, or why it never fits: a decision over a budget of bytes.

Least recently used goes first. Three kinds stay: those that the operator named; those that were loaded a moment
ago for a caller who has not come back yet; and those that are answering calls, as long as a load has patience. A
model that is never idle would else keep others out for ever. After that it is drained: the calls that it has are
answered, those that come later wait for its return.

Pure: no clock, no threads, no measuring. `room` keeps the books that this reads.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from msgspec import Struct

from sie_core.ids import ModelId

GRACE_S: Final = 15.0
"""How long a model that was just loaded is kept for the caller who was told to come again: three times what it was told
to wait."""

PATIENCE_S: Final = 10.0
"""How long a load waits for models to become idle by themselves before some of them are drained for it."""

_OUT_OF_MEMORY: Final = ("bad_alloc", "Failed to allocate", "can't allocate memory", "could not create a memory object")
"""What openvino (the first two), torch and oneDNN say."""

Phase = Literal["waiting", "loading", "loaded", "leaving"]


class Held(Struct, frozen=True):
    """One model's claim on memory, as of now.

    Attributes:
        number: of the claim; later ones are higher. A model that goes and comes back has two for a while.
        size_bytes: what was predicted while it is on its way, what is known of it afterwards.
        phase: `waiting` for room, `loading`, `loaded`, or `leaving`, its memory not yet given back.
        pinned: the operator named it.
        calls: that it is answering.
        used_s: when its last call ended; None before the first.
        since_s: when it was loaded; of the same clock.
    """

    number: int
    model_id: ModelId
    size_bytes: int
    phase: Phase = "loaded"
    pinned: bool = False
    calls: int = 0
    used_s: float | None = None
    since_s: float = 0.0

    def may_go(self, now_s: float) -> bool:
        """Whether it may be told to go, after the calls that it has."""
        return self.phase == "loaded" and not self.pinned and now_s >= self.kept_until_s

    def idle(self, now_s: float) -> bool:
        return self.may_go(now_s) and not self.calls

    @property
    def kept_until_s(self) -> float:
        """Until when somebody is expected who had it loaded."""
        return self.since_s + GRACE_S if self.used_s is None and not self.calls else self.since_s


class NoRoom(Exception):
    """A model that does not fit whatever else goes: both numbers, and what stays."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Start(Struct, frozen=True):
    """There is room."""


class Evict(Struct, frozen=True):
    """These claims are to go; then ask again."""

    numbers: tuple[int, ...]


class Wait(Struct, frozen=True):
    """Something has to end first: a call, a load that came before, an unloading. Time alone helps at `until_s`."""

    until_s: float | None


class Refuse(Struct, frozen=True):
    """It does not fit whatever goes. `left_bytes`: of the budget, without the models that stay (`pinned`)."""

    left_bytes: int
    pinned: tuple[ModelId, ...]


Decision = Start | Evict | Wait | Refuse


def decide(wanted: Held, others: Sequence[Held], *, budget_bytes: int, now_s: float) -> Decision:
    """What becomes of a claim that waits.

    Args:
        wanted: `since_s` is when it began to wait.
        others: every other claim. Those that came later and wait as well do not count: first come, first served.
    """
    ahead = [held for held in others if held.phase != "waiting" or held.number < wanted.number]
    pinned = [held for held in ahead if held.pinned and held.phase != "leaving"]
    left_bytes = budget_bytes - sum(held.size_bytes for held in pinned)
    if wanted.size_bytes > left_bytes:
        return Refuse(max(0, left_bytes), tuple(sorted(held.model_id for held in pinned)))
    short_bytes = wanted.size_bytes - (budget_bytes - sum(held.size_bytes for held in ahead))
    if short_bytes <= 0:
        return Start()
    # What is on its way out is not evicted for again.
    short_bytes -= sum(held.size_bytes for held in ahead if held.phase == "leaving")
    patient_until_s = wanted.since_s + PATIENCE_S
    going = _fewest([held for held in ahead if held.idle(now_s)], short_bytes)
    if going is None and now_s >= patient_until_s:
        going = _fewest([held for held in ahead if held.may_go(now_s)], short_bytes)
    if going:
        return Evict(tuple(held.number for held in going))
    times_s = [patient_until_s, *(held.kept_until_s for held in ahead if held.phase == "loaded")]
    return Wait(min((time_s for time_s in times_s if time_s > now_s), default=None))


def surplus(held: Sequence[Held], *, budget_bytes: int, now_s: float) -> tuple[int, ...]:
    """The claims to evict when models took more than was predicted: idle ones, as far as they help."""
    over_bytes = sum(one.size_bytes for one in held if one.phase != "waiting") - budget_bytes
    over_bytes -= sum(one.size_bytes for one in held if one.phase == "leaving")
    idle = [one for one in held if one.idle(now_s)]
    going = _fewest(idle, over_bytes)
    return tuple(one.number for one in (idle if going is None else going))


def stale(held: Iterable[Held], *, idle_s: float, now_s: float) -> tuple[int, ...]:
    """The claims of models that nobody has used for so long."""
    return tuple(one.number for one in held if one.idle(now_s) and now_s - _last_used(one)[0] >= idle_s)


def _fewest(candidates: Iterable[Held], short_bytes: int) -> list[Held] | None:
    """Least recently used first until it is enough, less those that turn out needless; None: all are too few."""
    going: list[Held] = []
    freed_bytes = 0
    for held in sorted(candidates, key=_last_used):
        if freed_bytes >= short_bytes:
            break
        going.append(held)
        freed_bytes += held.size_bytes
    if freed_bytes < short_bytes:
        return None
    for held in reversed(going.copy()):  # a large one may have made smaller ones before it needless
        if freed_bytes - held.size_bytes >= short_bytes:
            going.remove(held)
            freed_bytes -= held.size_bytes
    return going


def _last_used(held: Held) -> tuple[float, int]:
    return (held.since_s if held.used_s is None else held.used_s, held.number)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an engine's error says that memory was not to be had.

    `MemoryError` is Python's, and what a C++ `std::bad_alloc` becomes on its way. torch has a type of its own, known
    here by name, and for the CPU only a sentence, as openvino has.
    """
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _OUT_OF_MEMORY)
