"""The LoRAs of a loaded model: added by the first call that names a variant with one, in a thread of its own.

The model answers all other calls meanwhile. A LoRA that fails is kept with its reason and tried again after a pause
that fits the cause, as models are.
"""

import logging
import threading
from collections.abc import Callable

from sie_core.errors import ApiError
from sie_server.engine.residency import Failed, Loading, Resident, failure_of, refusal
from sie_server.observability import EVENT_BUG, EVENT_LORA_LOADED

logger = logging.getLogger("sie.loras")


def look(resident: Resident, variant: str | None, clock: Callable[[], float]) -> None:
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
        resident.loras[variant] = Loading(clock(), attempts)
        threading.Thread(
            target=_add, args=(resident, variant, attempts, clock), name=f"lora-{variant}", daemon=True
        ).start()
    raise ApiError("LORA_LOADING", f"{name} is being loaded")


def _add(resident: Resident, variant: str, attempts: int, clock: Callable[[], float]) -> None:
    fields = {"model": resident.spec.id, "variant": variant}
    try:
        resident.made.add_lora(variant)
    except Exception as error:  # becomes an answer to whoever asks for the variant
        failure = failure_of(error)
        if failure.error_class == "UNKNOWN":
            logger.exception(EVENT_BUG, extra={"fields": fields})
        resident.loras[variant] = Failed(failure, attempts, clock())
        return
    if resident.retired:  # it was unloaded meanwhile, and its network may have been made anew since
        resident.model.close()
        return
    logger.info(EVENT_LORA_LOADED, extra={"fields": fields})
    resident.loras[variant] = True
