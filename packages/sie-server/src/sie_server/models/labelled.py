"""Models that read labels apart from texts: from a snapshot's folder to two networks, the labels' asked first.

What the labels' network made of a label is kept: calls ask for the same labels again and again.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from sie_core.catalog.derive import CONFIG, Derived, LabelNetwork
from sie_server.models.backbones.asked import Asked as AskedOfBackbone
from sie_server.models.backbones.known import BACKBONES
from sie_server.models.calls import LoadError, Output, Precision, Prepared, Take, Wanted
from sie_server.models.checkpoint import open_checkpoint
from sie_server.models.engines import Device, EngineName, open_engine
from sie_server.models.heads import spans
from sie_server.models.heads.head import HIDDEN, Head
from sie_server.models.heads.labelled_spans import LabelledSpans, LabelVectors
from sie_server.models.model import LoadedModel, Network, OneNetwork
from sie_server.models.tasks.spans import ExtractSpans
from sie_server.models.tokenizer_files import held_by_tokenizer
from sie_server.models.tokenizing import TextTokenizer, load_tokenizer

_LABELS_NETWORK: Final = "token_rep_layer.labels_encoder.model."
"""Before the tensors' names of the labels' network."""

_KEPT_BYTES: Final = 32 * 2**20
"""Of labels' vectors: some thousand of them."""

_LABELS_TOKENS: Final = 8_192
"""Of labels that are read at once."""

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


class KeptLabels:
    """The vectors of the labels that were asked for last, by their tokens; any number of threads may ask.

    Args:
        most_bytes: of the vectors together.
    """

    def __init__(self, most_bytes: int = _KEPT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._vectors: OrderedDict[bytes, Floats] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, labels: Sequence[bytes]) -> dict[bytes, Floats]:
        """Those of the labels that are kept; they were asked for last from now on."""
        with self._lock:
            found = {label: self._vectors[label] for label in labels if label in self._vectors}
            for label in found:
                self._vectors.move_to_end(label)
        return found

    def keep(self, vectors: Mapping[bytes, Floats]) -> None:
        with self._lock:
            for label, vector in vectors.items():
                if label not in self._vectors:
                    self._vectors[label] = vector
                    self._bytes += vector.nbytes
            while self._bytes > self._most_bytes:
                self._bytes -= self._vectors.popitem(last=False)[1].nbytes


@dataclass(frozen=True)
class TwoNetworks:
    """See `model.Tower`: the labels that a batch's texts are read for go through a network of their own before it.

    Attributes:
        texts: what they go through, with a head that reads `Prepared.asked`.
        labels: what labels go through; its head makes a vector of each.
        kept: vectors of labels.
    """

    texts: OneNetwork
    labels: OneNetwork
    kept: KeptLabels = field(default_factory=KeptLabels)

    @property
    def networks(self) -> tuple[Network, ...]:
        return self.texts.network, self.labels.network

    def run(self, items: Sequence[Prepared], *, stream: int) -> list[Output]:
        asked = {id(item.asked.labels): item.asked.labels for item in items if item.asked is not None}
        labels = {label.tobytes(): label for some in asked.values() for label in some}
        found = self.kept.known(list(labels))
        new = self._read({key: label for key, label in labels.items() if key not in found}, stream)
        self.kept.keep(new)
        found |= new
        vectors = {at: np.stack([found[label.tobytes()] for label in some]) for at, some in asked.items()}
        return self.texts.run([_with_vectors(item, vectors) for item in items], stream=stream)

    def _read(self, labels: Mapping[bytes, Ints], stream: int) -> dict[bytes, Floats]:
        found: dict[bytes, Floats] = {}
        for keys in _batches(labels):
            prepared = [Prepared(labels[key], truncated=False, wanted=("spans",)) for key in keys]
            for key, output in zip(keys, self.labels.run(prepared, stream=stream), strict=True):
                assert isinstance(output.spans, np.ndarray)
                found[key] = output.spans
        return found


def _with_vectors(item: Prepared, vectors: Mapping[int, Floats]) -> Prepared:
    if item.asked is None:
        return item
    return replace(item, asked=replace(item.asked, vectors=vectors[id(item.asked.labels)]))


def _batches(labels: Mapping[bytes, Ints]) -> list[list[bytes]]:
    """The shortest first, so that those read together are of about one length."""
    batches: list[list[bytes]] = []
    tokens = _LABELS_TOKENS
    for key in sorted(labels, key=lambda one: len(labels[one])):
        if tokens + len(labels[key]) > _LABELS_TOKENS:
            batches.append([])
            tokens = 0
        batches[-1].append(key)
        tokens += len(labels[key])
    return batches


def load_labelled(
    derived: Derived,
    labels: LabelNetwork,
    folder: Path,
    *,
    base: Path | None,
    labels_base: Path | None,
    precision: Precision | Literal["auto"],
    streams: int,
    threads: int,
    engine: EngineName,
    device: Device,
    when_imported: Callable[[], object],
    take: Take,
) -> LoadedModel:
    """The model, warm; arguments and errors as of `build.load`.

    Args:
        labels: what reads them.
        folder: where `gliner_config.json` and the weights are.
    """
    spec, checkpoint = derived.given, open_checkpoint(folder)
    if any(variant.lora is not None for variant in spec.variants.values()):
        raise LoadError(f"a variant of `{spec.id}` has a LoRA: a model that reads labels apart takes none")
    config = (folder / derived.config).read_bytes()
    of_texts = spans.network_config(spans.completed(config, _config_of(base)))
    beside = _beside(folder, base, borrowed=derived.borrowed)
    tokenizer = load_tokenizer(beside, max_tokens=derived.max_tokens, lower_case=False)
    of_labels = _beside(folder / (labels.tokenizer or ""), labels_base, borrowed=labels.tokenizer is None)
    labels_tokenizer = load_tokenizer(of_labels, max_tokens=labels.max_tokens, lower_case=False)
    opened = open_engine(engine, device)
    when_imported()
    decided = opened.precision_for(precision)
    backbone = BACKBONES[derived.architecture]
    said = backbone.read(of_texts)
    made, pair_bytes = backbone.made_bytes(said), backbone.pair_bytes(said)
    held = opened.held_bytes(checkpoint.predicted(decided), made=made, streams=streams, networks=2)
    take(held + held_by_tokenizer(beside) + held_by_tokenizer(of_labels))

    def network(architecture: str, of: bytes, outer: str, asked: AskedOfBackbone, head: Head) -> OneNetwork:
        backbone, ops = BACKBONES[architecture], opened.ops(checkpoint, decided)
        shape = backbone.adapt(backbone.read(of), asked)
        hidden = backbone.build(ops, shape, backbone.prefix_in(checkpoint, outer))
        ops.output(HIDDEN, hidden)
        head.build(ops, hidden)
        heads: dict[Wanted, Head] = {"spans": head}
        return OneNetwork(ops.compiled(streams=streams, threads=threads), heads)

    head = _head(config, of_texts)
    vectors = LabelVectors(spans.width_of(labels.config, "labels_encoder_config"), head.size)
    texts = network(
        derived.architecture, of_texts, spans.NETWORK, AskedOfBackbone(derived.max_tokens, spec.causal), head
    )
    names = network(
        labels.architecture, labels.config, _LABELS_NETWORK, AskedOfBackbone(labels.max_tokens, None), vectors
    )
    return LoadedModel(
        name=spec.id,
        dims={},
        max_tokens=derived.max_tokens,
        text=TwoNetworks(texts, names),
        tasks={"extract": _task(derived, tokenizer, head, labels_tokenizer)},
        labels_once=True,
        pair_bytes=pair_bytes,
    )


def _head(config: bytes, of_texts: bytes) -> LabelledSpans:
    shape = spans.read_shape(config)
    return LabelledSpans(spans.width_of(of_texts, "encoder_config"), shape.size, shape.max_width, shape.max_words)


def _task(
    derived: Derived, tokenizer: TextTokenizer, head: LabelledSpans, labels_tokenizer: TextTokenizer
) -> ExtractSpans:
    extract = derived.extract
    assert extract is not None
    assert extract.threshold is not None
    return ExtractSpans(
        derived.given.id,
        tokenizer,
        head,
        extract.threshold,
        bool(extract.multi_label),
        bool(extract.merge_adjacent),
        labels_tokenizer,
    )


def _beside(own: Path, base: Path | None, *, borrowed: bool) -> Path:
    return base if borrowed and base is not None else own


def _config_of(base: Path | None) -> bytes | None:
    return (base / CONFIG).read_bytes() if base is not None and (base / CONFIG).is_file() else None
