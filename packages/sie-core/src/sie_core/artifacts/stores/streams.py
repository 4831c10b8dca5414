"""What every store does with bytes on their way in and out.

`Declared` is for `put`: it hands out the last bytes only after size and digest proved right, so that a
store which makes a file visible when the stream ends never shows a wrong one. `Body` is for `open`: a
stream whose failures are those of `artifacts.errors`.
"""

import io
from collections.abc import Callable
from typing import BinaryIO

from sie_core.artifacts.digest import CHUNK_BYTES, Digest
from sie_core.artifacts.errors import TransferError, TrustError
from sie_core.artifacts.hashing import Hashing


class Declared(io.RawIOBase):
    """A readable stream over data of a declared size and digest.

    Raises `TrustError` instead of returning the bytes that would complete wrong data.
    """

    def __init__(self, data: BinaryIO, *, size_bytes: int, digest: Digest, where: str) -> None:
        self._data = data
        self._left_bytes = size_bytes
        self._size_bytes = size_bytes
        self._digest = digest
        self._where = where
        self._running = Hashing()
        self._is_checked = False

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size_bytes - self._left_bytes

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:  # all of it, from streams too that return fewer bytes than asked for
            return b"".join(iter(lambda: self.read(CHUNK_BYTES), b""))
        wanted = min(size, self._left_bytes)
        chunk = self._data.read(wanted) if wanted else b""
        self._running.update(chunk)
        self._left_bytes -= len(chunk)
        if (not self._left_bytes or (wanted and not chunk)) and not self._is_checked:
            self._check()
        return chunk

    def readinto(self, buffer: "memoryview", /) -> int:  # type: ignore[override]  # narrower than WriteableBuffer
        chunk = self.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _check(self) -> None:
        """At the end of the data, before the caller has the last of it."""
        beyond = len(self._data.read(1)) if not self._left_bytes else 0
        have_bytes = self._size_bytes - self._left_bytes
        digest = self._running.digest
        if beyond or have_bytes != self._size_bytes or digest != self._digest:
            more = " or more" if beyond else ""
            raise not_as_declared(self._where, self._digest, self._size_bytes, digest, f"{have_bytes + beyond:,}{more}")
        self._is_checked = True


def not_as_declared(where: str, want: Digest, want_bytes: int, have: Digest, have_bytes: str) -> TrustError:
    return TrustError(
        "what was to be stored is not what was declared",
        where=where,
        want=f"{want}  {want_bytes:,} bytes",
        have=f"{have}  {have_bytes} bytes",
    )


class Body(io.RawIOBase):
    """A readable stream over `read(n)` of somebody else's client.

    Args:
        read: at most n bytes, b"" at the end.
        close: what to do with the connection; called once.
        translate: turns the client's exception into one of ours.
        failures: the exceptions that `read` may raise.
        skip_bytes: read and thrown away first, for servers that answer a range with the whole file.
        limit_bytes: where the stream ends at the latest.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        close: Callable[[], None],
        *,
        translate: Callable[[Exception], TransferError],
        failures: tuple[type[Exception], ...],
        skip_bytes: int = 0,
        limit_bytes: int | None = None,
    ) -> None:
        self._read = read
        self._close = close
        self._translate = translate
        self._failures = failures
        self._skip_bytes = skip_bytes
        self._limit_bytes = limit_bytes

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        try:
            self._skip()
            if size < 0:
                return b"".join(iter(lambda: self._some(CHUNK_BYTES), b""))
            return self._some(size)
        except self._failures as error:
            raise self._translate(error) from error

    def readinto(self, buffer: "memoryview", /) -> int:  # type: ignore[override]  # narrower than WriteableBuffer
        chunk = self.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        if not self.closed:
            self._close()
        super().close()

    def _skip(self) -> None:
        while self._skip_bytes:
            chunk = self._read(min(self._skip_bytes, CHUNK_BYTES))
            if not chunk:
                self._limit_bytes = 0
                break
            self._skip_bytes -= len(chunk)

    def _some(self, size: int) -> bytes:
        if self._limit_bytes is None:
            return self._read(size)
        chunk = self._read(min(size, self._limit_bytes)) if self._limit_bytes and size else b""
        self._limit_bytes -= len(chunk)
        return chunk
