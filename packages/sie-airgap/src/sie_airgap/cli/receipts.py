"""The verb that says what a place holds: receipt."""

from pathlib import Path

import click

from sie_airgap.cli.console import Console, bucket, bucket_options, dry_run_option, is_store, output_option, written
from sie_airgap.deltas.receipt import Receipt, encode_receipt, receipt_of_store
from sie_airgap.failures import Incomplete
from sie_airgap.mirror.weights import bucket_receipt
from sie_airgap.progress import counted, sized
from sie_airgap.store.blobs import BlobFolder, lock_of


@click.command()
@click.argument("what")
@click.option(
    "-o",
    "--write",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file, not stdout.",
)
@bucket_options
@dry_run_option
@output_option
def receipt(what: str, path: Path | None, endpoint: str | None, region: str | None, dry_run: bool, output: str) -> None:
    """Say what WHAT holds: a bucket (s3://, gs://, file://) or a store. Carried back, it tells the connected side
    what need not travel again.

    From names and lengths alone, in seconds; `verify` reads every byte.

    \b
    Example:  sie-airgap receipt s3://models/weights/ -o receipt.json
    """
    console = Console(output)
    found = _of_bucket(what, endpoint, region) if "://" in what else _of_store(Path(what))
    data = encode_receipt(found)
    size_bytes = sum(blob.size_bytes for blob in found.blobs)
    text = f"{what} holds {counted(len(found.blobs), 'blob')}, {sized(size_bytes)}; its lock is number {found.serial}"
    if path is None:
        click.echo(data.decode(), nl=False)
        return
    state = written(path, data.decode(), dry_run=dry_run)
    facts = {"receipt": str(path), "state": state, "lock": found.lock, "blobs": len(found.blobs), "bytes": size_bytes}
    console.data(f"{text}; {path} {state}", facts)


def _of_bucket(url: str, endpoint: str | None, region: str | None) -> Receipt:
    return bucket_receipt(bucket(url, endpoint=endpoint, region=region))


def _of_store(folder: Path) -> Receipt:
    if not is_store(folder):
        raise Incomplete(f"{folder} is no store", hint="`sie-airgap unpack` makes one; a bucket is named by its URL")
    store = BlobFolder(folder)
    return receipt_of_store(str(folder.absolute()), lock_of(store), store.sizes())
