"""The two engines, each imported when a model first wants it: OpenVINO for CPUs, torch for CUDA devices.

Which device there is, is the operator's to say; the engine follows from it. Tests run torch on the CPU as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sie_server.machine import Hardware
from sie_server.models.calls import LoadError, Precision
from sie_server.models.checkpoint import Checkpoint
from sie_server.models.model import Network
from sie_server.models.ops.plan import Plan
from sie_server.models.ops.protocol import Ops
from sie_server.models.predicting import WeightsBytes, openvino_bytes, torch_bytes

EngineName = Literal["openvino", "torch"]
Device = Literal["cpu", "cuda"]


class RecordingOps(Ops[Any], Protocol):
    """Operations that become a network."""

    def compiled(self, *, streams: int, threads: int, warm: Plan | None = None) -> Network:
        """What computes the outputs, warm; see the engines' own."""
        ...


class HeldBytes(Protocol):
    def __call__(self, weights: WeightsBytes, *, made: int, streams: int, networks: int = 1) -> int: ...


@dataclass(frozen=True)
class Engine:
    """What computes.

    Attributes:
        precision_for: `auto` made definite; raises `LoadError` for one that it does not compute in.
        held_bytes: what networks of a checkpoint hold beside the mapped files; arguments as of `openvino_bytes`.
        ops: of a checkpoint, in a precision.
    """

    precision_for: Callable[[str], Precision]
    held_bytes: HeldBytes
    ops: Callable[[Checkpoint, Precision], RecordingOps]


def open_engine(name: EngineName, device: Device) -> Engine:
    """Imports it.

    Raises:
        LoadError: it is not installed, or the device is not there, or is not one of its.
    """
    if name == "torch":
        return _torch(device)
    if device != "cpu":
        raise LoadError(f"device is `{device}` and the engine `openvino`: want `torch` there")
    from sie_server.models.ops.openvino import OpenvinoOps, precision_for

    return Engine(precision_for, openvino_bytes, OpenvinoOps)


def find_cuda() -> Hardware:
    """The CUDA device; raises `LoadError` where there is none, or torch is not installed."""
    _torch("cuda")
    from sie_server.models.ops.torch import allocated_bytes, free_bytes, name_of_device

    return Hardware(name_of_device(), free_bytes(), allocated_bytes)


def _torch(device: Device) -> Engine:
    try:
        from sie_server.models.ops.torch import TorchOps, check_device, precision_for
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "torch":
            raise
        raise LoadError(
            f"device is `{device}`, and torch is not installed", hint="`pip install 'sie-server[cuda]'` brings it"
        ) from error
    check_device(device)
    return Engine(
        lambda wanted: precision_for(wanted, device),
        lambda weights, *, made, streams, networks=1: torch_bytes(weights, made=made),
        lambda checkpoint, decided: TorchOps(checkpoint, decided, device),
    )
