"""Every store passes one suite; each says what went wrong in the same few words."""

import io
import os
import socket
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from sie_core.artifacts.digest import CHUNK_BYTES, digest_of
from sie_core.artifacts.errors import NoPermission, NotThere, TrustError, Unreachable
from sie_core.artifacts.manifest import FileEntry
from sie_core.artifacts.store import Destination
from sie_core.artifacts.stores.local import LocalStore
from sie_core.artifacts.stores.memory import MemoryStore
from sie_core.artifacts.stores.open import open_store
from sie_core.artifacts.stores.s3 import S3Store
from sie_core.artifacts.stores.s3_uploads import PART_BYTES, part_size_bytes
from sie_core.artifacts.stores.streams import Body
from sie_core.artifacts.transfer import fetch_file
from sie_testing import seaweed
from sie_testing.front import Front
from sie_testing.places import BUCKET, LEAST_PART_BYTES, PLACES, Place, running
from sie_testing.seaweed import Seaweed
from sie_testing.store_suite import StoreSuite, blob, get, put
from sie_testing.tcp_faults import FaultyProxy, TcpFault, proxy
from sie_testing.web import Answer, Request, serving

_prefixes = count()


def in_parts(endpoint: str, *, journals: Path | None = None) -> Destination:
    """A bucket that takes files over 5 MiB in parts."""
    return Place("s3", f"s3://{BUCKET}", endpoint).store(f"run-{next(_prefixes)}", journals=journals)


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(request.param, tmp_path_factory.mktemp("place")) as started:
        yield started


class TestMemory(StoreSuite):
    @pytest.fixture
    def store(self) -> Destination:
        return MemoryStore()


class TestPlace(StoreSuite):
    large_bytes = 2 * LEAST_PART_BYTES + 1

    @pytest.fixture
    def store(self, place: Place) -> Destination:
        return place.store(f"run-{next(_prefixes)}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweed.running(tmp_path_factory.mktemp("seaweed")) as running:
        running.make_bucket(BUCKET)
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.SECRET_KEY)


@pytest.fixture
def between(server: Seaweed) -> Iterator[FaultyProxy]:
    with proxy(server.endpoint) as running:
        yield running


@pytest.fixture
def shaky(between: FaultyProxy) -> Destination:
    """A bucket behind the proxy."""
    return in_parts(between.endpoint)


@pytest.fixture(scope="module")
def google_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gcs")


@pytest.fixture(scope="module")
def google(google_folder: Path) -> Iterator[Place]:
    with running("fake-gcs", google_folder) as started:
        yield started


@pytest.fixture
def google_store(google: Place) -> Destination:
    return google.store(f"run-{next(_prefixes)}")


def test_a_large_file_goes_to_google_in_one_resumable_upload(google_store: Destination) -> None:
    data = blob(33 << 20)
    put(google_store, "model.safetensors", data)

    assert digest_of(get(google_store, "model.safetensors")) == digest_of(data)


def test_a_missing_google_bucket_is_told_from_a_missing_file(google: Place) -> None:
    absent = open_store("gs://models-privat/")
    for attempt in (lambda: absent.stat("x"), lambda: absent.open("x"), lambda: list(absent.list(""))):
        with pytest.raises(NotThere, match="the bucket `models-privat` does not exist"):
            attempt()


def test_roles_for_objects_are_enough_at_google(google: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """`storage.buckets.get` is in none of them, so a missing file must not be looked for with it."""
    place = google.store(f"run-{next(_prefixes)}")
    put(place, "there", b"abc")
    behind = Front(google.env["STORAGE_EMULATOR_HOST"])

    def without_its_bucket(request: Request) -> Answer:
        is_bucket = request.path == f"/storage/v1/b/{BUCKET}"
        return Answer(403, {}, b'{"error":{"code":403,"message":"refused"}}') if is_bucket else behind.answer(request)

    with serving(without_its_bucket) as origin:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", origin)
        store = open_store(place.url)
        assert store.stat("absent") is None
        with pytest.raises(NotThere, match="absent does not exist"):
            store.open("absent")
        store.delete("absent")
        stat = store.stat("there")

    assert stat is not None


def test_a_google_file_is_read_without_asking_for_more_behind_its_end(
    google_store: Destination, google_folder: Path
) -> None:
    """A request more for every file; and fake-gcs-server hangs up after it without a word."""
    put(google_store, "x", b"abc")
    with google_store.open("x") as stream:
        pieces = list(iter(lambda: stream.read(2), b""))

    assert pieces == [b"ab", b"c"]
    assert get(google_store, "x", start=1, length=5) == b"bc"
    assert " 416 " not in (google_folder / "server.log").read_text()


def test_no_google_listening_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{held.getsockname()[1]}")
        with pytest.raises(Unreachable):
            open_store("gs://models/").stat("x")


def test_a_folder_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(NotThere, match="file/below"):
        put(LocalStore(tmp_path / "file" / "below"), "x", b"1")


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(NotThere, match="cannot list"):
        LocalStore(tmp_path / "file").list("")
    assert list(LocalStore(tmp_path / "none").list("")) == []
    assert LocalStore(tmp_path).stat("file/below") is None


@pytest.mark.parametrize("prefix", ["../", "..", "a/../../"])
def test_a_listing_does_not_leave_the_folder(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "secret").write_bytes(b"")

    with pytest.raises(ValueError, match="not a relative path"):
        LocalStore(tmp_path / "store").list(prefix)


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="no user or password") as refused:
        open_store("s3://AKIA:hush@models/weights")

    assert "hush" not in str(refused.value)


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TrustError):
        LocalStore(tmp_path).put("x", io.BytesIO(b"1"), size_bytes=1, digest=digest_of(b"2"))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s4://models/weights", "did you mean `s3://models/weights`"),
        ("gcs://models/weights", "did you mean `gs://models/weights`"),
        ("S3:/models", "no scheme"),
        ("/mnt/models", "no scheme"),
        ("flie:///mnt", "did you mean `file:///mnt`"),
        ("http://models", "want one of s3://, gs://, file://"),
        ("s3://", "names no bucket"),
        ("s3:///weights", "names no bucket"),
        ("s3://Models_Private/", "cannot be a bucket's name"),
        ("s3://models?x=1", "nothing after it"),
        ("file://mnt/models", "three slashes"),
        ("s3://models/a//b", "not a relative path"),
    ],
)
def test_a_url_with_a_typo_is_refused_with_what_was_meant(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("?", r"\?")):
        open_store(url)


def test_a_missing_bucket_is_told_from_a_missing_file(server: Seaweed) -> None:
    absent = open_store("s3://models-privat/", endpoint=server.endpoint)

    for attempt in (lambda: absent.stat("x"), lambda: absent.open("x"), lambda: absent.list("")):
        with pytest.raises(NotThere, match="the bucket `models-privat` does not exist") as caught:
            attempt()
        assert "there is `models-private`" in (caught.value.hint or "")


def test_a_bucket_that_cannot_be_is_refused_by_a_ready_server_at_once(server: Seaweed) -> None:
    with pytest.raises(ClientError, match="InvalidBucketName"):
        server.make_bucket("Bad_Name")


def test_a_key_the_server_does_not_know_is_named(server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone-else")
    store = open_store(f"s3://{BUCKET}/", endpoint=server.endpoint)

    with pytest.raises(NoPermission, match=r"403 .* as `someone-else`"):
        list(store.list(""))
    with pytest.raises(NoPermission, match=r"403 .* as `someone-else`"):
        store.stat("x")


def test_a_wrong_secret_is_no_permission_and_is_not_shown(server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    store = open_store(f"s3://{BUCKET}/", endpoint=server.endpoint)

    with pytest.raises(NoPermission) as caught:
        put(store, "x", b"1")
    assert caught.value.hint == "the secret key does not belong to the access key"
    assert "wrong-secret" not in str(caught.value)


def test_no_credentials_are_said_without_asking_the_metadata_address(
    server: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", _no_connection)
    store = open_store(f"s3://{BUCKET}/", endpoint=server.endpoint)

    with pytest.raises(NoPermission, match="there are no credentials"):
        store.stat("x")


def _no_connection(*_: object) -> None:
    raise AssertionError("a connection was attempted")


def test_nobody_listening_is_unreachable_and_passes(between: FaultyProxy) -> None:
    between.close()
    store = open_store(f"s3://{BUCKET}/", endpoint=between.endpoint)

    with pytest.raises(Unreachable, match="does not answer") as caught:
        store.stat("x")
    assert caught.value.transient


def test_a_failing_server_is_unreachable_and_passes(between: FaultyProxy, shaky: Destination) -> None:
    put(shaky, "x", b"1")
    between.arm(TcpFault("status", status=503, times=4))

    with pytest.raises(Unreachable, match="answered 503") as caught:
        get(shaky, "x")
    assert caught.value.transient


def test_a_forbidden_file_is_told_from_a_failing_server(between: FaultyProxy, shaky: Destination) -> None:
    between.arm(TcpFault("status", status=403))

    with pytest.raises(NoPermission) as caught:
        shaky.open("x")
    assert "`s3:GetObject`" in (caught.value.hint or "")


@pytest.mark.parametrize("kind", ["cut", "reset"])
def test_a_connection_that_breaks_while_reading_is_unreachable(
    between: FaultyProxy, shaky: Destination, kind: str
) -> None:
    put(shaky, "x", blob(5_000_000))
    between.arm(TcpFault("cut" if kind == "cut" else "reset", after_bytes=100_000))
    with shaky.open("x") as stream, pytest.raises(Unreachable):
        stream.read()


SPOILT = [
    TcpFault("cut", after_bytes=1_000_000),
    TcpFault("reset", after_bytes=2_500_000),
    TcpFault("cut", after_bytes=500_000, times=4),
    TcpFault("dribble", after_bytes=700),
    TcpFault("status", status=503),
]


@pytest.mark.parametrize("fault", SPOILT, ids=lambda fault: f"{fault.kind}-{fault.times}")
def test_a_fetch_arrives_whole_through(
    between: FaultyProxy, shaky: Destination, tmp_path: Path, fault: TcpFault
) -> None:
    """A connection that broke is opened again where it stopped: little comes twice.

    A reset may take with it all that had come, and an attempt that brought nothing is the caller's to repeat.
    """
    data = blob(3_000_000)
    put(shaky, "x", data)
    before = between.answered_bytes
    between.arm(fault)

    entry = FileEntry(path="x", digest=digest_of(data), size_bytes=len(data))
    try:
        fetch_file(shaky, "x", tmp_path / "x", entry)
    except Unreachable:
        fetch_file(shaky, "x", tmp_path / "x", entry)

    assert (tmp_path / "x").read_bytes() == data
    assert between.answered_bytes - before < len(data) + fault.times * (fault.after_bytes + CHUNK_BYTES)


def test_a_byte_flipped_on_the_way_is_refused_and_nothing_is_kept(
    between: FaultyProxy, shaky: Destination, tmp_path: Path
) -> None:
    data = blob(3_000_000)
    put(shaky, "x", data)
    between.arm(TcpFault("flip", after_bytes=1_234_567))
    entry = FileEntry(path="x", digest=digest_of(data), size_bytes=len(data))

    with pytest.raises(TrustError, match="`x` is not what was locked"):
        fetch_file(shaky, "x", tmp_path / "x", entry)
    assert list(tmp_path.iterdir()) == []
    fetch_file(shaky, "x", tmp_path / "x", entry)
    assert (tmp_path / "x").read_bytes() == data


@pytest.mark.parametrize("size_bytes", [1, PART_BYTES, 70 << 30, 320 << 30, 5 << 40])
def test_a_file_has_no_more_parts_than_s3_allows(size_bytes: int) -> None:
    assert -(-size_bytes // part_size_bytes(size_bytes)) <= 10_000
    assert part_size_bytes(size_bytes) >= PART_BYTES


def test_a_gateway_that_answers_a_range_with_everything_is_cut_to_the_range() -> None:
    whole = io.BytesIO(b"0123456789")
    body = Body(
        whole.read,
        whole.close,
        translate=lambda error: Unreachable(str(error)),
        failures=(),
        skip_bytes=3,
        limit_bytes=4,
    )

    assert body.read() == b"3456"


def test_stores_name_themselves(server: Seaweed, tmp_path: Path) -> None:
    store = open_store(f"s3://{BUCKET}/weights/", endpoint=server.endpoint)

    assert isinstance(store, S3Store)
    assert store.url == f"s3://{BUCKET}/weights/"
    assert open_store(tmp_path.as_uri()).url == tmp_path.as_uri()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_in_a_folder_is_named_and_not_opened(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "x")
    store = LocalStore(tmp_path)

    assert (store.stat("x"), list(store.list(""))) == (None, [])
    with pytest.raises(NotThere, match=r"cannot read .*/x: it is a folder, a device or a pipe"):
        store.open("x")
