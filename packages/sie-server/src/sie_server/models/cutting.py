"""Long texts from their beginning: only as much of a text is tokenised as can matter.

A model keeps a text's first tokens and drops the rest, but no number of characters makes sure of a number of tokens:
a word of a megabyte may be one unknown token, and a run of spaces none. So a window of the text is tokenised, and
a larger one where it turns out to have had too few tokens. A window ends before a space, where every tokenizer that
is served begins anew, so that the tokens before its end are those of the whole text.

Where there is no space in the last half of a window it is cut inside a word, and has to have `MARGIN` tokens more than
the model takes: what a cut changes, it changes near itself. That is so for every tokenizer by words and characters
(WordPiece, byte-level BPE, sentencepiece BPE). For sentencepiece unigram it is so in practice; a text can be
constructed whose best segmentation is decided hundreds of tokens later.

Pure: the tokenizer is a function that is passed in.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

S = TypeVar("S")

CHARACTERS_PER_TOKEN: Final = 8
"""The first window's, and what the tokens of nearly every text have less of: English about four and a half."""

AT_ONCE: Final = 1_000_000
"""Characters that are handed to the library at once: for each it holds about 120 bytes until it has tokenised them
all, and a body of 64 MB would take 7 GB."""

MARGIN: Final = 64
"""How many tokens a window has to have beyond those that are kept, where it was cut inside a word."""

_SHORTEST: Final = 1024


def beginnings(texts: Sequence[str], count: Callable[[list[str]], Sequence[int]], *, max_tokens: int) -> list[str]:
    """Of each text a beginning whose first `max_tokens` tokens are the text's, and that has more wherever it has more.

    Args:
        count: how many tokens each of some texts has; called for long texts only.
        max_tokens: most that the model takes, special tokens included.
    """
    windows = [_first_window(text, max_tokens) for text in texts]
    unsure = [index for index, text in enumerate(texts) if windows[index] < len(text)]
    while unsure:
        counts = count([texts[index][: windows[index]] for index in unsure])
        unsure = [
            index
            for index, found in zip(unsure, counts, strict=True)
            if found < _enough(texts[index], windows[index], max_tokens)
        ]
        for index in unsure:
            windows[index] = _ended(texts[index], 2 * windows[index])
        unsure = [index for index in unsure if windows[index] < len(texts[index])]
    return [text[:end] for text, end in zip(texts, windows, strict=True)]


def parts(text: str, *, characters: int) -> Iterator[str]:
    """The whole text in parts of at most so many characters, whose tokens one after another are the text's.

    Each ends before a space, as windows do; where a part has none in its last half, inside a word.
    """
    start = 0
    while len(text) - start > characters:
        end = start + _ended(text[start : start + characters + 1], characters)
        yield text[start:end]
        start = end
    yield text[start:]


def slices(items: Sequence[S], *, characters: int, size: Callable[[S], int]) -> Iterator[list[S]]:
    """The items in order, as many at a time as have so many characters together, and one at least."""
    some: list[S] = []
    together = 0
    for one in items:
        if some and together + size(one) > characters:
            yield some
            some, together = [], 0
        some.append(one)
        together += size(one)
    if some:
        yield some


def _first_window(text: str, max_tokens: int) -> int:
    return _ended(text, max(_SHORTEST, CHARACTERS_PER_TOKEN * max_tokens))


def _ended(text: str, characters: int) -> int:
    """Where a window of about so many characters ends: before a space in its last half, if there is one."""
    if characters >= len(text):
        return len(text)
    space = text.rfind(" ", characters // 2, characters + 1)
    while space > characters // 2 and text[space - 1] == " ":
        space -= 1
    return space if space > characters // 2 else characters


def _enough(text: str, end: int, max_tokens: int) -> int:
    return max_tokens + 1 if text[end] == " " else max_tokens + 1 + MARGIN
