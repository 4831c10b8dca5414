"""What both sides of the demo share: a line a step, servers as processes, and where things lie."""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
COMMIT = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
"""The commit that the model's spec pins; the hub serves the wheel's files as it."""

BIN = Path(sys.prefix) / "bin"
_READY_S = 60.0
_WHAT_COLUMNS = 92
_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")


class DemoFailed(Exception):
    """A step did not do what it should; the message has what it printed, the exit code is the command's own."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Folder:
    """The work folder."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "connected" / "airgap.lock"

    @property
    def archive(self) -> Path:
        return self.root / "media"

    @property
    def transcript(self) -> Path:
        return self.root / "transcript.txt"

    @property
    def socket(self) -> Path:
        return self.root / "gateway.sock"


class Screen:
    """One line a step, with its seconds; all that the commands printed goes to the transcript.

    What they remember lies in the work folder, and not in the home of whoever runs this.
    """

    def __init__(self, folder: Folder) -> None:
        self._transcript = folder.transcript
        self._env = {"XDG_STATE_HOME": str(folder.root / "state")}
        self._shows = sys.stdout.isatty()

    def title(self, text: str) -> None:
        print(f"\n{self._bold(text)}", flush=True)

    def line(self, name: str, what: str, seconds: float | None = None) -> None:
        spent = "" if seconds is None else f"{seconds:6.1f} s"
        first, *rest = textwrap.wrap(_DIGEST.sub(r"\1…", what), _WHAT_COLUMNS, break_on_hyphens=False) or [""]
        print(f"  {name:<15} {first:<{_WHAT_COLUMNS}} {spent}".rstrip())
        for more in rest:
            print(f"  {'':<15} {more}")
        sys.stdout.flush()

    def step(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path,
        relayed: bool = False,
        what: str | None = None,
    ) -> str:
        """Run a command to its end and show its last line of output, or `what` for one that prints nothing.

        Args:
            relayed: its events (`--output json`) are steps of their own: each is shown as it comes.

        Returns:
            Its standard output.

        Raises:
            DemoFailed: it ended with another code than 0.
        """
        began_s = time.monotonic()
        # Into a file: a pipe that nobody reads while events are relayed would stop the command once it is full.
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as printed,
            subprocess.Popen(
                argv,
                cwd=cwd,
                env={**os.environ, **self._env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=None if self._shows and not relayed else subprocess.PIPE,
                text=True,
            ) as process,
        ):
            said = self._relay(process) if relayed else ""
            said += process.communicate()[1] or ""
            printed.seek(0)
            output = printed.read()
        self._keep(argv, output, said)
        if process.returncode != 0:
            said = f"{shlex.join(argv)}\nended with {process.returncode}\n{output}{said}"
            raise DemoFailed(said.rstrip(), exit_code=process.returncode)
        if not relayed:
            self.line(name, what or output.strip().splitlines()[-1], time.monotonic() - began_s)
        return output

    def _relay(self, process: "subprocess.Popen[str]") -> str:
        said = []
        assert process.stderr is not None
        for line in process.stderr:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:  # a traceback, or what a library says
                said.append(line)
                continue
            if event["event"] == "said":
                said.append(event["text"] + "\n")
                name, what, spent_s = _parsed(event["text"])
                self.line(f"  {name}", what, spent_s)
            else:
                said.append(f"{event.get('event')}: {event.get('message', event)}\n")
        return "".join(said)

    def _keep(self, argv: Sequence[str], output: str, said: str) -> None:
        with self._transcript.open("a", encoding="utf-8") as file:
            file.write(f"$ {shlex.join(argv)}\n{said}{output}\n")

    def _bold(self, text: str) -> str:
        return f"\033[1m{text}\033[0m" if self._shows else text


def _parsed(text: str) -> tuple[str, str, float | None]:
    """A step as `rehearse` says it: `NAME  WHAT  (SECONDS s)`."""
    name, _, rest = text.partition(" ")
    said = re.fullmatch(r"(.*?)\s+\(([0-9.]+) s\)", rest.strip())
    return (name, said[1], float(said[2])) if said else (name, rest.strip(), None)


@contextmanager
def server(
    argv: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A server of ours as a process of its own, until the block is left."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def wait_for(log: Path, text: str, process: "subprocess.Popen[bytes]") -> str:
    """The first line of a log that has `text` in it.

    Raises:
        DemoFailed: the process ended, or a minute went by.
    """
    give_up_s = time.monotonic() + _READY_S
    while time.monotonic() < give_up_s:
        found = [line for line in log.read_text(errors="replace").splitlines() if text in line]
        if found:
            return found[0]
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise DemoFailed(f"no `{text}` in {log}\n{log.read_text(errors='replace')}".rstrip())
