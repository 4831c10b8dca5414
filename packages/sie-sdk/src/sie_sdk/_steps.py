"""What a flow asks of its driver, and what it hears back.

A flow is a generator. It yields `Send` or `Sleep`; the driver does it and sends back a `Reply`, a `Lost`
or a `Woken`, each with the driver's clock reading, so that flows know the time without asking for it.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True)
class Send:
    """One HTTP request.

    Attributes:
        path: percent-encoded, from `/`.
        timeout_s: the longest silence to bear while connecting, sending or receiving.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None
    timeout_s: float


@dataclass(frozen=True)
class Sleep:
    delay_s: float


@dataclass(frozen=True)
class Reply:
    """An answer, whatever its status. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    now_s: float


@dataclass(frozen=True)
class Lost:
    """No answer, or not all of one.

    Attributes:
        cause: what the transport raised.
        passes: false for what the same call would meet again: a certificate not trusted, a name nobody has.
    """

    cause: Exception
    passes: bool
    now_s: float


@dataclass(frozen=True)
class Woken:
    now_s: float


T = TypeVar("T")

Flow = Generator[Send | Sleep, Reply | Lost | Woken, T]
"""Yields what is to be done, receives what came of it, returns the call's result or raises an `SIEError`."""
