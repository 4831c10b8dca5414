"""From a spec and a snapshot's folder to a model that answers."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar, cast

from sie_core.catalog.derive import CONFIG, STATIC, Derived, derive
from sie_core.catalog.spec import ModelSpec
from sie_server.models.adapting import AdaptingNetwork
from sie_server.models.backbones.asked import Asked
from sie_server.models.backbones.known import BACKBONES
from sie_server.models.calls import LoadError, Precision, Take
from sie_server.models.checkpoint import open_checkpoint
from sie_server.models.choosing import dims_of, heads_of, tasks_of
from sie_server.models.choosing_vectors import batch_tokens_of, with_layers
from sie_server.models.engines import Device, EngineName, open_engine
from sie_server.models.heads import gliclass, spans
from sie_server.models.heads.head import HIDDEN
from sie_server.models.labelled import load_labelled
from sie_server.models.lora import read_lora
from sie_server.models.model import LoadedModel, Network, OneNetwork
from sie_server.models.ops.adapted import AdaptedOps, Loras
from sie_server.models.ops.protocol import Ops
from sie_server.models.static import load_static
from sie_server.models.tokenizer_files import held_by_tokenizer
from sie_server.models.tokenizing import load_tokenizer

T = TypeVar("T")

PICTURED: Final = ("clip", "siglip")
"""Architectures of a tower for texts and one for pictures."""


def load(
    spec: ModelSpec,
    folder: Path,
    *,
    base: Path | None = None,
    labels_base: Path | None = None,
    precision: Precision | Literal["auto"],
    streams: int,
    threads: int,
    engine: EngineName = "openvino",
    device: Device = "cpu",
    when_imported: Callable[[], object] = lambda: None,
    take: Take = lambda size_bytes: None,
) -> LoadedModel:
    """The model, warm: its first call is as fast as any.

    Args:
        folder: of the snapshot, verified.
        base: of the snapshot of the spec's base, likewise; `labels_base` of that of its labels.
        precision: of the linear layers; `auto` takes the faster on this device.
        streams: how many batches run at once, each on a thread of the caller's.
        threads: of each stream.
        engine: what computes; `torch` where the device is `cuda`.
        when_imported: called once the engine is imported, and the rest leaves the interpreter to others.
        take: told how many bytes the model will hold, before it takes them.

    Raises:
        LoadError: the snapshot, or what is asked of it, cannot be served.
    """
    derived = _derived(spec, folder, base, labels_base)
    at = folder / derived.folder
    if derived.architecture == STATIC:
        when_imported()
        take(held_by_tokenizer(at))
        return load_static(derived, at)
    if derived.architecture in PICTURED:
        # Here and not above: Pillow is a fiftieth of a start without pictures.
        from sie_server.models.pictured import load_pictured

        return load_pictured(
            derived,
            at,
            precision=precision,
            streams=streams,
            threads=threads,
            engine=engine,
            device=device,
            when_imported=when_imported,
            take=take,
        )
    if derived.labels is not None:
        return load_labelled(
            derived,
            derived.labels,
            at,
            base=base,
            labels_base=labels_base,
            precision=precision,
            streams=streams,
            threads=threads,
            engine=engine,
            device=device,
            when_imported=when_imported,
            take=take,
        )
    backbone = BACKBONES[derived.architecture]
    checkpoint = with_layers(open_checkpoint(at), derived, folder)
    config_json = (at / derived.config).read_bytes()
    own = spans.own_tokens(config_json) if derived.config == spans.GLINER else ()
    beside = base if derived.borrowed and base is not None else at
    tokenizer = _Meanwhile(
        lambda: load_tokenizer(beside, max_tokens=derived.max_tokens, lower_case=derived.lower_case, own=own)
    )
    if derived.config == spans.GLINER:
        of_base = None if base is None else _read(base, CONFIG)
        config_json = spans.completed(config_json, of_base, tokenizer.result().vocabulary)
    outer, of_network = "", config_json
    if derived.inside is not None:
        inside = spans if derived.config == spans.GLINER else gliclass
        outer, of_network = inside.NETWORK, inside.network_config(config_json)
    config = backbone.adapt(backbone.read(of_network), Asked(derived.max_tokens, spec.causal))

    # Here and not above: the tokenizer is read while the engine is imported.
    opened = open_engine(engine, device)
    when_imported()
    decided = opened.precision_for(precision)
    held = opened.held_bytes(checkpoint.predicted(decided), made=backbone.made_bytes(config), streams=streams)
    take(held + held_by_tokenizer(beside))
    heads = heads_of(derived, config_json, checkpoint, tokenizer.result)

    def network(loras: Loras) -> Network:
        ops = opened.ops(checkpoint, decided)
        adapted: Ops[Any] = cast(Ops[Any], AdaptedOps(ops, loras)) if loras.layers else ops
        told = gliclass.told_apart(heads.values(), adapted)
        hidden = backbone.build(told, config, backbone.prefix_in(checkpoint, outer))
        ops.output(HIDDEN, hidden)
        for head in heads.values():
            head.build(adapted, hidden)
        return ops.compiled(streams=streams, threads=threads)

    with_lora = frozenset(name for name, variant in spec.variants.items() if variant.lora is not None)
    adapting = AdaptingNetwork(network) if with_lora else None
    return LoadedModel(
        name=spec.id,
        dims=dims_of(derived),
        max_tokens=derived.max_tokens,
        text=OneNetwork(adapting or network(Loras()), heads),
        tasks=tasks_of(derived, folder, tokenizer.result(), heads),
        loras=None if adapting is None else lambda name, at, told: adapting.add(read_lora(name, at, checkpoint), told),
        with_lora=with_lora,
        batch_tokens=batch_tokens_of(derived),
        pair_bytes=backbone.pair_bytes(config),
        query_apart=derived.score is not None and derived.score.head == "vectors",
        labels_apart=derived.extract is not None and derived.extract.head == "entailment",
    )


def _derived(spec: ModelSpec, folder: Path, base: Path | None, labels_base: Path | None) -> Derived:
    try:
        return derive(spec, partial(_read, folder), partial(_read, base), partial(_read, labels_base))
    except ValueError as error:
        raise LoadError(f"`{spec.id}` in `{folder}`: {error}") from error


def _read(folder: Path | None, path: str) -> bytes | None:
    return (folder / path).read_bytes() if folder is not None and (folder / path).is_file() else None


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
