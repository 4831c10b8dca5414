"""The verbs that play the far side on one machine: far-side, rehearse."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Interface
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from sie_airgap.amounts import counted
from sie_airgap.charts.helm import find
from sie_airgap.cli.console import STORE, Console, opened, output_option
from sie_airgap.cli.noting import checked, given, note
from sie_airgap.failures import Differs, Expected, Incomplete, Misused, raise_all
from sie_airgap.mirror.images import read_chart
from sie_airgap.rehearsal import far_side as far_sides
from sie_airgap.rehearsal.guides_call import GuidesCall
from sie_airgap.rehearsal.netns import NamespaceError
from sie_airgap.rehearsal.rehearse import (
    PORT,
    URL,
    Call,
    NotCounted,
    Release,
    Report,
    Stage,
    attempts_text,
    egress,
    lines,
    stage,
)
from sie_airgap.rehearsal.rehearse import call as make_call
from sie_airgap.rehearsal.relay import relay
from sie_airgap.store.blobs import GOLDEN_NAME, Blobs, write_atomically
from sie_airgap.verifying.checks import Kind
from sie_core.artifacts.lock import Lock, lock_digest


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--address",
    default=far_sides.DEFAULT_ADDRESS,
    show_default=True,
    metavar="A.B.C.D/BITS",
    help="Of the bridge: bucket and registry listen on it, pods are plugged into it.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def far_side(address: str, command: tuple[str, ...]) -> None:
    """Run COMMAND where nothing but this machine can be reached, and every attempt to leave is counted.

    It gets a network namespace of its own with a bridge at --address. Start a bucket, a registry and `rehearse` inside.
    A plain user can do it where user namespaces are allowed. It ends as COMMAND does, with COMMAND's exit code.

    \b
    Example:  sie-airgap far-side -- ./rehearsal.sh
    """
    try:
        interface = IPv4Interface(address)
    except ValueError as error:
        raise Misused(f"`--address` is `{address}`: {error}", hint="like 10.77.0.1/24") from error
    try:
        words = far_sides.entering(str(interface), command, is_root=os.geteuid() == 0)
    except NamespaceError as error:
        raise NotCounted(f"egress: not counted ({error})") from error
    os.execv(words[0], words)  # noqa: S606 - a list of words, no shell


@click.command()
@click.argument("archive", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-f",
    "--values",
    "values",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="As for helm install; usually the file that `values` wrote.",
)
@click.option(
    "--manifests",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Secrets and ConfigMaps that would be applied beside the chart.",
)
@click.option("--model", help="The model to call.  [default: the lock's first]")
@click.option("--gpu", default="l4", show_default=True, help="The machine profile to ask for.")
@click.option("--release", default="sie", show_default=True, help="The name of the Helm release.")
@click.option("-n", "--namespace", default="sie", show_default=True, help="Where it would be installed.")
@click.option("--helm", type=click.Path(path_type=Path), help="The helm program.  [default: from the PATH]")
@click.option("--init-timeout", default=600.0, show_default=True, help="Seconds an init container may take.")
@click.option("--keep", is_flag=True, help=f"Leave it running afterwards, on localhost:{PORT}, until Ctrl-C.")
@output_option
def rehearse(
    archive: tuple[Path, ...],
    values: tuple[Path, ...],
    manifests: Path | None,
    model: str | None,
    gpu: str,
    release: str,
    namespace: str,
    helm: Path | None,
    init_timeout: float,
    keep: bool,
    output: str,
) -> None:
    """Run the chart's pods here, call them as the guide does, and count every attempt to leave.

    ARCHIVE is the volumes, or the toolkit's store. The commands, environment, volumes and probes are read from the
    chart as Helm renders it with --values, and the programs are started with exactly those, each pod in a network and a
    file system of its own. Must run on a far side (`sie-airgap far-side`), where the bucket answers on the bridge.

    Exit 11: something tried to leave. 9: it answers otherwise than `golden record` heard.

    \b
    Example:  sie-airgap far-side -- sie-airgap rehearse -f values-offline.yaml
    """
    console = Console(output)
    blobs, lock = opened(archive, None)
    with TemporaryDirectory(prefix="sie-rehearse-") as temporary:
        folder = Path(temporary)
        wanted = Call(model=_model(lock, model), gpu=gpu, golden=_golden(blobs, folder))
        installed = Release(
            helm=find(helm),
            chart=_chart(lock, blobs, folder),
            values=values,
            manifests=manifests,
            name=release,
            namespace=namespace,
        )

        def say(step: str, what: str, seconds: float) -> None:
            console.note(f"{step:<8}{what}  ({seconds:.1f} s)")

        with stage(installed, say, init_timeout_s=init_timeout, folders=[temporary]) as on:
            report = make_call(on, wanted, say)
            console.data("\n".join(lines(report)), _facts(report, wanted))
            _note(report, lock, _again(archive, values, manifests, helm), console)
            if keep:
                _keep(on, wanted, report.made, console)
    _raise_findings(report)


def _model(lock: Lock, model: str | None) -> str:
    if model is not None and lock.model(model) is None:
        known = ", ".join(f"`{each.id}`" for each in lock.models)
        raise Misused(f"`{model}` is not in the lock; it has {known}")
    called = [each.id for each in lock.models if not each.is_part]
    if not called:
        raise Incomplete("the lock has no model to call")
    return model or called[0]


def _chart(lock: Lock, blobs: Blobs, folder: Path) -> Path:
    if lock.chart is not None:
        path = folder / lock.chart.file
        path.write_bytes(read_chart(lock.chart, blobs))
        return path
    raise Incomplete("the lock has no chart `sie-cluster`", hint="`sie-airgap lock --chart` takes it up")


def _golden(blobs: Blobs, folder: Path) -> Path | None:
    recorded = blobs.named(GOLDEN_NAME)
    if recorded is None:
        return None
    write_atomically(folder / GOLDEN_NAME, recorded)
    return folder / GOLDEN_NAME


def _keep(on: Stage, wanted: Call, made: GuidesCall, console: Console) -> None:
    listen = f"127.0.0.1:{PORT}"

    def listening() -> None:
        console.note(f"kept running until Ctrl-C; call it on {URL}:")
        for line in made.lines(wanted.model, wanted.gpu, url=URL):
            console.note(f"  {line}")

    with suppress(KeyboardInterrupt):
        asyncio.run(relay(listen, on.address(), listening=listening))


def _facts(report: Report, wanted: Call) -> dict[str, object]:
    return {
        "model": wanted.model,
        "verb": report.made.verb,
        "printed": report.printed,
        "golden": list(report.golden),
        "differs": report.differs,
        "egress_attempts": None if report.counts is None else report.attempts,
        "control_attempts": sum(each.control.total for each in report.counts or ()),
        "namespaces": {each.name: attempts_text(each) for each in report.counts or ()},
        "not_honoured": list(report.not_honoured),
    }


def _again(archive: Sequence[Path], values: Sequence[Path], manifests: Path | None, helm: Path | None) -> list[str]:
    """The words that rehearse the same once more, wherever they are said."""
    files = [word for path in values for word in ("--values", str(path.resolve()))]
    others = given({"--manifests": manifests and manifests.resolve(), "--helm": helm})
    return ["rehearse", *(str(path.resolve()) for path in archive or (STORE,)), *files, *others]


def _note(report: Report, lock: Lock, again: Sequence[str], console: Console) -> None:
    """For `status`: what was counted, and what was compared."""
    digest, place = lock_digest(lock), f"rehearsal in {Path.cwd()}"
    if report.counts is not None:
        said = f"no attempt to leave in {counted(len(report.counts), 'namespace')}"
        left = egress(report.counts)
        note(checked(Kind.EGRESS, digest, place=place, findings=left, said=said, again=again), console)
    if report.golden:
        said, differ = "as recorded", _differences(report)
        note(checked(Kind.REHEARSED, digest, place=place, findings=differ, said=said, again=again), console)


def _differences(report: Report) -> list[Differs]:
    told = "\n".join(report.golden)
    return [Differs(f"the answers are not what was recorded\n{told}")] if report.differs else []


def _raise_findings(report: Report) -> None:
    findings: list[Expected] = [*egress(report.counts or ()), *_differences(report)]
    if report.counts is None:
        findings.append(NotCounted(f"egress: not counted ({report.not_counted})"))
    raise_all(findings)
