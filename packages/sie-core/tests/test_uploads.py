"""An upload in parts goes on where it was cut short, and nothing but what was declared ever becomes visible."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random
from threading import Thread

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import TransferError, TrustError, Unreachable
from sie_core.artifacts.store import Destination, Unfinished
from sie_core.artifacts.stores.s3 import S3Store
from sie_core.artifacts.stores.upload_journal import (
    Begun,
    Listed,
    SentPart,
    UploadOf,
    decode_journal,
    journal_of,
    part_length,
    sent_parts,
)
from sie_testing.places import BUCKET, LEAST_PART_BYTES, S3_PLACES, Place, running
from sie_testing.store_suite import blob, get, put
from sie_testing.tcp_faults import FaultyProxy, TcpFault, proxy

STREAMS = 4
SIZE_BYTES = 6 * LEAST_PART_BYTES + 5
DATA = blob(SIZE_BYTES)
NAME = "model.safetensors"
_prefixes = count()


OTHERS = [pytest.param(name, marks=pytest.mark.gap_servers) for name in S3_PLACES if name != "seaweedfs"]


@pytest.fixture(scope="module", params=["seaweedfs", *OTHERS])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(request.param, tmp_path_factory.mktemp("place")) as started:
        yield started


@pytest.fixture
def between(place: Place) -> Iterator[FaultyProxy]:
    assert place.endpoint is not None
    with proxy(place.endpoint) as running:
        yield running


@pytest.fixture
def store(between: FaultyProxy, tmp_path: Path) -> Destination:
    """A bucket behind the proxy, and a journal."""
    return opened(between, f"run-{next(_prefixes)}", tmp_path / "journals")


def opened(between: FaultyProxy, prefix: str, journals: Path | None) -> Destination:
    return Place("s3", f"s3://{BUCKET}", between.endpoint).store(prefix, journals=journals)


class Interrupted(io.BytesIO):
    """A source that fails after `at` bytes, as a medium that is pulled out, or a hand at the keyboard."""

    def __init__(self, data: bytes, at: int, error: BaseException) -> None:
        super().__init__(data)
        self._at, self._error = at, error

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= self._at:
            raise self._error
        return super().read(size)


def interrupt(store: Destination, at: int, error: BaseException, data: bytes = DATA) -> None:
    with pytest.raises(type(error)):
        store.put(NAME, Interrupted(data, at, error), size_bytes=SIZE_BYTES, digest=digest_of(DATA))


def test_an_interrupted_upload_sends_only_what_is_missing(between: FaultyProxy, store: Destination) -> None:
    interrupt(store, 5 * LEAST_PART_BYTES, Unreachable("the medium is gone"))
    assert [one.name for one in store.unfinished("")] == [NAME]
    sent_before = between.asked_bytes

    put(store, NAME, DATA)

    assert between.asked_bytes - sent_before < 2 * LEAST_PART_BYTES
    assert get(store, NAME) == DATA
    assert list(store.unfinished("")) == []


def test_a_part_that_was_read_wrong_before_the_interruption_does_not_stay(store: Destination) -> None:
    """Nobody held the first attempt's bytes against the digest: it never came to the end."""
    altered = bytearray(DATA)
    altered[LEAST_PART_BYTES + 17] ^= 1
    interrupt(store, 5 * LEAST_PART_BYTES, Unreachable("the medium is gone"), data=bytes(altered))

    with pytest.raises(Unreachable, match=r"part 2 .* was read wrong"):
        put(store, NAME, DATA)
    put(store, NAME, DATA)
    assert get(store, NAME) == DATA


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TrustError("altered", where="x", want="a", have="b")])
def test_a_cancelled_upload_leaves_nothing(store: Destination, tmp_path: Path, error: BaseException) -> None:
    interrupt(store, 3 * LEAST_PART_BYTES, error)

    assert list(store.unfinished("")) == []
    assert list((tmp_path / "journals").iterdir()) == []
    assert store.stat(NAME) is None


def test_an_upload_of_another_content_takes_the_old_one_back(store: Destination) -> None:
    interrupt(store, 3 * LEAST_PART_BYTES, Unreachable("the medium is gone"))
    other = blob(SIZE_BYTES, seed=1)

    put(store, NAME, other)
    assert get(store, NAME) == other
    assert list(store.unfinished("")) == []


def test_without_a_journal_an_upload_begins_anew_and_leaves_others_alone(between: FaultyProxy, tmp_path: Path) -> None:
    """An upload that this machine does not know may be somebody else's, who is at it."""
    prefix = f"run-{next(_prefixes)}"
    interrupt(opened(between, prefix, tmp_path), 3 * LEAST_PART_BYTES, Unreachable("the medium is gone"))
    elsewhere = opened(between, prefix, None)

    put(elsewhere, NAME, DATA)
    assert get(elsewhere, NAME) == DATA
    (left,) = elsewhere.unfinished("")
    assert left == Unfinished(name=NAME, since=left.since)
    assert left.since.startswith("20")


def test_two_uploads_of_one_file_at_once_both_end_well(between: FaultyProxy, tmp_path: Path) -> None:
    prefix = f"run-{next(_prefixes)}"
    stores = [opened(between, prefix, tmp_path) for _ in range(2)]
    threads = [Thread(target=put, args=(store, NAME, DATA)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert get(stores[0], NAME) == DATA
    assert list(stores[0].unfinished("")) == []


def test_an_upload_that_the_server_has_forgotten_begins_anew(place: Place, store: Destination, tmp_path: Path) -> None:
    interrupt(store, 3 * LEAST_PART_BYTES, Unreachable("the medium is gone"))
    (journal,) = (tmp_path / "journals").iterdir()
    lines = journal.read_bytes().splitlines(keepends=True)
    begun = msgspec.json.decode(lines[0], type=Begun)
    journal.write_bytes(msgspec.json.encode(msgspec.structs.replace(begun, upload="forgotten")) + b"\n" + lines[1])

    put(store, NAME, DATA)
    assert get(store, NAME) == DATA


FAULTS = [
    TcpFault("reset", after_bytes=0, times=3),
    TcpFault("cut", after_bytes=300, times=3),
    TcpFault("status", status=503, times=5),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.kind))
def test_an_upload_through_faults_ends_in_a_second_attempt(
    between: FaultyProxy, store: Destination, fault: TcpFault
) -> None:
    put(store, "first", b"the connection is there")
    between.arm(fault)

    for _ in range(4):
        try:
            put(store, NAME, DATA)
            break
        except Unreachable:
            continue
    assert get(store, NAME) == DATA


def test_a_large_file_is_copied_where_it_is(place: Place, tmp_path: Path) -> None:
    """rclone answers 200 to a copy of a part, and copies nothing: that is noticed, and nothing is left of it."""
    prefix = f"run-{next(_prefixes)}"
    small_steps = S3Store(
        BUCKET, prefix, endpoint=place.endpoint, part_bytes=LEAST_PART_BYTES, copy_bytes=LEAST_PART_BYTES
    )
    put(small_steps, NAME, DATA)

    assert small_steps.copy(NAME, "twin", size_bytes=SIZE_BYTES) == (place.name != "rclone")
    assert small_steps.stat("twin") is None or get(small_steps, "twin") == DATA
    assert list(small_steps.unfinished("")) == []
    assert place.store(prefix).copy(NAME, "twin", size_bytes=SIZE_BYTES)
    assert get(small_steps, "twin") == DATA


def kill_at(between: FaultyProxy, prefix: str, folder: Path, after_bytes: int) -> None:
    """Start an upload in a process of its own, and kill it when so many bytes have gone to the server."""
    (folder / "data").write_bytes(DATA)
    words = [sys.executable, "-c", _UPLOAD, between.endpoint, prefix, str(folder)]
    child = subprocess.Popen(words, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    between.when_asked(between.asked_bytes + after_bytes, lambda: child.send_signal(signal.SIGKILL))
    child.wait()


_UPLOAD = """
import sys
from pathlib import Path
from sie_core.artifacts.digest import digest_of
from sie_testing.places import BUCKET, Place
endpoint, prefix, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
store = Place("s3", f"s3://{BUCKET}", endpoint).store(prefix, journals=folder / "journals")
data = (folder / "data").read_bytes()
with (folder / "data").open("rb") as stream:
    store.put("model.safetensors", stream, size_bytes=len(data), digest=digest_of(data))
"""


def resend_after_kill(between: FaultyProxy, folder: Path, after_bytes: int) -> None:
    prefix, before = f"run-{next(_prefixes)}", between.asked_bytes
    kill_at(between, prefix, folder, after_bytes)
    store = opened(between, prefix, folder / "journals")

    put(store, NAME, DATA)
    assert between.asked_bytes - before <= SIZE_BYTES + STREAMS * LEAST_PART_BYTES + 200_000
    assert get(store, NAME) == DATA
    assert list(store.unfinished("")) == []


@pytest.mark.parametrize("place", ["seaweedfs"], indirect=True)
@pytest.mark.parametrize("share", [0.0, 0.4, 0.8])
def test_a_killed_upload_sends_at_most_one_part_a_stream_again(
    between: FaultyProxy, tmp_path: Path, share: float
) -> None:
    resend_after_kill(between, tmp_path, int(share * SIZE_BYTES))


@pytest.mark.gap_kills
@pytest.mark.timeout(900)
@pytest.mark.parametrize("place", ["seaweedfs"], indirect=True)
def test_fifty_killed_uploads_send_at_most_one_part_a_stream_again(between: FaultyProxy, tmp_path: Path) -> None:
    random = Random(20)  # noqa: S311 - nobody has to be unable to guess it
    for number in range(50):
        folder = tmp_path / str(number)
        folder.mkdir()
        resend_after_kill(between, folder, random.randrange(SIZE_BYTES))
        (folder / "data").unlink()


OF = UploadOf(endpoint="http://x", bucket="b", key="k", digest=digest_of(b""), size_bytes=2_500, part_bytes=1_000)


def noted(numbers: list[int]) -> bytes:
    lines = [
        msgspec.json.encode(Begun(OF, "u")),
        *(msgspec.json.encode(SentPart(number, digest_of(b"%d" % number), f'"{number}"')) for number in numbers),
    ]
    return b"\n".join(lines) + b"\n"


@given(numbers=st.lists(st.integers(1, 9), unique=True), cut=st.integers(0, 10_000))
def test_a_journal_that_was_cut_anywhere_is_read_up_to_the_cut(numbers: list[int], cut: int) -> None:
    data = noted(numbers)[:cut]
    read = decode_journal(data)

    whole = data.count(b"\n")
    assert (read is None) == (whole == 0)
    if read is not None:
        assert read[0] == Begun(OF, "u")
        assert list(read[1]) == numbers[: whole - 1]


@pytest.mark.parametrize("data", [b"", b"{}\n", b"not json\n", noted([1]) + b"{}\n", b'{"of":{},"upload":"x"}\n'])
def test_what_is_no_journal_is_none(data: bytes) -> None:
    assert decode_journal(data) is None


def test_a_part_counts_as_sent_when_the_server_lists_what_it_acknowledged() -> None:
    read = decode_journal(noted([1, 2, 3]))
    assert read is not None
    listed = {1: Listed(1_000, '"1"'), 2: Listed(999, '"2"'), 3: Listed(500, '"other"'), 4: Listed(1_000, '"4"')}

    assert list(sent_parts(read[1], listed, OF)) == [1]
    assert [part_length(OF, number) for number in (1, 2, 3)] == [1_000, 1_000, 500]


def test_a_journal_belongs_to_one_upload_at_a_time(tmp_path: Path) -> None:
    with journal_of(tmp_path, OF) as first, journal_of(tmp_path, OF) as second:
        first.begin(Begun(OF, "first"))
        second.begin(Begun(OF, "second"))

        assert second.read() is None
        read = first.read()
    assert read is not None
    assert read[0].upload == "first"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TransferError, match="cannot write"), journal_of(tmp_path / "file" / "below", OF):
        pass
