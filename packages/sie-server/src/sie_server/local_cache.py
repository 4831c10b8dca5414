"""The worker's local cache as a whole: which snapshots are in use, by whatever process, and room for another one.

    .sie/models--ORG--NAME.lock             held while the model is fetched; says how much is coming, and where
    .sie/models--ORG--NAME@<commit>.use     held, by many at once, while the snapshot is used or is to stay; not empty
                                            once a model was loaded from it, and its time is that of the last use
    .sie/room.lock                          held while room is made

Only what a manifest of ours names is ever removed, so a folder that is shared with other programs keeps their files.
A snapshot is renamed before its files go: a process killed in between leaves none that looks whole.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Lock

import msgspec
from msgspec import Struct

from sie_core.artifacts import hf_layout
from sie_core.artifacts.errors import NoSpace
from sie_core.ids import ModelId, Revision, cache_folder
from sie_server import snapshots
from sie_server.eviction import Kept, Refuse, Space, decide

_LOADED = b"loaded\n"


class Holds:
    """What one model, or one process, uses of a cache: none of it is evicted until it is released.

    Safe from any thread. When nobody knows of it any more it is released as well.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._mutex = Lock()
        self._files: dict[Path, int] = {}
        self._released = False

    def __del__(self) -> None:
        self.release()

    def take(self, repo: ModelId, revision: Revision) -> None:
        """Waits while it is being evicted, so look afterwards whether it is there.

        Where nothing may be written, as on a volume that is mounted read-only, nothing is evicted either.
        """
        path = _use_file(self._cache, cache_folder(repo), revision)
        with self._mutex, suppress(OSError):
            if path not in self._files and not self._released:
                file = self._files[path] = _opened(path)
                fcntl.flock(file, fcntl.LOCK_SH)

    def loaded(self) -> None:
        """A model was loaded from what is held."""
        with self._mutex:
            for path in self._files:
                with suppress(OSError):
                    path.write_bytes(_LOADED)

    def release(self) -> None:
        """May be called again; what was loaded has been used until now."""
        with self._mutex:
            for path, file in self._files.items():
                with suppress(OSError):
                    if path.stat().st_size:
                        os.utime(path)
                os.close(file)
            self._files.clear()
            self._released = True


class Coming(Struct, frozen=True):
    """A download that is about to begin, in the process that holds its model's lock.

    Attributes:
        folder: that it comes into, `.incoming/…` in the model's folder.
        needed_bytes: on the disk, beyond what of it is there.
        here_bytes: what of it is there.
    """

    repo: ModelId
    revision: Revision
    folder: Path
    needed_bytes: int
    here_bytes: int


def make_room(cache: Path, coming: Coming, budget_bytes: int | None, evicted: Callable[[Kept], None]) -> None:
    """Returns when the download may begin, and notes for others what it will take.

    `evicted` is told of each one that has gone. Raises `NoSpace` where it cannot fit; then nothing was removed.
    """
    model = cache_folder(coming.repo)
    stays = {f"{model}/snapshots/{coming.revision}", coming.folder.relative_to(cache).as_posix()}
    with snapshots.locked(cache / ".sie" / "room.lock"):
        while True:
            kept = [_looked_at(cache, path, own=model, stays=stays) for path in _paths(cache)]
            decision = decide(coming.needed_bytes, _space(cache, model, budget_bytes), kept)
            if isinstance(decision, Refuse):
                raise _no_space(cache, coming, decision, budget_bytes)
            used_since = set()
            for one in decision.going:
                if _evict(cache, one.path, own=model):
                    evicted(one)
                else:
                    used_since.add(one.path)
            if not used_since:
                break
            stays |= used_since
        note = _Note(coming.folder.relative_to(cache).as_posix(), coming.needed_bytes + coming.here_bytes)
        snapshots.lock_file(cache, model).write_bytes(msgspec.json.encode(note))


class _Note(Struct, frozen=True):
    """What a lock says of the download that it is held for."""

    path: str
    size_bytes: int


def _paths(cache: Path) -> Iterator[str]:
    """Of the snapshots that we fetched, and of what has come of others, finished or not."""
    for model in sorted(cache.glob("models--*")):
        fetched = {file.stem for kind in ("manifests", "unverified") for file in model.glob(f"{kind}/*.json")}
        folders = [model / "snapshots" / commit for commit in sorted(fetched)]
        for folder in [*folders, *sorted(model.glob(".incoming/*"))]:
            if folder.is_dir():
                yield folder.relative_to(cache).as_posix()


def _looked_at(cache: Path, path: str, *, own: str, stays: Collection[str]) -> Kept:
    """`own`: the folder of the model whose lock this process holds; `stays`: paths that count as held."""
    model, kind, commit = path.split("/")
    used = _use_file(cache, model, commit)
    used_s = used.stat().st_mtime if kind == "snapshots" and used.is_file() and used.stat().st_size else None
    is_fetched = model != own and _is_locked(snapshots.lock_file(cache, model))
    return Kept(
        path=path,
        name=hf_layout.model_of(path) or model,
        size_bytes=snapshots.allocated_bytes(cache / path, linked=False),
        came_s=(cache / path).stat().st_mtime,
        used_s=used_s,
        held=path in stays or is_fetched or (kind == "snapshots" and _is_locked(used)),
    )


def _space(cache: Path, own: str, budget_bytes: int | None) -> Space:
    disk = shutil.disk_usage(cache)
    coming_bytes = 0
    for lock in (cache / ".sie").glob("models--*.lock"):
        if lock != snapshots.lock_file(cache, own) and _is_locked(lock):
            with suppress(msgspec.MsgspecError, OSError):  # it has not said yet
                note = msgspec.json.decode(lock.read_bytes(), type=_Note)
                coming_bytes += max(0, note.size_bytes - snapshots.allocated_bytes(cache / note.path))
    return Space(disk.free, disk.total, coming_bytes, budget_bytes)


def _no_space(cache: Path, coming: Coming, refused: Refuse, budget_bytes: int | None) -> NoSpace:
    limit = "" if budget_bytes is None else f" of the {budget_bytes:,} that SIE_LOCAL_CACHE_BYTES allows"
    in_use = ", ".join(f"`{one.name}` ({one.size_bytes:,} bytes)" for one in refused.in_use)
    others = f"; {in_use} would have to go, and may not: loaded, pinned, or on the way" if in_use else ""
    return NoSpace(
        f"`{coming.repo}` needs {coming.needed_bytes:,} bytes in {cache}, and {refused.room_bytes:,}{limit} can be had"
        f"{others}",
        hint="make room on the disk, give a larger volume or budget, or let this worker serve fewer models",
    )


def _evict(cache: Path, path: str, *, own: str) -> bool:
    """False where somebody has begun to use it, or this user may not remove it."""
    model, kind, commit = path.split("/")
    leaving = cache / path
    with ExitStack() as held:
        try:
            if model != own:
                held.enter_context(_at_once(snapshots.lock_file(cache, model)))
            if kind == "snapshots":
                held.enter_context(_at_once(_use_file(cache, model, commit)))
                leaving = snapshots.withdraw(cache / model, commit)
                _use_file(cache, model, commit).write_bytes(b"")
        except OSError:
            return False
        shutil.rmtree(leaving, ignore_errors=True)
    return True


def _use_file(cache: Path, model: str, commit: str) -> Path:
    return cache / ".sie" / f"{model}@{commit}.use"


def _opened(path: Path) -> int:
    """To lock it, which one may who may not write to it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def _at_once(path: Path) -> Iterator[None]:
    """Raises `BlockingIOError` where somebody else has it."""
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
