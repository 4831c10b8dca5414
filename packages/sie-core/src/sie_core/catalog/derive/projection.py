"""Linear layers of a snapshot that stand outside its network: in folders of sentence-transformers, or in a file. Pure.

Follows sentence-transformers 6.2 `base/modules/dense.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from msgspec import Struct

from sie_core.catalog.derive.snapshot import CONFIG, Module, Reader, read_json, within

LayerActivation = Literal["tanh", "relu", "silu", "sigmoid"]

_ACTIVATIONS: Final[Mapping[str, LayerActivation | None]] = {
    "torch.nn.modules.linear.Identity": None,
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.SiLU": "silu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
}
POOLED: Final = "sentence_embedding"
"""What sentence-transformers calls the vector of an item."""

_TANH: Final = "torch.nn.modules.activation.Tanh"


@dataclass(frozen=True)
class Layer:
    """One linear layer.

    Attributes:
        source: file or folder of the snapshot that its tensors are in; "" for the network's own.
        name: what stands before `weight` and `bias` in its tensors' names.
        inputs: width of what it takes.
        outputs: width of what it makes.
        bias: whether it has one; None: whether its file has.
        activation: what follows it.
        residual: whether what it took is added to what it made, through a layer of its own where widths differ.
    """

    source: str
    name: str
    inputs: int
    outputs: int
    bias: bool | None
    activation: LayerActivation | None = None
    residual: bool = False


class _Dense(Struct, frozen=True):
    in_features: int
    out_features: int
    bias: bool = True
    activation_function: str = _TANH
    use_residual: bool = False
    module_input_name: str = POOLED
    module_output_name: str | None = None


def read_layers(modules: Sequence[Module], read: Reader, width: int, *, of: str | None = None) -> tuple[Layer, ...]:
    """`Dense` modules, one after another.

    Args:
        width: of what the first one takes.
        of: what they must take and make, by its name in sentence-transformers; None: whatever they name.

    Raises:
        ValueError: widths that do not follow each other; an activation that we do not serve; a layer of something else.
    """
    layers: list[Layer] = []
    for module in modules:
        where = within(module.path, CONFIG)
        dense = read_json(read, where, _Dense)
        takes = layers[-1].outputs if layers else width
        if dense.in_features != takes:
            raise ValueError(f"`{where}` takes vectors of {dense.in_features}, what comes to it has {takes}")
        takes_and_makes = {dense.module_input_name, dense.module_output_name or dense.module_input_name}
        if of is not None and takes_and_makes != {of}:
            names = ", ".join(f"`{name}`" for name in sorted(takes_and_makes))
            raise ValueError(f"`{where}` takes and makes {names}: supported is `{of}`")
        # One that sentence-transformers does not trust becomes its default.
        known = dense.activation_function if dense.activation_function.startswith("torch.") else _TANH
        if known not in _ACTIVATIONS:
            have = ", ".join(f"`{name}`" for name in _ACTIVATIONS)
            raise ValueError(f"`activation_function` in `{where}` is `{known}`: supported are {have}")
        activation = _ACTIVATIONS[known]
        layers.append(
            Layer(module.path, "linear.", takes, dense.out_features, dense.bias, activation, dense.use_residual)
        )
    return tuple(layers)
