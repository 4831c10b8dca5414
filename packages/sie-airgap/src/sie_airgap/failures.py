"""Why a verb stops, beside the two roots of `sie_core.artifacts.errors`: each kind has its exit code.

Every error that an operator meets carries a message (what and where), and a hint (what to run next);
`cli.outcome` is the one place that prints them and ends the process.
"""

from collections.abc import Sequence

from sie_core.artifacts.errors import TransferError, TrustError


class Failure(Exception):
    """A verb stopped for a reason that it expects."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Misused(Failure):
    """The command cannot mean anything as it was given."""

    exit_code = 2


class Incomplete(Failure):
    """Something that the lock names is not here."""

    exit_code = 4


class Drift(Failure):
    """What is there is sound and belongs to another lock."""

    exit_code = 8


class Differs(Failure):
    """The golden answers are not what was recorded."""

    exit_code = 9


class EgressSeen(Failure):
    """Something tried to leave."""

    exit_code = 11


class Findings(Failure):
    """What was looked at is not as it should be; each finding was told."""

    exit_code = 12


class Partial(Failure):
    """Part of the work is done; the same command goes on from there."""

    exit_code = 10


Expected = Failure | TransferError | TrustError
_GRAVEST_FIRST = (3, 11, 8, 9, 7, 6, 4, 5, 12, 10)


class Several(Failure):
    """More than one thing is wrong; all of them are told and the gravest gives the exit code."""

    def __init__(self, errors: Sequence[Expected]) -> None:
        super().__init__(f"{len(errors)} things are wrong")
        self.errors = tuple(errors)
        codes = {error.exit_code for error in errors}
        self.exit_code = next((code for code in _GRAVEST_FIRST if code in codes), 1)


def raise_all(errors: Sequence[Expected]) -> None:
    """Nothing for none, the error itself for one, `Several` for more."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise Several(errors)
