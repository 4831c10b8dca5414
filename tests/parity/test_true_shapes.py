"""The guide's models in their true shape, with random weights, beside the libraries they were made for.

Gigabytes are written once, and a run takes minutes: `make parity-large`.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench.cases import texts
from bench.shapes import SPECS, write

from sie_server.models import build
from sie_server.models.calls import Call, Encode, LoadError, Output, Precision, Score
from sie_server.models.model import LoadedModel
from sie_server.models.ops.openvino import precision_for

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
references = pytest.importorskip("sentence_transformers")
pytestmark = [pytest.mark.parity_large, pytest.mark.timeout(1800)]

SHAPES = Path(__file__).resolve().parents[2] / ".cache" / "shapes"
WITHIN, LOGITS_WITHIN = 1e-5, 1e-4
TEXTS = ["", "a", "😀 中文 עברית", *texts("mixed", 12), *texts("exactly-300", 1)]
QUERY = TEXTS[4]


def load(name: str, precision: Precision = "f32") -> LoadedModel:
    return build.load(SPECS[name], write(name, SHAPES / name), precision=precision, streams=2, threads=1)


def run(model: LoadedModel, call: Call, *, at_once: int = 8) -> list[Output]:
    items = model.prepare(call)
    return [
        output
        for first in range(0, len(items), at_once)
        for output in model.run(items[first : first + at_once], stream=0)
    ]


def results(model: LoadedModel, call: Call) -> list[Any]:
    return model.finish(call, model.prepare(call), run(model, call))


def difference(ours: Any, other: Any) -> float:
    return float(np.abs(np.asarray(ours) - np.asarray(other)).max())


def bf16_or_skip() -> None:
    try:
        precision_for("bf16")
    except LoadError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def e5_theirs() -> np.ndarray:
    folder = write("e5-base-v2", SHAPES / "e5-base-v2")
    return np.asarray(references.SentenceTransformer(str(folder), device="cpu").encode(TEXTS, batch_size=4))


@pytest.fixture(scope="module")
def mxbai_theirs() -> np.ndarray:
    folder = write("mxbai-rerank-large-v1", SHAPES / "mxbai-rerank-large-v1")
    model = references.CrossEncoder(str(folder), device="cpu")
    return np.asarray(model.predict([(QUERY, text) for text in TEXTS], batch_size=4, activation_fn=torch.nn.Identity()))


@pytest.fixture(scope="module")
def m3_hidden() -> list[tuple[np.ndarray, np.ndarray]]:
    """Each text's ids and last hidden state."""
    folder = write("bge-m3", SHAPES / "bge-m3")
    model = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    tokenizer = references.SentenceTransformer(str(folder), device="cpu").tokenizer
    found = []
    for text in TEXTS:
        ids = tokenizer([text], truncation=True, max_length=8192)["input_ids"]
        with torch.inference_mode():
            hidden = model(torch.tensor(ids), attention_mask=torch.ones(1, len(ids[0]))).last_hidden_state
        found.append((np.array(ids[0]), hidden[0].numpy()))
    return found


@pytest.fixture(scope="module")
def m3() -> Iterator[list[Output]]:
    model = load("bge-m3")
    yield run(model, Encode(tuple(TEXTS), outputs=("dense", "sparse", "multivector")))
    model.close()


def units(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_e5_base(e5_theirs: np.ndarray) -> None:
    ours = np.stack([np.asarray(output.dense) for output in run(load("e5-base-v2"), Encode(tuple(TEXTS)))])

    assert difference(ours, e5_theirs) <= WITHIN


def test_e5_base_in_bf16(e5_theirs: np.ndarray) -> None:
    bf16_or_skip()
    ours = np.stack([np.asarray(output.dense) for output in run(load("e5-base-v2", "bf16"), Encode(tuple(TEXTS)))])

    assert np.sum(ours * e5_theirs, axis=1).min() >= 0.9995


def test_mxbai_rerank_large(mxbai_theirs: np.ndarray) -> None:
    model = load("mxbai-rerank-large-v1")
    outputs = run(model, Score(QUERY, tuple(TEXTS)))

    assert (
        difference([output.logits[0] for output in outputs if output.logits is not None], mxbai_theirs) <= LOGITS_WITHIN
    )
    scores = results(model, Score(QUERY, tuple(TEXTS)))
    assert difference(scores, 1 / (1 + np.exp(-mxbai_theirs))) <= LOGITS_WITHIN


def test_mxbai_rerank_large_in_bf16_keeps_the_order(mxbai_theirs: np.ndarray) -> None:
    """Wherever two scores differ by more than the error there is."""
    bf16_or_skip()
    outputs = run(load("mxbai-rerank-large-v1", "bf16"), Score(QUERY, tuple(TEXTS)))
    ours = np.array([output.logits[0] for output in outputs if output.logits is not None])
    envelope = 2 * difference(ours, mxbai_theirs)
    apart = np.abs(mxbai_theirs[:, None] - mxbai_theirs) > envelope

    assert np.array_equal((ours[:, None] > ours)[apart], (mxbai_theirs[:, None] > mxbai_theirs)[apart])


def test_bge_m3_dense(m3: list[Output], m3_hidden: list[tuple[np.ndarray, np.ndarray]]) -> None:
    wanted = np.stack([units(hidden[0]) for _, hidden in m3_hidden])

    assert (
        difference(np.stack([np.asarray(output.dense) for output in m3 if output.dense is not None]), wanted) <= WITHIN
    )


def test_bge_m3_sparse(m3: list[Output], m3_hidden: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """The largest weight of each id; of the tokenizer's special tokens none."""
    layer = torch.load(SHAPES / "bge-m3" / "sparse_linear.pt", weights_only=True)
    weight, bias = layer["weight"].numpy(), layer["bias"].numpy()
    for output, (ids, hidden) in zip(m3, m3_hidden, strict=True):
        assert output.sparse is not None
        wanted: dict[int, float] = {}
        for token, value in zip(ids[1:-1], np.maximum(hidden @ weight.T + bias, 0)[1:-1, 0], strict=True):
            if value > 0:
                wanted[int(token)] = max(wanted.get(int(token), 0.0), float(value))
        specials = {token for token in (ids[0], ids[-1], 100, 103) if token in wanted}
        kept = {token: value for token, value in wanted.items() if token not in specials}
        assert output.sparse.indices.tolist() == sorted(kept)
        assert (
            difference(output.sparse.values, [kept[token] for token in sorted(kept)]) <= LOGITS_WITHIN if kept else True
        )


def test_bge_m3_multivector(m3: list[Output], m3_hidden: list[tuple[np.ndarray, np.ndarray]]) -> None:
    layer = torch.load(SHAPES / "bge-m3" / "colbert_linear.pt", weights_only=True)
    weight, bias = layer["weight"].numpy(), layer["bias"].numpy()
    for output, (_, hidden) in zip(m3, m3_hidden, strict=True):
        assert output.multivector is not None
        assert difference(output.multivector, units(hidden[1:] @ weight.T + bias)) <= WITHIN


LOADING = """
import sys
from pathlib import Path

from bench.shapes import SPECS
from sie_server import machine
from sie_server.models import build

said = []
import sie_server.models.ops.openvino  # what stays whatever is loaded
machine.give_back()
before = machine.anonymous_bytes()
model = build.load(SPECS[sys.argv[1]], Path(sys.argv[2]), precision="f32", streams=2, threads=1, take=said.append)
model.settle()
machine.give_back()
print(said[0], machine.anonymous_bytes() - before)
"""


@pytest.mark.parametrize("name", ["e5-base-v2", "mxbai-rerank-large-v1", "bge-m3"])
def test_no_more_memory_is_taken_than_was_predicted(name: str) -> None:
    """And not much less: what is kept free for one model is kept from others."""
    folder = write(name, SHAPES / name)
    done = subprocess.run([sys.executable, "-c", LOADING, name, folder], capture_output=True, text=True, check=True)
    predicted, taken = map(int, done.stdout.split())

    assert predicted / 1.3 < taken <= 1.02 * predicted
