"""The program of `errands.in_trouble`: runs command lines of the toolkit while the disk is full or somebody presses
Ctrl-C. Where that happens is found by counting what Python tells its audit hooks: files opened, sockets connected.
"""

import contextlib
import io
import json
import os
import resource
import signal
import sys
from dataclasses import dataclass

from sie_airgap.cli import VERBS, cli
from sie_airgap.cli.outcome import run


@dataclass
class _Presses:
    """Ctrl-C at the event of that number; 0: never."""

    at: int = 0
    seen: int = 0
    counts: bool = False

    def hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.counts or event not in ("open", "socket.connect"):
            return
        if event == "open" and str(arguments[0]).endswith((".py", ".pyc")):
            return
        self.seen += 1
        if self.seen == self.at:
            signal.raise_signal(signal.SIGINT)


_presses = _Presses()


def _ended(words: list[str]) -> dict[str, object]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(cli, words)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def _pressed(words: list[str]) -> dict[str, object]:
    _presses.seen, _presses.counts = 0, True
    try:
        return _ended(words)
    finally:
        _presses.counts = False


def main(trouble: str, at: int) -> None:
    _presses.at = at
    asked = json.load(sys.stdin)
    for verb in VERBS:  # what is imported is no event of a verb
        cli.get_command(None, verb)  # type: ignore[arg-type]
    sys.addaudithook(_presses.hook)
    if trouble == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    told = []
    for each in asked:
        os.chdir(each["here"])
        if trouble == "interrupted":
            told.append([_pressed(each["words"]), _ended(each["words"])])
        else:
            told.append([_ended(each["words"])])
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
