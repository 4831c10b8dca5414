"""What is said while a far end is waited for."""

from collections.abc import Callable

import pytest

from sie_airgap.patience import ATTEMPTS, Patience, patiently
from sie_core.artifacts.errors import Unreachable

LONG = "https://bucket.example/weights/models--org--large/snapshots/x answered 503"
OTHER = "https://bucket.example/weights/other: connection reset"


def passing() -> Unreachable:
    error = Unreachable(LONG)
    assert error.transient
    return error


def failing(times: int) -> Callable[[], str]:
    """Fails so often, then answers."""
    errors = [passing() for _ in range(times)]

    def call() -> str:
        if errors:
            raise errors.pop()
        return "there"

    return call


def test_what_is_wrong_is_said_once_and_then_how_often() -> None:
    said: list[str] = []

    assert patiently(failing(3), say=said.append, wait=lambda seconds: None) == "there"
    assert said == [
        f"{LONG}; again in 1 s",
        f"still so; again in 2 s (2 of {ATTEMPTS})",
        f"still so; again in 4 s (3 of {ATTEMPTS})",
    ]


def test_it_is_said_anew_when_something_else_is_wrong_or_something_begins_anew() -> None:
    said: list[str] = []
    patience = Patience(say=said.append, wait=lambda seconds: None)

    for message, failures in ((LONG, 1), (OTHER, 2), (OTHER, 3), (LONG, 1)):
        patience(Unreachable(message), failures)
    assert said == [
        f"{LONG}; again in 1 s",
        f"{OTHER}; again in 2 s (2 of {ATTEMPTS})",
        f"still so; again in 4 s (3 of {ATTEMPTS})",
        f"{LONG}; again in 1 s",
    ]


def test_streams_that_wait_for_the_same_say_it_once() -> None:
    said: list[str] = []
    patience = Patience(say=said.append, wait=lambda seconds: None)

    for failures in (1, 1, 2, 2):
        patience(passing(), failures)
    assert len(said) == 2


def test_the_last_failure_is_the_error_and_is_whole() -> None:
    with pytest.raises(Unreachable, match="models--org--large"):
        patiently(failing(ATTEMPTS), say=lambda text: None, wait=lambda seconds: None)
