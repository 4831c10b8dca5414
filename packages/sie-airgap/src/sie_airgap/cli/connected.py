"""The verbs of the connected side that move bytes: snapshot, pack."""

import re
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import click

from sie_airgap.archive import UNLIMITED_BYTES, plan_archive, present_volumes
from sie_airgap.archive import pack as pack_archive
from sie_airgap.archive_plan import LOCK_NAME, parse_volume_size
from sie_airgap.blobs import BlobFolder, read_lock
from sie_airgap.cli.console import Console, dry_run_option, output_option, store_option
from sie_airgap.cli.upstream import hub, image_source_option, lock_file_option
from sie_airgap.failures import Incomplete, Misused
from sie_airgap.oci.sources import Elsewhere, ImageSources
from sie_airgap.progress import counted, sized
from sie_airgap.settings import logins
from sie_airgap.snapshot import missing
from sie_airgap.snapshot import snapshot as fetch_snapshot
from sie_core.artifacts.lock import LockedBlob, LockedImage, lock_digest


@click.command()
@image_source_option
@lock_file_option
@store_option
@dry_run_option
@output_option
def snapshot(elsewhere: tuple[Elsewhere, ...], lock_path: Path, store: Path, dry_run: bool, output: str) -> None:
    """Fetch what the store lacks of a lock, and check every byte of it.

    Files come in ranges, and a run that was interrupted goes on where it was.
    """
    console = Console(output)
    locked, blobs = read_lock(lock_path), BlobFolder(store)
    if dry_run:
        todo = missing(locked, blobs)
        for model, file in todo.files:
            console.note(f"fetch  {model.id} {file.path}  {sized(file.size_bytes)}")
        for image, blob in todo.blobs:
            console.note(f"fetch  {image.reference} {blob.digest[7:19]}  {sized(blob.size_bytes)}")
    else:
        with ExitStack() as stack:
            sources = stack.enter_context(ImageSources(elsewhere, logins=logins()))

            def open_blob(image: LockedImage, blob: LockedBlob, start: int) -> BinaryIO:
                source = sources.find(image.reference)
                if "manifest" in blob.media_type or "index" in blob.media_type:
                    return _manifest(source.manifest(blob.digest).data, start)
                return source.open(blob.digest, start=start)

            todo = fetch_snapshot(locked, blobs, hub=hub(), open_blob=open_blob, progress=console.progress)
    verb = "to fetch" if dry_run else "fetched"
    count = len(todo.files) + len(todo.blobs)
    text = f"{counted(count, 'file')} {verb}, {sized(todo.size_bytes)}; {store} is for {lock_digest(locked)}"
    console.data(text, {"files": count, "bytes": todo.size_bytes, "lock": lock_digest(locked), "store": str(store)})


def _manifest(data: bytes, start: int) -> BinaryIO:
    from io import BytesIO

    stream = BytesIO(data)
    stream.seek(start)
    return stream


def _volume_bytes(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int:
    if value is None:
        return UNLIMITED_BYTES
    try:
        return parse_volume_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _archive_name(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value) is None:
        raise click.BadParameter(f"`{value[:100]}`: want letters, digits, `.`, `_` and `-`, 100 at most")
    return value


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--volume-size",
    "volume_bytes",
    callback=_volume_bytes,
    metavar="dvd|bd25|fat32|SIZE",
    help="The most that a volume may be: a medium, or a size like 4GiB.  [default: one volume]",
)
@click.option(
    "--name", callback=_archive_name, help="Of the archive.  [default: sie-N, N the lock's number]", metavar="NAME"
)
@store_option
@dry_run_option
@output_option
def pack(folder: Path, volume_bytes: int, name: str | None, store: Path, dry_run: bool, output: str) -> None:
    """Cut a store into volumes in FOLDER, with checksums and a runbook.

    A volume is a plain tar that needs none of the others. The same store and size give the same bytes; a volume
    that is lost is cut again by running this again.
    """
    console = Console(output)
    blobs = BlobFolder(store)
    if not (store / LOCK_NAME).exists():
        raise Incomplete(
            f"the store {store} is not complete for any lock", hint="`sie-airgap snapshot` fetches what is missing"
        )
    locked = read_lock(store / LOCK_NAME)
    try:
        cut = plan_archive(locked, blobs, name=name or f"sie-{locked.serial}", volume_bytes=volume_bytes)
    except ValueError as error:
        raise Misused(f"--volume-size: {error}") from error
    if dry_run:
        there = present_volumes(cut, folder)
        written = [folder / volume for volume in cut.volume_names if volume not in there]
    else:
        written = list(pack_archive(cut, blobs, folder, progress=console.progress))
    for path in written:
        console.note(f"{'write' if dry_run else 'wrote'}  {path}")
    verb = "to write" if dry_run else "written"
    text = f"{len(written)} of {len(cut.volumes)} volumes {verb}, {sized(cut.size_bytes)}; lock {cut.lock_digest}"
    console.data(text, {"volumes": list(cut.volume_names), "written": len(written), "lock": cut.lock_digest})
