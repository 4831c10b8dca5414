"""The two roots wherever bytes move: it did not come, or what came is not what was locked.

Neither is caught to continue. Each error carries the exit code of the command that meets it.
"""


class TransferError(Exception):
    """It did not come.

    `transient` says whether the same attempt may succeed later untouched; `retry_after_s` when, where the far
    end said so.
    """

    exit_code = 5
    transient = True
    retry_after_s: float | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Unreachable(TransferError):
    """Nobody answered: refused, reset, timed out, or a 5xx."""


class Replaced(Unreachable):
    """The far end began to call the file by another ETag while it came: what has come may not fit the rest."""


class RangesIgnored(TransferError):
    """The far end answers a request for a part with the whole file."""

    transient = False


class NotThere(TransferError):
    """The far end answered that it has no such thing."""

    exit_code = 4
    transient = False


class NoPermission(TransferError):
    """The far end answered that we may not (401, 403)."""

    exit_code = 6
    transient = False


class NoSpace(TransferError):
    """It does not fit here."""

    exit_code = 7
    transient = False


class TrustError(Exception):
    """What came is not what was locked.

    The message has the four parts of every integrity error: what, where, both values (`want`, `have`).
    """

    exit_code = 3

    def __init__(self, message: str, *, where: str, want: str, have: str, hint: str | None = None) -> None:
        super().__init__(f"{message}\n  at    {where}\n  want  {want}\n  have  {have}")
        self.message = message
        self.where = where
        self.want = want
        self.have = have
        self.hint = hint
