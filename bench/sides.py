"""One side of a comparison in process: a model, and calls on it as they are asked for on the standard input.

    python -m bench.sides ours SHAPE FOLDER                      this project's worker, without HTTP
    .venv-parity/bin/python -m bench.sides peer SHAPE FOLDER     sentence-transformers on the same files

Each line in is a JSON request `{"kind", "count", "seed"}`; each line out says how long it took. Both sides make the
same texts, tokenise them and leave the vectors in memory; sentence-transformers sorts them by length itself.
"""

import argparse
import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.cases import texts
from bench.shapes import SPECS

STREAMS: Final = 2
BUDGET_TOKENS: Final = 1024
PEER_BATCH: Final = 32

Run = Callable[[Sequence[str]], int]
"""Runs texts; how many tokens they were, or 0 where that side does not know."""


def main() -> None:
    parser = argparse.ArgumentParser(description="One side of a comparison.")
    parser.add_argument("side", choices=("ours", "peer"))
    parser.add_argument("shape", choices=sorted(SPECS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--outputs", default="dense")
    arguments = parser.parse_args()
    began_s = time.perf_counter()
    run = _ours(arguments) if arguments.side == "ours" else _peer(arguments)
    run(["hello"])
    _say({"ready_s": time.perf_counter() - began_s, **_memory_mib()})
    for line in sys.stdin:
        asked = json.loads(line)
        given = texts(asked["kind"], asked["count"], seed=asked["seed"])
        began_s = time.perf_counter()
        tokens = run(given)
        _say({"seconds": time.perf_counter() - began_s, "tokens": tokens, **_memory_mib()})


def _ours(arguments: argparse.Namespace) -> Run:
    from sie_core.wire.messages import OutputType
    from sie_server.engine.batcher import Batcher
    from sie_server.models import build
    from sie_server.models.calls import Call, Encode, Prepared, Score

    spec = SPECS[arguments.shape]
    model = build.load(spec, arguments.folder, precision=arguments.precision, streams=STREAMS, threads=1)
    outputs: tuple[OutputType, ...] = tuple(arguments.outputs.split(","))

    def run(given: Sequence[str]) -> int:
        call: Call = Encode(tuple(given), outputs=outputs)
        if spec.score is not None and spec.score.head == "classify":
            call = Score(given[0], tuple(given))
        prepared = model.prepare(call)
        waiting: Batcher[Prepared] = Batcher(BUDGET_TOKENS)
        waiting.add(prepared)
        lock = threading.Lock()

        def serve(stream: int) -> None:
            while True:
                with lock:
                    batch = waiting.take(share=STREAMS)
                if not batch:
                    return
                model.run(batch, stream=stream)

        threads = [threading.Thread(target=serve, args=(stream,)) for stream in range(STREAMS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(one.tokens for one in prepared)

    return run


def _peer(arguments: argparse.Namespace) -> Run:
    import sentence_transformers

    model: Any
    if SPECS[arguments.shape].score is not None and SPECS[arguments.shape].dense is None:
        model = sentence_transformers.CrossEncoder(str(arguments.folder), device="cpu")
        return lambda given: len(model.predict([(given[0], one) for one in given], batch_size=PEER_BATCH)) * 0
    model = sentence_transformers.SentenceTransformer(str(arguments.folder), device="cpu")
    return lambda given: len(model.encode(list(given), batch_size=PEER_BATCH, show_progress_bar=False)) * 0


def _memory_mib() -> dict[str, float]:
    """Anonymous memory now, and the most that was ever resident."""
    rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
    anonymous = next(int(line.split()[1]) for line in rollup if line.startswith("Anonymous:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"anonymous_mib": anonymous / 1024, "peak_mib": peak / 1024}


def _say(answer: dict[str, float]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
