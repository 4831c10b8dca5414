"""What operators, gateways and scrapers ask: health, readiness, heartbeat, metrics, and the list of models."""

import socket
from collections import Counter
from dataclasses import dataclass

from msgspec import UNSET

from sie_core.catalog.spec import ModelSpec
from sie_core.http.serve import Drain
from sie_core.wire.messages import ModelDims, ModelEntry, ModelList, Served, WorkerStatus, profiles
from sie_server import __version__
from sie_server.api.inference import Identity
from sie_server.api.offer import Offer
from sie_server.engine.engine import Engine
from sie_server.engine.residency import Failed, Loading, Resident, State


def host_name() -> str:
    """The worker's name where it was given none."""
    return socket.gethostname()


@dataclass(frozen=True)
class Operations:
    """Reads the engine; changes nothing."""

    engine: Engine
    drain: Drain
    identity: Identity

    def not_ready(self, offer: Offer) -> str | None:
        """Why `/readyz` says 503; None when it says 200."""
        if self.drain.begun:
            return "stopping"
        residency = self.engine.residency
        if residency.settled:
            return None
        states = residency.states()
        parts = []
        for model_id in sorted(residency.kept):
            state = states.get(model_id)
            if isinstance(state, Failed):
                parts.append(f"{model_id} failed to load ({state.failure.error_class}): {state.failure.message}")
            elif state is None and model_id not in offer.models:
                parts.append(f"{model_id} is not in the catalog")
            elif not isinstance(state, Resident):
                note = state.note if isinstance(state, Loading) else ""
                parts.append(f"{model_id} is loading" + (f": {note}" if note else ""))
        return "; ".join(parts)

    def status(self, offer: Offer) -> WorkerStatus:
        states = self.engine.residency.states()
        loaded = {model_id: state for model_id, state in states.items() if isinstance(state, Resident)}
        return WorkerStatus(
            name=self.identity.name,
            ready=self.not_ready(offer) is None,
            machine_profile=self.identity.machine_profile or "",
            pool=self.identity.pool,
            bundle=self.identity.bundle,
            loaded=sorted(loaded),
            models=list(offer.models),
            queued_tokens=self.engine.queued_tokens,
            fingerprint=offer.catalog.fingerprint,
            version=__version__,
            device=self.identity.device,
            hardware=self.identity.hardware,
            served={model_id: _served(resident) for model_id, resident in loaded.items()},
        )

    def models(self, offer: Offer) -> ModelList:
        entries = [self.entry(offer, offer.catalog.specs[model]) for model in offer.models]
        return ModelList(models=entries, data=entries)

    def entry(self, offer: Offer, spec: ModelSpec) -> ModelEntry:
        """What is known of a model; dims and length from the snapshot once it is loaded, else from the spec."""
        state = self.engine.residency.states().get(spec.id)
        resident = state if isinstance(state, Resident) else None
        loaded = dict(resident.model.dims) if resident else {}
        return ModelEntry(
            name=spec.id,
            inputs=list(spec.inputs),
            outputs=list(spec.outputs),
            dims=ModelDims(**(spec.sizes | loaded)),
            loaded=resident is not None,
            state=state_name(state),
            max_sequence_length=resident.model.max_tokens if resident else spec.max_tokens,
            revision=resident.made.revision if resident else spec.revision,
            verified=resident.made.verified if resident else None,
            adopted=True if resident and resident.made.adopted else UNSET,
            precision=resident.model.precision if resident else UNSET,
            device=(self.identity.hardware or self.identity.device) if resident else UNSET,
            profiles=profiles(spec.variants),
            last_error=last_error(state),
            bundles=list(offer.catalog.bundles_of(spec.id)),
            id=spec.id,
        )

    def metrics(self) -> bytes:
        """The page for a scraper, its gauges as of now."""
        engine, metrics = self.engine, self.engine.metrics
        residents = [state for state in engine.residency.states().values() if isinstance(state, Resident)]
        metrics.queue_depth.replace({(one.spec.id,): len(one.scheduler) for one in residents})
        metrics.queued_tokens.replace({(): engine.queued_tokens})
        metrics.loaded.replace({(one.spec.id, self.identity.device): 1 for one in residents})
        device, claims = self.identity.device, engine.room.claims()
        metrics.memory.replace({(one.model_id, device): one.size_bytes for one in claims if one.use is not None})
        predicted = Counter[tuple[str, ...]]()
        for one in claims:  # of a model that a LoRA is being added to there are two
            predicted[one.model_id, device] += one.predicted_bytes or 0
        metrics.predicted.replace(predicted)
        metrics.budget.replace({} if engine.room.budget_bytes is None else {(): engine.room.budget_bytes})
        metrics.loads_waiting.replace({(): engine.room.waiting})
        metrics.files_evicted.replace({(model,): n for model, n in engine.files_evicted.copy().items()})
        metrics.load_seconds.replace({(one.spec.id,): one.load_s for one in residents})
        metrics.load_failures.replace(
            {(str(model), kind): n for (model, kind), n in engine.residency.failures.copy().items()}
        )
        return metrics.page()


def _served(resident: Resident) -> Served:
    made = resident.made
    return Served(revision=made.revision, verified=made.verified, precision=made.model.precision, adopted=made.adopted)


def state_name(state: State | None) -> str:
    match state:
        case Resident():
            return "loaded"
        case Loading():
            return "loading"
        case Failed():
            return "failed"
        case None:
            return "available"


def last_error(state: State | None) -> dict[str, object] | None:
    if not isinstance(state, Failed):
        return None
    failure = state.failure
    said: dict[str, object] = {
        "code": failure.error_class,
        "message": failure.message,
        "attempts": state.attempts,
        "permanent": failure.permanent,
    }
    return said if failure.hint is None else {**said, "hint": failure.hint}
