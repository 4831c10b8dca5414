"""How much memory a model will hold, before any of it is taken: from headers, sizes of files and `config.json`.

Pure: `build` reads what this needs. Meant to be too much rather than too little, by less than twice: what a load took
replaces it afterwards.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SMALL_BYTES: Final = 100 * 2**20
"""Weights up to which OpenVINO's streams do more side by side, and a second copy is worth its memory: all-MiniLM-L6-v2
has 43 MB, a BERT-base 340."""

GRAPH_BYTES: Final = 20 * 2**20
"""Of a graph beside its weights, its kernels and its buffers: measured 19 MB of all-MiniLM-L6-v2's."""

_MORE_PACKED: Final = 20
"""Packed weights have a twentieth more: measured 3 to 5 % of a BERT-base and of a large DeBERTa with its distances."""

_TOKENIZER: Final = re.compile(rb'"type"\s*:\s*"(Unigram|BPE|WordPiece|WordLevel)"')
_HELD: Final[Mapping[bytes, int]] = {b"Unigram": 80, b"BPE": 8, b"WordPiece": 20, b"WordLevel": 20}
"""Bytes in memory for each of a `tokenizer.json` but blanks. Measured with tokenizers 0.23: Unigram 54 to 62 (a tree of
its pieces' bytes), and of XLM-RoBERTa's 250,002 pieces 640 MB in all, BPE 4, WordPiece 13 to 16."""

_VOCABULARY_HELD: Final = 40
"""For each byte of a vocabulary without `tokenizer.json`: measured 33 of a `vocab.txt`."""


@dataclass(frozen=True)
class WeightsBytes:
    """What a checkpoint will take, from its headers alone.

    Attributes:
        computed: of the matrices, in the precision they are multiplied in, and of all else but tables; held
            while the model is.
        mapped: of the tables that tokens and positions are looked up in, in the files: the kernel's to take back.
        copied: of tensors that cannot be used where they lie, unaligned or strided: held beside the others.
        converted: of matrices in float32 that are stored as something else and not multiplied as it: OpenVINO converts
            them when it compiles, and keeps that beside what it packs (measured 360 MB where it was 194 of float32).
    """

    computed: int
    mapped: int
    copied: int = 0
    converted: int = 0


def openvino_bytes(weights: WeightsBytes, *, made: int, streams: int, networks: int = 1) -> int:
    """What graphs of a checkpoint hold beside the mapped files.

    Args:
        made: of what is computed once of a config, such as DeBERTa's distances.
        streams: of each graph; a small one is there twice where there are several.
        networks: how many graphs the weights are of; each may be small where together they are not.
    """
    once = weights.computed + made
    is_twice = streams > 1 and once <= networks * SMALL_BYTES
    held = once + once // _MORE_PACKED + networks * GRAPH_BYTES
    return (held + weights.converted) * (2 if is_twice else 1) + weights.copied


def torch_bytes(weights: WeightsBytes, *, made: int) -> int:
    """Likewise of a model on a device, which has the tables as well."""
    return weights.computed + weights.mapped + weights.copied + made


def working_bytes(lengths: Sequence[int], *, pair_bytes: int) -> int:
    """What a pass over items of so many tokens takes for a time, as far as that grows with the square of a length."""
    return len(lengths) * max(lengths, default=0) ** 2 * pair_bytes


def tokenizer_bytes(tokenizer_json: bytes | None, vocabulary_bytes: int = 0) -> int:
    """What a tokenizer holds.

    Args:
        tokenizer_json: the file; None where there is none.
        vocabulary_bytes: of the files that it is built of then.
    """
    if tokenizer_json is None:
        return _VOCABULARY_HELD * vocabulary_bytes
    found = _TOKENIZER.search(tokenizer_json)
    # Saved with indents a file is twice as large, and says no more.
    dense = len(tokenizer_json) - sum(tokenizer_json.count(blank) for blank in (b" ", b"\n"))
    return dense * (max(_HELD.values()) if found is None else _HELD[found[1]])
