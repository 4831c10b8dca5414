"""Recorded steps, done in turn on one batch after another.

On CUDA every stream of the caller's is one of the device's: a batch's arrays are copied there from pinned memory
while the batch of another stream is computed, and its results come back the same way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import Precision
from sie_server.models.ops.plan import Feed, Plan
from sie_server.models.ops.torch.device import Device, torch

BATCH: Final = 0
"""Where the `Batch` stands among a pass's values; results have the places after it."""


class Batch:
    """A plan, and the arrays made of it, on the device: each is made and copied when first asked for."""

    def __init__(self, plan: Plan, device: Device) -> None:
        self.plan = plan
        self._device = device
        self._arrays: dict[Feed, Any] = {}

    def feed(self, feed: Feed) -> Any:
        if feed not in self._arrays:
            tensor = torch.from_numpy(np.ascontiguousarray(feed.make(self.plan)))
            on_cuda = self._device == "cuda"
            self._arrays[feed] = tensor.pin_memory().to("cuda", non_blocking=True) if on_cuda else tensor
        return self._arrays[feed]


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        place: of its result among the pass's values.
        function: of `inputs`.
        inputs: places of values, or tensors that are the same in every pass.
    """

    place: int
    function: Callable[..., Any]
    inputs: tuple[Any, ...]


class Network:
    """See `model.Network`."""

    def __init__(
        self,
        steps: Sequence[Step],
        outputs: Mapping[str, Any],
        *,
        device: Device,
        streams: int,
        precision: Precision,
        memory_bytes: int,
    ) -> None:
        self._device: Device = device
        self._outputs = dict(outputs)
        self._steps = list(zip(steps, _last_uses(steps, keep=outputs.values()), strict=True))
        self._precision: Precision = precision
        self._memory_bytes = memory_bytes
        self._streams = [torch.cuda.Stream() for _ in range(streams)] if device == "cuda" else []
        if device == "cuda":
            # The weights were copied on the default stream, and the others do not wait for it.
            torch.cuda.synchronize()

    @property
    def precision(self) -> Precision:
        """What the linear layers compute in."""
        return self._precision

    @property
    def memory_bytes(self) -> int:
        """Of all that is the same in every pass."""
        return self._memory_bytes

    def run(self, plan: Plan, *, stream: int) -> Mapping[str, NDArray[np.float32]]:
        """The outputs by name; good as long as they are held."""
        with torch.inference_mode():
            if self._device == "cpu":
                return {name: found.numpy() for name, found in self._pass(plan).items()}
            with torch.cuda.stream(self._streams[stream]):
                copies = {name: _to_host(found) for name, found in self._pass(plan).items()}
                self._streams[stream].synchronize()
            return {name: copy.numpy() for name, copy in copies.items()}

    def settle(self) -> None:
        """It is as fast as it will be: nothing is compiled."""

    def close(self) -> None:
        self._steps = []
        self._outputs = {}
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def _pass(self, plan: Plan) -> dict[str, Any]:
        values: dict[int, Any] = {BATCH: Batch(plan, self._device)}
        for step, last_used in self._steps:
            values[step.place] = step.function(*(values[at] if isinstance(at, int) else at for at in step.inputs))
            for place in last_used:
                del values[place]
        found = {name: values[at] if isinstance(at, int) else at for name, at in self._outputs.items()}
        return {name: x.float().contiguous() for name, x in found.items()}


def _to_host(x: Any) -> Any:
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)


def _last_uses(steps: Sequence[Step], *, keep: Any) -> list[tuple[int, ...]]:
    """Of each step, the results that nobody wants after it: they would stay in memory for nothing."""
    last: dict[int, int] = {}
    for index, step in enumerate(steps):
        last[step.place] = index
        last.update({at: index for at in step.inputs if isinstance(at, int)})
    for place in (BATCH, *(at for at in keep if isinstance(at, int))):
        last.pop(place, None)
    ends: list[list[int]] = [[] for _ in steps]
    for place, index in last.items():
        ends[index].append(place)
    return [tuple(each) for each in ends]
