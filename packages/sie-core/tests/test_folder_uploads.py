"""A file on its way into a folder goes on where a killed process was, and is never taken for what it is not."""

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.artifacts.digest import CHUNK_BYTES, digest_of
from sie_core.artifacts.errors import TrustError, Unreachable
from sie_core.artifacts.stores.local import LocalStore
from sie_testing.store_suite import blob, get, put

NAME = "models--acme--tiny/snapshots/1/model.safetensors"
DATA = blob(8 * CHUNK_BYTES + 77)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "bucket")


class Breaking(io.BytesIO):
    """Fails once so much of it was read."""

    def __init__(self, data: bytes, at: int, error: BaseException) -> None:
        super().__init__(data)
        self._at, self._error = at, error

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= self._at:
            raise self._error
        return super().read(size)


def interrupt(store: LocalStore, at: int, error: BaseException, data: bytes = DATA) -> None:
    with pytest.raises(type(error)):
        store.put(NAME, Breaking(data, at, error), size_bytes=len(DATA), digest=digest_of(DATA))


def written_bytes() -> int:
    """By this process until now, as the kernel counts them."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def begun(store: LocalStore) -> list[Path]:
    return sorted(store.root.rglob(".incoming-*"))


_PUT = """
import sys
from pathlib import Path
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.stores.local import LocalStore
class Held:
    left = int(sys.argv[5])
    def __init__(self, file): self.file = file
    def read(self, size=-1):
        if self.left <= 0:
            print("there", flush=True)
            sys.stdin.readline()
        data = self.file.read(min(size, self.left) if self.left else size)
        self.left -= len(data)
        return data
with open(sys.argv[2], "rb") as file:
    LocalStore(Path(sys.argv[1])).put(sys.argv[3], Held(file), size_bytes=Path(sys.argv[2]).stat().st_size,
                                      digest=Digest(sys.argv[4]))
"""


@pytest.fixture
def killed(store: LocalStore, tmp_path: Path) -> None:
    """A process was killed when it had written most of the file."""
    (tmp_path / "data").write_bytes(DATA)
    words = [sys.executable, "-c", _PUT, str(store.root), str(tmp_path / "data"), NAME, digest_of(DATA)]
    pipe = subprocess.PIPE
    with subprocess.Popen([*words, str(6 * CHUNK_BYTES)], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGKILL)


@pytest.mark.usefixtures("killed")
def test_what_a_killed_process_had_written_is_not_written_again(store: LocalStore) -> None:
    (left,) = begun(store)
    assert store.stat(NAME) is None
    before = written_bytes()

    put(store, NAME, DATA)
    assert written_bytes() - before < 4 * CHUNK_BYTES
    assert get(store, NAME) == DATA
    assert (begun(store), left.exists(), list(store.unfinished(""))) == ([], False, [])


@given(left=st.binary(max_size=200) | st.integers(0, 60).map(lambda size: blob(100)[:size]))
def test_whatever_lies_there_the_file_is_what_was_sent(tmp_path_factory: pytest.TempPathFactory, left: bytes) -> None:
    store, data = LocalStore(tmp_path_factory.mktemp("bucket")), blob(100)
    with pytest.raises(Unreachable):
        store.put("x", Breaking(data, 0, Unreachable("gone")), size_bytes=100, digest=digest_of(data))
    (file,) = begun(store)
    file.write_bytes(left)

    put(store, "x", data)
    assert get(store, "x") == data
    assert begun(store) == []


def test_an_interrupted_one_goes_on_and_a_wrong_one_leaves_nothing(store: LocalStore) -> None:
    interrupt(store, 3 * CHUNK_BYTES, KeyboardInterrupt())
    assert len(begun(store)) == 1
    with pytest.raises(TrustError):
        store.put(NAME, io.BytesIO(bytes(len(DATA))), size_bytes=len(DATA), digest=digest_of(DATA))
    assert begun(store) == []

    interrupt(store, 3 * CHUNK_BYTES, Unreachable("gone"))
    (left,) = begun(store)
    inode = left.stat().st_ino
    put(store, NAME, DATA)
    assert (store.root / NAME).stat().st_ino == inode


def test_two_at_once_both_end_well(store: LocalStore) -> None:
    """The second, begun while the first is on its way, has a file of its own."""

    class Meanwhile(io.BytesIO):
        done = False

        def read(self, size: int | None = -1, /) -> bytes:
            if not self.done and self.tell():
                self.done = True
                put(store, NAME, DATA)
            return super().read(size)

    store.put(NAME, Meanwhile(DATA), size_bytes=len(DATA), digest=digest_of(DATA))
    assert get(store, NAME) == DATA
    assert begun(store) == []


def test_another_content_of_that_name_begins_anew(store: LocalStore) -> None:
    interrupt(store, 3 * CHUNK_BYTES, Unreachable("gone"))
    other = bytes(reversed(DATA))
    put(store, NAME, other)

    assert get(store, NAME) == other
