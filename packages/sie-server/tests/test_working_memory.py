"""What a pass takes for a time: predicted by the square of a length, held against reality, and never taken blindly."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.errors import ApiError
from sie_server import machine
from sie_server.engine.executor import LARGE_BYTES, Elbow, TooLarge, run_split
from sie_server.engine.jobs import Job, Ticket
from sie_server.models.calls import Encode
from sie_server.models.predicting import working_bytes
from sie_testing.tiny import TinyModel

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 96,
    "intermediate_size": 96,
    "num_attention_heads": 12,
    "num_hidden_layers": 2,
    "max_position_embeddings": 4096,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
KINDS: dict[str, dict[str, Any]] = {
    "jina": {"model_type": "bert", "position_embedding_type": "alibi", "feed_forward_type": "geglu"},
    "mpnet": {"model_type": "mpnet"},
    "deberta": {
        "model_type": "deberta-v2",
        "relative_attention": True,
        "position_buckets": 64,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
    },
    "qwen3": {
        "model_type": "qwen3",
        "num_key_value_heads": 12,
        "head_dim": 8,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "hidden_act": "silu",
    },
    "bert": {"model_type": "bert"},
}

ONE_LONG_ITEM = """
import json, sys
from pathlib import Path
import numpy as np
from sie_server import machine
from sie_server.models.backbones.known import BACKBONES
from sie_server.models.checkpoint import Checkpoint, Weight
from sie_server.models.ops.openvino import OpenvinoOps
from sie_server.models.ops.plan import plan_batch
from sie_server.models.predicting import working_bytes
from sie_server.models.tokens import pack

said, tokens = json.loads(sys.argv[1]), int(sys.argv[2])

class Drawn(Checkpoint):  # has whatever it is asked for
    def __init__(self):
        super().__init__({}, {})
        self.drawn = {}
    def __contains__(self, name):
        return not any(part in name for part in ("layer_norm_q", "up_gated", "conv."))
    def unseen(self, name, shape):
        return Weight("F32", self.drawn.setdefault(name, np.full(shape, 0.01, np.float32)))
    def _look(self, name, stopped):
        pass

backbone = BACKBONES[said["model_type"]]
config = backbone.read(json.dumps(said).encode())
ops = OpenvinoOps(Drawn(), "f32")
ops.output("hidden", backbone.build(ops, config, ""))
graph = ops.compiled(streams=1, threads=2)
machine.give_back()

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))

Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, at what is there now
before, held = status("VmRSS"), machine.anonymous_bytes()
graph.run(plan_batch(pack([np.zeros(tokens, np.int32)])), stream=0)
taken = status("VmHWM") - before
print(working_bytes([tokens], pair_bytes=backbone.pair_bytes(config)), taken, machine.anonymous_bytes() - held)
"""


def one_long_item(kind: str, tokens: int) -> list[int]:
    """Bytes: predicted, taken at the most, and kept afterwards."""
    arguments = [json.dumps(SHAPE | KINDS[kind]), str(tokens)]
    done = subprocess.run(
        [sys.executable, "-c", ONE_LONG_ITEM, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [int(number) for number in done.stdout.split()]


@pytest.mark.parametrize(("kind", "tokens"), [("jina", 2304), ("mpnet", 2304), ("deberta", 1024), ("qwen3", 3072)])
def test_what_a_long_text_takes_is_no_more_than_is_predicted(kind: str, tokens: int) -> None:
    predicted, taken, _ = one_long_item(kind, tokens)

    assert predicted / 3 < taken <= predicted


def test_a_bert_takes_nothing_that_grows_with_the_square_of_a_length() -> None:
    predicted, taken, _ = one_long_item("bert", 4096)

    assert predicted == 0
    assert taken < 4096 * 4096 * 12


def test_what_a_long_text_took_is_given_back_after_it() -> None:
    _, taken, kept = one_long_item("jina", 2304)

    assert kept < taken / 4


def test_a_batch_is_as_wide_as_its_longest_item() -> None:
    assert working_bytes([3, 5, 1], pair_bytes=10) == 3 * 25 * 10
    assert working_bytes([], pair_bytes=10) == 0


def jobs(model: TinyModel, lengths: Sequence[int]) -> list[Job]:
    loop = asyncio.new_event_loop()
    ticket = Ticket(loop, arrived_s=0.0)
    loop.close()
    texts = tuple("w " * words for words in lengths)
    return [Job(item, ticket, index, item.tokens) for index, item in enumerate(model.prepare(Encode(texts)))]


@given(st.lists(st.integers(min_value=0, max_value=30), min_size=1, max_size=20), st.integers(1, 60))
def test_a_pass_that_does_not_fit_is_not_tried(lengths: list[int], fits: int) -> None:
    """`fits`: tokens, each of which takes what nobody may take without a look."""
    model = TinyModel(token_bytes=LARGE_BYTES, max_tokens=64)
    batch = jobs(model, lengths)
    results = run_split(model, batch, stream=0, elbow=Elbow(lambda: fits * LARGE_BYTES))

    assert [isinstance(result, ApiError) for result in results] == [job.tokens > fits for job in batch]
    assert all(sum(ran) <= fits for ran in model.batches)


def test_who_is_refused_is_told_both_amounts_and_what_to_do() -> None:
    model = TinyModel(token_bytes=10**9)
    (result,) = run_split(model, jobs(model, [1]), stream=0, elbow=Elbow(lambda: 2 * 10**8))

    assert isinstance(result, ApiError)
    assert result.code == "RESOURCE_EXHAUSTED"
    assert "does not fit in memory: it takes about 3 GB for a time, and 200 MB are left" in result.message
    assert result.hint == "send shorter items, or give the worker more memory"


def test_where_nobody_can_say_what_is_left_it_is_tried() -> None:
    with Elbow(lambda: None).room_for(10**15):
        pass


def test_large_passes_take_their_memory_one_after_the_other_and_small_ones_wait_for_nobody() -> None:
    left = [3 * LARGE_BYTES]
    elbow, inside, may_go = Elbow(lambda: left[0]), threading.Event(), threading.Event()

    def first() -> None:
        with elbow.room_for(2 * LARGE_BYTES):
            left[0] -= 2 * LARGE_BYTES
            inside.set()
            may_go.wait(30)
            left[0] += 2 * LARGE_BYTES

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(30)
    with elbow.room_for(LARGE_BYTES - 1):
        may_go.set()
    with elbow.room_for(2 * LARGE_BYTES):  # what the first had is back by now: else it would not fit
        pass
    thread.join()
    with pytest.raises(TooLarge):
        elbow.room_for(4 * LARGE_BYTES).__enter__()


@pytest.mark.parametrize(("allowed", "available_kb", "want"), [(10**9, 10**9, 10**9), (10**12, 1000, 1_024_000)])
def test_what_is_left_is_the_least_of_what_is_allowed_and_what_there_is(
    tmp_path: Path, allowed: int, available_kb: int, want: int
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable: {available_kb} kB\n")
    (tmp_path / "proc/self/statm").write_text("9 3 3 0 0 0 0\n")

    assert machine.left_bytes(allowed, tmp_path) == want
    assert machine.left_bytes(allowed, tmp_path / "nowhere") is None
