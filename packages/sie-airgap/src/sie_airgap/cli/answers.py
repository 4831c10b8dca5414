"""The verbs about golden answers: golden record, golden compare."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from sie_airgap.cli.console import Console, dry_run_option, output_option, store_option
from sie_airgap.cli.noting import checked, given, note
from sie_airgap.failures import Differs, Expected, Misused, raise_all
from sie_airgap.progress import counted
from sie_airgap.proof.comparison import Comparison
from sie_airgap.proof.golden import compare as compare_answers
from sie_airgap.proof.golden import record as record_answers
from sie_airgap.proof.golden import to_record
from sie_airgap.proof.golden_file import Golden, decode_golden, encode_golden
from sie_airgap.proof.grading import Grade
from sie_airgap.store.blobs import GOLDEN_NAME, BlobFolder, lock_of, write_atomically
from sie_airgap.verifying.checks import Kind
from sie_core.artifacts.lock import lock_digest

_url_option = click.option("--url", required=True, metavar="URL", help="A worker or a gateway: http://localhost:8080.")


@click.group()
def golden() -> None:
    """Record what a worker answers on the connected side, and hold the far side's answers against it."""


@golden.command("record", short_help="Ask a worker, and keep its answers in the store.")
@_url_option
@store_option
@dry_run_option
@output_option
def record_command(url: str, store: Path, dry_run: bool, output: str) -> None:
    """Ask a worker what each model makes of fixed texts, and keep it in the store: `pack` carries it along.

    Each model is asked for every output that it declares: vectors, weights, scores, what it finds.

    \b
    Example:  sie-airgap golden record --url http://localhost:8080
    """
    console = Console(output)
    lock, path = lock_of(BlobFolder(store)), store / GOLDEN_NAME
    called = [model for model in lock.models if not model.is_part]
    if dry_run:
        kinds = to_record(called, url)
        for model, asked in kinds.items():
            console.note(f"ask  {model}  {', '.join(asked)}")
        text = f"{counted(len(kinds), 'model')} of {url} would be asked, and the answers written into {path}"
        console.data(text, {"models": len(kinds), "file": str(path), "asked": kinds})
        return
    recorded = record_answers(called, lock_digest(lock), url)
    write_atomically(path, encode_golden(recorded))
    count = sum(len(series.answers) for model in recorded.models for series in model.series)
    text = f"{counted(count, 'answer')} of {counted(len(recorded.models), 'model')} recorded in {path}"
    console.data(text, {"answers": count, "models": len(recorded.models), "file": str(path)})


@golden.command("compare", short_help="Ask again, and grade the answers.")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_url_option
@click.option("--gpu", metavar="PROFILE", help="The machine profile to ask through a gateway.")
@output_option
def compare_command(file: Path, url: str, gpu: str | None, output: str) -> None:
    """Ask the same again and grade the answers against FILE; exit 9 when one is different.

    Identical, or within what the precision allows, is 0.

    \b
    Example:  sie-airgap golden compare airgap-store/golden.json \\
                  --url http://localhost:8080
    """
    console = Console(output)
    recorded = _read(file)
    compared = compare_answers(recorded, url, gpu=gpu)
    lines = [line for one in compared for line in one.lines()]
    console.data("\n".join(lines), {"grades": {one.id: str(one.grade) for one in compared}})
    findings = list(_different(compared, url))
    again = ["golden", "compare", str(file.resolve()), *given({"--url": url, "--gpu": gpu})]
    said = f"{counted(len(compared), 'model')} as recorded"
    note(checked(Kind.ANSWERS, recorded.lock, place=url, findings=findings, said=said, again=again), console)
    raise_all(findings)


def _different(compared: Sequence[Comparison], url: str) -> Iterator[Expected]:
    different = [one.id for one in compared if one.grade is Grade.DIFFERENT]
    if different:
        yield Differs(
            f"{url} does not answer as recorded: {', '.join(different)}",
            hint="`sie-airgap verify` finds out whether weights were altered",
        )


def _read(file: Path) -> Golden:
    try:
        return decode_golden(file.read_bytes())
    except ValueError as error:
        raise Misused(f"{file}: {error}", hint="`sie-airgap golden record` on the connected side writes it") from error
