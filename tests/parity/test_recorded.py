"""all-MiniLM-L6-v2 beside what sentence-transformers was recorded to make; needs neither it nor torch."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_server.models.calls import Encode
from sie_server.models.model import LoadedModel

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text())


def vectors_of(model: LoadedModel, texts: list[str], **call: Any) -> np.ndarray:
    outputs = model.run(model.prepare(Encode(tuple(texts), **call)), stream=0)
    return np.stack([output.dense for output in outputs if output.dense is not None])


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [item["text"] for item in RECORDED["items"]]


@pytest.fixture(scope="module")
def recorded() -> np.ndarray:
    return np.stack([np.frombuffer(base64.b64decode(item["vector"]), RECORDED["dtype"]) for item in RECORDED["items"]])


def test_vectors_are_the_recorded_ones(ours: LoadedModel, texts: list[str], recorded: np.ndarray) -> None:
    assert np.abs(vectors_of(ours, texts) - recorded).max() <= 1e-5


def test_alone_and_together_they_are_the_same(ours: LoadedModel, texts: list[str], recorded: np.ndarray) -> None:
    alone = np.concatenate([vectors_of(ours, [text]) for text in texts])

    assert np.abs(alone - recorded).max() <= 1e-5
    assert np.abs(alone - vectors_of(ours, texts[::-1])[::-1]).max() <= 1e-6


def test_the_longest_is_cut_to_256_tokens(ours: LoadedModel, texts: list[str]) -> None:
    cut = [(item.tokens, item.truncated) for item in ours.prepare(Encode(tuple(texts))) if item.truncated]

    assert cut == [(256, True)]
