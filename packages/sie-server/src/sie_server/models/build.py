"""From a spec and a snapshot's folder to a model that answers."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Literal, TypeVar

from sie_core.catalog.derive import CONFIG, Derived, derive
from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.wire.messages import OutputType
from sie_server.models.backbones.asked import Asked
from sie_server.models.backbones.known import BACKBONES, Backbone
from sie_server.models.calls import LoadError, Precision, Task, Wanted
from sie_server.models.checkpoint import Checkpoint, open_checkpoint
from sie_server.models.engines import Device, EngineName, open_engine
from sie_server.models.heads.head import HIDDEN, Head
from sie_server.models.heads.pooled import Pooled
from sie_server.models.model import LoadedModel, Tower
from sie_server.models.prompts import Prompts
from sie_server.models.tasks.encode import EncodeTexts
from sie_server.models.tasks.task import Task as TaskOf
from sie_server.models.tokenizing import TextTokenizer, load_tokenizer

T = TypeVar("T")


def load(
    spec: ModelSpec,
    folder: Path,
    *,
    precision: Precision | Literal["auto"],
    streams: int,
    threads: int,
    engine: EngineName = "openvino",
    device: Device = "cpu",
    when_imported: Callable[[], object] = lambda: None,
    take: Callable[[int], object] = lambda size_bytes: None,
) -> LoadedModel:
    """The model, warm: its first call is as fast as any.

    Args:
        folder: of the snapshot, verified.
        precision: of the linear layers; `auto` takes the faster on this device.
        streams: how many batches run at once, each on a thread of the caller's.
        threads: of each stream.
        engine: what computes; `torch` where the device is `cuda`.
        when_imported: called once the engine is imported, and the rest leaves the interpreter to others.
        take: told how many bytes the model will hold, before it takes them; returns when they may be taken.

    Raises:
        LoadError: the snapshot, or what is asked of it, cannot be served.
    """
    derived = _derived(spec, folder)
    at = folder / derived.folder
    backbone = BACKBONES[derived.architecture]
    checkpoint = open_checkpoint(at)
    config = backbone.adapt(backbone.read((at / CONFIG).read_bytes()), Asked(derived.max_tokens, spec.causal))
    tokenizer = _Meanwhile(lambda: load_tokenizer(at, max_tokens=derived.max_tokens, lower_case=derived.lower_case))

    # Here and not above: the tokenizer is read while the engine is imported.
    opened = open_engine(engine, device)
    when_imported()
    decided = opened.precision_for(precision)
    take(opened.held_bytes(checkpoint.predicted(decided)))
    ops = opened.ops(checkpoint, decided)
    hidden = backbone.build(ops, config, _prefix(backbone, checkpoint))
    ops.output(HIDDEN, hidden)
    heads = _heads(derived)
    for head in heads.values():
        head.build(ops, hidden)
    network = ops.compiled(streams=streams, threads=threads)
    return LoadedModel(
        name=spec.id,
        dims=_dims(derived),
        max_tokens=derived.max_tokens,
        text=Tower(network, heads),
        tasks=_tasks(derived, tokenizer.result()),
    )


def _heads(derived: Derived) -> dict[Wanted, Head]:
    heads: dict[Wanted, Head] = {}
    if derived.dense is not None and derived.dense.pooling is not None:
        heads["dense"] = Pooled(derived.dense.pooling)
    return heads


def _dims(derived: Derived) -> dict[OutputType, int]:
    heads: dict[OutputType, DenseHead | None] = {"dense": derived.dense}
    return {name: head.dim for name, head in heads.items() if head is not None and head.dim is not None}


def _tasks(derived: Derived, tokenizer: TextTokenizer) -> dict[Task, TaskOf]:
    spec = derived.given
    tasks: dict[Task, TaskOf] = {}
    if dims := _dims(derived):
        prompts: dict[str | None, Prompts] = {None: Prompts(derived.query, derived.document, spec.default_instruction)}
        normalize = derived.dense is not None and bool(derived.dense.normalize)
        tasks["encode"] = EncodeTexts(spec.id, dims, tokenizer, prompts, normalize)
    return tasks


def _derived(spec: ModelSpec, folder: Path) -> Derived:
    def read(path: str) -> bytes | None:
        file = folder / path
        return file.read_bytes() if file.is_file() else None

    try:
        return derive(spec, read)
    except ValueError as error:
        raise LoadError(f"`{spec.id}` in `{folder}`: {error}") from error


def _prefix(backbone: Backbone, checkpoint: Checkpoint) -> str:
    """The one that the checkpoint has; the first where it has none, so that what is missing is named."""
    return next((prefix for prefix in backbone.prefixes if prefix + backbone.probe in checkpoint), backbone.prefixes[0])


class _Meanwhile(Generic[T]):
    """Something read in a thread while the caller does something else."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._outcome: T | Exception | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def result(self) -> T:
        self._thread.join()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    def _run(self) -> None:
        try:
            self._outcome = self._work()
        except Exception as error:  # handed to whoever asks for the result
            self._outcome = error
