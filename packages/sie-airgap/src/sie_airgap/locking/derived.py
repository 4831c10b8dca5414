"""Files that a repository lacks and a worker needs, made from what it has: a `tokenizer.json` of a sentencepiece model.

Decides which and makes them; reading the repository and keeping what was made is `resolving`'s.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from sie_core.artifacts.sentencepiece import MODELS, kind_of, tokenizer_json

_TOKENIZER = "tokenizer.json"
_SENTENCEPIECE = frozenset((*MODELS, "spiece.model", "tokenizer.model"))


@dataclass(frozen=True)
class Derived:
    """`path`: where it belongs; `source`: what it was made from, both as in the repository."""

    path: str
    source: str
    data: bytes


@dataclass(frozen=True)
class NotDerived:
    """`source`: what would have to be converted, and `why` it is not."""

    source: str
    why: str


def derived_files(paths: Iterable[str], read: Callable[[str], bytes]) -> list[Derived | NotDerived]:
    """A `tokenizer.json` for every folder with a sentencepiece model and no tokenizer that a worker reads.

    Args:
        paths: of the repository's files that are carried.
        read: the bytes of one of them, verified; asked only for what a conversion needs.
    """
    have = {PurePosixPath(path) for path in paths}
    models = sorted(path for path in have if path.name in _SENTENCEPIECE)
    return [_derived(path, have, read) for path in models if _is_needed(path, have)]


def _is_needed(path: PurePosixPath, have: set[PurePosixPath]) -> bool:
    vocabularies = (_TOKENIZER, "vocab.txt", "vocab.json")
    return not any(path.with_name(name) in have for name in vocabularies)


def _derived(path: PurePosixPath, have: set[PurePosixPath], read: Callable[[str], bytes]) -> Derived | NotDerived:
    def beside(name: str) -> bytes | None:
        return read(str(path.with_name(name))) if path.with_name(name) in have else None

    settings = beside("tokenizer_config.json")
    try:
        kind = kind_of(path.name, settings, beside("config.json"))
        if kind is None:
            known = " and ".join(f"`{file}` of {kind}" for file, kind in MODELS.items())
            return NotDerived(str(path), f"supported are {known}")
        return Derived(str(path.with_name(_TOKENIZER)), str(path), tokenizer_json(read(str(path)), kind, settings))
    except ValueError as error:
        return NotDerived(str(path), str(error))
