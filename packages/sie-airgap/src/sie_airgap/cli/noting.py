"""How a verb writes down what it found, for `status`."""

import time
from collections.abc import Mapping, Sequence

from sie_airgap import __version__
from sie_airgap.cli.console import Console
from sie_airgap.failures import Expected, Several
from sie_airgap.settings import state_folder
from sie_airgap.verifying.checks import LEVELS, Check, Kind
from sie_airgap.verifying.records import Records
from sie_airgap.verifying.stamps import Stamp
from sie_core.artifacts.digest import Digest


def checked(
    kind: Kind,
    lock: Digest,
    *,
    place: str,
    findings: Sequence[Expected],
    said: str,
    again: Sequence[str] = (),
    files: Mapping[str, Stamp] | None = None,
    texts: Mapping[str, Digest] | None = None,
    at_s: int | None = None,
    began_s: int | None = None,
) -> Check:
    """A check that ends now. `said`: what holds where nothing was found."""
    now_s = int(time.time()) if at_s is None else at_s
    return Check(
        level=LEVELS[kind],
        kind=kind,
        lock=lock,
        place=place,
        at_s=now_s,
        since_s=now_s,
        exit_code=Several(findings).exit_code if findings else 0,
        said=first_of(findings) if findings else said,
        by=__version__,
        files=files or {},
        texts=texts or {},
        again=tuple(again),
        began_s=began_s,
    )


def first_of(findings: Sequence[Expected]) -> str:
    """The first finding in one line, and how many there are besides."""
    first = findings[0].message.partition("\n")[0]
    return first if len(findings) == 1 else f"{first}, and {len(findings) - 1} more"


def note(check: Check, console: Console) -> Check:
    """Keep a check; where that is impossible it is said, and nothing else changes."""
    return Records(state_folder()).keep(check, console.note)


def given(options: Mapping[str, object]) -> list[str]:
    """Options as words, without those that were left out."""
    return [word for key, value in options.items() if value is not None for word in (key, str(value))]
