"""Batches side by side on one model: a large one's share all the threads, a small one's have threads of their own."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_server.models.checkpoint import open_checkpoint
from sie_server.models.ops.openvino.device import op, ov
from sie_server.models.ops.openvino.graph import Graph, Shape
from sie_server.models.ops.plan import POSITIONS, plan_batch
from sie_server.models.tokens import pack
from sie_testing import tiny_bert

SMALL_BYTES, LARGE_BYTES = 1 << 20, 1 << 30


def graph(folder: Path, weights_bytes: int, kind: type[Graph] = Graph) -> Graph:
    """Each token's position, doubled; it says of itself that it has so many bytes of weights."""
    positions = op.parameter(ov.PartialShape([-1]), ov.Type.i32)
    doubled = op.convert(op.add(positions, positions), "f32")
    checkpoint = open_checkpoint(tiny_bert.write(folder))
    shape = Shape(streams=2, threads=1, precision="f32")
    return kind({"doubled": doubled}, {POSITIONS: positions}, checkpoint, shape, weights_bytes=weights_bytes)


def setting(of: Graph, name: str) -> Any:
    return of._requests[0].get_compiled_model().get_property(name)


@pytest.mark.parametrize(("weights_bytes", "streams"), [(SMALL_BYTES, 2), (LARGE_BYTES, 1)])
def test_a_large_model_gives_every_batch_all_threads(tmp_path: Path, weights_bytes: int, streams: int) -> None:
    made = graph(tmp_path, weights_bytes)
    made.settle()

    assert (setting(made, "NUM_STREAMS"), setting(made, "INFERENCE_NUM_THREADS")) == (streams, 2)
    assert made.memory_bytes == weights_bytes * streams, "a second copy is the small model's"


@pytest.mark.parametrize("weights_bytes", [SMALL_BYTES, LARGE_BYTES])
def test_batches_at_the_same_time_get_their_own_answers(tmp_path: Path, weights_bytes: int) -> None:
    made = graph(tmp_path, weights_bytes)
    wrong: list[str] = []

    def run(stream: int) -> None:
        for length in range(1 + stream, 200, 2):
            found = made.run(plan_batch(pack([np.zeros(length, np.int32)])), stream=stream)["doubled"]
            if found[:length].tolist() != [2.0 * position for position in range(length)]:
                wrong.append(f"stream {stream}, {length} tokens: {found[:length]}")

    threads = [threading.Thread(target=run, args=(stream,)) for stream in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made.close()

    assert wrong == []


class NoSecond(Graph):
    """One for whose second copy there is no memory."""

    def _compile(self, model: Any, shape: Shape, *, streams: int) -> list[Any]:
        if streams == 1:
            raise RuntimeError("Failed to allocate 44040192 bytes\nat src/plugins")
        return super()._compile(model, shape, streams=streams)


def test_a_second_copy_that_cannot_be_made_is_told_in_the_log_and_the_first_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = graph(tmp_path, SMALL_BYTES, NoSecond)
    made.settle()
    (record,) = caplog.records

    assert record.__dict__["fields"] == {"error": "RuntimeError", "reason": "Failed to allocate 44040192 bytes"}
    assert made.memory_bytes == SMALL_BYTES
    assert made.run(plan_batch(pack([np.zeros(3, np.int32)])), stream=0)["doubled"][:3].tolist() == [0, 2, 4]
