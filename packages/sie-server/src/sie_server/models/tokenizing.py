"""Texts to token ids, as transformers and sentence-transformers make them: one, two, or words one by one.

Follows transformers 5.23 `tokenization_utils_tokenizers.py`, sentence-transformers 6.2
`base/modules/transformer.py` (truncated to the model's length, special tokens kept, no padding), and for pairs
`longest_first` of tokenizers 0.23 `utils/truncation.rs`. Where the tokenizer comes from: `tokenizer_files`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, normalizers

from sie_server.models.calls import LoadError
from sie_server.models.cutting import AT_ONCE, beginnings, slices
from sie_server.models.tokenizer_files import read_tokenizer
from sie_server.models.tokenizer_settings import FILE, SETTINGS, Role, Settings, Side, Token

__all__ = ["FILE", "SETTINGS", "Located", "TextTokenizer", "Tokenized", "Truncate", "load_tokenizer"]

Truncate = Literal["longest_first", "only_first", "only_second"]
"""Which text of a pair that is too long loses tokens: the longer one, then both; or one of them alone."""

NO_WORD: Final = -1
"""The word of a special token."""

_COMPARED: Final = 16
"""Of a pair that is cut to an odd number of tokens the longer text keeps one more. Which is longer is looked for up to
so many times what the model takes; of two that are both longer still, it is the one whose beginning has more."""

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Tokenized:
    """One item.

    Attributes:
        ids: (tokens,) int32, special tokens included.
        truncated: the text was longer.
        types: (tokens,) int32 token types; None where all are 0, or the tokenizer's class has none for its network.
    """

    ids: Ids
    truncated: bool
    types: Ids | None = None


@dataclass(frozen=True)
class Located:
    """One item and where its tokens stand.

    Attributes:
        ids: (tokens,) int32, special tokens included.
        truncated: the text, or the words, were longer.
        words: (tokens,) int32, which word; -1 for special tokens.
        spans: (tokens, 2) int32, first character and the one after the last, of the text, or of the token's
            word where words were given; characters as Python counts them. Special tokens have 0 and 0.
    """

    ids: Ids
    truncated: bool
    words: Ids
    spans: Ids


@dataclass(frozen=True)
class _Pattern:
    """What stands around the two texts of a pair: its pieces in order.

    Attributes:
        pieces: the text (0 or 1) whose tokens stand here, or a special token's id, as (is text, which).
        types: the token type of each piece.
    """

    pieces: tuple[tuple[bool, int], ...]
    types: tuple[int, ...]

    @property
    def special(self) -> int:
        return sum(not is_text for is_text, _ in self.pieces)


class TextTokenizer:
    """One model's tokenizer; any number of threads may call it at once.

    Args:
        tokenizer: of the library; its truncation is set here.
        settings: of `tokenizer_config.json`.
        max_tokens: longest item, special tokens included.
        side: where a text that is too long is cut.
    """

    def __init__(self, tokenizer: Any, settings: Settings, *, max_tokens: int, side: Side) -> None:
        self._whole = _twin(tokenizer)
        self._pattern = _pair_pattern(self._whole)
        tokenizer.enable_truncation(max_tokens, direction=side)
        self._cut = tokenizer
        self._settings, self._max_tokens, self._side = settings, max_tokens, side

    @property
    def vocabulary(self) -> int:
        return int(self._cut.get_vocab_size())

    def __call__(self, texts: Sequence[str]) -> list[Tokenized]:
        """Each text's tokens, in order; an empty text has its special tokens only."""
        return [
            Tokenized(np.array(encoding.ids, np.int32), bool(encoding.overflowing))
            for some in _slices(self._begun(texts))
            for encoding in self._cut.encode_batch_fast(some)
        ]

    def pairs(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        truncate: Truncate = "longest_first",
        max_tokens: int | None = None,
    ) -> list[Tokenized]:
        """Each pair's tokens, in order; a text that stands in many pairs is tokenised once.

        Put together here: the library makes every combination of what it cuts off, which two long texts turn
        into millions.

        Args:
            max_tokens: of a pair, special tokens included, where that is less than the model takes.

        Raises:
            LoadError: the tokenizer does not put two texts one after another.
        """
        if self._pattern is None:
            raise LoadError("the tokenizer does not put two texts one after another: it is not one for pairs")
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        whole = self._side == "left"
        found = self.plain(texts) if whole else self.begun(texts, most=_COMPARED * self._max_tokens)
        ids = dict(zip(texts, found, strict=True))
        most = self._max_tokens if max_tokens is None else min(max_tokens, self._max_tokens)
        room = max(most - self._pattern.special, 0)
        return [self._pair(self._pattern, ids[first], ids[second], room, truncate) for first, second in pairs]

    def plain(self, texts: Sequence[str]) -> list[Ids]:
        """Each text's tokens without special tokens, however many there are: for prompts put together of parts."""
        return [
            np.array(encoding.ids, np.int32)
            for some in _slices(texts)
            for encoding in self._whole.encode_batch_fast(some, add_special_tokens=False)
        ]

    def begun(self, texts: Sequence[str], *, most: int) -> list[Ids]:
        """The beginnings of what `plain` gives: all of it, or more than `most` tokens."""
        return self.plain(beginnings(texts, self.counts, max_tokens=most))

    def counts(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, without special tokens."""
        return [
            len(encoding)
            for some in _slices(texts)
            for encoding in self._whole.encode_batch_fast(some, add_special_tokens=False)
        ]

    def prompt_tokens(self, prompt: str) -> int:
        """How many of an item's first tokens sentence-transformers takes for the prompt's: as many as the prompt alone
        has, special tokens included, but for one at its end."""
        encoding = self._cut.encode(prompt)
        if not encoding.ids:
            return 0
        ends = encoding.special_tokens_mask[-1] == 1 or encoding.tokens[-1] in self._settings.special
        return len(encoding.ids) - ends

    def located(self, texts: Sequence[str]) -> list[Located]:
        """Each text's tokens and where they stand in it."""
        begun = self._begun(texts)
        return [_located(encoding) for some in _slices(begun) for encoding in self._cut.encode_batch(some)]

    def words(self, items: Sequence[Sequence[str]]) -> list[Located]:
        """Tokens of items that are split into words already, each word on its own."""
        begun = [self._begun(words) for words in items]
        return [
            _located(encoding)
            for some in slices(begun, characters=AT_ONCE, size=lambda words: sum(map(len, words)))
            for encoding in self._cut.encode_batch(some, is_pretokenized=True)
        ]

    def token_id(self, token: str) -> int:
        """The id of the token that is written so in the vocabulary.

        Raises:
            LoadError: it is not in the vocabulary.
        """
        found = self.find(token)
        if found is None:
            raise LoadError(
                f"`{token}` is not among the {self.vocabulary:,} tokens of the vocabulary",
                hint=f"`{FILE}` and what asks for the token are of two different models",
            )
        return found

    def find(self, token: str) -> int | None:
        """The id of the token that is written so in the vocabulary; None where it has none."""
        found = self._cut.token_to_id(token)
        return None if found is None else int(found)

    def special_id(self, role: Role) -> int | None:
        """The id of the special token for that, as `tokenizer_config.json` names it; None where it names none."""
        named = self._settings.token(role)
        found = None if named is None else self._cut.token_to_id(named.content)
        return None if found is None else int(found)

    def _begun(self, texts: Sequence[str]) -> list[str]:
        """As much of each as can matter."""
        if self._side == "left":
            return list(texts)
        return beginnings(texts, self.counts, max_tokens=self._max_tokens)

    def _pair(self, pattern: _Pattern, first: Ids, second: Ids, room: int, truncate: Truncate) -> Tokenized:
        lengths = _kept(len(first), len(second), room, truncate)
        kept = [_cut(ids, length, self._side) for ids, length in zip((first, second), lengths, strict=True)]
        pieces = [kept[which] if is_text else np.array([which], np.int32) for is_text, which in pattern.pieces]
        types = np.repeat(np.array(pattern.types, np.int32), [len(piece) for piece in pieces])
        return Tokenized(
            ids=np.concatenate(pieces, dtype=np.int32),
            truncated=lengths != (len(first), len(second)),
            types=types if self._settings.types and types.any() else None,
        )


def load_tokenizer(folder: Path, *, max_tokens: int, lower_case: bool, own: Sequence[str] = ()) -> TextTokenizer:
    """The tokenizer of the snapshot in `folder`.

    Args:
        max_tokens: longest item, special tokens included.
        lower_case: texts are lower-cased first, whatever the tokenizer itself does.
        own: special tokens that the model has beside the tokenizer's; those that are not there follow its last id.

    Raises:
        LoadError: there is none, or it cannot be read.
    """
    tokenizer, settings = read_tokenizer(folder)
    tokenizer.add_special_tokens([Token(one).added for one in own])
    if lower_case:
        present = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *present])
    # The file's own settings are those of whoever saved it, but for the side.
    saved = tokenizer.truncation or {}
    side = settings.truncation_side or saved.get("direction", "right")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return TextTokenizer(tokenizer, settings, max_tokens=max_tokens, side=side)


def _twin(tokenizer: Any) -> Any:
    """A tokenizer that shares everything large with this one, and can be truncated on its own."""
    twin = Tokenizer(tokenizer.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if (value := getattr(tokenizer, part)) is not None:
            setattr(twin, part, value)
    added = dict(sorted(tokenizer.get_added_tokens_decoder().items()))
    for token in added.values():
        (twin.add_special_tokens if token.special else twin.add_tokens)([token])
    if any(twin.token_to_id(token.content) != id_ for id_, token in added.items()):
        # Ids with gaps: the file itself says which, and only a file can.
        return Tokenizer.from_str(tokenizer.to_str())
    return twin


def _slices(texts: Sequence[str]) -> Iterator[list[str]]:
    return slices(texts, characters=AT_ONCE, size=len)


def _pair_pattern(tokenizer: Any) -> _Pattern | None:
    """Learned from one pair of texts that the tokenizer puts together itself."""
    made = tokenizer.encode("a", "a")
    pieces: list[tuple[bool, int]] = []
    types: list[int] = []
    for id_, type_, which in zip(made.ids, made.type_ids, made.sequence_ids, strict=True):
        piece = (False, id_) if which is None else (True, which)
        if which is None or not pieces or pieces[-1] != piece:
            pieces.append(piece)
            types.append(type_)
    texts = [which for is_text, which in pieces if is_text]
    return _Pattern(tuple(pieces), tuple(types)) if texts == [0, 1] else None


def _kept(first: int, second: int, room: int, truncate: Truncate) -> tuple[int, int]:
    """How many tokens of each text stay."""
    if first + second <= room:
        return first, second
    if truncate == "only_first":
        return max(room - second, 0), min(second, room)
    if truncate == "only_second":
        return min(first, room), max(room - first, 0)
    shorter, longer = min(first, second), max(first, second)
    longer = shorter if shorter > room else max(shorter, room - shorter)
    if shorter + longer > room:
        shorter = room // 2
        longer = room - shorter
    return (shorter, longer) if first <= second else (longer, shorter)


def _cut(ids: Ids, length: int, side: Side) -> Ids:
    return ids[:length] if side == "right" else ids[len(ids) - length :]


def _located(encoding: Any) -> Located:
    words = [NO_WORD if word is None else word for word in encoding.word_ids]
    return Located(
        ids=np.array(encoding.ids, np.int32),
        truncated=bool(encoding.overflowing),
        words=np.array(words, np.int32),
        spans=np.array(encoding.offsets, np.int32).reshape(-1, 2),
    )
