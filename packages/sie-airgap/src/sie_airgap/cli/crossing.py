"""The verbs that look at media: inspect, verify, repair, unpack."""

from collections.abc import Iterator
from pathlib import Path

import click

from sie_airgap.adoption import adopt, verify_manifests
from sie_airgap.blobs import SIGNATURES_NAME, BlobFolder, lock_of, read_lock
from sie_airgap.cli.console import (
    Console,
    bucket,
    bucket_options,
    dry_run_option,
    is_store,
    lock_option,
    output_option,
    store_option,
)
from sie_airgap.cli.guarding import Guard, trust_options
from sie_airgap.failures import Drift, Expected, Misused, raise_all
from sie_airgap.media import Media, read_media
from sie_airgap.media_check import verify_media
from sie_airgap.parity_format import Parity
from sie_airgap.progress import counted, sized
from sie_airgap.repair import repair as repair_volumes
from sie_airgap.repair import survey
from sie_airgap.trust.files import merged, read_envelope, sealed_in_bucket
from sie_airgap.trust.judging import Sealed
from sie_airgap.unpack import plan_unpack
from sie_airgap.unpack import unpack as unpack_media
from sie_airgap.verify import lock_in_bucket, verify_bucket, verify_store
from sie_core.artifacts.lock import CURRENT_FILE, Lock, lock_digest
from sie_core.artifacts.store import Destination, Store
from sie_core.artifacts.transfer import read

_MEDIA = click.argument("media", nargs=-1, required=True, type=click.Path(path_type=Path))


@click.command()
@_MEDIA
@output_option
def inspect(media: tuple[Path, ...], output: str) -> None:
    """Say what an archive is for, which of its volumes are here, and what they hold.

    MEDIA are folders or volumes, in any order. Only the indexes are read: `verify` reads every byte.
    """
    console = Console(output)
    found = read_media(media)
    lock = found.lock
    lines = [
        f"archive  {found.archive}, lock number {lock.serial}",
        f"lock     {found.lock_digest}",
        *(f"volume   {volume.name}  {sized(volume.size_bytes)}  {path}" for path, volume in found.volumes.items()),
        *(
            f"parity   {one.name}  {sized(one.size_bytes)}  {path}, {_stands_for(one)}"
            for path, one in found.parity.items()
        ),
        *(f"missing  {name}" for name in found.missing_volumes()),
        *_base_lines(found),
        *(
            f"model    {model.id} at {model.revision}, {len(model.files)} files, {sized(model.size_bytes)}, "
            f"licence {model.license or 'not named'}"
            for model in lock.models
        ),
        *(f"image    {image.reference}  {', '.join(image.platforms)}" for image in lock.images),
        *(f"chart    {chart.file}" for chart in lock.charts),
        f"wheels   {len(lock.wheels)}",
    ]
    _tell_notes(found, console)
    console.data("\n".join(lines), _facts(found))
    raise_all(found.refused)


def _base_lines(found: Media) -> Iterator[str]:
    delta = found.delta
    if delta.base is not None:
        yield f"base     lock number {delta.base.serial} at {delta.base.place}, {delta.base.lock}"
        yield f"         {counted(len(delta.left_out), 'blob')} of it left out"
    if delta.recipes:
        yield f"recipes  {len(delta.recipes)}, {sized(sum(one.recipe_bytes for one in delta.recipes))}"


def _tell_notes(found: Media, console: Console) -> None:
    for note in found.notes():
        console.note(f"note: {note}")


def _stands_for(parity: Parity) -> str:
    return f"for {', '.join(volume.name for volume in parity.volumes)}"


def _facts(found: Media) -> dict[str, object]:
    return {
        "archive": found.archive,
        "lock": found.lock_digest,
        "serial": found.lock.serial,
        "volumes": {volume.name: str(path) for path, volume in found.volumes.items()},
        "parity": {one.name: [volume.name for volume in one.volumes] for one in found.parity.values()},
        "missing": list(found.missing_volumes()),
        "base": None if found.delta.base is None else found.delta.base.lock,
        "left_out": list(found.delta.left_out),
        "models": {model.id: model.revision for model in found.lock.models},
        "images": {image.reference: image.digest for image in found.lock.images},
    }


@click.command()
@click.argument("what", nargs=-1, required=True, type=click.Path())
@lock_option
@click.option("--write-manifest", is_flag=True, help="Adopt a bucket that was filled by hand; see above.")
@dry_run_option
@trust_options
@bucket_options
@output_option
def verify(
    what: tuple[str, ...],
    lock_path: Path | None,
    write_manifest: bool,
    dry_run: bool,
    trust_path: Path,
    insecure: bool,
    endpoint: str | None,
    region: str | None,
    output: str,
) -> None:
    """Read every byte of WHAT and hold it against the lock: media, a store, or a bucket (s3://, gs://, file://).

    Every finding is told, each with the file that it is in, and whether the lock is signed.

    Nothing is changed, unless --write-manifest says so: then a bucket that `aws s3 sync` or its like filled gets its
    manifests, for all models that are whole. With --lock they are held against that lock, and served as verified.
    Without, they are served as adopted: nothing in them can change unseen any more, and nothing says that they were
    what the hub has. Run it again after what it found was put right.
    """
    console = Console(output)
    lock = read_lock(lock_path) if lock_path is not None else None
    guard = Guard(trust_path, insecure=insecure, console=console)
    if dry_run and not write_manifest:
        raise Misused("--dry-run is for --write-manifest: nothing else here changes anything")
    if write_manifest:
        if len(what) > 1 or "://" not in what[0]:
            raise Misused("--write-manifest is for one bucket: s3://, gs:// or file://")
        sealed = [] if lock_path is None else _sealed_beside(lock_path)
        if lock is not None:
            guard.check_lock(lock, sealed, where=str(lock_path))
        _adopt(bucket(what[0], endpoint=endpoint, region=region), lock, sealed, dry_run=dry_run, console=console)
        return
    if any("://" in one for one in what):
        if len(what) > 1:
            raise Misused(f"one bucket at a time, {len(what)} things are named")
        store = bucket(what[0], endpoint=endpoint, region=region)
        if lock is None and read(store, CURRENT_FILE) is None:
            _verify_manifests(store, console)
            return
        findings = verify_bucket(store, lock, progress=console.progress)
        there = lock or lock_in_bucket(store)
        findings += guard.findings(lambda: guard.check_lock(there, sealed_in_bucket(store, there), where=store.url))
    elif len(what) == 1 and is_store(Path(what[0])):
        folder = BlobFolder(Path(what[0]))
        there = lock or lock_of(folder)
        findings = verify_store(there, folder, progress=console.progress)
        findings += guard.findings(lambda: guard.check(folder, there))
    else:
        media = read_media([Path(one) for one in what])
        there = media.lock
        console.note(f"{media.archive}, lock number {there.serial}, {media.lock_digest}")
        _tell_notes(media, console)
        findings = verify_media(media, progress=console.progress)
        if lock is not None and lock_digest(lock) != media.lock_digest:
            findings.append(_other_lock(media, lock_digest(lock)))
        findings += guard.findings(lambda: guard.check(media, media.lock))
    raise_all(findings)
    facts = {"verified": list(what), "findings": 0, "lock": lock_digest(there)}
    console.data(f"{', '.join(what)}: every byte is what was locked", facts)


def _verify_manifests(store: Store, console: Console) -> None:
    """A bucket without a lock."""
    raise_all(verify_manifests(store, progress=console.progress))
    text = f"{store.url}: every byte is what its manifests say; there is no lock that says what they should be"
    console.data(text, {"verified": [store.url], "findings": 0, "lock": None})


def _sealed_beside(lock_path: Path) -> list[Sealed]:
    path = lock_path.with_name(SIGNATURES_NAME)
    return [read_envelope(path)] if path.is_file() else []


def _adopt(store: Destination, lock: Lock | None, sealed: list[Sealed], *, dry_run: bool, console: Console) -> None:
    found = adopt(store, lock, signatures=merged(sealed), dry_run=dry_run, progress=console.progress)
    verb = "would be" if dry_run else "is" if len(found.adopted) == 1 else "are"
    standing = "adopted" if lock is None else "verified"
    for one in found.adopted:
        files = f"{counted(len(one.manifest.files), 'file')}, {sized(one.manifest.size_bytes)}"
        noted = f"{one.proved} of them under the id that the hub's client noted"
        console.note(f"{standing}  {one.manifest.repo} at {one.manifest.revision}, {files}; {noted}")
    models = {
        one.manifest.repo: {
            "revision": one.manifest.revision,
            "files": len(one.manifest.files),
            "bytes": one.manifest.size_bytes,
            "proved": one.proved,
        }
        for one in found.adopted
    }
    facts = {standing: models, "there": list(found.there), "findings": len(found.findings), "dry_run": dry_run}
    had = f"; {counted(len(found.there), 'model')} had a manifest" if found.there else ""
    console.data(f"{counted(len(found.adopted), 'model')} {verb} {standing} in {store.url}{had}", facts)
    raise_all(found.findings)


def _other_lock(media: Media, want: str) -> Expected:
    return Drift(f"{media.where} is for another lock\n  want  {want}\n  have  {media.lock_digest}")


@click.command()
@_MEDIA
@click.option(
    "-o",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="FOLDER",
    help="Where the volumes that are made good are written: none of the media.",
)
@dry_run_option
@output_option
def repair(media: tuple[Path, ...], folder: Path, dry_run: bool, output: str) -> None:
    """Make volumes good that are lost or damaged, from the parity volumes and the others, byte for byte.

    MEDIA are folders or volumes, in any order: all that there is of the archive, damaged ones too. Of the volumes
    that a parity volume stands for one may be lost, or several be damaged in different places. Nothing that is
    given is changed. Where there is no parity volume, `pack --only` cuts a volume again on the connected side.
    """
    console = Console(output)
    found = survey(media, progress=console.progress)
    for error in found.refused:
        console.note(f"note: set aside: {error}")
    for one in found.lost:
        how = "lost" if one.chunks is None else f"{counted(len(one.chunks), 'MiB')} of it damaged"
        console.note(f"note: {one.volume.name}: {how}; {one.parity.name} stands for it")
    if dry_run:
        raise_all(found.errors)
        written = [folder / one.volume.name for one in found.lost]
    else:
        written = list(repair_volumes(found, folder, progress=console.progress))
    verb = "to be made good" if dry_run else "made good"
    shown = ", ".join(str(path) for path in written) or "nothing"
    console.data(f"{shown} {verb}", {"repaired": [str(path) for path in written], "lost": len(found.lost)})


@click.command()
@_MEDIA
@store_option
@trust_options
@dry_run_option
@output_option
def unpack(media: tuple[Path, ...], store: Path, trust_path: Path, insecure: bool, dry_run: bool, output: str) -> None:
    """Put what MEDIA hold into a store. Nothing is deleted, on either side.

    MEDIA are folders or volumes, in any order, all at once or one after the other; each is checked on the way.
    """
    console = Console(output)
    found, blobs = read_media(media), BlobFolder(store)
    guard = Guard(trust_path, insecure=insecure, console=console)
    guard.check(found, found.lock)
    if dry_run:
        plan = plan_unpack(found, blobs)
        for content in plan.todo:
            console.note(f"unpack  {content.label}  {sized(content.size_bytes)}")
        for content in plan.missing:
            console.note(f"not here  {content.label}")
    else:
        plan = unpack_media(found, blobs, progress=console.progress)
        guard.taken(found, found.lock)
    verb = "to unpack" if dry_run else "unpacked"
    text = f"{counted(len(plan.todo), 'blob')} {verb}, {sized(plan.todo_bytes)}; {store} is for {found.lock_digest}"
    facts = {"blobs": len(plan.todo), "bytes": plan.todo_bytes, "lock": found.lock_digest, "store": str(store)}
    console.data(text, facts)
