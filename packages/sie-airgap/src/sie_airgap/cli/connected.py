"""The verb snapshot."""

from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import click

from sie_airgap.cli.console import Console, dry_run_option, output_option, store_option
from sie_airgap.cli.upstream import hub, image_source_option, lock_file_option
from sie_airgap.failures import Misused
from sie_airgap.oci.sources import Elsewhere, ImageSources
from sie_airgap.progress import counted, sized
from sie_airgap.settings import logins
from sie_airgap.store.blobs import BlobFolder, read_lock
from sie_airgap.store.disk_source import DiskSource
from sie_airgap.store.snapshot import missing
from sie_airgap.store.snapshot import snapshot as fetch_snapshot
from sie_core.artifacts.lock import LockedBlob, LockedImage, lock_digest


@click.command()
@image_source_option
@lock_file_option
@store_option
@click.option(
    "--from",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="PATH",
    help="A hub cache, or a folder with models: what the lock names and is there is copied, checked; the hub is asked "
    "for the rest.",
)
@dry_run_option
@output_option
def snapshot(
    elsewhere: tuple[Elsewhere, ...], lock_path: Path, store: Path, folder: Path | None, dry_run: bool, output: str
) -> None:
    """Fetch what the store lacks of a lock, and check every byte of it.

    Files come in ranges, and a run that was interrupted goes on where it was. HF_ENDPOINT says where the hub is,
    HF_TOKEN who asks, HTTPS_PROXY and NO_PROXY through which proxy; SSL_CERT_FILE or REQUESTS_CA_BUNDLE names your
    own certificate authority. With --from, files are found by their content: any version's hub cache will do, and
    nothing there is changed.

    \b
    Example:  sie-airgap snapshot
              sie-airgap snapshot --from ~/.cache/huggingface/hub
    """
    console = Console(output)
    locked, blobs = read_lock(lock_path), BlobFolder(store)
    here = DiskSource(folder, say=console.note) if folder is not None else None
    if dry_run:
        todo = missing(locked, blobs)
        for model, file in todo.files:
            verb = "copy " if here is not None and here.likely(model, file) else "fetch"
            console.note(f"{verb}  {model.id} {file.path}  {sized(file.size_bytes)}")
        for image, blob in todo.blobs:
            console.note(f"fetch  {image.reference} {blob.digest[7:19]}  {sized(blob.size_bytes)}")
    else:
        with ExitStack() as stack:
            sources = stack.enter_context(ImageSources(elsewhere, logins=logins()))

            def open_blob(image: LockedImage, blob: LockedBlob, start: int) -> BinaryIO:
                source = sources.find(image.reference)
                try:
                    if "manifest" in blob.media_type or "index" in blob.media_type:
                        return _manifest(source.manifest(blob.digest).data, start)
                    return source.open(blob.digest, start=start)
                except ValueError as error:
                    raise Misused(str(error)) from error

            todo = fetch_snapshot(locked, blobs, hub=hub(), open_blob=open_blob, progress=console.progress, source=here)
    verb, is_for = ("to fetch", "would be for") if dry_run else ("fetched", "is for")
    count = len(todo.files) + len(todo.blobs)
    text = f"{counted(count, 'file')} {verb}, {sized(todo.size_bytes)}; {store} {is_for} {lock_digest(locked)}"
    console.data(text, {"files": count, "bytes": todo.size_bytes, "lock": lock_digest(locked), "store": str(store)})


def _manifest(data: bytes, start: int) -> BinaryIO:
    from io import BytesIO

    stream = BytesIO(data)
    stream.seek(start)
    return stream
