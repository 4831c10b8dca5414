"""One worker process: from settings to models on their way, a server that listens, and a person who knows.

Models begin to load before the server is even imported: the first answer waits for both, and they need
different things (one the disk and a compiler, the other the interpreter). What a load itself imports comes
first: two imports at a time take as long as one after the other, and the compiler would wait for both.
"""

import asyncio
import logging
import math
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from sie_core.catalog.catalog import Catalog
from sie_core.catalog.spec import ModelSpec, Source
from sie_core.http import log
from sie_core.ids import ModelId, parse_machine_profile
from sie_core.settings import SettingsError
from sie_server import __version__, machine, weights
from sie_server.engine.engine import Engine, Limits
from sie_server.engine.residency import Failed, Load, Made, Resident, Say, State
from sie_server.local_cache import Holds
from sie_server.models.calls import LoadError, Take
from sie_server.observability import EVENT_LOADING, EVENT_MODEL_FAILED, EVENT_READY
from sie_server.settings import ServeSettings
from sie_server.sources import Sources, check_offered
from sie_server.telling import Told, complain, described

if TYPE_CHECKING:
    from sie_core.http.auth import Auth
    from sie_core.http.serve import Drain
    from sie_server.api.routes import Worker

logger = logging.getLogger("sie.worker")

IMPORT_S = 1.0
"""The longest that the server waits for the engine to be imported."""

MODELS_SHARE = 0.8
"""What models may hold of the memory that this process may use, where nobody said."""

SLOW_S = 1.0
"""A start that takes longer than this says what it is waiting for."""


class News:
    """What the person who started the process is told: that it is ready, or why it will not be.

    Args:
        gives_up: whether a model that cannot be loaded ends the process. Alone on a machine nothing would ever
            change by itself; with a bucket an operator can put right what is missing while we ask again.
    """

    def __init__(self, kept: Sequence[ModelId], *, gives_up: bool, as_json: bool, started_s: float) -> None:
        self.exit_code = 0
        self._kept = kept
        self._gives_up = gives_up
        self._as_json = as_json
        self._started_s = started_s
        self._lock = threading.Lock()
        self._loaded: dict[ModelId, str] = {}
        self._failed: set[ModelId] = set()
        self._url: str | None = None
        self._stop: Callable[[], None] | None = None
        self._was_ready = False

    def stops_by(self, stop: Callable[[], None]) -> None:
        """`stop` may be called from any thread."""
        with self._lock:
            self._stop = stop
            stops = self.exit_code != 0
        if stops:
            stop()

    def listening(self, url: str) -> None:
        with self._lock:
            self._url = url
            self._tell_if_ready()

    def still_waiting(self) -> None:
        """To be called once, `SLOW_S` after the start."""
        with self._lock:
            left = [model for model in self._kept if model not in self._loaded and model not in self._failed]
            if left and self._url is not None and not self._was_ready and not self.exit_code:
                line = f"listening on {self._url}; still loading {', '.join(left)}"
                self._say(line, EVENT_LOADING, url=self._url, models=left)

    def changed(self, model_id: ModelId, state: State) -> None:
        """In a loading thread."""
        with self._lock:
            if isinstance(state, Resident):
                if model_id in self._kept:
                    # In words: whoever keeps a resident keeps its tokenizer in memory after it has been unloaded.
                    self._loaded[model_id] = _described(state)
                self._tell_if_ready()
                return
            if not isinstance(state, Failed):
                return
            self._failed.add(model_id)
            if not self._gives_up or model_id not in self._kept:
                _log_failure(model_id, state)
                return
            self.exit_code = self.exit_code or state.failure.exit_code
            stop = self._stop
        complain(f"model `{model_id}` cannot be loaded: {state.failure.message}", state.failure.hint)
        if stop is not None:
            stop()

    def _tell_if_ready(self) -> None:
        if self._was_ready or self._url is None or any(model not in self._loaded for model in self._kept):
            return
        self._was_ready = True
        seconds = time.monotonic() - self._started_s
        models = [self._loaded[model] for model in self._kept]
        said = ", ".join(models) or "models are loaded by the first call that names them"
        line = f"ready on {self._url} after {seconds:.2f} s: {said}"
        self._say(line, EVENT_READY, url=self._url, models=models, seconds=round(seconds, 3))

    def _say(self, line: str, event: str, **fields: object) -> None:
        if self._as_json:
            logger.info(event, extra={"fields": fields})
        else:
            print(f"sie-server {__version__} {line}", file=sys.stderr, flush=True)


def run(settings: ServeSettings, *, started_s: float) -> int:
    """Serves until a signal; the exit code.

    Raises:
        SettingsError: settings that cannot be meant together or with this catalog.
        OSError: the address cannot be listened on.
    """
    log.configure(settings.log_level, as_json=settings.log_json)
    catalog = Catalog.shipped()
    check(settings, catalog)
    hardware = hardware_of(settings)
    auth = _auth(settings)
    kept = [ModelId(model) for model in settings.models]
    sources = Sources.of(settings)
    news = News(kept, gives_up=settings.cluster_cache is None, as_json=settings.log_json, started_s=started_s)
    imported = threading.Event()
    make = maker(settings, sources, when_imported=imported.set, when_evicted=lambda model: engine.count_evicted(model))
    at_most = limits(settings, hardware)
    engine = Engine(
        make,
        limits=at_most,
        kept=kept,
        on_change=news.changed,
        measure=hardware.taken_bytes,
        left=hardware.left_bytes,
    )
    begun = [spec for model in kept if (spec := catalog.find(model)) is not None]
    if len(begun) > 1:  # none of them goes for another one
        sources.keep(begun)
    for spec in begun:
        engine.residency.begin(spec)
    if begun:
        imported.wait(IMPORT_S)

    # Here and not above: the web server is imported while the models are compiled.
    from sie_core.http.serve import Drain
    from sie_core.http.serve import run as serve

    drain = Drain()
    worker = _worker(settings, engine, catalog, auth, drain, hardware.name)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        engine.start()
        news.stops_by(lambda: _call_safely(loop, lambda: drain.begin(linger=False)))
        loop.call_later(SLOW_S, news.still_waiting)
        stop_following = follow(settings, worker, loop)
        try:
            yield
        finally:
            stop_following()
            engine.close()

    serve(worker, host=settings.host, port=settings.port, drain=drain, lifespan=lifespan, on_listening=news.listening)
    return news.exit_code


def check(settings: ServeSettings, catalog: Catalog) -> None:
    """Raises `SettingsError` for what a type cannot refuse."""
    if settings.machine_profile is not None:
        try:
            parse_machine_profile(settings.machine_profile)
        except ValueError as error:
            raise SettingsError(f"`SIE_MACHINE_PROFILE`: {error}") from error
    for name, value in (
        ("SIE_QUEUE_TOKENS", settings.queue_tokens),
        ("SIE_BATCH_TOKENS", settings.batch_tokens),
        ("SIE_TOKENIZER_THREADS", settings.tokenizer_threads),
        ("SIE_MAX_BODY_BYTES", settings.max_body_bytes),
    ):
        if value < 1:
            raise SettingsError(f"`{name}` is {value}, want at least 1")
    if settings.precision == "f16" and settings.device == "cpu":
        raise SettingsError("`SIE_PRECISION` is `f16` and `SIE_DEVICE` is `cpu`, which has `auto`, `f32` and `bf16`")
    check_offered(settings, catalog)


def hardware_of(settings: ServeSettings) -> machine.Hardware:
    """What the models run on; raises `SettingsError` where it is not there."""
    if settings.device == "cpu":
        allowed_bytes = machine.memory_bytes()
        left_bytes = partial(machine.left_bytes, allowed_bytes)
        return machine.Hardware(cpu_name(), allowed_bytes, machine.anonymous_bytes, left_bytes)
    from sie_server.models.calls import LoadError
    from sie_server.models.engines import find_cuda

    try:
        return find_cuda()
    except LoadError as error:
        raise SettingsError(f"`SIE_DEVICE`: {error}", hint=error.hint) from error


def limits(settings: ServeSettings, hardware: machine.Hardware) -> Limits:
    return Limits(
        queue_tokens=settings.queue_tokens,
        batch_tokens=settings.batch_tokens,
        streams=streams_of(cores())[0],
        tokenizer_threads=settings.tokenizer_threads,
        memory_bytes=settings.model_memory_bytes or int(hardware.memory_bytes * MODELS_SHARE),
        idle_evict_s=settings.idle_evict_s,
    )


def streams_of(available: int) -> tuple[int, int]:
    """(streams, threads of each) for so many cores: two streams, since while one batch is packed or answered the
    other computes, and two threads in one stream gain less than two streams."""
    streams = min(2, available)
    return streams, available // streams


def cores() -> int:
    """The cores that this process may use: its affinity, and the quota of its control group where there is one.

    A container with a quota of 2 on a machine of 64 would else start 64 threads and be stopped most of the time.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return available
    return available if quota == "max" else max(1, min(available, math.ceil(int(quota) / int(period))))


def cpu_name() -> str:
    """What this machine calls its processor; the architecture where it does not say."""
    try:
        with Path("/proc/cpuinfo").open() as file:  # the first lines: each core's are looked up as they are read
            named = (line.partition(":")[2].strip() for line in islice(file, 10) if line.startswith("model name"))
            return next(named, "") or os.uname().machine
    except OSError:
        return os.uname().machine


def maker(
    settings: ServeSettings,
    sources: Sources,
    *,
    when_imported: Callable[[], object],
    when_evicted: Callable[[str], object] = lambda model: None,
) -> Load:
    """What the engine loads models by: files that are verified, then a graph built of them.

    Args:
        when_imported: called when a load needs the interpreter no more, or waits for somebody, or failed.
        when_evicted: told of each model whose files have gone from the local cache; from any thread.
    """
    streams, threads = streams_of(cores())

    def make(spec: ModelSpec, say: Say, take: Take) -> Made:
        holds = Holds(settings.cache_folder)

        def files_of(spec: ModelSpec, say: Say) -> weights.Snapshot:
            told = Told(settings.log_json)

            def tell(state: weights.State) -> None:
                when_imported()
                told(state)
                say(described(state))
                if state.evicted is not None:
                    when_evicted(state.evicted)

            return sources.snapshot(spec, tell, holds.take)

        try:
            snapshot = files_of(spec, say)
            base, labels_base = (
                None if source is None else files_of(ModelSpec(source.repo, source), say)
                for source in (spec.base, spec.labels_base)
            )
            say("")
            from sie_server.models.build import load

            model = load(
                spec,
                snapshot.folder,
                base=None if base is None else base.folder,
                labels_base=None if labels_base is None else labels_base.folder,
                precision=settings.precision,
                streams=streams,
                threads=threads,
                engine="torch" if settings.device == "cuda" else "openvino",
                device=settings.device,
                when_imported=when_imported,
                take=take,
            )
        except BaseException:
            holds.release()
            raise
        finally:
            when_imported()
        holds.loaded()

        def add_lora(variant: str, take: Take) -> None:
            lora = spec.variants[variant].lora
            if lora is None:
                raise LoadError(f"variant `{variant}` of `{spec.id}` has no LoRA")
            files = files_of(ModelSpec(lora.repo, Source(lora.repo, lora.revision)), lambda note: None)
            model.add_lora(variant, files.folder, take)
            holds.loaded()

        parts = [one for one in (snapshot, base, labels_base) if one is not None]
        verified = all(one.verified for one in parts)
        adopted = not verified and all(one.standing != "unverified" for one in parts)
        return Made(model, snapshot.manifest.revision, verified, add_lora, adopted, holds.release)

    return make


def follow(settings: ServeSettings, worker: "Worker", loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Begins to follow the config service's catalog, where there is one; what is returned ends it."""
    if settings.config_service_url is None:
        return lambda: None
    from sie_core.catalog.feed import Feed

    token = settings.tokens[0] if settings.tokens else None
    feed = Feed(
        settings.config_service_url,
        token=token,
        on_change=lambda catalog: _call_safely(loop, lambda: worker.swap(catalog)),
    )
    feed.start()
    return feed.stop


def _worker(
    settings: ServeSettings, engine: Engine, catalog: Catalog, auth: "Auth", drain: "Drain", hardware: str
) -> "Worker":
    from sie_server.api.inference import Identity
    from sie_server.api.ops import host_name
    from sie_server.api.routes import Worker

    identity = Identity(
        name=settings.worker_name or host_name(),
        pool=settings.pool,
        bundle=settings.bundle,
        machine_profile=settings.machine_profile,
        device=settings.gpu_type or settings.device,
        hardware=hardware,
    )
    return Worker(engine, catalog, identity=identity, auth=auth, drain=drain, max_body_bytes=settings.max_body_bytes)


def _auth(settings: ServeSettings) -> "Auth":
    from sie_core.http.auth import configure

    try:
        return configure(settings.auth_mode, settings.tokens, exempt_operational=True)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _call_safely(loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
    """From another thread; a loop that has just ended needs nothing any more."""
    with suppress(RuntimeError):  # asking first whether it is closed would be too early by then
        loop.call_soon_threadsafe(action)


def _log_failure(model_id: ModelId, state: Failed) -> None:
    failure = state.failure
    fields: dict[str, object] = {"model": model_id, "error_class": failure.error_class, "attempts": state.attempts}
    fields |= {"reason": failure.message, "hint": failure.hint, "again_after_s": failure.again_after_s}
    logger.warning(EVENT_MODEL_FAILED, extra={"fields": fields})


def _described(resident: Resident) -> str:
    made = resident.made
    sizes: dict[str, int] = {name: size for name, size in resident.model.dims.items()}  # noqa: C416 - wider keys
    outputs = ", ".join(f"{name} {sizes[name]}" if name in sizes else name for name in resident.spec.outputs)
    return f"{resident.spec.id} ({made.model.precision}, {outputs}, commit {made.revision[:12]}, {made.standing})"
