"""The verb that says what is true now: status."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from sie_airgap.amounts import counted, lasting
from sie_airgap.charts.helm import find, template
from sie_airgap.cli.console import Console, columns, from_option, lock_option, opened, output_option
from sie_airgap.cli.guarding import trust_file_option
from sie_airgap.cli.looking import look
from sie_airgap.cli.noting import checked, note
from sie_airgap.failures import Expected, Failure, Findings, Misused
from sie_airgap.mirror.images import read_chart
from sie_airgap.settings import state_folder
from sie_airgap.store.blobs import SIGNATURES_NAME, BlobFolder, Blobs, read_lock
from sie_airgap.store.contents import LOCK_NAME
from sie_airgap.trust.files import read_envelope, read_pinned, sealed_in
from sie_airgap.trust.judging import signed_by
from sie_airgap.verifying import pods as running
from sie_airgap.verifying import rendered
from sie_airgap.verifying.advice import advice
from sie_airgap.verifying.checks import Check, Kind, Level
from sie_airgap.verifying.ladder import NAMES, Ladder, Look, Place, Rung, Sight, State, ladder
from sie_airgap.verifying.records import Records, Unread, digests_of
from sie_airgap.verifying.serving import callable_models
from sie_core.artifacts.digest import hex_of
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import Lock, lock_digest
from sie_core.artifacts.manifest import is_plain

Advice = Callable[[Rung], str]
"""What to run for a level that is not true."""
_LEVELS = [str(level) for level in Level]
_SHOWN = {
    State.NOTHING: "nothing to check",
    State.HOLDS: "holds",
    State.HELD: "held",
    State.UNKNOWN: "not known",
    State.AWAY: "NOT REACHED",
    State.CHANGED: "CHANGED",
    State.FAILS: "FAILS",
}


class NotTrue(Failure):
    """A level of the ladder is not true; the exit code is what the check that failed ended with, or 12."""

    def __init__(self, rungs: Sequence[Rung], *, hint: str) -> None:
        told = (f"{rung.level} {NAMES[rung.level]}: {_why(rung)}" for rung in rungs)
        super().__init__("not everything asked for holds\n" + "\n".join(f"  {one}" for one in told), hint=hint)
        self.exit_code = rungs[0].exit_code


@click.command()
@from_option
@lock_option
@trust_file_option
@click.option(
    "-f",
    "--values",
    "values",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Render the lock's chart with these values now, and hold what it names against the lock (L5).",
)
@click.option("--helm", type=click.Path(path_type=Path), help="The helm program.  [default: from the PATH]")
@click.option(
    "--pods",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="What `kubectl get pods -o json` wrote, or - for stdin: the images that run (L6).",
)
@click.option("--up-to", type=click.Choice(_LEVELS), help="Ask for all levels up to this one.")
@output_option
def status(
    sources: tuple[Path, ...],
    lock_path: Path | None,
    trust_path: Path,
    values: tuple[Path, ...],
    helm: Path | None,
    pods: Path | None,
    up_to: str | None,
    output: str,
) -> None:
    """Say what holds of the current lock right now, since when, and what to run next.

    \b
    L0  signature and lock      looked at now
    L1  volume index            by `verify MEDIA`
    L2  every byte carried      by `verify MEDIA`, `verify STORE`
    L3  registry                by `verify oci://…`; the tags are looked at now
    L4  bucket, every byte      by `verify s3://…`; lock and lengths, now
    L5  rendered manifests      by --values, now
    L6  what is running         by --pods, now; by `verify http://…`: asked again
    L7  golden answers          by `golden compare`, `rehearse`
    L8  nothing leaves          by `rehearse`

    What these verbs found is kept on this machine, for each lock and place. `holds`: nothing can have changed since, as
    far as this machine can tell. `held`: what shows at once is as it was; the rest was found at the time that is shown.
    What held for another lock does not count.

    \b
    Exit code   0   all that is asked for is true: with --up-to, every level up
                    to it; without, every level that was ever checked
                12  a level is not known, or something was written to since
                    its check; or a record of a check cannot be read
                that of the failed check, of the lowest level that is not true

    \b
    Example:  sie-airgap status
              sie-airgap status --values values-offline.yaml --up-to L5
              kubectl get pods -n sie -o json | sie-airgap status --pods -
    """
    console, now_s = Console(output), int(time.time())
    if not sources and lock_path is not None:
        blobs, lock = None, read_lock(lock_path)
    else:
        blobs, lock = opened(sources, lock_path)
    fresh = [_signature(lock, blobs, lock_path, trust_path)]
    if values:
        fresh.append(note(_rendered(lock, blobs, values, helm), console))
    if pods is not None:
        fresh.append(note(_running(lock, pods, now_s), console))
    kept, unread = Records(state_folder()).read()
    checks = {one.of: one for one in (*kept, *fresh)}
    now = {one.of: Sight(Look.SAME) for one in fresh}
    sights = {of: now.get(of) or look(one, lock) for of, one in checks.items() if of.lock == lock_digest(lock)}
    found = ladder(lock_digest(lock), checks.values(), sights, wanted=_wanted(lock), now_s=int(time.time()))
    store = str(blobs.root) if isinstance(blobs, BlobFolder) else None
    lock_file = str(lock_path or (LOCK_NAME if store is None else Path(store) / LOCK_NAME))
    to_do = partial(advice, lock_path=lock_file, store=store)
    console.data("\n".join(_told(found, lock, unread, to_do, now_s)), _facts(found, lock, unread, to_do))
    _end(found, unread, None if up_to is None else Level(_LEVELS.index(up_to)), to_do)


def _signature(lock: Lock, blobs: Blobs | None, lock_path: Path | None, trust_path: Path) -> Check:
    """L0. The lock itself was held against its form and its digest when it was read."""
    findings: list[Expected] = []
    said = f"the form of a lock; no signature is asked for: there is no {trust_path}"
    try:
        pinned = read_pinned(trust_path)
        if pinned is not None:
            sealed = sealed_in(blobs) if blobs is not None else []
            beside = lock_path.with_name(SIGNATURES_NAME) if lock_path is not None else None
            if beside is not None and beside.is_file():
                sealed = [*sealed, read_envelope(beside)]
            keys = signed_by(pinned.root, lock, sealed, where=str(lock_path or (blobs and blobs.where)))
            said = f"signed as root {pinned.root.number} wants it: {', '.join(f'{key[:16]}…' for key in keys)}"
    except TrustError as error:
        findings = [error]
    place = str(lock_path) if lock_path is not None else blobs.where if blobs is not None else ""
    again = ("trust", "show", "--trust", str(trust_path))
    digest = lock_digest(lock)
    return checked(Kind.LOCK, digest, place=place, findings=findings, said=said, again=again)


def _rendered(lock: Lock, blobs: Blobs | None, values: Sequence[Path], helm: Path | None) -> Check:
    """L5: the lock's own chart, as Helm renders it with an operator's values."""
    if lock.chart is None:
        raise Misused("--values: the lock has no chart `sie-cluster`", hint="`sie-airgap lock --chart` takes it up")
    if blobs is None:
        raise Misused("--values wants the chart", hint="name the store or the media that hold it with `--from`")
    texts = digests_of(values)
    with TemporaryDirectory(prefix="sie-status-") as folder:
        chart = Path(folder) / lock.chart.file
        chart.write_bytes(read_chart(lock.chart, blobs))
        objects = template(find(helm), chart, release="sie", namespace="sie", values=values)
    named = [str(path.resolve()) for path in values]
    return checked(
        Kind.MANIFESTS,
        lock_digest(lock),
        place=", ".join(named),
        findings=list(rendered.differences(lock, objects)),
        said="every image is the lock's, every worker is pinned to it",
        again=["status", *(word for name in named for word in ("--values", name))],
        texts=texts,
    )


def _running(lock: Lock, path: Path, now_s: int) -> Check:
    """L6, of the images: as true as when kubectl wrote the file."""
    if str(path) == "-":
        data, at_s = sys.stdin.buffer.read(), now_s
    else:
        data, at_s = path.read_bytes(), min(now_s, int(path.stat().st_mtime))
    pods = running.read_pods(data, where=str(path))
    containers = sum(len(pod.containers) for pod in pods)
    return checked(
        Kind.PODS,
        lock_digest(lock),
        place=f"pods in {','.join(running.namespaces(pods)) or str(path)}",
        findings=list(running.differences(lock, pods, where=str(path))),
        said=f"{counted(len(pods), 'pod')}, {counted(containers, 'container')}: every image is the lock's",
        again=["status", "--pods", str(path)],
        at_s=at_s,
        began_s=running.started_s(pods),
    )


def _wanted(lock: Lock) -> dict[Level, tuple[Kind, ...]]:
    """What a lock has nothing of needs no check; what runs is images and the files that workers loaded."""
    models = callable_models(lock)
    wanted: dict[Level, tuple[Kind, ...]] = {
        Level.RUNNING: (*((Kind.PODS,) if lock.images else ()), *((Kind.WORKER,) if models else ()))
    }
    wanted |= {} if lock.images else {Level.REGISTRY: ()}
    wanted |= {} if lock.models else {Level.BUCKET: ()}
    wanted |= {} if lock.chart is not None else {Level.MANIFESTS: (), Level.EGRESS: ()}
    return wanted if models else {**wanted, Level.ANSWERS: ()}


def _told(found: Ladder, lock: Lock, unread: Sequence[Unread], to_do: Advice, now_s: int) -> Iterator[str]:
    yield f"lock number {lock.serial}, {found.lock}"
    rows = [row for rung in found.rungs for row in _rows(rung, now_s)]
    yield from columns(("", "", "now", "checked", "since", "where, and what was found"), rows)
    for one in unread:
        yield _plain(f"not read: {one.path}: {one.why}")
    top = found.highest
    yield "no level is true" if top is None else f"{top} {NAMES[top]} is the highest level that is true now"
    if found.next is not None:
        yield f"next: {to_do(found.next)}"


def _rows(rung: Rung, now_s: int) -> Iterator[tuple[str, ...]]:
    head = (str(rung.level), NAMES[rung.level])
    for place in rung.places:
        check = place.check
        what = "; ".join(filter(None, (f"{check.place}: {check.said}", place.sight.said)))
        yield (*head, _SHOWN[place.state], _age(check.at_s, now_s), _age(check.since_s, now_s), _plain(what))
        head = ("", "")
    if not rung.places or (rung.lacking and rung.state is State.UNKNOWN):
        yield (*head, _SHOWN[rung.state], "", "", _plain(_why(rung)))


def _age(at_s: int, now_s: int) -> str:
    return "now" if at_s >= now_s else f"{lasting(now_s - at_s)} ago"


def _why(rung: Rung) -> str:
    bad = next((place for place in rung.places if not place.state.is_true), None)
    if bad is not None:
        said = bad.check.said if bad.check.exit_code else bad.sight.said
        return _plain(f"{bad.check.place}: {said}")
    if rung.places:
        return f"never checked: {', '.join(rung.lacking)}"
    if rung.state is State.NOTHING:
        return "the lock has none"
    if rung.is_passed:
        return "never checked here, and not needed: what arrived was"
    if rung.other is not None:
        ended = "failed" if rung.other.exit_code else "held"
        return f"never checked for this lock; {ended} for {rung.other.lock[:19]}…, which does not count"
    return "never checked"


def _plain(text: str) -> str:
    """What strangers said moves no cursor."""
    return text if is_plain(text) else ascii(text)


def _facts(found: Ladder, lock: Lock, unread: Sequence[Unread], to_do: Advice) -> dict[str, object]:
    return {
        "lock": found.lock,
        "serial": lock.serial,
        "highest": None if found.highest is None else str(found.highest),
        "levels": [_level_facts(rung) for rung in found.rungs],
        "not_read": [{"record": str(one.path), "why": one.why} for one in unread],
        "next": None if found.next is None else to_do(found.next),
    }


def _level_facts(rung: Rung) -> dict[str, object]:
    return {
        "level": str(rung.level),
        "name": NAMES[rung.level],
        "state": rung.state.name.lower(),
        "lacking": rung.lacking,
        "passed": rung.is_passed,
        "places": [_place_facts(place) for place in rung.places],
    }


def _place_facts(place: Place) -> dict[str, object]:
    check = place.check
    return {
        "place": check.place,
        "kind": check.kind,
        "state": place.state.name.lower(),
        "checked_s": check.at_s,
        "since_s": check.since_s,
        "said": check.said,
        "seen": place.sight.said,
        "exit_code": place.exit_code,
        "by": check.by,
        "record": None if check.kind == Kind.LOCK else str(Records(state_folder()).path(check)),
    }


def _end(found: Ladder, unread: Sequence[Unread], up_to: Level | None, to_do: Advice) -> None:
    """Raises `NotTrue` for what is asked for and not true, `Findings` for records that cannot be read."""
    open_rungs = found.open(up_to)
    if open_rungs:
        raise NotTrue(open_rungs, hint=f"`{to_do(open_rungs[0])}`")
    own = [one for one in unread if one.path.parent.name == hex_of(found.lock)]
    if own:
        raise Findings(
            f"{own[0].path} cannot be read, so nothing is known of what it was about\n  have  {own[0].why}",
            hint="check that level again, which writes it anew, or remove the file",
        )
