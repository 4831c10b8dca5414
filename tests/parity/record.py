"""Writes `recorded.json`: what sentence-transformers makes of some texts, for tests that run without it.

    .venv-parity/bin/python tests/parity/record.py

Run it when the model or the texts change; the vectors of another version of the reference differ by rounding only,
which `make parity` compares live.
"""

import base64
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
from sentence_transformers import SentenceTransformer

from sie_testing.parts import minilm_folder

RECORDED: Final = Path(__file__).parent / "recorded.json"
REFERENCES: Final = ("sentence-transformers", "transformers", "tokenizers", "torch", "numpy")
TEXTS: Final = (
    "What is the refund window for enterprise customers?",
    "a",
    "",
    " leading, trailing \t\n",
    "Ünïcödé ÀÉÎ naïve coöperation",
    "😀 👩‍👩‍👧 🏳️‍🌈",
    "日本語のテキストと中文字符",
    "مرحبا بالعالم שלום עולם",
    "[CLS] not a special token [SEP] [MASK]",
    "supercalifragilisticexpialidocious" * 4,
    "The quick brown fox jumps over the lazy dog. " * 40,
)


def main() -> None:
    model = SentenceTransformer(str(minilm_folder()), device="cpu")
    vectors = np.concatenate([model.encode([text], normalize_embeddings=False) for text in TEXTS])
    recorded = {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "made_by": {"python": platform.python_version(), **{name: version(name) for name in REFERENCES}},
        "dtype": "<f4",
        "items": [
            {"text": text, "vector": base64.b64encode(vector.astype("<f4").tobytes()).decode()}
            for text, vector in zip(TEXTS, vectors, strict=True)
        ],
    }
    RECORDED.write_text(json.dumps(recorded, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
