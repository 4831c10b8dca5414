"""Whoever follows a page: runs its commands as they stand, on this machine."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sie_testing import parts

BIN = Path(sys.executable).parent
PROGRAMS = {
    "aws": f'exec env PYTHONPATH="$AWSCLI" {sys.executable} -m awscli --cli-read-timeout 10 "$@"',
    "gcloud": 'echo "gcloud $*"',
    "kubectl": 'exec "$KUBECTL" "$@" --dry-run=client -o yaml',
}
"""Where it is not the program itself that runs."""


@dataclass
class Ran:
    """How the commands of a page, or of a part of it, ended, and all that they printed."""

    code: int
    said: str


@dataclass
class Operator:
    """Whoever follows a page: a folder, the page's names swapped for those of this test, programs of the test's own."""

    folder: Path
    swaps: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    programs: Mapping[str, str] = field(default_factory=dict)
    within: tuple[str, ...] = ()

    def read(self, page, *, answers: str = "") -> Ran:
        """Runs a page's commands, one after the other, in one shell."""
        return self.run("\n".join(block.text for block in page.blocks if block.language == "bash"), answers=answers)

    def run(self, text: str, *, answers: str = "") -> Ran:
        for name, swapped in self.swaps.items():
            text = text.replace(name, swapped)
        done = subprocess.run(
            [*self.within, "bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            env=self._environment(),
            input=answers,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=110,
        )
        return Ran(done.returncode, done.stdout)

    def _environment(self) -> dict[str, str]:
        own = self.folder / ".programs"
        own.mkdir(exist_ok=True)
        for name, text in {**PROGRAMS, **self.programs}.items():
            (own / name).write_text(f"#!/bin/sh\n{text}\n")
            (own / name).chmod(0o755)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "GOOGLE_", "SIE_"))}
        return {
            **kept,
            "PATH": f"{own}:{BIN}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "XDG_STATE_HOME": str(self.folder / ".state"),
            "AWSCLI": os.pathsep.join(str(parts.fetch(name)) for name in parts.AWSCLI),
            "KUBECTL": str(parts.kubectl()),
            **self.env,
        }
