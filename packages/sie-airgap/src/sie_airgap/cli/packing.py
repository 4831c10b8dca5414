"""The verb pack."""

import re
from pathlib import Path

import click

from sie_airgap.archive.cut import plan_archive
from sie_airgap.archive.medium import MEDIA, UNLIMITED, VolumeSize, parse_volume_size
from sie_airgap.archive.packing import absent
from sie_airgap.archive.packing import pack as pack_archive
from sie_airgap.archive.parity_format import EVERY
from sie_airgap.cli.console import Console, dry_run_option, output_option, store_option
from sie_airgap.deltas.delta import Delta
from sie_airgap.deltas.receipt import Receipt, decode_receipt, receipt_of_taken
from sie_airgap.deltas.recipes import plan_delta
from sie_airgap.failures import Incomplete, Misused
from sie_airgap.progress import counted, sized
from sie_airgap.store.blobs import BlobFolder, read_lock
from sie_airgap.store.contents import LOCK_NAME, contents
from sie_core.artifacts.lock import Lock, decode_lock


def _volume_size(ctx: click.Context, parameter: click.Parameter, value: str | None) -> VolumeSize:
    if value is None:
        return UNLIMITED
    try:
        return parse_volume_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _archive_name(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value) is None:
        raise click.BadParameter(f"`{value[:100]}`: want letters, digits, `.`, `_` and `-`, 100 at most")
    return value


def _receipt(path: Path) -> Receipt:
    """What the far side has: as a receipt of it says, or because it took a lock."""
    data = path.read_bytes()
    if data.startswith(b"{\n"):  # only a lock is indented
        return receipt_of_taken(decode_lock(data, where=f"--base {path}"))
    try:
        return decode_receipt(data)
    except ValueError as error:
        raise Misused(
            f"--base {path}: {error}", hint="`sie-airgap receipt` on the far side writes one, of a store or a bucket"
        ) from error


def _tell_of_base(delta: Delta, receipt: Receipt, lock: Lock, console: Console, *, dry_run: bool) -> None:
    sizes = {content.digest: content.size_bytes for content in contents(lock)}
    left_out_bytes = sum(sizes[digest] for digest in delta.left_out)
    console.note(
        f"left out  {counted(len(delta.left_out), 'blob')} that {receipt.place} has, {sized(left_out_bytes)}"
        + ("; what the others have in common with it is not looked for in a dry run" if dry_run else "")
    )
    for one in delta.recipes:
        label = next(content.label for content in contents(lock) if content.digest == one.blob)
        console.note(f"recipe    {label}  {sized(one.recipe_bytes)} for {sized(sizes[one.blob])}")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--volume-size",
    "size",
    callback=_volume_size,
    metavar="|".join((*MEDIA, "SIZE")),
    help="The most that a volume may be: a medium, or a size like 4GiB. On a disc there is room beside the volume for "
    "the runbook and the checksums.  [default: one volume]",
)
@click.option(
    "--name", callback=_archive_name, help="Of the archive.  [default: sie-N, N the lock's number]", metavar="NAME"
)
@click.option(
    "--parity",
    "parity_every",
    type=click.IntRange(min=1),
    is_flag=False,
    flag_value=EVERY,
    metavar="[N]",
    help="Write a parity volume for every N volumes, too: one lost or damaged volume of each N can be made good with "
    f"`repair`. Can be added later; stands after FOLDER.  [default: none; with no N: {EVERY}]",
)
@click.option(
    "--only", multiple=True, metavar="VOLUME", help="Write this volume alone, v0003.tar for example (several times)."
)
@click.option(
    "--base",
    "base",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="RECEIPT|LOCK",
    help="Leave out what the far side has, as a receipt of it says, and carry of the rest what is new in it. Where "
    "no receipt comes back, name the lock that its store took last.",
)
@click.option(
    "--compress",
    is_flag=True,
    help="Carry weights compressed where they shrink: a third less for bfloat16, a sixth for float32; about five "
    "seconds a gigabyte, and room for it in the store.",
)
@store_option
@dry_run_option
@output_option
def pack(
    folder: Path,
    size: VolumeSize,
    name: str | None,
    parity_every: int | None,
    only: tuple[str, ...],
    base: Path | None,
    compress: bool,
    store: Path,
    dry_run: bool,
    output: str,
) -> None:
    """Cut a store into volumes in FOLDER, with checksums and a runbook.

    A volume is a plain tar that needs none of the others. The same store, size and name give the same bytes: a
    volume that was lost is cut again with --only, also where the others are no longer.

    \b
    Example:  sie-airgap pack media --volume-size dvd
              sie-airgap pack media --volume-size dvd --only v0003.tar
    """
    console = Console(output)
    blobs = BlobFolder(store)
    if not (store / LOCK_NAME).exists():
        raise Incomplete(
            f"the store {store} is not complete for any lock", hint="`sie-airgap snapshot` fetches what is missing"
        )
    locked = read_lock(store / LOCK_NAME)
    receipt = _receipt(base) if base is not None else None
    delta = plan_delta(locked, blobs, receipt, compress=compress, dry_run=dry_run, progress=console.progress)
    if receipt is not None:
        _tell_of_base(delta, receipt, locked, console, dry_run=dry_run)
    named = name or (f"sie-{locked.serial}" if receipt is None else f"sie-{locked.serial}-on-{receipt.serial}")
    try:
        cut = plan_archive(locked, blobs, name=named, size=size, parity_every=parity_every, delta=delta)
    except ValueError as error:
        raise Misused(f"--volume-size: {error}") from error
    if dry_run:
        written = [folder / volume for volume in absent(cut, folder, only)]
    else:
        written = list(pack_archive(cut, blobs, folder, progress=console.progress, only=only))
    for path in written:
        console.note(f"{'write' if dry_run else 'wrote'}  {path}  {sized(cut.size_bytes[path.name])}")
    verb = "to write" if dry_run else "written"
    written_bytes = sum(cut.size_bytes[path.name] for path in written)
    text = f"{len(written)} of {len(cut.names)} volumes {verb}, {sized(written_bytes)}; lock {cut.lock_digest}"
    facts = {"volumes": list(cut.volume_names), "parity": list(cut.parity_names), "written": len(written)}
    console.data(text, {**facts, "bytes": written_bytes, "lock": cut.lock_digest})
