"""Texts to token ids, as sentence-transformers makes them, from `tokenizer.json` alone.

Follows transformers 5.23 `tokenization_utils_tokenizers.py` and sentence-transformers 6.2
`base/modules/transformer.py`: truncated on the right to the model's length, special tokens kept, no padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, normalizers

from sie_server.models.calls import LoadError

FILE: Final = "tokenizer.json"
SETTINGS: Final = "tokenizer_config.json"


@dataclass(frozen=True)
class Tokenized:
    """`ids`: (tokens,) int32, special tokens included; `truncated`: the text was longer."""

    ids: NDArray[np.int32]
    truncated: bool


class TextTokenizer:
    """One model's tokenizer; any number of threads may call it at once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @property
    def vocabulary(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def __call__(self, texts: Sequence[str]) -> list[Tokenized]:
        """Each text's tokens, in order; an empty text has its special tokens only."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        return [Tokenized(np.array(encoding.ids, np.int32), bool(encoding.overflowing)) for encoding in encodings]


def load_tokenizer(folder: Path, *, max_tokens: int, lower_case: bool) -> TextTokenizer:
    """The tokenizer of the snapshot in `folder`.

    Args:
        max_tokens: longest item, special tokens included.
        lower_case: texts are lower-cased first, whatever the tokenizer itself does.

    Raises:
        LoadError: there is none, or it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        raise LoadError(f"no `{FILE}` in `{folder}`", hint="the tokenizers library writes it: `save_pretrained`")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for whatever it cannot read
        raise LoadError(f"`{path}` cannot be read: {error}") from error
    _apply_settings(tokenizer, folder / SETTINGS)
    if lower_case:
        present = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *present])
    # The file's own settings are those of whoever saved it.
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return TextTokenizer(tokenizer)


class _Settings(msgspec.Struct, frozen=True):
    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = None


def _apply_settings(tokenizer: Any, path: Path) -> None:
    """BERT's normaliser as `tokenizer_config.json` has it: transformers lets that file win over `tokenizer.json`."""
    normalizer = tokenizer.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer) or not path.is_file():
        return
    try:
        settings = msgspec.json.decode(path.read_bytes(), type=_Settings)
    except msgspec.MsgspecError as error:
        raise LoadError(f"`{path}` cannot be read: {error}") from error
    if settings.do_lower_case is not None:
        normalizer.lowercase = settings.do_lower_case
    if settings.strip_accents is not None:
        normalizer.strip_accents = settings.strip_accents
    if settings.tokenize_chinese_chars is not None:
        normalizer.handle_chinese_chars = settings.tokenize_chinese_chars
