"""Programs written for SIE v0.3.1 work unchanged: its published client, in an environment of its own, against ours."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_testing.doors import Array, Door, Scored
from sie_testing.interpreters import find_python
from sie_testing.tiny_worker import WHOLE

CHECKOUT = Path(__file__).parents[2]
ENVIRONMENT = CHECKOUT / ".cache" / "published-client"
LOCK = CHECKOUT / "requirements" / "published-client.txt"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"

pytestmark = pytest.mark.published_client


@pytest.fixture(scope="session")
def python() -> Path:
    """Python 3.12 with the published client, installed once by the lock's hashes."""
    interpreter = ENVIRONMENT / "bin" / "python"
    installed = ENVIRONMENT / "installed"
    if not installed.exists() or installed.read_text() != LOCK.read_text():
        found = find_python("3.12")
        if found is None:
            pytest.skip("the published client wants Python 3.12, which this machine has not")
        uv = str(Path(sys.prefix) / "bin" / "uv")
        subprocess.run([uv, "venv", "-q", "--clear", "--python", found, str(ENVIRONMENT)], check=True)
        words = [uv, "pip", "install", "-q", "--python", str(interpreter), "--require-hashes", "-r", str(LOCK)]
        subprocess.run(words, check=True)
        installed.write_text(LOCK.read_text())
    return interpreter


@pytest.fixture(scope="session")
def answers(python: Path, url: str, tiny_url: str) -> dict[str, Any]:
    program = Path(__file__).with_name("published_call.py")
    called = subprocess.run([python, program, url, tiny_url], capture_output=True, text=True, check=False)
    assert called.returncode == 0, called.stderr
    result: dict[str, Any] = json.loads(called.stdout)
    return result


def test_the_guides_call_answers_what_our_own_client_gets(answers: dict[str, Any], reference: Door):
    ours = reference.encode(MODEL, [{"text": "hello world"}])

    assert isinstance(ours, list)
    dense = ours[0].outputs["dense"]
    assert isinstance(dense, Array)
    assert answers["dense"] == dense.numpy().tolist()
    assert answers["dtype"] == "float32"
    assert answers["awaited"] == answers["dense"]


def test_ids_dtypes_and_timing_come_through(answers: dict[str, Any]):
    assert answers["int8"] == [["a", "int8", 384], [None, "int8", 384]]
    assert {"total_ms", "queue_ms", "tokenization_ms", "inference_ms"} <= set(answers["timing"])


def test_models_are_listed(answers: dict[str, Any]):
    assert MODEL in answers["models"]


def test_refusals_have_their_code(answers: dict[str, Any]):
    assert answers["unknown"] == "404 MODEL_NOT_FOUND"
    assert answers["unsupported"].startswith("400 ")


QUERY = {"id": "q", "text": "what is it"}
ITEMS = [{"id": "a", "text": "one"}, {"text": "two words"}]


@pytest.fixture(scope="session")
def whole(answers: dict[str, Any]) -> dict[str, Any]:
    """What it got of the tiny model."""
    found: dict[str, Any] = answers["whole"]
    return found


def test_scores_are_what_our_own_client_gets(answers: dict[str, Any], whole: dict[str, Any], tiny_reference: Door):
    ours = tiny_reference.score(WHOLE, QUERY, ITEMS, instruction="find")

    assert isinstance(ours, Scored)
    assert whole["score"] == {"model": WHOLE, "query_id": "q", "scores": ours.entries}
    assert answers["awaited_whole"] == [whole["score"], whole["extract"]]


def test_extractions_are_what_our_own_client_gets(whole: dict[str, Any], tiny_reference: Door):
    assert whole["extract"] == tiny_reference.extract(WHOLE, ITEMS, labels=["words"])
    assert whole["extract_one"]["entities"] == whole["extract"][1]["entities"]


def test_every_output_comes_through(whole: dict[str, Any], tiny_reference: Door):
    types = ["dense", "sparse", "multivector"]
    ours = tiny_reference.encode(WHOLE, [{"text": "two words"}], output_types=types, output_dtype="float16")

    assert isinstance(ours, list)
    dense, (indices, values) = ours[0].outputs["dense"], ours[0].outputs["sparse"]  # type: ignore[misc]
    assert isinstance(dense, Array)
    assert whole["outputs"]["dense"] == ["float16", dense.numpy().tolist()]
    assert whole["outputs"]["multivector"] == ["float16", [4, 8]]
    assert whole["outputs"]["indices"] == "int32"
    assert whole["variant"] == [
        ["sparse", "timing"],
        {"indices": indices.numpy().tolist(), "values": values.numpy().tolist()},
    ]


def test_picture_is_read_as_the_jpeg_that_it_sends(whole: dict[str, Any], tiny_reference: Door):
    """Both encode with Pillow; the bytes that arrive are the same where their Pillows are."""
    assert len(whole["picture"]) == 8
    assert np.linalg.norm(whole["picture"]) == pytest.approx(1, abs=1e-5)


def test_refusals_of_the_other_verbs_have_their_code(whole: dict[str, Any]):
    assert whole["unlabelled"] == "400 INVALID_INPUT"
    assert whole["undeclared"] == "400 INVALID_INPUT"
