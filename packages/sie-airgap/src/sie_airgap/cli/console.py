"""What every verb shares: how it reports, and the options that mean the same everywhere."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from sie_airgap.archive.media import Media, read_media
from sie_airgap.failures import Drift, Misused
from sie_airgap.progress import Events, Lines, Progress
from sie_airgap.store.blobs import BlobFolder, Blobs, lock_of, read_lock, write_atomically
from sie_airgap.store.contents import LOCK_NAME
from sie_core.artifacts.lock import Lock, lock_digest
from sie_core.artifacts.store import Destination
from sie_core.artifacts.stores.open import open_store, parse_store_url

Told = tuple[str, dict[str, object]]
"""A result: the text for people, and the facts for programs."""
F = TypeVar("F", bound=Callable[..., Any])
STORE = Path("airgap-store")


class Console:
    """Where a verb reports to: progress and talk to stderr, data to stdout, as text or as JSON."""

    def __init__(self, output: str) -> None:
        self.as_json = output == "json"
        self.progress: Progress
        if self.as_json:
            self.progress = Events(sys.stderr, clock=time.monotonic)
        elif sys.stderr.isatty():
            from sie_airgap.bar import Bar  # only here: it takes a tenth of a second

            self.progress = Bar(sys.stderr)
        else:
            self.progress = Lines(sys.stderr, clock=time.monotonic)

    def note(self, text: str) -> None:
        """Talk, for people."""
        self.progress.say(text)

    def data(self, text: str, facts: Mapping[str, object]) -> None:
        """The result, once in a run: the text, or the facts as one line of JSON."""
        click.echo(msgspec.json.encode(facts).decode() if self.as_json else text)


def written(path: Path, text: str, *, dry_run: bool) -> str:
    """Write a file that is asked for with `-o`; what became of it. The same text a second time is not written."""
    data = text.encode()
    if path.is_file() and path.read_bytes() == data:
        return "unchanged"
    if dry_run:
        return "would be written"
    write_atomically(path, data)
    return "written"


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines, each column as wide as its longest cell; the last as it is."""
    table = [heads, *rows]
    widths = [max(len(row[at]) for row in table) for at in range(len(heads) - 1)]
    return [
        "  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in table
    ]


def output_option(command: F) -> F:
    """`--output text|json`, which arrives as `output`."""
    return click.option(
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="json: one event a line on stderr, the result as one line on stdout.",
    )(command)


def store_option(command: F) -> F:
    """`--store FOLDER`: the toolkit's own."""
    return click.option(
        "--store",
        type=click.Path(path_type=Path, file_okay=False),
        default=STORE,
        show_default=True,
        help="The toolkit's store: every blob once, by its sha256.",
    )(command)


def dry_run_option(command: F) -> F:
    return click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")(command)


def from_option(command: F) -> F:
    """`--from PATH…`: a store, or the media of an archive; arrives as `sources`."""
    return click.option(
        "--from",
        "sources",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="PATH",
        help="A store, or the volumes of an archive (several times); nothing is unpacked.  [default: airgap-store]",
    )(command)


def lock_option(command: F) -> F:
    return click.option(
        "--lock",
        "lock_path",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Insist on this lock.  [default: the one that the store or the archive is for]",
    )(command)


def bucket_options(command: F) -> F:
    """`--endpoint` and `--region` of the server that a bucket is at."""
    command = click.option("--region", help="Of the bucket.  [default: AWS_REGION, or us-east-1]")(command)
    return click.option(
        "--endpoint",
        metavar="URL",
        help="Of an S3-compatible server (MinIO, Ceph, SeaweedFS).  [default: AWS_ENDPOINT_URL_S3, or AWS]",
    )(command)


def opened(sources: Sequence[Path], lock_path: Path | None) -> tuple[Blobs, Lock]:
    """What `--from` and `--lock` name.

    Raises:
        Drift: the lock insisted on is not the one that is there.
    """
    blobs = _blobs(sources or (STORE,))
    if lock_path is None:
        return blobs, lock_of(blobs)
    lock = read_lock(lock_path)
    if isinstance(blobs, Media) and blobs.lock_digest != lock_digest(lock):
        raise Drift(
            f"{blobs.where} is not for the lock {lock_path}\n  want  {lock_digest(lock)}\n  have  {blobs.lock_digest}",
            hint="leave `--lock` out to use the archive's own",
        )
    return blobs, lock


def _blobs(sources: Sequence[Path]) -> Blobs:
    if len(sources) == 1 and is_store(sources[0]):
        return BlobFolder(sources[0])
    return read_media(sources)


def is_store(path: Path) -> bool:
    return (path / "blobs" / "sha256").is_dir() or (path / LOCK_NAME).is_file()


def bucket(url: str, *, endpoint: str | None, region: str | None, journals: Path | None = None) -> Destination:
    """The bucket that a URL names. Raises `Misused` for one that cannot be, or whose client is not installed."""
    check_bucket(url)
    try:
        return open_store(url, endpoint=endpoint, region=region, journals=journals)
    except ImportError as error:
        extra = "s3" if url.startswith("s3:") else "gcs"
        raise Misused(
            f"`{url}` cannot be reached: `{error.name}` is not installed here",
            hint=f"install `sie-airgap[{extra}]`; `start.sh` beside the volumes does",
        ) from error


def check_bucket(url: str) -> tuple[str, str, str]:
    """(scheme, bucket or folder, prefix) of a bucket's URL; no client is needed. Raises `Misused`."""
    try:
        return parse_store_url(url)
    except ValueError as error:
        raise Misused(str(error), hint="like s3://BUCKET/PREFIX/, gs://BUCKET/PREFIX/ or file:///FOLDER") from error
