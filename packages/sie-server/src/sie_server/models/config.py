"""What every reading of `config.json` has in common, a backbone's or a head's."""

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from sie_server.models.calls import LoadError
from sie_server.models.ops.protocol import Activation

S = TypeVar("S", bound=msgspec.Struct)

_ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}


def read_json(data: bytes, kind: type[S], what: str) -> S:
    """`config.json` as `kind`, that of `what`; `LoadError` where it is something else."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LoadError(f"`config.json` is not that of {what}: {error}") from error


def activation_of(name: str, where: str = "hidden_act") -> Activation:
    """By its name in transformers 5.23 `activations.py`; `LoadError` for one that there is not here."""
    if name not in _ACTIVATIONS:
        known = ", ".join(f"`{one}`" for one in _ACTIVATIONS)
        raise LoadError(f"`{where}` is `{name}`: supported are {known}")
    return _ACTIVATIONS[name]


def refuse_uneven_heads(
    width: int, heads: int, names: tuple[str, str] = ("hidden_size", "num_attention_heads")
) -> None:
    """Raises `LoadError` where a layer's width does not go into its heads."""
    if heads < 1 or width % heads:
        raise LoadError(f"`{names[0]}` is {width}, which is not a multiple of `{names[1]}`, {heads}")


def refuse_decoder(is_decoder: bool) -> None:
    """Raises `LoadError` for an encoder that is used as something else."""
    if is_decoder:
        raise LoadError("`is_decoder` is true: supported are encoders")
