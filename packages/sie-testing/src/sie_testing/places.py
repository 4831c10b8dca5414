"""The five kinds of place that weights are mirrored to, each a real server (or a folder) with one empty bucket.

Tests of stores and of the mirror run on all of them; `server_traits` says where they differ.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sie_core.artifacts.store import Destination
from sie_core.artifacts.stores.gcs import GcsStore
from sie_core.artifacts.stores.open import open_store
from sie_core.artifacts.stores.s3 import S3Store
from sie_testing import fake_gcs, juicefs, rclone, seaweed

BUCKET = "models-private"
LEAST_PART_BYTES = 5 << 20
"""The least that S3 allows a part to have."""
PAGE_NAMES = 20
"""How many files are listed at a time, where a server lists in pages."""

ACCESS_KEY, SECRET_KEY = seaweed.ACCESS_KEY, seaweed.SECRET_KEY
_AWS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


@dataclass(frozen=True)
class Place:
    """One place that is running: the URL of its bucket, and the environment that a program finds it with."""

    name: str
    url: str
    endpoint: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_s3(self) -> bool:
        return self.url.startswith("s3:")

    def store(self, prefix: str, *, journals: Path | None = None) -> Destination:
        """What lies under a prefix; in S3, files over 5 MiB go in parts."""
        if self.is_s3:
            return S3Store(
                BUCKET,
                prefix,
                endpoint=self.endpoint,
                journals=journals,
                part_bytes=LEAST_PART_BYTES,
                page_names=PAGE_NAMES,
            )
        if self.url.startswith("gs:"):
            return GcsStore(BUCKET, prefix, page_names=PAGE_NAMES)
        return open_store(f"{self.url}/{prefix}")


S3_PLACES = ("seaweedfs", "juicefs", "rclone")
PLACES = (*S3_PLACES, "fake-gcs", "folder")


@contextmanager
def running(name: str, folder: Path) -> Iterator[Place]:
    """One of `PLACES` for the time of the block. Its variables are in the environment of this process meanwhile."""
    with _started(name, folder) as place, pytest.MonkeyPatch.context() as patch:
        for key, value in place.env.items():
            patch.setenv(key, value)
        yield place


@contextmanager
def _started(name: str, folder: Path) -> Iterator[Place]:
    match name:
        case "seaweedfs":
            with seaweed.running(folder) as server:
                server.make_bucket(BUCKET)
                yield Place(name, f"s3://{BUCKET}", server.endpoint, _AWS)
        case "juicefs":
            with juicefs.running(folder, bucket=BUCKET) as endpoint:
                yield Place(name, f"s3://{BUCKET}", endpoint, _AWS)
        case "rclone":
            with rclone.running(folder, bucket=BUCKET) as endpoint:
                yield Place(name, f"s3://{BUCKET}", endpoint, _AWS)
        case "fake-gcs":
            with fake_gcs.running(folder, bucket=BUCKET) as endpoint:
                yield Place(name, f"gs://{BUCKET}", env={"STORAGE_EMULATOR_HOST": endpoint})
        case _:
            yield Place(name, folder.as_uri())
