"""A bucket that is asked again after what passes: every request that can be repeated as it is."""

from collections.abc import Iterator
from typing import BinaryIO

from sie_airgap.patience import Say, Wait, patiently
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.store import Destination, Stat, Unfinished


class PatientBucket:
    """Another destination. Copying, and putting what cannot be read again, are for the caller to repeat.

    Attributes:
        copied: whether the last copy there was made.
    """

    def __init__(self, store: Destination, *, say: Say, wait: Wait | None = None) -> None:
        self.url, self.traits = store.url, store.traits
        self._store, self._say, self._wait = store, say, wait
        self.copied: bool | None = None

    def stat(self, name: str) -> Stat | None:
        return patiently(lambda: self._store.stat(name), say=self._say, wait=self._wait)

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        return patiently(lambda: self._store.open(name, start=start, length=length), say=self._say, wait=self._wait)

    def put(self, name: str, data: BinaryIO, *, size_bytes: int, digest: Digest) -> None:
        if not data.seekable():
            self._store.put(name, data, size_bytes=size_bytes, digest=digest)
            return

        def again() -> None:
            data.seek(0)
            self._store.put(name, data, size_bytes=size_bytes, digest=digest)

        patiently(again, say=self._say, wait=self._wait)

    def list(self, prefix: str) -> Iterator[Stat]:
        return patiently(lambda: self._store.list(prefix), say=self._say, wait=self._wait)

    def delete(self, name: str) -> None:
        patiently(lambda: self._store.delete(name), say=self._say, wait=self._wait)

    def copy(self, source: str, name: str, *, size_bytes: int) -> bool:
        self.copied = self._store.copy(source, name, size_bytes=size_bytes)
        return self.copied

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        return patiently(lambda: self._store.unfinished(prefix), say=self._say, wait=self._wait)
