"""Which models are loaded, which are on their way, and why one is not.

A model is loaded on the first call that names it, or at the start when the operator named it; either way
in a thread of its own, so that a slow download holds up nothing else. Callers meanwhile are told to come
again. A failure is kept with its reason: callers get it at once, and it is tried again only after a pause
that fits its cause, by the next call, or unasked for a model that the operator named.

What a model may take of the machine's memory is `room`'s to say: a load claims it once its files are there and
before it takes any, so that a slow download keeps nothing from anybody.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from msgspec import Struct

from sie_core.artifacts.errors import NoPermission, NoSpace, NotThere, TransferError, TrustError
from sie_core.catalog.spec import ModelSpec
from sie_core.errors import ApiError
from sie_core.ids import ModelId
from sie_server import machine
from sie_server.engine.memory import NoRoom, is_out_of_memory
from sie_server.engine.room import Abandoned, Room
from sie_server.engine.scheduler import Scheduler
from sie_server.models.calls import LoadError, Model, Take
from sie_server.observability import EVENT_BUG, EVENT_MODEL_LOADED

logger = logging.getLogger("sie.residency")

PROBE_S = 60.0
"""Until what a person must put right (a permission, a missing file) is looked at again."""

NETWORK_S = 30.0
"""Until what passes by itself is tried again."""


def _no_loras(variant: str, take: Take) -> None:
    raise LoadError(f"variant `{variant}` has no LoRA")


def _nothing_held() -> None:
    """For models that are not made of files in the local cache."""


class Made(Struct, frozen=True):
    """A model that was built, and which files it was made of: their commit, and whether a lock or the hub vouched for
    them.

    Attributes:
        adopted: what vouched for some of them was written from a bucket that had been filled by hand.
        release: lets the local cache remove the files; called once the model is closed.
        add_lora: fetches the LoRA of a variant, claims what it takes and adds it to the model; blocks; raises what
            `failure_of` reads.
    """

    model: Model
    revision: str
    verified: bool
    add_lora: Callable[[str, Take], None] = _no_loras
    adopted: bool = False
    release: Callable[[], None] = _nothing_held

    @property
    def standing(self) -> str:
        """What is said of its files: `verified`, `adopted` or `unverified`."""
        return "verified" if self.verified else "adopted" if self.adopted else "unverified"


class Resident(Struct, eq=False):
    """A loaded model with its queue.

    Attributes:
        load_s: how long the load took.
        calls: calls inside the engine now; the event loop's thread counts them.
        used_s: when the last of them ended; None before the first.
        retired: taken out of the catalog, to be closed after its last call.
        loras: those of its variants: true for one that calls may name, else how it stands with it.
    """

    spec: ModelSpec
    made: Made
    scheduler: Scheduler
    load_s: float
    calls: int = 0
    used_s: float | None = None
    retired: bool = False
    loras: "dict[str, Literal[True] | Loading | Failed]" = {}

    @property
    def model(self) -> Model:
        return self.made.model

    @property
    def memory_bytes(self) -> int:
        return self.made.model.memory_bytes


class Failure(Struct, frozen=True):
    """Why a load failed.

    Attributes:
        error_class: as in the error body of SIE v0.3.1, where it had one for this.
        permanent: whether a person must act.
        again_after_s: pause before the next attempt; None: no attempt can end otherwise.
        exit_code: of a command that cannot go on without the model.
    """

    error_class: str
    message: str
    hint: str | None
    permanent: bool
    again_after_s: float | None
    exit_code: int


class Loading(Struct, frozen=True):
    """`note`: what is being done at the moment, for whoever asks."""

    since_s: float
    attempts: int
    note: str = ""


class Failed(Struct, frozen=True):
    failure: Failure
    attempts: int
    at_s: float

    def may_try(self, now_s: float) -> bool:
        pause_s = self.failure.again_after_s
        return pause_s is not None and now_s >= self.at_s + pause_s


State = Loading | Resident | Failed
Say = Callable[[str], None]

Load = Callable[[ModelSpec, Say, Take], Made]
"""Makes a model of a spec; blocks; says what it is doing; raises what `failure_of` reads."""


def failure_of(error: Exception) -> Failure:
    """What an exception of a load means to callers and to the operator."""
    message, hint = str(error) or type(error).__name__, getattr(error, "hint", None)
    match error:
        case NotThere():
            return Failure("NOT_FOUND", message, hint, True, PROBE_S, error.exit_code)
        case NoPermission():
            return Failure("GATED", message, hint, True, PROBE_S, error.exit_code)
        case NoSpace():
            return Failure("NO_SPACE", message, hint, True, PROBE_S, error.exit_code)
        case TransferError():
            return Failure("NETWORK", message, hint, False, NETWORK_S, error.exit_code)
        case TrustError():
            return Failure("INTEGRITY", message, hint, True, PROBE_S, error.exit_code)
        case LoadError():
            return Failure("UNSUPPORTED", message, hint, True, PROBE_S, 4)
        case NoRoom():
            return Failure("OOM", message, hint, True, PROBE_S, 7)
        case _ if is_out_of_memory(error):
            return Failure("OOM", "the model does not fit in memory", hint, False, PROBE_S, 7)
        case OSError():
            return _of_the_machine(error, message)
        case _:
            return Failure("UNKNOWN", f"{type(error).__name__}: {message}", hint, True, None, 1)


def told(error: Exception, fields: dict[str, object]) -> Failure:
    """What `failure_of` says; a bug's traceback is logged, with `fields`."""
    failure = failure_of(error)
    if failure.error_class == "UNKNOWN":
        logger.error(EVENT_BUG, exc_info=error, extra={"fields": fields})
    return failure


def _of_the_machine(error: OSError, message: str) -> Failure:
    """What a file on this machine's own disk would not do."""
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return Failure("GATED", message, "this process may not read it: give it the permission", True, PROBE_S, 6)
        case errno.ENOENT:
            return Failure("NOT_FOUND", message, None, True, PROBE_S, 4)
        case errno.ENOSPC | errno.EDQUOT:
            return Failure("NO_SPACE", message, "free some of the disk", True, PROBE_S, 7)
        case _:
            return Failure("UNKNOWN", message, None, False, PROBE_S, 1)


class Residency:
    """State by model id. States are replaced whole, so reading one takes no lock.

    Args:
        room: what models may take of the memory.
        queue: makes the queue of a model that was built, before anybody can see that it is loaded.
        kept: ids that the operator named: loaded at the start and tried again by themselves.
        on_change: told in the loading thread after each new state.
    """

    def __init__(
        self,
        load: Load,
        *,
        room: Room,
        queue: Callable[[ModelId, Model], Scheduler],
        kept: Iterable[ModelId] = (),
        on_change: Callable[[ModelId, State], None] = lambda model_id, state: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kept = frozenset(kept)
        self.failures: dict[tuple[ModelId, str], int] = {}
        self._load = load
        self._room = room
        self._queue = queue
        self._on_change = on_change
        self._clock = clock
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._states: dict[ModelId, State] = {}
        self._specs: dict[ModelId, ModelSpec] = {}
        self._owners: dict[ModelId, _Load] = {}

    def states(self) -> Mapping[ModelId, State]:
        return dict(self._states)

    def spec(self, model_id: ModelId) -> ModelSpec | None:
        """The spec that a model was, or is being, loaded by."""
        return self._specs.get(model_id)

    @property
    def settled(self) -> bool:
        """Whether every model that the operator named is loaded."""
        return all(isinstance(self._states.get(model_id), Resident) for model_id in self.kept)

    def look(self, spec: ModelSpec) -> Resident:
        """The model, if it answers at once.

        Raises:
            ApiError: MODEL_LOADING, after beginning to load it where that makes sense; MODEL_LOAD_FAILED.
        """
        state = self._states.get(spec.id)
        if isinstance(state, Resident):
            return state
        if isinstance(state, Failed) and not state.may_try(self._clock()):
            raise refusal(f"model `{spec.id}`", state)
        self.begin(spec)
        note = state.note if isinstance(state, Loading) else ""
        raise ApiError("MODEL_LOADING", f"model `{spec.id}` is being loaded" + (f": {note}" if note else ""))

    def begin(self, spec: ModelSpec) -> None:
        """Loads in a thread of its own; does nothing while it is loading or loaded."""
        with self._lock:
            state = self._states.get(spec.id)
            if self._closing.is_set() or isinstance(state, Loading | Resident):
                return
            attempts = state.attempts + 1 if isinstance(state, Failed) else 1
            load = self._owners[spec.id] = _Load(spec, attempts)
            self._states[spec.id] = Loading(self._clock(), attempts)
            self._specs[spec.id] = spec
        threading.Thread(target=self._attempt, args=(load,), name=f"load-{spec.id}", daemon=True).start()

    def forget(self, model_id: ModelId) -> Resident | None:
        """Takes a model out; the caller unloads what is returned. What is still loading is dropped when it comes."""
        with self._lock:
            state = self._states.pop(model_id, None)
            self._specs.pop(model_id, None)
            self._owners.pop(model_id, None)
        if isinstance(state, Resident):
            return state
        self._room.look_again()  # its load may be waiting for memory that nobody needs any more
        return None

    def close(self) -> None:
        """Nothing is begun or tried again after this."""
        self._closing.set()
        self._room.close()

    def _attempt(self, load: "_Load") -> None:
        """One load; for a model that the operator named as many more as it takes."""
        while True:
            try:
                state = self._outcome(load)
            except Abandoned:
                return
            if not self._publish(load, state):
                if isinstance(state, Resident):
                    self._throw_away(state)
                return
            pause_s = state.failure.again_after_s if isinstance(state, Failed) and load.spec.id in self.kept else None
            if pause_s is None or self._closing.wait(pause_s):
                return
            load.attempts += 1
            if not self._publish(load, Loading(self._clock(), load.attempts)):
                return

    def _outcome(self, load: "_Load") -> Resident | Failed:
        spec, started_s = load.spec, self._clock()
        claim = self._room.open(spec.id, pinned=spec.id in self.kept)

        def say(note: str) -> None:
            self._note(load, started_s, note)

        def take(size_bytes: int) -> None:
            self._room.take(claim, size_bytes, wanted=lambda: self._owners.get(spec.id) is load, say=say)
            say("")

        made: Made | Failure
        try:
            made = self._load(spec, say, take)
        except Abandoned:
            raise
        except Exception as error:  # every failure of a load becomes an answer to whoever asks for the model
            made = told(error, {"model": spec.id})
        if isinstance(made, Failure):  # here, where the error has gone, and what its traceback held
            machine.collect()
            self._room.back(claim)
            return self._failed(load, made)
        load_s = self._clock() - started_s
        resident = Resident(spec, made, self._queue(spec.id, made.model), load_s)
        self._room.loaded(claim, resident)
        fields = {"model": spec.id, "revision": made.revision, "files": made.standing, "seconds": round(load_s, 3)}
        fields |= {"predicted_bytes": claim.predicted_bytes, "measured_bytes": claim.measured_bytes}
        logger.info(EVENT_MODEL_LOADED, extra={"fields": fields})
        return resident

    def _throw_away(self, resident: Resident) -> None:
        """One that nobody has seen."""
        self._room.leaving(resident)

        def closed() -> None:
            resident.made.release()
            self._room.gone(resident)

        resident.scheduler.retire(closed)

    def _note(self, load: "_Load", since_s: float, note: str) -> None:
        with self._lock:
            if self._owners.get(load.spec.id) is load:
                self._states[load.spec.id] = Loading(since_s, load.attempts, note)

    def _failed(self, load: "_Load", failure: Failure) -> Failed:
        key = (load.spec.id, failure.error_class)
        with self._lock:
            self.failures[key] = self.failures.get(key, 0) + 1
        return Failed(failure, load.attempts, self._clock())

    def _publish(self, load: "_Load", state: State) -> bool:
        """False when another load has taken over, or the model was forgotten, or the process is stopping."""
        with self._lock:
            if self._closing.is_set() or self._owners.get(load.spec.id) is not load:
                return False
            self._states[load.spec.id] = state
        self._on_change(load.spec.id, state)
        return True


class _Load(Struct, eq=False):
    """One thread's work on one spec; the model's state is its to write while it is the latest."""

    spec: ModelSpec
    attempts: int


def refusal(what: str, state: Failed) -> ApiError:
    """What a caller is told of a model, or of a LoRA, that cannot be loaded."""
    failure = state.failure
    return ApiError(
        "MODEL_LOAD_FAILED",
        f"{what} could not be loaded: {failure.message}",
        hint=failure.hint,
        extra={
            "error_class": failure.error_class,
            "attempts": state.attempts,
            "permanent": failure.permanent,
        },
    )
