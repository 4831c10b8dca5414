"""A logit for each label of a sequence: cross-encoders, and entailment.

Follows the `…ForSequenceClassification` of transformers 5.23: the first token's hidden state, or in BART the last's,
through one linear layer and an activation, and through another to the labels. In the network and not after it: the rows
are few, and gelu is not numpy's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import LoadError
from sie_server.models.config import activation_of, read_json
from sie_server.models.heads.head import Pass, X
from sie_server.models.heads.modernbert import ModernBertClassify, read_modernbert
from sie_server.models.ops.plan import FIRST, LAST, Feed
from sie_server.models.ops.protocol import Activation, Ops

LOGITS: Final = "logits"
"""(items, labels)."""

_MODERNBERT: Final = "modernbert"
"""Whose head is no two layers, but one of its own."""


class _Config(msgspec.Struct, frozen=True):
    """`config.json`; absent keys as transformers has them."""

    model_type: str
    hidden_size: int | None = None
    dim: int | None = None
    d_model: int | None = None
    id2label: dict[str, str] | None = None
    num_labels: int = 2
    pooler_hidden_act: str = "gelu"
    pooler_hidden_size: int | None = None


@dataclass(frozen=True)
class Layers:
    """The two layers of an architecture.

    Attributes:
        dense: the tensors' name of the first, without `.weight` and `.bias`; `classifier` of the second.
        activation: between them, as a configuration has it.
        place: of the token that they are of, in each item.
    """

    dense: str
    activation: Callable[[_Config], Activation]
    classifier: str
    place: Feed = FIRST


_TANH: Final[Callable[[_Config], Activation]] = lambda config: "tanh"  # noqa: E731 - one of a table
_ROBERTA: Final = Layers("classifier.dense", _TANH, "classifier.out_proj")

LAYERS: Final[Mapping[str, Layers]] = {
    "bart": Layers("classification_head.dense", _TANH, "classification_head.out_proj", LAST),
    "bert": Layers("bert.pooler.dense", _TANH, "classifier"),
    "camembert": _ROBERTA,
    "deberta-v2": Layers(
        "pooler.dense", lambda config: activation_of(config.pooler_hidden_act, "pooler_hidden_act"), "classifier"
    ),
    "distilbert": Layers("pre_classifier", lambda config: "relu", "classifier"),
    "electra": Layers("classifier.dense", lambda config: "gelu", "classifier.out_proj"),
    "mpnet": _ROBERTA,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
"""By `model_type`."""


@dataclass(frozen=True)
class Classify:
    """See `head.Head`; gives `Output.logits`.

    Attributes:
        width: of the hidden state.
        labels: their names, in the logits' order.
        place: as of `Layers`.
    """

    width: int
    dense: str
    activation: Activation
    classifier: str
    labels: tuple[str, ...]
    place: Feed

    def build(self, ops: Ops[X], hidden: X) -> None:
        told = ops.gather(hidden, ops.feed(self.place))
        pooled = _linear(ops, told, self.dense, self.width, self.width, activation=self.activation)
        ops.output(LOGITS, _linear(ops, pooled, self.classifier, self.width, len(self.labels)))

    def read(self, done: Pass) -> Sequence[NDArray[np.float32]]:
        logits = done.arrays[LOGITS]
        return [logits[index].copy() for index in range(len(done.items))]


def read_classify(data: bytes) -> Classify | ModernBertClassify:
    """The head that a `config.json` says its checkpoint has.

    Raises:
        LoadError: of an architecture, or of a shape, that has none here.
    """
    config = read_json(data, _Config, "a classifier")
    if config.model_type == _MODERNBERT:
        return read_modernbert(data, _labels(config), output=LOGITS)
    layers = LAYERS.get(config.model_type)
    if layers is None:
        known = ", ".join(f"`{name}`" for name in (*LAYERS, _MODERNBERT))
        raise LoadError(f"`model_type` is `{config.model_type}`: supported as classifiers are {known}")
    width = next((one for one in (config.hidden_size, config.dim, config.d_model) if one is not None), None)
    if width is None:
        raise LoadError("`config.json` has no `hidden_size`")
    if config.pooler_hidden_size not in (None, width):
        raise LoadError(f"`pooler_hidden_size` is {config.pooler_hidden_size}: supported is `hidden_size`, {width}")
    return Classify(width, layers.dense, layers.activation(config), layers.classifier, _labels(config), layers.place)


def _labels(config: _Config) -> tuple[str, ...]:
    if config.id2label is None:
        return tuple(f"LABEL_{index}" for index in range(config.num_labels))
    named = {int(index): label for index, label in config.id2label.items() if index.isdecimal()}
    if sorted(named) != list(range(len(config.id2label))):
        have = ", ".join(f"`{index}`" for index in config.id2label)
        raise LoadError(f"`id2label` in `config.json` has the keys {have}: want 0, 1, … of every label")
    return tuple(named[index] for index in range(len(named)))


def _linear(ops: Ops[X], x: X, at: str, inputs: int, outputs: int, *, activation: Activation | None = None) -> X:
    weight, bias = ops.weight(at + ".weight", (outputs, inputs)), ops.weight(at + ".bias", (outputs,))
    return ops.linear(x, weight, bias, activation=activation)
