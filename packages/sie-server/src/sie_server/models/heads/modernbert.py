"""A logit for each label, as ModernBERT makes it: a mean or the first token, a layer, its norm, and the labels.

Follows transformers 5.23 `models/modernbert/modeling_modernbert.py` (`ModernBertForSequenceClassification`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from sie_server.models.config import activation_of, read_json
from sie_server.models.heads.head import Pass, X
from sie_server.models.ops.plan import FIRST
from sie_server.models.ops.protocol import Activation, Ops


class _Config(msgspec.Struct, frozen=True):
    hidden_size: int
    norm_eps: float
    norm_bias: bool = False
    classifier_pooling: Literal["cls", "mean"] = "cls"
    classifier_bias: bool = False
    classifier_activation: str = "gelu"


@dataclass(frozen=True)
class ModernBertClassify:
    """See `head.Head`; gives `Output.logits`.

    Attributes:
        output: what the logits are called in the network.
        width: of the hidden state.
        mean: whether all tokens are pooled, or the first is taken.
        bias: whether the layer has one; `norm_bias`: its norm.
        labels: their names, in the logits' order.
    """

    output: str
    width: int
    mean: bool
    bias: bool
    norm_bias: bool
    epsilon: float
    activation: Activation
    labels: tuple[str, ...]

    def build(self, ops: Ops[X], hidden: X) -> None:
        pooled = ops.item_mean(hidden) if self.mean else ops.gather(hidden, ops.feed(FIRST))
        width = (self.width,)
        dense = ops.weight("head.dense.weight", (self.width, self.width))
        bias = ops.weight("head.dense.bias", width) if self.bias else None
        wide = ops.linear(pooled, dense, bias, activation=self.activation)
        norm_bias = ops.weight("head.norm.bias", width) if self.norm_bias else None
        normed = ops.layer_norm(wide, ops.weight("head.norm.weight", width), norm_bias, epsilon=self.epsilon)
        rows, added = (
            ops.weight("classifier.weight", (len(self.labels), self.width)),
            ops.weight("classifier.bias", (len(self.labels),)),
        )
        ops.output(self.output, ops.linear(normed, rows, added))

    def read(self, done: Pass) -> Sequence[NDArray[np.float32]]:
        logits = done.arrays[self.output]
        return [logits[index].copy() for index in range(len(done.items))]


def read_modernbert(data: bytes, labels: tuple[str, ...], *, output: str) -> ModernBertClassify:
    """The head that a ModernBERT's `config.json` says its checkpoint has; raises `LoadError`."""
    config = read_json(data, _Config, "a ModernBERT that classifies")
    return ModernBertClassify(
        output=output,
        width=config.hidden_size,
        mean=config.classifier_pooling == "mean",
        bias=config.classifier_bias,
        norm_bias=config.norm_bias,
        epsilon=config.norm_eps,
        activation=activation_of(config.classifier_activation, "classifier_activation"),
        labels=labels,
    )
