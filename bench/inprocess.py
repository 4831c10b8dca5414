"""Models without HTTP, beside sentence-transformers on the same files: tokens a second, memory, cost against length."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import servers
from bench.measures import Row, Say

ROOT: Final = Path(__file__).resolve().parent.parent
SHAPES: Final = ROOT / ".cache" / "shapes"

MFLOP_PER_TOKEN: Final = {"e5-base-v2": 170, "bge-m3-dense": 604, "mxbai-rerank-large-v1": 604}
"""Of the linear layers."""

LENGTHS: Final = (16, 64, 256, 512, 1024, 2048, 4096, 8192)
"""Of the plot of cost against length, in tokens; for as long as the model takes."""


@dataclass(frozen=True)
class InProcessEffort:
    """How much is run: in each of `rounds`, `texts` of natural lengths; of large models a quarter of them."""

    rounds: int
    texts: int


FULL = InProcessEffort(rounds=5, texts=256)
QUICK = InProcessEffort(rounds=2, texts=128)


class Side:
    """A process that runs texts as it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.ready = self._read()

    def run(self, kind: str, count: int, seed: int) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"kind": kind, "count": count, "seed": seed}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(map(str, self._process.args))} ended with {self._process.wait()}")  # type: ignore[arg-type]
        answer: dict[str, float] = json.loads(line)
        return answer


@contextmanager
def side(name: str, shape: str, *more: str) -> Iterator[Side]:
    """A process of one side: `ours` or `peer`."""
    python = sys.executable if name == "ours" else servers.PEER_PYTHON
    command = [str(python), "-m", "bench.sides", name, shape, str(folder_of(shape)), *more]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"}, text=True, **pipes)
    try:
        yield Side(process)
    finally:
        process.terminate()
        process.wait()


def folder_of(shape: str) -> Path:
    """The checkpoint of a shape, made where there is none."""
    name = shape.removesuffix("-dense")
    folder = SHAPES / name
    if not folder.is_dir():
        subprocess.run([str(servers.PEER_PYTHON), "-m", "bench.shapes", name, str(folder)], check=True, cwd=ROOT)
    return folder


def throughput(gflops: float, effort: InProcessEffort, say: Say) -> list[Row]:
    """Natural lengths, tokens a second, and the share of this CPU's own GEMM ceiling."""
    rows = []
    for shape in MFLOP_PER_TOKEN:
        count = effort.texts if shape == "e5-base-v2" else effort.texts // 4
        with side("ours", shape) as ours, side("peer", shape) as peer:
            ratios, speeds, peers = [], [], []
            for number in range(effort.rounds + 1):
                pair = [("ours", ours), ("peer", peer)]
                took = {name: one.run("mixed", count, number) for name, one in (pair if number % 2 else reversed(pair))}
                if number:  # the first round warms up
                    tokens = took["ours"]["tokens"]
                    speeds.append(tokens / took["ours"]["seconds"])
                    peers.append(tokens / took["peer"]["seconds"])
                    ratios.append(took["peer"]["seconds"] / took["ours"]["seconds"])
                seconds = f"{took['ours']['seconds']:.1f} s, peer {took['peer']['seconds']:.1f} s"
                say(f"round {number}/{effort.rounds}  {shape}  {seconds}")
        speed = statistics.median(speeds)
        share = speed * MFLOP_PER_TOKEN[shape] / 1000 / gflops
        note = f"{share:.0%} of the GEMM ceiling"
        rows.append(
            Row(f"in process: {shape}", "tokens/s", speed, statistics.median(peers), statistics.median(ratios), note)
        )
    return rows


def outputs_of_one_pass(effort: InProcessEffort, say: Say) -> Row:
    """bge-m3: what dense, sparse and multivector cost together, over dense alone."""
    count = effort.texts // 4
    with side("ours", "bge-m3") as alone, side("ours", "bge-m3", "--outputs", "dense,sparse,multivector") as all_three:
        ratios, speeds, threes = [], [], []
        for number in range(effort.rounds + 1):
            one, three = alone.run("mixed", count, number), all_three.run("mixed", count, number)
            if number:
                ratios.append(three["seconds"] / one["seconds"])
                speeds.append(three["tokens"] / three["seconds"])
                threes.append(one["tokens"] / one["seconds"])
            took = f"{three['seconds']:.1f} s, dense {one['seconds']:.1f} s"
            say(f"round {number}/{effort.rounds}  bge-m3 three outputs  {took}")
    note = "ours is three outputs, the peer our own dense alone; × is the cost"
    return Row(
        "bge-m3: three outputs",
        "tokens/s",
        statistics.median(speeds),
        statistics.median(threes),
        statistics.median(ratios),
        note,
    )


def load(shape: str, effort: InProcessEffort, say: Say) -> list[Row]:
    """From a warm page cache to the first answer, and the memory that it leaves."""
    took: dict[str, list[dict[str, float]]] = {"ours": [], "peer": []}
    for number in range(effort.rounds + 1):
        for name in took:
            with side(name, shape) as one:
                took[name].append(one.ready)
        seconds = f"{took['ours'][-1]['ready_s']:.2f} s, peer {took['peer'][-1]['ready_s']:.2f} s"
        say(f"load {number}/{effort.rounds}  {shape}  {seconds}")

    def median(name: str, key: str) -> float:
        return statistics.median(one[key] for one in took[name][1:])

    rows = []
    for key, what, unit in (
        ("ready_s", "load to first answer", "s"),
        ("anonymous_mib", "anonymous memory after it", "MiB"),
    ):
        ours, peer = median("ours", key), median("peer", key)
        rows.append(Row(f"{shape}: {what}", unit, ours, peer, peer / ours))
    return rows


def cost_against_length(shape: str, longest: int, say: Say) -> Sequence[tuple[int, float, float]]:
    """(tokens, ours, peer) for lone texts of each length, in milliseconds a token."""
    points = []
    with side("ours", shape) as ours, side("peer", shape) as peer:
        for length in LENGTHS:
            if length > longest:
                break
            count = max(1, 512 // length)
            for one in (ours, peer):
                one.run(f"exactly-{length}", count, 0)
            own, other = (one.run(f"exactly-{length}", count, 1)["seconds"] for one in (ours, peer))
            points.append((length, 1000 * own / (length * count), 1000 * other / (length * count)))
            say(f"{shape}, {length} tokens: {points[-1][1]:.2f} ms a token, peer {points[-1][2]:.2f}")
    return points
