"""The LoRAs of a loaded model: added by the first call that names a variant with one, in a thread of its own.

The model answers all other calls meanwhile. A LoRA that fails is kept with its reason and tried again after a pause
that fits the cause, as models are. What adding one takes, for a time a second network, is claimed from `room` as a
model's load is; the model itself never goes for it.
"""

import logging
import threading
from collections.abc import Callable

from sie_core.errors import ApiError
from sie_server import machine
from sie_server.engine.residency import Failed, Failure, Loading, Resident, refusal, told
from sie_server.engine.room import Abandoned, Room
from sie_server.observability import EVENT_LORA_LOADED

logger = logging.getLogger("sie.loras")


def look(resident: Resident, variant: str | None, room: Room, clock: Callable[[], float]) -> None:
    """Returns where calls of the variant can be run; for a variant without a LoRA at once.

    Belongs to the event loop's thread.

    Raises:
        ApiError: LORA_LOADING, after beginning to load it where that makes sense; MODEL_LOAD_FAILED.
    """
    spec = resident.spec.variants.get(variant) if variant is not None else None
    if variant is None or spec is None or spec.lora is None or resident.loras.get(variant) is True:
        return
    state = resident.loras.get(variant)
    name = f"LoRA `{spec.lora.repo}` of variant `{variant}`"
    if isinstance(state, Failed) and not state.may_try(clock()):
        raise refusal(name, state)
    if not isinstance(state, Loading):
        attempts = state.attempts + 1 if isinstance(state, Failed) else 1
        state = resident.loras[variant] = Loading(clock(), attempts)
        threading.Thread(
            target=_add, args=(resident, variant, attempts, room, clock), name=f"lora-{variant}", daemon=True
        ).start()
    raise ApiError("LORA_LOADING", f"{name} is being loaded" + (f": {state.note}" if state.note else ""))


def _add(resident: Resident, variant: str, attempts: int, room: Room, clock: Callable[[], float]) -> None:
    claim = room.open(resident.spec.id, pinned=False, beside=resident)
    since_s = clock()

    def say(note: str) -> None:
        resident.loras[variant] = Loading(since_s, attempts, note)

    def take(size_bytes: int) -> None:
        room.take(claim, size_bytes, wanted=lambda: not resident.retired, say=say)
        say("")

    fields: dict[str, object] = {"model": resident.spec.id, "variant": variant}
    failure: Failure | None = None
    try:
        resident.made.add_lora(variant, take)
    except Abandoned:
        return
    except Exception as error:  # becomes an answer to whoever asks for the variant
        failure = told(error, fields)
    if resident.retired:  # it was unloaded meanwhile, and its network may have been made anew since
        resident.model.close()
    (machine.give_back if failure is None else machine.collect)()
    room.back(claim)
    if failure is not None:
        resident.loras[variant] = Failed(failure, attempts, clock())
    elif not resident.retired:
        logger.info(EVENT_LORA_LOADED, extra={"fields": fields})
        resident.loras[variant] = True
