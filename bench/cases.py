"""What is asked of a server: texts of three kinds, so many to a call, over so many connections. Pure."""

import random
from dataclasses import dataclass

from sie_core.wire.codec import Format, encode

_PROSE = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were all her she there would their we him been has when who will no more if out so up said what its about "
    "than into them can only other time new some could these two may first then do any like my now over such our man "
    "after well state people water city number part small music letter system early against history between country"
)
WORDS = _PROSE.split()

LONG_WORDS = 260
"""As tokens more than the 256 that all-MiniLM-L6-v2 reads, so a long text costs exactly that."""

LONG_TOKENS = 256


@dataclass(frozen=True)
class Case:
    """`short:32:8` is short texts, 32 to a call, over 8 connections."""

    kind: str
    batch: int
    connections: int

    @classmethod
    def parse(cls, text: str) -> "Case":
        """Raises `ValueError` for what is not KIND:BATCH:CONNECTIONS."""
        kind, batch, connections = text.split(":")
        if kind not in LENGTHS:
            raise ValueError(f"`{kind}` is no kind of text; there are {', '.join(LENGTHS)}")
        return cls(kind, int(batch), int(connections))

    def __str__(self) -> str:
        return f"{self.kind}:{self.batch}:{self.connections}"


def _short(chance: random.Random) -> int:
    return chance.randint(6, 12)


def _long(_: random.Random) -> int:
    return LONG_WORDS


def _mixed(chance: random.Random) -> int:
    """Natural lengths: most are a sentence or two, some a page; the mean is near 50."""
    return max(3, min(LONG_WORDS, round(chance.lognormvariate(3.4, 1.0))))


def _any(chance: random.Random) -> int:
    """Every length as likely as any other."""
    return chance.randint(1, LONG_WORDS)


LENGTHS = {"short": _short, "long": _long, "mixed": _mixed, "any": _any}


def texts(kind: str, count: int, *, seed: int = 1) -> list[str]:
    """The same texts for the same arguments, so that every server answers the same.

    Args:
        kind: of `LENGTHS`, or `exactly-N`: N tokens with the two special ones, a word being one token.
    """
    chance = random.Random(f"{kind} {seed}")  # noqa: S311 - nothing secret is drawn
    if kind.startswith("exactly-"):
        words = int(kind.removeprefix("exactly-")) - 2
        return [" ".join(chance.choices(WORDS, k=words)) for _ in range(count)]
    return [" ".join(chance.choices(WORDS, k=LENGTHS[kind](chance))) for _ in range(count)]


def bodies(case: Case, *, calls: int = 64) -> list[bytes]:
    """Requests to be sent round and round, as MessagePack."""
    drawn = texts(case.kind, calls * case.batch)
    groups = [drawn[start : start + case.batch] for start in range(0, len(drawn), case.batch)]
    return [encode({"items": [{"text": text} for text in group]}, Format.MSGPACK) for group in groups]


DEFAULT_CASES = tuple(
    Case.parse(text) for text in ("short:1:1", "short:1:32", "short:32:8", "long:1:8", "mixed:1:32", "mixed:32:4")
)
