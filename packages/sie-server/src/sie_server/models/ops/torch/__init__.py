"""The operations as torch runs them, on CUDA; on the CPU for tests, where OpenVINO is faster.

The only package that imports torch. `TorchOps` records steps while a backbone and its heads run; `compiled` makes them
a `Network`, whose `run` does them in turn on one batch's plan.
"""

from sie_server.models.ops.torch.device import (
    Device,
    allocated_bytes,
    check_device,
    free_bytes,
    name_of_device,
    precision_for,
)
from sie_server.models.ops.torch.nodes import TorchOps

__all__ = [
    "Device",
    "TorchOps",
    "allocated_bytes",
    "check_device",
    "free_bytes",
    "name_of_device",
    "precision_for",
]
