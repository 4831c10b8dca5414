"""`sie-airgap`: one program for both sides of the gap.

Each group of verbs is a module here, imported when one of its verbs is called. A verb reads its options,
calls the module that does the work, and prints: data on stdout, everything else on stderr. What ends the
process is decided in `outcome` alone.
"""

import importlib
import sys

import click

from sie_airgap import __version__
from sie_airgap.cli.outcome import run

VERBS = {
    "lock": "connected",
    "snapshot": "connected",
    "golden": "answers",
    "pack": "connected",
    "inspect": "crossing",
    "verify": "crossing",
    "unpack": "crossing",
    "mirror": "far",
    "values": "far",
    "far-side": "rehearsal",
    "rehearse": "rehearsal",
    "why": "reading",
    "diff": "reading",
}
"""Verb → module of this package, in the order of the journey."""


class _Journey(click.Group):
    """Imports a verb's module when the verb is asked for; lists verbs in the order in which they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"sie_airgap.cli.{VERBS[cmd_name]}")
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Journey, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sie-airgap")
def cli() -> None:
    """Carry models, images and the chart of SIE into a network without internet, and check every byte there.

    \b
    Connected side                    Far side
      lock      what is to be carried   verify   the media that arrived
      snapshot  fetch it                unpack   them into a store
      golden    record answers          mirror   weights, images, chart
      pack      cut it into volumes     values   for helm install
      rehearse  all of that here, where nothing can leave (far-side)

    Every verb can be run again: it goes on where it stopped, and does nothing when there is nothing to do.

    \b
    Exit codes: 0 done; 2 misused; 3 not what was locked; 4 missing; 5 unreachable; 6 no permission; 7 no space;
    8 belongs to another lock; 9 golden answers differ; 10 partly done, run again; 11 something tried to leave;
    12 findings; 130 interrupted; 1 a bug of ours.
    """


def main() -> None:
    """The program."""
    sys.exit(run(cli, sys.argv[1:]))
