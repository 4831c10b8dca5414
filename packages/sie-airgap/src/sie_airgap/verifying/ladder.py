"""Which levels of the ladder are true now, and what to run next. Pure.

What was written down of each place (`checks.Check`) and what was seen there now (`Sight`) make its state; places make a
level; levels make the ladder. A level is true while every place that was checked at it is still as it was found, or as
far as anybody can tell: what only a check of hours shows has its age beside it. A check of another lock says nothing.

The highest level is the last before one that is not true. What was carried need not be known once what arrived was held
against the lock itself, so media that nobody checked here (L1, L2) stop nothing below a level that is true.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum

from sie_airgap.verifying.checks import Check, Kind, Level, Of
from sie_core.artifacts.digest import Digest

NAMES: Mapping[Level, str] = {
    Level.SIGNATURE: "signature and lock",
    Level.INDEX: "volume index",
    Level.MEDIA: "every byte carried",
    Level.REGISTRY: "registry",
    Level.BUCKET: "bucket",
    Level.MANIFESTS: "rendered manifests",
    Level.RUNNING: "what is running",
    Level.ANSWERS: "golden answers",
    Level.EGRESS: "nothing leaves",
}
_CARRIED = (Level.INDEX, Level.MEDIA)
_ASKED_OF_PODS = (Kind.WORKER, Kind.ANSWERS)
FINDINGS, UNREACHABLE = 12, 5


class Look(Enum):
    """What a look at a place showed, beside what was written down of it."""

    SAME = "it cannot have changed since, or all of it was checked now"
    SO = "what can be seen at once is as it was"
    UNSEEN = "there was nothing to look at"
    AWAY = "nobody answers there"
    CHANGED = "it was written to since"
    WRONG = "it is not what was locked"


@dataclass(frozen=True)
class Sight:
    """`said`: in words, for a person; `exit_code`: of what is wrong."""

    look: Look
    said: str = ""
    exit_code: int = 0


class State(IntEnum):
    """Of a place or a level; the greater, the worse."""

    NOTHING = 0
    HOLDS = 1
    HELD = 2
    UNKNOWN = 3
    AWAY = 4
    CHANGED = 5
    FAILS = 6

    @property
    def is_true(self) -> bool:
        return self in (State.HOLDS, State.HELD)

    @property
    def stops(self) -> bool:
        return self >= State.UNKNOWN


_STATE_OF = {
    Look.SAME: State.HOLDS,
    Look.SO: State.HELD,
    Look.UNSEEN: State.HELD,
    Look.AWAY: State.AWAY,
    Look.CHANGED: State.CHANGED,
    Look.WRONG: State.FAILS,
}


@dataclass(frozen=True)
class Place:
    """One place of a level: what was written down of it, what was seen, and what follows."""

    check: Check
    sight: Sight
    state: State

    @property
    def exit_code(self) -> int:
        """0 for what is true."""
        if self.state is State.FAILS:
            return self.check.exit_code or self.sight.exit_code or FINDINGS
        if self.state is State.AWAY:
            return self.sight.exit_code or UNREACHABLE
        return FINDINGS if self.state is State.CHANGED else 0


@dataclass(frozen=True)
class Rung:
    """One level.

    Attributes:
        places: the worst first.
        lacking: kinds of places that it wants and that nobody checked, or that are not true.
        is_passed: nothing is known and nothing needs to be.
        other: the last check of this level for another lock, where there is none for this one.
    """

    level: Level
    state: State
    places: tuple[Place, ...] = ()
    lacking: tuple[str, ...] = ()
    is_passed: bool = False
    other: Check | None = None

    @property
    def is_broken(self) -> bool:
        """It was true, or was checked, and is not true."""
        return self.state > State.UNKNOWN

    @property
    def exit_code(self) -> int:
        return next((place.exit_code for place in self.places if place.exit_code), FINDINGS)


@dataclass(frozen=True)
class Ladder:
    """All levels in order; `highest`: the last that is true, with all below it; None for none."""

    lock: Digest
    rungs: tuple[Rung, ...]
    highest: Level | None

    def open(self, up_to: Level | None) -> list[Rung]:
        """What is asked for and not true, the lowest first; without `up_to` all that was ever checked is asked for."""
        return [
            rung
            for rung in self.rungs
            if (rung.is_broken if up_to is None else rung.level <= up_to and rung.state.stops and not rung.is_passed)
        ]

    @property
    def next(self) -> Rung | None:
        """The lowest that is not true."""
        return next((rung for rung in self.rungs if rung.state.stops and not rung.is_passed), None)


def ladder(
    lock: Digest,
    checks: Iterable[Check],
    sights: Mapping[Of, Sight],
    *,
    wanted: Mapping[Level, Sequence[str]],
    now_s: int,
) -> Ladder:
    """What holds of a lock.

    Args:
        checks: all that is written down, of other locks too, and what was checked now.
        sights: what was seen now, of some of them.
        wanted: kinds that a level wants all of, where one of any kind is not enough; none: there is nothing to check.
        now_s: seconds since 1970. What was written down later than that was dated by a wrong clock.
    """
    known = list(checks)
    own = [check for check in known if check.lock == lock]
    started_s = max((check.began_s for check in own if check.began_s is not None), default=None)
    places = [_place(check, sights.get(check.of, Sight(Look.UNSEEN)), started_s, now_s) for check in own]
    others = [check for check in known if check.lock != lock]
    rungs = [_rung(level, places, others, wanted.get(level)) for level in Level]
    rungs = [_passed(rung, rungs) for rung in rungs]
    return Ladder(lock, tuple(rungs), _highest(rungs))


def _place(check: Check, sight: Sight, started_s: int | None, now_s: int) -> Place:
    if check.exit_code:
        return Place(check, sight, State.FAILS)
    if check.at_s > now_s:
        return Place(check, Sight(Look.CHANGED, "it is dated later than now: a clock was wrong"), State.CHANGED)
    if sight.look is Look.UNSEEN and check.kind in _ASKED_OF_PODS and started_s is not None and check.at_s < started_s:
        return Place(check, Sight(Look.CHANGED, "pods were started since"), State.CHANGED)
    return Place(check, sight, _STATE_OF[sight.look])


def _rung(level: Level, places: Sequence[Place], others: Sequence[Check], wanted: Sequence[str] | None) -> Rung:
    here = sorted((p for p in places if p.check.level == level), key=lambda p: (-p.state, -p.check.at_s, p.check.place))
    good = {place.check.kind for place in here if place.state.is_true}
    lacking = tuple(kind for kind in wanted or () if kind not in good)
    other = max((one for one in others if one.level == level), key=lambda one: one.at_s, default=None)
    return Rung(level, _state(here, lacking, wanted), tuple(here), lacking, other=None if here else other)


def _state(here: Sequence[Place], lacking: Sequence[str], wanted: Sequence[str] | None) -> State:
    worst = max((place.state for place in here), default=State.UNKNOWN)
    true = [place.state for place in here if place.state.is_true]
    if worst >= State.CHANGED:
        return worst
    if wanted is not None and not wanted and not here:
        return State.NOTHING
    if lacking or not true:
        away = any(place.state is State.AWAY and (not true or place.check.kind in lacking) for place in here)
        return State.AWAY if away else State.UNKNOWN
    return max(true) if wanted else min(true)


def _passed(rung: Rung, rungs: Sequence[Rung]) -> Rung:
    arrived = any(other.state.is_true for other in rungs if other.level > rung.level)
    if rung.level in _CARRIED and rung.state is State.UNKNOWN and arrived:
        return Rung(rung.level, rung.state, rung.places, rung.lacking, is_passed=True, other=rung.other)
    return rung


def _highest(rungs: Sequence[Rung]) -> Level | None:
    top = None
    for rung in rungs:
        if rung.state.stops and not rung.is_passed:
            break
        top = rung.level if rung.state.is_true else top
    return top
