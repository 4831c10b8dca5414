"""OpenVINO itself, imported without what it would report, and what this CPU does best."""

import ctypes
import functools
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from sie_server.models.calls import LoadError, Precision

# openvino works without the package that reports its use, and says so by catching the ImportError; in case a
# plain pip brought it along, it is not there for this process. The model converter is what would call it, and
# leaving it out also halves the import's time.
for _left_out in ("openvino_telemetry", "openvino.tools.ovc"):
    sys.modules.setdefault(_left_out, None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402
from openvino import opset15 as op  # noqa: E402

__all__ = ["c_library", "core", "op", "ov", "precision_for"]

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
"""Both of `malloc.h`."""

_MAPPED_FROM_BYTES: Final = 256 * 2**10


def precision_for(wanted: Precision | str) -> Precision:
    """`auto` made definite; bf16 only where the CPU has it.

    Raises:
        LoadError: bf16 is asked for on a CPU without it: the plugin would compute in f32 and not say so.
    """
    has_bf16 = "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    match wanted:
        case "f32":
            return "f32"
        case "bf16" if has_bf16:
            return "bf16"
        case "auto":
            return _faster_precision() if has_bf16 else "f32"
        case "bf16":
            name = core().get_property("CPU", "FULL_DEVICE_NAME").strip()
            raise LoadError(f"precision is `bf16` and this CPU ({name}) has no bf16", hint="set it to `auto` or `f32`")
    raise LoadError(f"precision is `{wanted}`: supported are `auto`, `f32` and `bf16`")


@functools.cache
def core() -> Any:
    # A graph's buffers grow with the batches it meets. By default glibc learns from the first large ones to take
    # the next from its heap, where what is outgrown stays, and every thread has a heap: 30 MB for MiniLM under load.
    c_library().mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
    c_library().mallopt(_M_ARENA_MAX, 2)
    return ov.Core()


@functools.cache
def c_library() -> Any:
    """glibc; with another C library, its own `mallopt` and `malloc_trim` or ones that do nothing."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else SimpleNamespace(mallopt=_nothing, malloc_trim=_nothing)


def _nothing(*_: int) -> None: ...


@functools.cache
def _faster_precision() -> Precision:
    """Which of the two multiplies faster here: one 1024 × 1024 layer on 256 tokens, a tenth of a second.

    Having bf16 is not enough: without the instructions that multiply it, it is emulated and slower than f32.
    """
    x = op.parameter(ov.PartialShape([256, 1024]), ov.Type.f32)
    weight = op.constant(np.full((1024, 1024), 1 / 1024, np.float32))
    model = ov.Model([op.matmul(x, weight, False, True).output(0)], [x], "probe")
    ones = ov.Tensor(np.ones((256, 1024), np.float32))

    def seconds(precision: Precision) -> float:
        request = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision}).create_infer_request()
        request.set_input_tensor(0, ones)
        request.infer()
        return min(_timed(request.infer) for _ in range(3))

    return "bf16" if seconds("bf16") < seconds("f32") else "f32"


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
