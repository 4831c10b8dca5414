"""A batch that does not fit in memory is halved until it does; every answer is its own, in its place."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sie_core.errors import ApiError
from sie_server.engine.executor import run_split
from sie_server.engine.jobs import Job, Ticket
from sie_server.models.calls import Encode, Prepared
from sie_testing import tiny_bert
from sie_testing.tiny import TinyModel


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


def jobs(model: TinyModel, lengths: Sequence[int]) -> list[Job]:
    loop = asyncio.new_event_loop()
    ticket = Ticket(loop, arrived_s=0.0)
    loop.close()
    texts = tuple(" ".join(f"w{index}" for _ in range(words)) for index, words in enumerate(lengths))
    return [Job(item, ticket, index, item.tokens) for index, item in enumerate(model.prepare(Encode(texts)))]


@given(
    st.lists(st.integers(min_value=0, max_value=30), min_size=1, max_size=40),
    st.integers(min_value=1, max_value=200),
    st.sampled_from([MemoryError, OutOfMemoryError]),
)
def test_whatever_fits_alone_is_answered_in_its_place(
    lengths: list[int], most_tokens: int, error: type[Exception]
) -> None:
    def refuse(batch: Sequence[Prepared]) -> None:
        if sum(item.tokens for item in batch) > most_tokens:
            raise error

    model = TinyModel(before_run=refuse, max_tokens=64)
    batch = jobs(model, lengths)
    splits: list[int] = []
    results = run_split(model, batch, stream=0, on_split=splits.append)

    assert len(results) == len(batch)
    for job, result in zip(batch, results, strict=True):
        if job.tokens > most_tokens:
            assert isinstance(result, ApiError)
            assert result.code == "RESOURCE_EXHAUSTED"
        else:
            assert not isinstance(result, ApiError)
            np.testing.assert_array_equal(result.dense, model.output(job.prepared).dense)
    assert len(splits) < len(batch)
    assert (splits == []) == (sum(job.tokens for job in batch) <= most_tokens or len(batch) == 1)


def test_a_batch_that_fails_for_another_reason_is_no_want_of_memory() -> None:
    def refuse(batch: Sequence[Prepared]) -> None:
        if len(batch) > 1:
            raise RuntimeError("boom")

    model = TinyModel(before_run=refuse)
    splits: list[int] = []

    assert len(run_split(model, jobs(model, [1, 2, 3]), stream=0, on_split=splits.append)) == 3
    assert splits == []


IN_A_PROCESS_WITH_LITTLE_MEMORY = """
import asyncio, resource, sys
from pathlib import Path
import numpy as np
from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.ids import ModelId
from sie_server.engine.executor import run_split
from sie_server.engine.jobs import Job, Ticket
from sie_server.models import build
from sie_server.models.calls import Encode

spec = ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead())
model = build.load(spec, Path(sys.argv[1]), precision="f32", streams=1, threads=1)
model.settle()
loop = asyncio.new_event_loop()
ticket = Ticket(loop, arrived_s=0.0)
words = ["abc", "def", "ghi", "jkl", "mno", "pqr"]
one_each = model.prepare(Encode(tuple(f"{word} " * 12 for word in words)))
want = [output.dense for output in (model.run([item], stream=0)[0] for item in one_each)]
model.run(one_each[::-1] * 500, stream=0)
batch = [Job(item, ticket, index, item.tokens) for index, item in enumerate(one_each * 3000)]
splits = []
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (60 << 20), resource.RLIM_INFINITY))
results = run_split(model, batch, stream=0, on_split=splits.append)
worst = max(float(np.abs(result.dense - want[index % 6]).max()) for index, result in enumerate(results))
print(len(splits) > 0, len(results) == len(batch), worst < 1e-5)
"""


def test_the_engine_says_when_memory_is_short_and_goes_on_with_what_there_is(
    tmp_path: Path,
) -> None:
    """Its `infer` returns without an error then, and with the outputs of the run before."""
    folder = tiny_bert.write(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS_WITH_LITTLE_MEMORY, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "True True True\n"), done.stderr[-2000:]


def test_the_engines_words_for_it_are_known() -> None:
    """The sentence as openvino 2026.4 says it."""
    said = "[CPU] Gather node with name 'Gather_12' Check 'ptr' failed at cpu_memory.cpp:257:\nFailed to allocate 30"
    model = TinyModel(before_run=lambda batch: (_ for _ in ()).throw(RuntimeError(said)))
    (result,) = run_split(model, jobs(model, [1]), stream=0)

    assert isinstance(result, ApiError)
    assert result.code == "RESOURCE_EXHAUSTED"
