"""How well a label fits a text, of both as vectors: GLiClass's scorers, in the network.

Follows gliclass 0.1.21 `scorers.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic

import numpy as np

from sie_server.models.calls import LoadError
from sie_server.models.config import refuse_uneven_heads
from sie_server.models.heads.gliclass_marks import Marks
from sie_server.models.heads.head import X
from sie_server.models.ops.protocol import Activation, Ops

IN_MODEL: Final = "model."
_AT: Final = IN_MODEL + "scorer."

_NORM_EPSILON: Final = 1e-5
_MLP: Final = 256
"""The inner width of the scorer `mlp`: its setting does not reach it."""


@dataclass(frozen=True)
class Parts(Generic[X]):
    """What is scored; N is the labels of a batch, and some rows more.

    Attributes:
        texts: (S, width), or of every token, (T, width).
        labels: (N, width).
        heads: of a scorer that attends; `inner`: the width of its layers.
        marks: which label is whose.
    """

    texts: X
    labels: X
    width: int
    heads: int
    inner: int
    marks: Marks


Scorer = Callable[[Ops[Any], Parts[Any]], Any]
"""To (N, 1)."""


def linear(ops: Ops[X], x: X, at: str, inputs: int, outputs: int, *, activation: Activation | None = None) -> X:
    weight, bias = ops.weight(at + ".weight", (outputs, inputs)), ops.weight(at + ".bias", (outputs,))
    return ops.linear(x, weight, bias, activation=activation)


def _dot(ops: Ops[X], parts: Parts[X]) -> X:
    both = ops.multiply(_of_labels(ops, parts, parts.texts), parts.labels)
    return ops.linear(both, ops.constant(np.ones((1, parts.width), np.float32)))


def _weighted_dot(ops: Ops[X], parts: Parts[X]) -> X:
    width = parts.width
    texts = _of_labels(ops, parts, linear(ops, parts.texts, _AT + "proj_text", width, 2 * width))
    text, text_factor = ops.split(texts, [width, width])
    label, label_factor = ops.split(linear(ops, parts.labels, _AT + "proj_label", width, 2 * width), [width, width])
    three = ops.concat([text, label, ops.multiply(text_factor, label_factor)])
    inner = linear(ops, three, _AT + "out_mlp.0", 3 * width, 4 * width, activation="relu")
    return linear(ops, inner, _AT + "out_mlp.3", 4 * width, 1)


def _mlp(ops: Ops[X], parts: Parts[X]) -> X:
    both = ops.concat([_of_labels(ops, parts, parts.texts), parts.labels])
    return _layers(ops, both, "mlp", 2 * parts.width, _MLP, "relu")


def _cross_attention(ops: Ops[X], parts: Parts[X]) -> X:
    """A label's own token asks the tokens of its item; the others' answers are not used."""
    width, marks = parts.width, parts.marks
    refuse_uneven_heads(width, parts.heads, ("hidden_size", "scorer_num_heads"))
    asking = linear(ops, _norm(ops, parts.labels, "q_norm", width), _AT + "q", width, width)
    seen = ops.attention(
        ops.gather(asking, ops.feed(marks.of_tokens)),
        linear(ops, _norm(ops, parts.texts, "kv_norm", width), _AT + "k", width, width),
        linear(ops, parts.texts, _AT + "v", width, width),
        heads=parts.heads,
        bias=None if marks.text is None else ops.feed(marks.unread),
    )
    answers = linear(ops, ops.gather(seen, ops.feed(marks.tokens)), _AT + "out", width, width)
    both = ops.concat([_norm(ops, answers, "norm", width), parts.labels])
    return _layers(ops, both, "score_mlp", 2 * width, parts.inner, "gelu")


SCORERS: Final[Mapping[str, Scorer]] = {
    "simple": _dot,
    "weighted-dot": _weighted_dot,
    "mlp": _mlp,
    "cross-attn": _cross_attention,
}
"""By `scorer_type`."""


def _of_labels(ops: Ops[X], parts: Parts[X], texts: X) -> X:
    """(S, width) → (N, width)."""
    return ops.gather(texts, ops.feed(parts.marks.items))


def _layers(ops: Ops[X], x: X, name: str, inputs: int, inner: int, activation: Activation) -> X:
    """Three, each half as wide as the one before."""
    if inner % 2:
        raise LoadError(f"`scorer_mlp_hidden_size` in `config.json` is {inner}: want an even number")
    wide = linear(ops, x, f"{_AT}{name}.0", inputs, inner, activation=activation)
    half = linear(ops, wide, f"{_AT}{name}.2", inner, inner // 2, activation=activation)
    return linear(ops, half, f"{_AT}{name}.4", inner // 2, 1)


def _norm(ops: Ops[X], x: X, name: str, width: int) -> X:
    weight, bias = (ops.weight(f"{_AT}{name}.{part}", (width,)) for part in ("weight", "bias"))
    return ops.layer_norm(x, weight, bias, epsilon=_NORM_EPSILON)
