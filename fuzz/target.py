"""What is fuzzed: bytes of one format, what reads them, and what may come of it.

A check ends in one of two ways. It returns whether the bytes were taken, after holding what was read against what it
must be; or it raises, and that is a finding. Refusals are caught by `refused`, by their class and by their message.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """One format.

    Attributes:
        name: as `make fuzz ARGS='--only NAME'` has it.
        seeds: sound bytes, made by our own code: each is taken.
        check: reads bytes; True where they were taken, False where they were refused as they should be.
        load: bytes to a tree that is altered as one; None: bytes are altered as bytes alone.
        dump: such a tree back to bytes, in the form that the format has.
        most_bytes: no longer ones are tried.
    """

    name: str
    seeds: Callable[[], Iterable[bytes]]
    check: Callable[[bytes], bool]
    load: Callable[[bytes], Any] | None = None
    dump: Callable[[str], bytes] | None = None
    most_bytes: int = 1 << 14


class Refused(Exception):
    """The bytes were refused by name: what a check ends with instead of a finding."""


@contextmanager
def refusing(*kinds: type[Exception]) -> Iterator[None]:
    """Errors of exactly these classes, or of those made from them, with something to say, become `Refused`.

    `ValueError` means itself: a `UnicodeDecodeError` is one that nobody thought of.
    """
    try:
        yield
    except kinds as error:
        if type(error).__module__ == "builtins" and type(error) not in kinds:
            raise
        if not str(error).strip():
            raise AssertionError(f"{type(error).__name__} says nothing") from error
        raise Refused(str(error)) from error


def checked(read: Callable[[bytes], None], *kinds: type[Exception]) -> Callable[[bytes], bool]:
    """A check out of a function that reads, and the classes of its refusals."""

    def check(data: bytes) -> bool:
        try:
            with refusing(*kinds):
                read(data)
        except Refused:
            return False
        return True

    return check


def same(have: bytes, want: bytes) -> None:
    """Raises `AssertionError` where a canonical format was read from other bytes than it is written in."""
    if have != want:
        at = next((i for i, (a, b) in enumerate(zip(have, want, strict=False)) if a != b), min(len(have), len(want)))
        raise AssertionError(
            f"read from {len(have):,} bytes and written as {len(want):,}, other from byte {at:,}: "
            f"{have[at : at + 20]!r} and {want[at : at + 20]!r}"
        )


def compact(text: str) -> bytes:
    """Canonical JSON as `canonical_json` writes it."""
    return _utf8(text) + b"\n"


def bare(text: str) -> bytes:
    return _utf8(text)


def indented(text: str) -> bytes:
    """JSON as locks and `trust.json` are laid out: two spaces a level."""
    try:
        return _utf8(json.dumps(json.loads(text), indent=2, ensure_ascii=False)) + b"\n"
    except (ValueError, RecursionError):
        return compact(text)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
