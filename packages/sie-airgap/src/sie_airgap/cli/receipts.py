"""The verb that says what a place holds: receipt."""

from pathlib import Path

import click

from sie_airgap.cli.console import Console, bucket, bucket_options, is_store, output_option
from sie_airgap.deltas.receipt import Receipt, encode_receipt, receipt_of_store
from sie_airgap.failures import Incomplete
from sie_airgap.mirror.weights import bucket_receipt
from sie_airgap.progress import counted, sized
from sie_airgap.store.blobs import BlobFolder, lock_of, write_atomically


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
@output_option
def receipt(what: str, path: Path | None, endpoint: str | None, region: str | None, output: str) -> None:
    """Say what WHAT holds: a bucket (s3://, gs://, file://) or a store. Carried back, it tells the connected side
    what need not travel again.

    From names and lengths alone, in seconds; `verify` reads every byte.
    """
    console = Console(output)
    found = _of_bucket(what, endpoint, region) if "://" in what else _of_store(Path(what))
    data = encode_receipt(found)
    size_bytes = sum(blob.size_bytes for blob in found.blobs)
    text = f"{what} holds {counted(len(found.blobs), 'blob')}, {sized(size_bytes)}; its lock is number {found.serial}"
    if path is None:
        click.echo(data.decode(), nl=False)
        return
    write_atomically(path, data)
    console.data(
        f"{text}; receipt in {path}",
        {"receipt": str(path), "lock": found.lock, "blobs": len(found.blobs), "bytes": size_bytes},
    )


def _of_bucket(url: str, endpoint: str | None, region: str | None) -> Receipt:
    return bucket_receipt(bucket(url, endpoint=endpoint, region=region))


def _of_store(folder: Path) -> Receipt:
    if not is_store(folder):
        raise Incomplete(f"{folder} is no store", hint="`sie-airgap unpack` makes one; a bucket is named by its URL")
    store = BlobFolder(folder)
    return receipt_of_store(str(folder.absolute()), lock_of(store), store.sizes())
