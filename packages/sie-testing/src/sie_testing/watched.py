"""A tokenizer of the library, real, that says how much it was handed at once."""

from collections.abc import Sequence
from typing import Any


class WatchedTokenizer:
    """All but the two ways to encode many texts is the library's own; `most`: characters handed over in one call.

    Args:
        inner: a `tokenizers.Tokenizer`.
    """

    def __init__(self, inner: Any) -> None:
        self.most = 0
        self._inner = inner

    def encode_batch(self, texts: Sequence[Any], **how: Any) -> Any:
        return self._inner.encode_batch(self._seen(texts), **how)

    def encode_batch_fast(self, texts: Sequence[Any], **how: Any) -> Any:
        return self._inner.encode_batch_fast(self._seen(texts), **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _seen(self, texts: Sequence[Any]) -> Sequence[Any]:
        """Texts, or words of texts."""
        sizes = (len(text) if isinstance(text, str) else sum(map(len, text)) for text in texts)
        self.most = max(self.most, sum(sizes))
        return texts
