"""torch itself, and what the device that it is to run on can do."""

from collections.abc import Mapping
from typing import Any, Final, Literal

import torch
from torch.nn.attention.varlen import varlen_attn

from sie_server.models.calls import LoadError, Precision

__all__ = [
    "DTYPE_OF",
    "Device",
    "allocated_bytes",
    "check_device",
    "free_bytes",
    "name_of_device",
    "precision_for",
    "torch",
    "varlen_attn",
]

Device = Literal["cpu", "cuda"]

DTYPE_OF: Final[Mapping[str, Any]] = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}

_LEAST_CAPABILITY: Final = (8, 0)
"""Of a GPU that multiplies in bf16 and that the attention kernel of variable lengths is written for."""


def check_device(device: Device) -> None:
    """Raises `LoadError` where torch does not see the device, or it is too old."""
    if device == "cpu":
        return
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise LoadError(
            f"device is `cuda`, and torch {torch.__version__}, {built}, sees none here",
            hint="`nvidia-smi` shows whether there is a driver and a GPU that the process may use; or set it to `cpu`",
        )
    have = torch.cuda.get_device_capability()
    if have < _LEAST_CAPABILITY:
        want = ".".join(map(str, _LEAST_CAPABILITY))
        raise LoadError(
            f"device is `cuda`, and {torch.cuda.get_device_name()} has compute capability {have[0]}.{have[1]}: "
            f"want {want} at least"
        )


def name_of_device() -> str:
    return str(torch.cuda.get_device_name())


def free_bytes() -> int:
    """Of the CUDA device, as others have left it."""
    return int(torch.cuda.mem_get_info()[0])


def allocated_bytes() -> int:
    """What this process's tensors have of it; without what torch keeps for the next ones."""
    return int(torch.cuda.memory_allocated())


def precision_for(wanted: Precision | str, device: Device) -> Precision:
    """`auto` made definite: bf16 on CUDA, f32 on the CPU.

    Raises:
        LoadError: the device is not there, or there is no such precision.
    """
    check_device(device)
    match wanted:
        case "auto":
            return "bf16" if device == "cuda" else "f32"
        case "f32" | "bf16" | "f16":
            return wanted
    raise LoadError(f"precision is `{wanted}`: supported are `auto`, {', '.join(f'`{name}`' for name in DTYPE_OF)}")
