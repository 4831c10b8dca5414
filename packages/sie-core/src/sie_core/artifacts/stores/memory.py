"""Files in memory: the store that tests and dry runs edit."""

import io
from collections.abc import Iterator
from threading import Lock
from typing import BinaryIO, cast
from zlib import crc32

from sie_core.artifacts.digest import Digest
from sie_core.artifacts.errors import NotThere
from sie_core.artifacts.manifest import parse_path
from sie_core.artifacts.store import Stat, Traits, Unfinished
from sie_core.artifacts.stores.streams import Declared


class MemoryStore:
    """`files` is the whole of it, name → bytes; edit it to make a world."""

    traits = Traits(atomic_put=True, range_reads=True, listing_is_consistent=True, max_parallel=4)

    def __init__(self, url: str = "memory://") -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self._lock = Lock()

    def stat(self, name: str) -> Stat | None:
        data = self.files.get(parse_path(name))
        return None if data is None else Stat(name=name, size_bytes=len(data))

    def open(self, name: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        data = self.files.get(parse_path(name))
        if data is None:
            raise NotThere(f"`{name}` is not in {self.url}")
        return io.BytesIO(data[start:] if length is None else data[start : start + length])

    def put(self, name: str, data: BinaryIO, *, size_bytes: int, digest: Digest) -> None:
        where = f"{self.url}{parse_path(name)}"
        content = cast(BinaryIO, Declared(data, size_bytes=size_bytes, digest=digest, where=where)).read()
        with self._lock:
            self.files[name] = content

    def list(self, prefix: str) -> Iterator[Stat]:
        with self._lock:
            found = sorted((name, data) for name, data in self.files.items() if name.startswith(prefix))
        return (Stat(name=name, size_bytes=len(data), tag=f"{crc32(data):08x}") for name, data in found)

    def delete(self, name: str) -> None:
        with self._lock:
            self.files.pop(parse_path(name), None)

    def copy(self, source: str, name: str, *, size_bytes: int) -> bool:
        with self._lock:
            if len(self.files.get(source, b"")) != size_bytes:
                return False
            self.files[parse_path(name)] = self.files[source]
        return True

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        return iter(())
