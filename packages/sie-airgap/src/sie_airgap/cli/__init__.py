"""`sie-airgap`: one program for both sides of the gap.

Each group of verbs is a module here, imported when one of its verbs is called. A verb reads its options,
calls the module that does the work, and prints: data on stdout, everything else on stderr. What ends the
process is decided in `outcome` alone.
"""

import importlib
import sys
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

from sie_airgap import __version__
from sie_airgap.cli.outcome import run
from sie_airgap.cli.wrapping import wrapped
from sie_core.ids import nearest


class Verb(NamedTuple):
    """Where a verb is, and what it does in a few words."""

    module: str
    does: str


VERBS = {
    "lock": Verb("locking", "Resolve what is to be carried into airgap.lock."),
    "review": Verb("reviewing", "Judge the lock by a policy: licences, sizes, gates."),
    "plan": Verb("reviewing", "Say what a lock costs: bytes, disks, volumes, time."),
    "snapshot": Verb("connected", "Fetch what the lock names, and check every byte."),
    "golden": Verb("answers", "Record a worker's answers; compare them elsewhere."),
    "sign": Verb("trusting", "Add a signature to a lock."),
    "pack": Verb("packing", "Cut the store into volumes to carry."),
    "inspect": Verb("crossing", "Say what an archive holds, and what is missing."),
    "verify": Verb("verifying", "Hold media, a bucket, a registry, a worker to it."),
    "repair": Verb("crossing", "Make lost or damaged volumes good from parity."),
    "unpack": Verb("crossing", "Put an archive's content into a store."),
    "mirror": Verb("far", "Copy weights, images, chart to where they are read."),
    "values": Verb("far", "Write values-offline.yaml for helm install."),
    "receipt": Verb("receipts", "Say what is there, to carry back."),
    "status": Verb("status", "Say what holds now, since when, and what is next."),
    "rehearse": Verb("rehearsal", "Run the chart here, with no way out, and count."),
    "far-side": Verb("rehearsal", "Run a command where nothing can be reached."),
    "rollback": Verb("trusting", "Make a store be for an earlier lock again."),
    "gc": Verb("discarding", "Remove what no lock needs any more."),
    "trust": Verb("trusting", "Say whose signature a lock needs."),
    "why": Verb("reading", "Say why something is carried."),
    "explain": Verb("reading", "Say all that is known of one thing in a lock."),
    "diff": Verb("reading", "Say what changed between two locks or archives."),
    "completion": Verb("completing", "Make bash, zsh or fish complete all this."),
}
"""In the order of the journey."""


class _Journey(click.Group):
    """Imports a verb's module when the verb is called; lists verbs in the order in which they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"sie_airgap.cli.{VERBS[cmd_name].module}")
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return wrapped(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-") and not ctx.resilient_parsing:
            near = nearest(args[0], VERBS, most=1)
            ctx.fail(f"there is no verb `{args[0]}`" + (f"; did you mean `{near[0]}`?" if near else ""))
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs without importing any: a shell asks at every press of a key."""
        verbs = [CompletionItem(name, help=verb.does) for name, verb in VERBS.items() if name.startswith(incomplete)]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs, in the order in which they are used"):
            formatter.write_dl([(name, verb.does) for name, verb in VERBS.items()])


@click.group(cls=_Journey, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sie-airgap")
def cli() -> None:
    """Carry models, images and the chart of SIE into a network without internet, and check every byte there.

    \b
    Connected side  lock, review, plan, snapshot, golden record, pack;
                    rehearse shows there that it will work
    Far side        verify, unpack, mirror, values, then helm install

    Every verb can be run again: it goes on where it stopped, and does nothing when there is nothing to do. What
    `sie-airgap VERB --help` says has an example.

    \b
    Exit codes
      0 done                    5 unreachable      9 golden answers differ
      1 a bug of ours           6 no permission   10 partly done, run it again
      2 misused                 7 no space        11 something tried to leave
      3 not what was locked     8 another lock    12 findings
      4 something is missing                     130 interrupted
    """


def main() -> None:
    """The program."""
    sys.exit(run(cli, sys.argv[1:]))
