"""Golden answers, and the guide's call, through a gateway as from a worker: of models of every kind."""

import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

from sie_airgap.proof.golden import compare, record
from sie_airgap.proof.golden_file import Golden
from sie_airgap.proof.grading import Grade
from sie_airgap.rehearsal.guides_call import CALLS, call_of
from sie_core.artifacts.digest import digest_of
from sie_core.ids import ModelId, Revision
from sie_sdk import SIEClient
from sie_testing.carried import locked_model
from sie_testing.cluster import gateway
from sie_testing.tiny import TinyModel
from sie_testing.tiny_worker import REVISION, WHOLE, tiny_worker


@pytest.fixture(scope="module")
def worker_url() -> Iterator[str]:
    """A worker whose tiny model takes texts long enough to hold a query."""
    with tiny_worker(load=lambda _: TinyModel(outputs=("dense", "sparse", "multivector"), max_tokens=64)) as url:
        yield url


@pytest.fixture(scope="module")
def gateway_url(tmp_path_factory: pytest.TempPathFactory, worker_url: str) -> Iterator[str]:
    """A gateway in front of it, whose catalog has never heard of that model."""
    folder = tmp_path_factory.mktemp("golden")
    with gateway(folder, [worker_url], env={"SIE_GATEWAY_CONFIGURED_GPUS": "l4"}) as running:
        yield running.url


def recorded(url: str) -> Golden:
    model = msgspec.structs.replace(locked_model(WHOLE, {"x": b""}), revision=Revision(REVISION))
    return record([model], digest_of(b"lock"), url)


def test_what_a_worker_answers_is_what_comes_through_a_gateway(worker_url: str, gateway_url: str) -> None:
    (compared,) = compare(recorded(worker_url), gateway_url, gpu="l4")

    assert len(compared.series) == 5
    assert compared.grade is Grade.IDENTICAL, list(compared.lines())


@pytest.mark.parametrize("output", CALLS)
def test_the_guides_call_prints_what_a_model_gives(gateway_url: str, output: str) -> None:
    program = call_of([output]).program(WHOLE, "l4", url=gateway_url)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    starts = {"dense": "(8,)", "sparse": "(2,)", "multivector": "(4, 8)", "score": "[('item-", "json": "["}

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(starts[output])


def test_the_lines_to_be_typed_are_the_programs(gateway_url: str) -> None:
    for output in CALLS:
        lines = call_of([output]).lines(WHOLE, "l4", url=gateway_url)
        done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_model_is_called_for_its_vectors_where_it_has_some_and_where_nobody_says(worker_url: str) -> None:
    with SIEClient(worker_url) as client:
        assert call_of(client.get_model(ModelId(WHOLE))["outputs"]) == CALLS["dense"]
    assert call_of(["json", "score"]) == CALLS["score"]
    assert call_of([]) == CALLS["dense"]
