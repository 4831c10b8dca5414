"""A worker on a real socket over a tiny model that does everything: the real application and engine, in a thread.

    with tiny_worker() as url:
        ...call url...

It shows what the ways into SIE do to a call, not what a model does: all verbs, all outputs, pictures, variants. The
model takes any bytes for a picture, and its numbers depend on every one of them.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from sie_core.catalog.catalog import Bundle, Catalog
from sie_core.catalog.spec import (
    DenseHead,
    ExtractHead,
    ModelSpec,
    MultivectorHead,
    ScoreHead,
    SparseHead,
    Variant,
)
from sie_core.http.auth import configure
from sie_core.http.serve import Drain, bind, serve
from sie_core.ids import BundleName, ModelId
from sie_server.api.inference import Identity
from sie_server.api.routes import Worker
from sie_server.engine.engine import Engine, Limits
from sie_server.engine.residency import Made, Resident, Say, State
from sie_server.models.calls import Model, Take
from sie_testing.tiny import VOCABULARY, TinyModel

WHOLE = ModelId("acme/whole")
PLAIN = ModelId("acme/plain")
REVISION = "2" * 40
LIMITS = Limits(queue_tokens=1_000_000, batch_tokens=4_096, streams=2, tokenizer_threads=1)

SPECS = (
    ModelSpec(
        id=WHOLE,
        max_tokens=16,
        inputs=("text", "image"),
        dense=DenseHead(dim=8),
        sparse=SparseHead("lexical", dim=VOCABULARY),
        multivector=MultivectorHead(dim=8),
        score=ScoreHead("vectors"),
        extract=ExtractHead("spans"),
        variants={
            "sparse": Variant(outputs=("sparse",)),
            "raw": Variant(options={"normalize": False, "output_dtype": "float16"}),
        },
    ),
    ModelSpec(id=PLAIN, max_tokens=16, dense=DenseHead(dim=8)),
)


@contextmanager
def tiny_worker(
    *,
    machine_profile: str = "l4",
    max_body_bytes: int = 1 << 20,
    specs: Sequence[ModelSpec] = SPECS,
    load: Callable[[ModelSpec], Model] = lambda spec: TinyModel(outputs=("dense", "sparse", "multivector")),
) -> Iterator[str]:
    """The URL of a worker whose models are loaded, `acme/whole` and `acme/plain`; it ends with the block.

    Args:
        specs: of other models, which `load` makes.
    """
    listener = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    loaded, listening = threading.Semaphore(0), threading.Event()
    stop: list[tuple[asyncio.AbstractEventLoop, Drain]] = []

    def made(spec: ModelSpec, say: Say, take: Take) -> Made:
        return Made(load(spec), REVISION, verified=True)

    async def main() -> None:
        drain = Drain()
        stop.append((asyncio.get_running_loop(), drain))
        engine = Engine(made, limits=LIMITS, kept=[spec.id for spec in specs], on_change=_counting(loaded))
        worker = Worker(
            engine,
            Catalog.of(specs, [Bundle(name=BundleName("default"), models="all")]),
            identity=Identity("tiny", "default", "default", machine_profile),
            auth=configure("none", ()),
            drain=drain,
            max_body_bytes=max_body_bytes,
        )

        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            engine.start()
            for spec in specs:
                engine.residency.begin(spec)
            try:
                yield
            finally:
                engine.close()

        await serve(
            worker,
            listener=listener,
            drain=drain,
            drain_s=5,
            linger_s=0,
            lifespan=lifespan,
            on_listening=lambda _: listening.set(),
        )

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="tiny-worker")
    thread.start()
    try:
        if not listening.wait(30) or not all(loaded.acquire(timeout=30) for _ in specs):
            raise RuntimeError("the tiny worker is not ready")
        yield url
    finally:
        loop, drain = stop[0]
        loop.call_soon_threadsafe(lambda: drain.begin(linger=False))
        thread.join()


def _counting(loaded: threading.Semaphore) -> Callable[[ModelId, State], None]:
    return lambda model_id, state: loaded.release() if isinstance(state, Resident) else None
