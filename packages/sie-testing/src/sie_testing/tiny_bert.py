"""A snapshot of a two-layer BERT with seeded weights, as sentence-transformers writes them: kilobytes, no torch.

The weights are large enough for every part of the network to matter: a wrong position, epsilon or mask moves
the vectors by far more than rounding does.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

HIDDEN: Final = 32
INNER: Final = 64
HEADS: Final = 4
LAYERS: Final = 2
POSITIONS: Final = 48
MAX_TOKENS: Final = 40

SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY: Final = (
    *SPECIAL,
    *ascii_lowercase,
    *digits,
    *(f"##{letter}" for letter in ascii_lowercase),
    "!",
    "?",
    "中",
)
"""Every lower-case word of letters is as many tokens as it has letters."""

Stored = Literal["F32", "F16", "BF16"]


def write(
    folder: Path,
    *,
    seed: int = 0,
    pooling: Literal["cls", "mean", "lasttoken"] = "mean",
    normalize: bool = True,
    dtype: Stored = "F32",
    prefix: str = "",
    **config: Any,
) -> Path:
    """Writes the snapshot into `folder`, which is made, and returns it; `config` replaces keys of `config.json`."""
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), *([("Normalize", "2_Normalize")] if normalize else [])]
    named = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(modules)
    ]
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", CONFIG | config)
    _write_json(folder / "modules.json", named)
    _write_json(folder / "1_Pooling" / "config.json", {"embedding_dimension": HIDDEN, "pooling_mode": pooling})
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS, "do_lower_case": False})
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    _write_json(folder / "tokenizer.json", TOKENIZER)
    write_safetensors(folder / "model.safetensors", {prefix + name: array for name, array in weights(seed)}, dtype)
    return folder


def write_cross_encoder(folder: Path, *, seed: int = 0, positions: int = POSITIONS) -> Path:
    """A snapshot of a reranker, as transformers writes a `BertForSequenceClassification` of one label."""
    folder.mkdir(parents=True, exist_ok=True)
    head = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    _write_json(folder / "config.json", CONFIG | head | {"max_position_embeddings": positions})
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": MAX_TOKENS}
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "tokenizer.json", TOKENIZER)
    random = np.random.default_rng([seed, 1])
    shapes = {"bert.pooler.dense": (HIDDEN, HIDDEN), "classifier": (1, HIDDEN)}
    layers = {f"{at}.weight": random.normal(0, 0.3, shape).astype(np.float32) for at, shape in shapes.items()}
    biases = {f"{at}.bias": np.zeros(shape[0], np.float32) for at, shape in shapes.items()}
    encoder = {f"bert.{name}": array for name, array in weights(seed, positions)}
    write_safetensors(folder / "model.safetensors", {**encoder, **layers, **biases})
    return folder


def write_safetensors(path: Path, arrays: Mapping[str, NDArray[np.float32]], dtype: Stored = "F32") -> None:
    header, data = {}, bytearray()
    for name, array in arrays.items():
        raw = _stored(array, dtype)
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)


def weights(seed: int, positions: int = POSITIONS) -> list[tuple[str, NDArray[np.float32]]]:
    """Every tensor by name, as transformers names them."""
    random = np.random.default_rng(seed)

    def table(name: str, *shape: int) -> tuple[str, NDArray[np.float32]]:
        return name, random.normal(0, 0.3, shape).astype(np.float32)

    def linear(at: str, outputs: int, inputs: int) -> list[tuple[str, NDArray[np.float32]]]:
        return [table(f"{at}.weight", outputs, inputs), table(f"{at}.bias", outputs)]

    def norm(at: str) -> list[tuple[str, NDArray[np.float32]]]:
        name, spread = table(f"{at}.weight", HIDDEN)
        return [(name, 1 + spread), table(f"{at}.bias", HIDDEN)]

    tables = {"word": len(VOCABULARY), "position": positions, "token_type": 2}
    made = [table(f"embeddings.{name}_embeddings.weight", rows, HIDDEN) for name, rows in tables.items()]
    made += norm("embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        for name in ("query", "key", "value"):
            made += linear(f"{at}attention.self.{name}", HIDDEN, HIDDEN)
        made += linear(f"{at}attention.output.dense", HIDDEN, HIDDEN) + norm(f"{at}attention.output.LayerNorm")
        made += linear(f"{at}intermediate.dense", INNER, HIDDEN)
        made += linear(f"{at}output.dense", HIDDEN, INNER) + norm(f"{at}output.LayerNorm")
    return made


def _stored(array: NDArray[np.float32], dtype: Stored) -> bytes:
    match dtype:
        case "F32":
            return array.astype("<f4").tobytes()
        case "F16":
            return array.astype("<f2").tobytes()
        case "BF16":
            return (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


def _write_json(path: Path, what: object) -> None:
    path.write_text(json.dumps(what))


CONFIG: Final[dict[str, Any]] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "vocab_size": len(VOCABULARY),
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}


def _special(name: str, type_id: int = 0) -> dict[str, Any]:
    return {"SpecialToken": {"id": name, "type_id": type_id}}


TOKENIZER: Final[Mapping[str, Any]] = {
    "version": "1.0",
    "truncation": {"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
    "padding": None,
    "added_tokens": [
        {
            "id": index,
            "content": name,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for index, name in enumerate(SPECIAL)
    ],
    "normalizer": {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [_special("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, _special("[SEP]")],
        "pair": [
            *[_special("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, _special("[SEP]")],
            *[{"Sequence": {"id": "B", "type_id": 1}}, _special("[SEP]", 1)],
        ],
        "special_tokens": {
            name: {"id": name, "ids": [SPECIAL.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")
        },
    },
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {token: index for index, token in enumerate(VOCABULARY)},
    },
}
