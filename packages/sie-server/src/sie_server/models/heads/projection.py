"""Linear layers outside the network: in the graph for what every token has, in numpy for what every item has.

Follows sentence-transformers 6.2 `base/modules/dense.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sie_core.catalog.derive.projection import Layer, LayerActivation
from sie_server.models.heads.head import X
from sie_server.models.ops.protocol import Ops

Floats = NDArray[np.float32]


def tensor_name(layer: Layer, name: str) -> str:
    """What the tensor `name` of a layer is called among the network's: its file or folder stands before it."""
    return f"{layer.source}:{layer.name}{name}" if layer.source else layer.name + name


def has_residual_layer(layer: Layer) -> bool:
    return layer.residual and layer.inputs != layer.outputs


def project(ops: Ops[X], x: X, layers: Sequence[Layer]) -> X:
    """(T, inputs of the first) → (T, outputs of the last)."""
    for layer in layers:
        weight = ops.weight(tensor_name(layer, "weight"), (layer.outputs, layer.inputs))
        bias = tensor_name(layer, "bias")
        has_bias = ops.has(bias) if layer.bias is None else layer.bias
        added = ops.weight(bias, (layer.outputs,)) if has_bias else None
        y = ops.linear(x, weight, added, activation=layer.activation)
        if has_residual_layer(layer):
            x = ops.linear(x, ops.weight(f"{layer.source}:residual.weight", (layer.outputs, layer.inputs)))
        x = ops.add(y, x) if layer.residual else y
    return x


@dataclass(frozen=True)
class Dense:
    """A layer with its weights.

    Attributes:
        weight: (outputs, inputs) float32.
        bias: (outputs,) float32.
        residual: (outputs, inputs) float32, of what is added; None where it is added as it is, or not at all.
    """

    layer: Layer
    weight: Floats
    bias: Floats | None
    residual: Floats | None = None

    def __call__(self, x: Floats) -> Floats:
        """(items, inputs) → (items, outputs)."""
        y = x @ self.weight.T
        if self.bias is not None:
            y += self.bias
        y = activated(y, self.layer.activation)
        if self.layer.residual:
            y = y + (x if self.residual is None else x @ self.residual.T)
        return y


def read_dense(layer: Layer, read: Callable[[str, tuple[int, ...]], Floats]) -> Dense:
    """The layer with its weights.

    Args:
        read: the tensor of that name, which must have that shape.
    """
    square = (layer.outputs, layer.inputs)
    return Dense(
        layer,
        weight=read(tensor_name(layer, "weight"), square),
        bias=read(tensor_name(layer, "bias"), (layer.outputs,)) if layer.bias else None,
        residual=read(f"{layer.source}:residual.weight", square) if has_residual_layer(layer) else None,
    )


def activated(x: Floats, kind: LayerActivation | None) -> Floats:
    y: Floats
    match kind:
        case None:
            y = x
        case "tanh":
            y = np.tanh(x)
        case "relu":
            y = np.maximum(x, 0)
        case "sigmoid":
            y = _sigmoid(x)
        case "silu":
            y = x * _sigmoid(x)
    return y


def _sigmoid(x: Floats) -> Floats:
    # Of a large negative number the power would be infinite.
    half: Floats = np.float32(0.5) * (np.tanh(np.float32(0.5) * x) + np.float32(1))
    return half
