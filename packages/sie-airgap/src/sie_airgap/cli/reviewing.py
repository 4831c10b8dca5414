"""The verbs that weigh a lock before anything is carried: review, plan."""

from collections.abc import Sequence
from pathlib import Path

import click

from sie_airgap.amounts import counted, sized
from sie_airgap.archive_plan import LOCK_NAME
from sie_airgap.cli.console import Console, columns, output_option
from sie_airgap.cli.reading import read_any_lock
from sie_airgap.failures import Findings, Misused
from sie_airgap.policy import Policy, parse_policy
from sie_airgap.review import Finding, Verdict, judge, ledger
from sie_core.artifacts.lock import Lock, lock_digest

_lock_argument = click.argument("lock", type=click.Path(path_type=Path), default=Path(LOCK_NAME))


@click.command()
@_lock_argument
@click.option(
    "--policy",
    "policy_path",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A YAML file with what differs from the default policy.  [default: the default policy]",
)
@output_option
def review(lock: Path, policy_path: Path | None, output: str) -> None:
    """Print the ledger of what a lock carries, and hold it against a policy; exit 12 when the policy refuses it.

    The ledger has each model's licence, gate, commit, size and who asked for it, and each image. LOCK is a lock
    (airgap.lock when left out), a store or an archive.

    Without --policy: permissive licences only, no image tags that float; gated models, pickled weights and code that a
    repository names are noted and not refused.
    """
    console = Console(output)
    locked, policy = read_any_lock(lock), _policy(policy_path)
    verdict = judge(locked, policy)
    facts = {
        "lock": lock_digest(locked),
        "policy": policy,
        "ledger": ledger(locked),
        "findings": verdict.findings,
        "idle_excuses": verdict.idle,
        "verdict": "refused" if verdict.refusals else "passed",
    }
    console.data("\n".join(_told(locked, verdict, policy_path)), facts)
    if verdict.refusals:
        raise Findings(
            f"{counted(len(verdict.refusals), 'finding')} against {_name(policy_path)}",
            hint="lock something else, or accept a finding by name: an entry under `excuses` in a policy file "
            "(`--policy`) says which rule, of what, and because of whom",
        )


def _policy(path: Path | None) -> Policy:
    if path is None:
        return Policy()
    try:
        return parse_policy(path.read_bytes(), where=str(path))
    except ValueError as error:
        raise Misused(str(error)) from error


def _name(path: Path | None) -> str:
    return str(path) if path is not None else "the default policy"


def _told(lock: Lock, verdict: Verdict, policy_path: Path | None) -> list[str]:
    entries = ledger(lock)
    models = [
        (
            entry.name,
            entry.licence or "not named",
            "gated" if entry.gated else "open",
            sized(entry.size_bytes),
            entry.at[:12],
            ", ".join(entry.why),
        )
        for entry in entries
        if entry.kind == "model"
    ]
    images = [
        (entry.name, sized(entry.size_bytes), entry.at[7:19], "; ".join(entry.why))
        for entry in entries
        if entry.kind == "image"
    ]
    lines = [f"lock number {lock.serial}, {lock_digest(lock)}", ""]
    lines += columns(("model", "licence", "gate", "size", "commit", "asked for by"), models)
    if images:
        lines += ["", *columns(("image", "size", "digest", "named by"), images)]
    given = [*(chart.file for chart in lock.charts), *(wheel.file for wheel in lock.wheels)]
    lines += ["", f"given by hand: {', '.join(given) or 'nothing'}", ""]
    lines += _findings(verdict.findings)
    lines += [f"idle    excuse of {one.rule} for {one.what}: nothing was found" for one in verdict.idle]
    passed = f"passed by {_name(policy_path)}"
    refused = f"refused by {_name(policy_path)}: {counted(len(verdict.refusals), 'finding')}"
    return [*lines, refused if verdict.refusals else passed]


def _findings(findings: Sequence[Finding]) -> list[str]:
    lines = []
    for finding in findings:
        word = "excused" if finding.excused is not None else finding.level
        because = f" (accepted: {finding.excused})" if finding.excused is not None else ""
        lines.append(f"{word:7} {finding.rule:11} {finding.what}: {finding.said}{because}")
    return lines
