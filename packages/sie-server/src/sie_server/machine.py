"""What this machine, or the container on it, leaves this process in memory, and how much of it is taken.

Not here: what of it models may have (`settings`), and who goes for whom (`engine.memory`).
"""

import ctypes
import functools
import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

ROOT: Final = Path("/")

_V1, _V2 = "memory.limit_in_bytes", "memory.max"


@dataclass(frozen=True)
class Hardware:
    """What models run on.

    Attributes:
        name: as its maker calls it.
        memory_bytes: what this process may use of its memory.
        taken_bytes: what this process has of it; None where it cannot be told.
        left_bytes: what is left for a pass; None where it cannot be told, or whoever takes it says so itself.
    """

    name: str
    memory_bytes: int
    taken_bytes: Callable[[], int | None]
    left_bytes: Callable[[], int | None] = lambda: None


def memory_bytes(root: Path = ROOT) -> int:
    """What this process may use: the machine's memory, or the least that a control group above it allows.

    Reads `/proc/meminfo`, and for every group from the process's own (`/proc/self/cgroup`) up to the root `memory.max`
    (version 2) or `memory.limit_in_bytes` (version 1). In a container the groups are mounted so that its own is the
    root, whatever path it is told; that is why paths that are not there are passed over.

    Args:
        root: where `proc` and `sys` are.
    """
    total = _total(root)
    return min([total, *(limit for limit in _limits(root) if 0 < limit < total)])


def anonymous_bytes(root: Path = ROOT) -> int | None:
    """What this process has in memory that is not a file's: packed weights, buffers, Python's own. None off Linux."""
    try:
        _, resident, shared, *_ = (root / "proc/self/statm").read_text().split()
    except (OSError, ValueError):
        return None
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def left_bytes(allowed_bytes: int, root: Path = ROOT) -> int | None:
    """What this process may still take: of what it is allowed, and of what the machine has left for anybody."""
    taken, left = anonymous_bytes(root), _meminfo(root, "MemAvailable")
    return None if taken is None or left is None else max(0, min(allowed_bytes - taken, left))


def give_back() -> None:
    """Has the C library hand back to the system what is free; with one that cannot, nothing."""
    _trim()(0)


def collect() -> None:
    """`give_back`, after what only refers to itself any more has gone: an error and the frames that it went through."""
    gc.collect()
    give_back()


def _total(root: Path) -> int:
    return _meminfo(root, "MemTotal") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _meminfo(root: Path, name: str) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))  # 24684096 kB
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _limits(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, group = line.split(":", 2)
        if number == "0" and not controllers:
            yield from _upwards(root / "sys/fs/cgroup", group, _V2)
        elif "memory" in controllers.split(","):
            yield from _upwards(root / "sys/fs/cgroup/memory", group, _V1)


def _upwards(mount: Path, group: str, file: str) -> Iterator[int]:
    inside = PurePosixPath(group.lstrip("/"))
    for at in (inside, *inside.parents):
        try:
            said = (mount / at / file).read_text().strip()
        except OSError:
            continue
        if said.isdigit():  # version 2 says `max` for no limit
            yield int(said)


@functools.cache
def _trim() -> Callable[[int], object]:
    trim: Callable[[int], object] = getattr(ctypes.CDLL(None), "malloc_trim", _nothing)
    return trim


def _nothing(pad: int) -> None: ...
