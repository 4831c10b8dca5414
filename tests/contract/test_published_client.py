"""Programs written for SIE v0.3.1 work unchanged: its published client, in an environment of its own, against ours."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sie_testing.doors import Array, Door
from sie_testing.interpreters import find_python

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
def answers(python: Path, url: str) -> dict[str, Any]:
    called = subprocess.run(
        [python, Path(__file__).with_name("published_call.py"), url], capture_output=True, text=True, check=False
    )
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
    assert answers["models"] == [MODEL]


def test_refusals_have_their_code(answers: dict[str, Any]):
    assert answers["unknown"] == "404 MODEL_NOT_FOUND"
    assert answers["unsupported"].startswith("400 ")
