"""Half precision keeps the direction of vectors and the order of scores, for every architecture.

The torch engine computes bf16 and f16 on any CPU, so what is rounded where is shown without one that has such products.
Seeded networks, saved by transformers; the references compute in f32.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from sie_core.catalog.spec import DenseHead, ModelSpec, ScoreHead
from sie_core.ids import ModelId
from sie_server.models import build
from sie_server.models.calls import Encode, Precision, Score
from sie_testing import tiny_bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
references = pytest.importorskip("sentence_transformers")
safetensors = pytest.importorskip("safetensors.numpy")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

COSINE = 0.9995
AS_TRAINED = 0.125
"""Of a drawn weight, the root of one over the width: what a layer gives is as large as what it takes."""
SPEC = ModelSpec(id=ModelId("acme/tiny"), dense=DenseHead())
RERANKER = ModelSpec(id=ModelId("acme/reranker"), score=ScoreHead(head="classify"))
DRAWN = Random(7)  # noqa: S311 – texts, no secrets
TEXTS = ("hello world", "a", "x" * 40, "Á b? 中 😀 שלום", *("ab " * n for n in range(1, 14, 3)))
DOCUMENTS = tuple("".join(DRAWN.choices("abcdefghij  ", k=DRAWN.randint(3, 40))) for _ in range(26))
SHAPE: dict[str, Any] = {
    "vocab_size": len(tiny_bert.VOCABULARY),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
ENDS = {"bos_token_id": 2, "eos_token_id": 3}
DEBERTA: dict[str, Any] = {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {}),
    "roberta": ("Roberta", {"pad_token_id": 1, "type_vocab_size": 1}),
    "xlm-roberta": ("XLMRoberta", {"pad_token_id": 1, "type_vocab_size": 1}),
    "camembert": ("Camembert", {"pad_token_id": 1, "type_vocab_size": 1}),
    "distilbert": ("DistilBert", {"hidden_dim": 96}),
    "electra": ("Electra", {"embedding_size": 32}),
    "mpnet": ("MPNet", {"max_position_embeddings": 66}),
    "deberta": ("DebertaV2", DEBERTA),
    "modernbert": ("ModernBert", {**ENDS, "local_attention": 8, "cls_token_id": 2, "sep_token_id": 3}),
    "gte": ("Gte", {}),
    "nomic": ("NomicBert", {}),
}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2", {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 16}),
    "llama": ("Llama", {"num_key_value_heads": 2}),
    "mistral": ("Mistral", {"num_key_value_heads": 2, "sliding_window": 7}),
    "gemma 3": (
        "Gemma3Text",
        {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 12},
    ),
}
HALVES: list[Precision] = ["bf16", "f16"]

Save = Callable[..., Path]


def network(kind: str, *, ending: str = "Model", **shape: Any) -> Any:
    name, own = (ENCODERS | DECODERS)[kind]
    ends = ENDS if kind in DECODERS else {}
    config = getattr(transformers, f"{name}Config")(**(SHAPE | ends | own | shape))
    return getattr(transformers, f"{name}{ending}")(config)


def ours(folder: Path, precision: Precision) -> np.ndarray:
    model = build.load(SPEC, folder, precision=precision, streams=1, threads=1, engine="torch")
    assert model.precision == precision
    return np.array([output.dense for output in model.run(model.prepare(Encode(TEXTS)), stream=0)])


def theirs(folder: Path, precision: str = "f32") -> np.ndarray:
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[precision]
    how = {"dtype": dtype, "attn_implementation": "eager"}
    model = references.SentenceTransformer(str(folder), device="cpu", model_kwargs=how)
    return np.asarray(model.encode(list(TEXTS), convert_to_tensor=True).float())


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray((one * other).sum(1))


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_vectors_keep_their_direction(save_network: Save, kind: str, precision: Precision) -> None:
    pooling = "lasttoken" if kind in DECODERS else "mean"
    folder = save_network(network(kind), seed=len(kind), pooling=pooling, max_tokens=60, scale=AS_TRAINED)

    assert cosines(ours(folder, precision), theirs(folder)).min() >= COSINE


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_less_is_lost_than_the_reference_loses(save_network: Save, kind: str, precision: Precision) -> None:
    """With weights so large that attention is sharp, where rounding costs the most."""
    pooling = "lasttoken" if kind in DECODERS else "mean"
    folder = save_network(network(kind), seed=len(kind), pooling=pooling, max_tokens=60)
    wanted = theirs(folder)

    assert cosines(ours(folder, precision), wanted).min() > cosines(theirs(folder, precision), wanted).min()


def test_positions_off_by_one_are_noticed_beside_what_rounding_does(save_network: Save) -> None:
    folder = save_network(network("bert"), max_tokens=60, scale=AS_TRAINED)
    wanted = theirs(folder)
    weights = safetensors.load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("position_embeddings.weight"))
    safetensors.save_file(weights | {name: np.roll(weights[name], -1, axis=0)}, folder / "model.safetensors")

    assert cosines(ours(folder, "bf16"), wanted).min() < COSINE


@pytest.fixture
def save_reranker(save_network: Save, tmp_path: Path) -> Save:
    """A cross-encoder, with the tokenizer and the weights as `save_network` makes them."""

    def save(kind: str) -> Path:
        folder = save_network(network(kind), max_tokens=60)
        whole = network(kind, ending="ForSequenceClassification", num_labels=1)
        torch.manual_seed(len(kind))
        with torch.no_grad():
            for weight in whole.parameters():
                drawn = AS_TRAINED * torch.randn_like(weight)
                weight.copy_(drawn if weight.ndim > 1 else weight + drawn)
        target = tmp_path / "reranker"
        whole.save_pretrained(target)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (target / name).write_bytes((folder / name).read_bytes())
        return target

    return save


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("kind", ["bert", "distilbert", "electra", "deberta", "modernbert"])
def test_scores_keep_their_order(save_reranker: Save, kind: str, precision: Precision) -> None:
    """Wherever two of them are further apart than the error; and the error is small beside how far they spread."""
    folder = save_reranker(kind)
    judge = references.CrossEncoder(str(folder), device="cpu", max_length=60)
    wanted = np.asarray(judge.predict([("which one", text) for text in DOCUMENTS], activation_fn=torch.nn.Identity()))
    model = build.load(RERANKER, folder, precision=precision, streams=1, threads=1, engine="torch")
    outputs = model.run(model.prepare(Score("which one", DOCUMENTS)), stream=0)
    found = np.array([output.logits[0] for output in outputs if output.logits is not None])
    envelope = 2 * np.abs(found - wanted).max()
    apart = np.abs(wanted[:, None] - wanted) > envelope

    assert np.array_equal((found[:, None] > found)[apart], (wanted[:, None] > wanted)[apart])
    assert apart.mean() > 0.5
