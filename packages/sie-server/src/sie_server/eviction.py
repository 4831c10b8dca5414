"""Which snapshots leave a local cache so that another fits, or why it never will: a decision over bytes.

What was never loaded goes first, then what was loaded longest ago; of those nothing that is not needed after all.
What some process holds stays: it is loaded, being loaded, pinned, or on its way. Where even that would not do, nothing
goes.

Pure: no clock, no disk. `local_cache` looks, and carries it out.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

MOST_RESERVED_BYTES: Final = 1 << 30
"""What is left free on the disk: a hundredth of it, and no more than this. Logs and temporary files must go on."""


class Space(Struct, frozen=True):
    """What there is to put files in.

    Attributes:
        free_bytes: on the disk of the cache.
        disk_bytes: all of it.
        coming_bytes: that other downloads into this cache have still to take.
        budget_bytes: the most that the cache may hold; None: what the disk does.
    """

    free_bytes: int
    disk_bytes: int
    coming_bytes: int = 0
    budget_bytes: int | None = None

    @property
    def reserved_bytes(self) -> int:
        return min(MOST_RESERVED_BYTES, self.disk_bytes // 100)


class Kept(Struct, frozen=True):
    """A snapshot in the cache, or what has come of one.

    Attributes:
        path: of its folder, within the cache.
        name: of the model, for people.
        size_bytes: that the disk has again without it.
        came_s: when it was fetched, in seconds of the epoch.
        used_s: when a model was last loaded from it; None: never.
        held: by some process that uses it, will, or fetches it.
    """

    path: str
    name: str
    size_bytes: int
    came_s: float
    used_s: float | None = None
    held: bool = False

    @property
    def commit(self) -> str:
        return self.path.rpartition("/")[2]


class Evict(Struct, frozen=True):
    """These go, in this order; none: it fits."""

    going: tuple[Kept, ...]


class Refuse(Struct, frozen=True):
    """It does not fit whatever may go.

    Attributes:
        room_bytes: the most that could be had, everything gone that may go.
        in_use: held ones that would have to go as well; none: not even they are enough.
    """

    room_bytes: int
    in_use: tuple[Kept, ...]


def decide(needed_bytes: int, space: Space, kept: Sequence[Kept]) -> Evict | Refuse:
    """For a download that is to take `needed_bytes` more."""
    short_bytes = needed_bytes - room_bytes(space, kept)
    chosen = _enough((one for one in kept if not one.held), short_bytes)
    if chosen is not None:
        return Evict(chosen)
    free = [one for one in kept if not one.held]
    left_bytes = short_bytes - sum(one.size_bytes for one in free)
    in_use = _enough((one for one in kept if one.held), left_bytes)
    return Refuse(max(0, needed_bytes - left_bytes), in_use or ())


def room_bytes(space: Space, kept: Iterable[Kept]) -> int:
    """What more may be put there as it is; negative where there is too much already."""
    on_disk = space.free_bytes - space.reserved_bytes - space.coming_bytes
    if space.budget_bytes is None:
        return on_disk
    return min(on_disk, space.budget_bytes - space.coming_bytes - sum(one.size_bytes for one in kept))


def _enough(candidates: Iterable[Kept], short_bytes: int) -> tuple[Kept, ...] | None:
    """The first to go that are as many bytes together, without those that are not needed beside the later ones."""
    chosen: list[Kept] = []
    for one in sorted((one for one in candidates if one.size_bytes > 0), key=_turn):
        if short_bytes <= 0:
            break
        chosen.append(one)
        short_bytes -= one.size_bytes
    if short_bytes > 0:
        return None
    for one in reversed(chosen.copy()):
        if short_bytes + one.size_bytes <= 0:
            chosen.remove(one)
            short_bytes += one.size_bytes
    return tuple(chosen)


def _turn(one: Kept) -> tuple[bool, float, float, str]:
    used_s = one.used_s
    return (used_s is not None, used_s or 0.0, one.came_s, one.path)
