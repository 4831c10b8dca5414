"""A LoRA as peft saves it: `adapter_config.json` and `adapter_model.safetensors`, matched to a checkpoint's layers.

Follows peft 0.21 `tuners/lora/config.py` and `tuners/lora/layer.py`: the scale is alpha / rank, or alpha over
the rank's square root (`use_rslora`).
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct

from sie_server.models.calls import LoadError
from sie_server.models.checkpoint import Checkpoint, open_tensors
from sie_server.models.ops.adapted import Factors, Lora

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
WEIGHTS_PICKLED: Final = "adapter_model.bin"

_ROOT: Final = "base_model.model."
_DOWN: Final = ".lora_A.weight"
_UP: Final = ".lora_B.weight"
_WEIGHT: Final = ".weight"


class _Config(Struct, frozen=True):
    """`bias`, `use_dora` and those after it change what is computed in ways that a LoRA here has no place for."""

    peft_type: str
    r: int
    lora_alpha: float
    use_rslora: bool = False
    alpha_pattern: dict[str, float] | None = None
    bias: str = "none"
    fan_in_fan_out: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    modules_to_save: Any = None
    layer_replication: Any = None
    target_parameters: Any = None
    trainable_token_indices: Any = None


_UNSET: Final = (
    "fan_in_fan_out",
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
)


def read_lora(name: str, folder: Path, base: Checkpoint) -> Lora:
    """The LoRA in `folder`, for a model of the checkpoint `base`.

    Raises:
        LoadError: a file is missing or is not what it should be; a kind of LoRA that is not served; a layer that the
            base does not have, or has with another shape.
    """
    config = _read_config(folder / CONFIG)
    path = folder / WEIGHTS if (folder / WEIGHTS).is_file() else folder / WEIGHTS_PICKLED
    tensors = open_tensors(path)
    layers: dict[str, Factors] = {}
    for down_name in tensors.names():
        if down_name.endswith(_UP):
            continue
        if not down_name.endswith(_DOWN):
            raise LoadError(f"`{path}` has `{down_name}`: want pairs of `…{_DOWN}` and `…{_UP}`, of linear layers")
        module = down_name.removesuffix(_DOWN)
        layer = _layer(module.removeprefix(_ROOT), base, path)
        if layer in layers:
            raise LoadError(f"`{path}` changes `{layer}` twice, the second time as `{module}`")
        layers[layer] = _factors(tensors, module, base.shape(layer), layer, path, config)
    if not layers:
        raise LoadError(f"`{path}` has no tensor `…{_DOWN}`")
    return Lora(name, layers)


def _read_config(path: Path) -> _Config:
    if not path.is_file():
        raise LoadError(f"no `{path.name}` in `{path.parent}`: it is no LoRA of peft's")
    try:
        config = msgspec.json.decode(path.read_bytes(), type=_Config)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LoadError(f"`{path}` cannot be read: {error}") from error
    if config.peft_type != "LORA":
        raise LoadError(f"`peft_type` in `{path}` is `{config.peft_type}`: supported is `LORA`")
    if config.bias != "none":
        raise LoadError(f"`bias` in `{path}` is `{config.bias}`: supported is `none`")
    for key in _UNSET:
        if getattr(config, key):
            raise LoadError(f"`{key}` in `{path}` is `{getattr(config, key)}`: supported is none")
    return config


def _layer(module: str, base: Checkpoint, path: Path) -> str:
    """The weight of the base that a module's path means: either may have a prefix that the other has not."""
    found = [name for name in _matrices(base.names()) if _same(name.removesuffix(_WEIGHT), module)]
    if len(found) != 1:
        have = "no layer" if not found else f"{len(found)} layers"
        raise LoadError(
            f"`{path}` changes `{module}`, and the base model has {have} of that name",
            hint="it was made for another base model",
        )
    return found[0]


def _matrices(names: Iterable[str]) -> Iterable[str]:
    return (name for name in names if name.endswith(_WEIGHT))


def _same(layer: str, module: str) -> bool:
    return layer == module or layer.endswith("." + module) or module.endswith("." + layer)


def _factors(
    tensors: Checkpoint, module: str, shape: tuple[int, ...], layer: str, path: Path, config: _Config
) -> Factors:
    if module + _UP not in tensors:
        raise LoadError(f"`{path}` has `{module + _DOWN}` and no `{module + _UP}`")
    down, up = (tensors.weight(module + end, tensors.shape(module + end)).floats() for end in (_DOWN, _UP))
    have = (up.shape[0], down.shape[1]) if down.ndim == up.ndim == 2 else ()
    if have != shape or down.shape[0] != up.shape[1] or not down.shape[0]:
        product = f"{list(up.shape)} times {list(down.shape)}"
        raise LoadError(
            f"`{module}` of `{path}` is {product}, `{layer}` of its base is {list(shape)}",
            hint="it was made for another base model",
        )
    rank = len(down)
    alpha = _alpha(module, config.alpha_pattern or {}, config.lora_alpha)
    scale = alpha / (math.sqrt(rank) if config.use_rslora else rank)
    return Factors(down, up * np.float32(scale))


def _alpha(module: str, patterns: Mapping[str, float], default: float) -> float:
    return next((alpha for key, alpha in patterns.items() if _same(module, key)), default)
