"""The verbs that weigh a lock before anything is carried: review, plan."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
import msgspec

from sie_airgap.amounts import counted, lasting, sized
from sie_airgap.archive.cut import beside_bytes, would_be
from sie_airgap.archive.medium import MEDIA
from sie_airgap.cli.console import Console, columns, output_option, store_option
from sie_airgap.cli.reading import read_any_lock
from sie_airgap.failures import Findings, Misused
from sie_airgap.reviewing.bill import Bill, bill, parse_link
from sie_airgap.reviewing.policy import Policy, parse_policy
from sie_airgap.reviewing.review import Finding, Verdict, judge, ledger
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.store.contents import LOCK_NAME, contents
from sie_core.artifacts.lock import Lock, lock_digest

_USUAL_LINKS = ("10Mbit/s", "100Mbit/s", "1Gbit/s")
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

    \b
    Example:  sie-airgap review
              sie-airgap review airgap.lock --policy policy.yaml
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
    given = [chart.file for chart in lock.charts] + ([counted(len(lock.wheels), "wheel")] if lock.wheels else [])
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


def _links(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        for value in values:
            parse_link(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return values


@click.command()
@_lock_argument
@click.option(
    "--link",
    "links",
    multiple=True,
    callback=_links,
    default=_USUAL_LINKS,
    show_default=True,
    metavar="RATE",
    help="A line to say the time of, as 50Mbit/s.",
)
@store_option
@output_option
def plan(lock: Path, links: tuple[str, ...], store: Path, output: str) -> None:
    """Say what a lock costs to carry: bytes by kind, disk on both sides, volumes of each medium, time on a line.

    LOCK is a lock (airgap.lock when left out), a store or an archive. What the store has already is not counted
    as to be fetched. Times are the least that a line takes when nothing else is on it.

    \b
    Example:  sie-airgap plan --link 50Mbit/s
    """
    console = Console(output)
    locked, blobs = read_any_lock(lock), BlobFolder(store)
    present = {content.digest for content in contents(locked) if blobs.size(content.digest) is not None}
    made = bill(locked, present, media=MEDIA, beside_bytes=partial(beside_bytes, would_be(locked)), links=links)
    facts = {
        "lock": lock_digest(locked),
        **msgspec.to_builtins(made),
        "connected_bytes": made.connected_bytes,
        "far_bytes": made.far_bytes,
    }
    console.data("\n".join(_billed(made, locked, store)), facts)


def _billed(made: Bill, lock: Lock, store: Path) -> list[str]:
    amounts = [(one.kind, str(one.count), sized(one.size_bytes), sized(one.each_once_bytes)) for one in made.amounts]
    lines = [f"lock number {lock.serial}, {lock_digest(lock)}", ""]
    lines += columns(("what", "count", "size", "each blob once"), amounts)
    lines += ["", f"to carry   {sized(made.size_bytes)}, the largest blob {sized(made.largest_bytes)}"]
    there = "the rest is" if made.lacking_bytes < made.size_bytes else "none of it is"
    lines += [f"to fetch   {sized(made.lacking_bytes)}: {there} in {store}", ""]
    disks = [
        ("store, connected side", sized(made.size_bytes), "`snapshot` fills it"),
        ("volumes", sized(made.size_bytes), f"beside the store at most {sized(made.connected_bytes)} on one disk"),
        ("bucket", sized(made.bucket_bytes), "`mirror weights` reads the volumes as they are"),
        ("registry", sized(made.registry_bytes), "`mirror images` likewise"),
        ("store, far side", sized(made.size_bytes), "only if `unpack` is used: it saves reading the media again"),
        ("all of the far side", sized(made.far_bytes), "where bucket, registry and store share one disk"),
    ]
    if made.largest_model is not None:
        name, size_bytes = made.largest_model
        largest = f"with all models; the largest alone, {name}, has {sized(size_bytes)}"
        disks.append(("a worker's cache", sized(made.bucket_bytes), largest))
    lines += columns(("disk", "at most", ""), disks)
    volumes = [
        (one.medium, sized(one.volume_bytes), str(one.count) if one.count is not None else "none: it is too small")
        for one in made.volumes
    ]
    lines += ["", *columns(("medium", "a volume", "volumes"), volumes)]
    crossings = [(one.link, lasting(one.whole_s), lasting(one.lacking_s)) for one in made.crossings]
    return [*lines, "", *columns(("line", "all of it", "what is to fetch"), crossings)]
