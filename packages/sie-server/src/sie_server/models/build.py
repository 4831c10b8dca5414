"""From a spec and a snapshot's folder to a model that answers: the only place that chooses an engine."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Literal, TypeVar

from sie_core.catalog.derive import CONFIG, Derived, derive
from sie_core.catalog.spec import ModelSpec
from sie_server.models.backbones.bert import bert, read_config
from sie_server.models.calls import LoadError, Precision
from sie_server.models.checkpoint import Checkpoint, open_checkpoint
from sie_server.models.model import Encoder, LoadedModel
from sie_server.models.prompts import Prompts
from sie_server.models.tokenizing import TextTokenizer, load_tokenizer

T = TypeVar("T")


def load(
    spec: ModelSpec,
    folder: Path,
    *,
    precision: Precision | Literal["auto"],
    streams: int,
    threads: int,
    when_imported: Callable[[], object] = lambda: None,
) -> LoadedModel:
    """The model, warm: its first call is as fast as any.

    Args:
        folder: of the snapshot, verified.
        precision: of the linear layers; `auto` takes the faster on this CPU.
        streams: how many batches run at once, each on a thread of the caller's.
        threads: of each stream.
        when_imported: called once the engine is imported, and the rest leaves the interpreter to others.

    Raises:
        LoadError: the snapshot, or what is asked of it, cannot be served.
    """
    derived = _derived(spec, folder)
    at = folder / derived.folder
    checkpoint = open_checkpoint(at)
    config = read_config((at / CONFIG).read_bytes())
    tokenizer = _Meanwhile(lambda: load_tokenizer(at, max_tokens=derived.max_tokens, lower_case=derived.lower_case))

    # Here and not above: the tokenizer is read while the engine is imported.
    from sie_server.models.ops.openvino import OpenvinoOps, precision_for

    when_imported()
    ops = OpenvinoOps(checkpoint, precision_for(precision))
    graph = ops.compiled(bert(ops, config, prefix=_prefix(checkpoint)), streams=streams, threads=threads)
    return _model(derived, tokenizer.result(), graph)


def _model(derived: Derived, tokenizer: TextTokenizer, encoder: Encoder) -> LoadedModel:
    return LoadedModel(
        name=derived.given.id,
        dims={"dense": derived.dim},
        max_tokens=derived.max_tokens,
        tokenizer=tokenizer,
        prompts=Prompts(derived.query, derived.document, derived.given.default_instruction),
        encoder=encoder,
        pooling=derived.pooling,
        normalize=derived.normalize,
    )


def _derived(spec: ModelSpec, folder: Path) -> Derived:
    def read(path: str) -> bytes | None:
        file = folder / path
        return file.read_bytes() if file.is_file() else None

    try:
        return derive(spec, read)
    except ValueError as error:
        raise LoadError(f"`{spec.id}` in `{folder}`: {error}") from error


def _prefix(checkpoint: Checkpoint) -> str:
    """Checkpoints of models with a task's head keep the encoder under a name of its own."""
    return "bert." if "bert.embeddings.word_embeddings.weight" in checkpoint else ""


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
