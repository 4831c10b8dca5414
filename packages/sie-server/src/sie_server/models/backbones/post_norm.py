"""Layers as BERT has them, attention and then two linear layers, each added to its input and normed.

What differs between their architectures is how tensors are called, and the attention.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from sie_server.models.ops.protocol import Activation, Ops

X = TypeVar("X")

Attend = Callable[[int, X, X, X], X]
"""Of a layer by its number, query, key and value, (T, width) each → (T, width)."""


@dataclass(frozen=True)
class Sizes:
    """Of every layer."""

    hidden: int
    inner: int
    heads: int
    layers: int
    epsilon: float
    activation: Activation


@dataclass(frozen=True)
class Names:
    """How a layer's tensors are called, without `.weight` and `.bias`; `layer` stands before the layer's number."""

    layer: str
    query: str
    key: str
    value: str
    attended: str
    attended_norm: str
    wide: str
    narrow: str
    norm: str


BERT: Final = Names(
    layer="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attended="attention.output.dense",
    attended_norm="attention.output.LayerNorm",
    wide="intermediate.dense",
    narrow="output.dense",
    norm="output.LayerNorm",
)


def layers(ops: Ops[X], sizes: Sizes, names: Names, hidden: X, prefix: str, attend: Attend[X]) -> X:
    """(T, hidden) → (T, hidden), through all of them."""
    width, inner = sizes.hidden, sizes.inner
    for layer in range(sizes.layers):
        at = f"{prefix}{names.layer}.{layer}."
        query, key, value = (
            linear(ops, hidden, at + name, width, width) for name in (names.query, names.key, names.value)
        )
        seen = linear(ops, attend(layer, query, key, value), at + names.attended, width, width)
        hidden = norm(ops, ops.add(seen, hidden), at + names.attended_norm, width, sizes.epsilon)
        wide = linear(ops, hidden, at + names.wide, width, inner, activation=sizes.activation)
        narrow = linear(ops, wide, at + names.narrow, inner, width)
        hidden = norm(ops, ops.add(narrow, hidden), at + names.norm, width, sizes.epsilon)
    return hidden


def linear(
    ops: Ops[X],
    x: X,
    at: str,
    inputs: int,
    outputs: int,
    *,
    bias: bool = True,
    rows: tuple[int, int] | None = None,
    activation: Activation | None = None,
) -> X:
    """By the tensors `at`.weight and, where it has one, `at`.bias; `rows`: only these of their `outputs`."""
    weight = ops.weight(at + ".weight", (outputs, inputs), rows=rows)
    added = ops.weight(at + ".bias", (outputs,), rows=rows) if bias else None
    return ops.linear(x, weight, added, activation=activation)


def norm(ops: Ops[X], x: X, at: str, width: int, epsilon: float) -> X:
    """By the tensors `at`.weight and `at`.bias, or as the first BERTs called them."""
    old = ops.has(at + ".gamma")
    weight, bias = (ops.weight(f"{at}.{name}", (width,)) for name in (("gamma", "beta") if old else ("weight", "bias")))
    return ops.layer_norm(x, weight, bias, epsilon=epsilon)
