"""The page of models under docs/reference: which are served, with what, and which tests cover them."""

from collections.abc import Mapping, Sequence
from typing import Final

from sie_core.catalog.catalog import Catalog
from sie_core.catalog.refusals import refusals
from sie_core.catalog.spec import ModelSpec

ARCHITECTURES: Final[Mapping[str, str]] = {
    "bart": "entailment",
    "bert": "bert_family",
    "clip": "vision",
    "deberta-v2": "deberta",
    "distilbert": "bert_family",
    "gemma3_text": "decoders",
    "gliclass": "gliclass",
    "gliner": "gliner",
    "gte": "rope",
    "llama_bidirec": "decoders",
    "mistral": "decoders",
    "modernbert": "modernbert",
    "new": "rope",
    "nomic_bert": "rope",
    "qwen2": "decoders",
    "qwen3": "decoders",
    "roberta": "bert_family",
    "siglip": "vision",
    "xlm-roberta": "bert_family",
}
"""The parity test of each architecture: `tests/parity/test_….py`."""

HEADS: Final[Mapping[str, str]] = {
    "pooled": "projections",
    "splade": "sparse",
    "lexical": "bge_m3",
    "colbert": "multivector",
    "classify": "cross_encoders",
    "verdict": "verdict",
    "vectors": "bge_m3",
    "spans": "gliner",
    "entailment": "entailment",
    "labels": "gliclass",
}
"""The parity test of each head."""

OWN_CODE: Final[Mapping[str, str]] = {
    "jinaai/jina-embeddings-v2": "jina",
    "jinaai/jina-colbert": "flash",
    "jinaai/jina-reranker": "flash",
}
"""The parity test of what calls itself an architecture that it is not, by what the model's id begins with."""

_PAGE: Final = """# Models

Every model that this version serves, by the id that callers name. What an output has is its size: of the vector, of
the vocabulary, of each token's vector. Models of which no architecture is given have the one that their snapshot says.
The tests are under `tests/parity`, where each compares the architecture, or the head, with the library that the model
was made for, on checkpoints of its shape. Two have no such library: what `test_jina.py` and Nomic's experts in
`test_rope.py` are compared with is our own reading of what was published, written out in numpy.

"""

_REFUSED: Final = """
## Models that are refused

Of the catalogues that SIE has published these are not served, each for the reason that whoever asks is told.

"""


def models_page() -> str:
    specs = Catalog.shipped().specs.values()
    head = ("Model", "Architecture", "Outputs", "Tokens", "Variants", "Tests")
    rows = [_row(spec) for spec in specs]
    refused = [
        (", ".join(f"`{model}`" for model in refusal.models), refusal.reason[0].upper() + refusal.reason[1:])
        for refusal in refusals()
    ]
    return _PAGE + _table(head, rows) + _REFUSED + _table(("Models", "Why"), refused)


def tests_of(spec: ModelSpec) -> tuple[str, ...]:
    """The parity tests of its architecture and of its heads, each once."""
    heads = (spec.dense, spec.sparse, spec.multivector, spec.score, spec.extract)
    names = [ARCHITECTURES[spec.architecture]] if spec.architecture is not None else []
    names += [HEADS[head.head] for head in heads if head is not None]
    names += [test for prefix, test in OWN_CODE.items() if spec.id.startswith(prefix)]
    names += ["gliner_bi"] if spec.labels_base is not None else []
    return tuple(f"test_{name}.py" for name in dict.fromkeys(names))


def _row(spec: ModelSpec) -> Sequence[str]:
    sizes = {"dense": spec.dense, "sparse": spec.sparse, "multivector": spec.multivector}
    outputs = [f"{name} {head.dim or ''}".strip() for name, head in sizes.items() if head is not None]
    outputs += ["score"] if spec.score is not None else []
    outputs += ["extract"] if spec.extract is not None else []
    return (
        f"`{spec.id}`",
        f"`{spec.architecture}`" if spec.architecture is not None else "",
        ", ".join(outputs),
        "" if spec.max_tokens is None else str(spec.max_tokens),
        ", ".join(f"`{name}`" for name in spec.variants),
        ", ".join(f"`{name}`" for name in tests_of(spec)),
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
