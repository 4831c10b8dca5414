"""What this machine is, and the most that its CPU can multiply: the ceilings that shares are taken of.

python -m bench.machine     one JSON object
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ROWS, INNER, COLUMNS = 1024, 2048, 2048
FLOPS = 2 * ROWS * INNER * COLUMNS


@dataclass(frozen=True)
class Machine:
    """`gflops` are of one large matrix product over all cores, by precision; bf16 where the CPU has it.

    `busy_cores` is what others kept busy in the minute before: on a machine that is not idle even ratios lean,
    since programs that spin while they wait suffer more from company.
    """

    cpu: str
    cores: int
    busy_cores: float
    flags: list[str]
    python: str
    gflops: dict[str, float]


def describe() -> Machine:
    """In a process of its own: nothing of it stays in memory while others are measured."""
    done = subprocess.run([sys.executable, "-m", "bench.machine"], capture_output=True, text=True, check=True, cwd=ROOT)
    return Machine(**json.loads(done.stdout))


def cpu_info() -> tuple[str, list[str]]:
    """The CPU's name, and which of the instructions that matter here it has."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        if key.strip() == "flags":
            flags = set(value.split())
    return name, [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]


def gemm_gflops(precision: str, *, rounds: int = 9) -> float:
    """Median of `rounds` products of (1024, 2048) by (2048, 2048)."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # a plain pip brings it; it would call home
    import numpy as np
    import openvino as ov
    from openvino import opset15 as ops

    rows: Any = ops.parameter([ROWS, INNER], np.float32)
    weights = ops.constant(np.random.default_rng(1).standard_normal((INNER, COLUMNS), np.float32))
    model = ov.Model([ops.matmul(rows, weights, False, False)], [rows])
    hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(model, "CPU", hints).create_infer_request()
    data = np.random.default_rng(2).standard_normal((ROWS, INNER), np.float32)
    took_s = []
    for _ in range(rounds):
        began_s = time.perf_counter()
        request.infer([data])
        took_s.append(time.perf_counter() - began_s)
    return FLOPS / statistics.median(took_s) / 1e9


def main() -> None:
    busy_cores = round(os.getloadavg()[0], 1)
    name, flags = cpu_info()
    precisions = ["f32", *(["bf16"] if {"avx512_bf16", "amx_bf16"} & set(flags) else [])]
    gflops = {precision: round(gemm_gflops(precision), 1) for precision in precisions}
    print(json.dumps(asdict(Machine(name, os.cpu_count() or 1, busy_cores, flags, platform.python_version(), gflops))))


if __name__ == "__main__":
    main()
