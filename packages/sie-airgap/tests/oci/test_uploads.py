"""Blobs into a registry: in parts, past limits, after kills and breaks; with how much was sent again."""

import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path

import pytest

from sie_airgap.oci.reference import parse_place
from sie_airgap.oci.refusals import Refused, TooLarge
from sie_airgap.oci.registry import Registry
from sie_airgap.oci.sessions import Session, Sessions, kept_sessions
from sie_airgap.oci.uploads import Stopped, Upload, Uploader
from sie_core.artifacts.digest import digest_of, digest_of_stream
from sie_core.artifacts.errors import NotThere, TransferError, TrustError, Unreachable
from sie_core.artifacts.lock import LockedBlob
from sie_testing import registry as stand_in
from sie_testing.carried import seeded
from sie_testing.registry import Access, serving_registry
from sie_testing.registry.docker import docker_registry_program, serving_docker_registry
from sie_testing.tcp_faults import TcpFault, proxy

PART = 256 << 10
DATA = seeded(8 * PART + 12_345, seed=7)
BLOB = LockedBlob(digest_of(DATA), len(DATA), "application/vnd.oci.image.layer.v1.tar")
REPOSITORY = "sie/sie-server"

real = pytest.mark.skipif(
    docker_registry_program() is None, reason="docker-registry is not installed (Debian package `docker-registry`)"
)


@pytest.fixture
def there(tmp_path: Path) -> stand_in.Registry:
    return stand_in.Registry(tmp_path / "registry")


@pytest.fixture
def origin(there: stand_in.Registry) -> Iterator[str]:
    with serving_registry(there) as origin:
        yield origin


@pytest.fixture(params=["stand-in", pytest.param("docker-registry", marks=real)])
def any_origin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    served: AbstractContextManager[str] = serving_docker_registry(tmp_path / "docker")
    if request.param == "stand-in":
        served = serving_registry(stand_in.Registry(tmp_path / "any"))
    with served as origin:
        yield origin


class Pushing:
    """One run of an uploader: what it said, how much it counted as moved, and `stop`."""

    def __init__(self, origin: str, *, sessions: Sessions | None = None, part_bytes: int = PART) -> None:
        self.said: list[str] = []
        self.moved = 0
        self.stop = threading.Event()
        self.stop_at: int | None = None
        self.registry = Registry(parse_place(origin))
        self.uploader = Uploader(
            self.registry, sessions=sessions or Sessions(), say=self.said.append, stop=self.stop, part_bytes=part_bytes
        )

    def __call__(self, data: bytes = DATA, blob: LockedBlob = BLOB) -> None:
        self.uploader.push(Upload(REPOSITORY, blob, lambda start: BytesIO(data[start:])), advance=self._advance)

    def _advance(self, size_bytes: int) -> None:
        self.moved += size_bytes
        if self.stop_at is not None and self.moved >= self.stop_at:
            self.stop.set()

    def arrived(self) -> bytes:
        with self.registry.open_blob(REPOSITORY, BLOB.digest) as stream:
            return stream.read()


@pytest.fixture
def pushing(origin: str) -> Iterator[Pushing]:
    run = Pushing(origin)
    with run.registry:
        yield run


def test_a_large_blob_goes_in_parts_and_is_the_same_there(any_origin: str) -> None:
    push = Pushing(any_origin)
    with push.registry:
        push()

        assert push.arrived() == DATA
    assert (push.moved, push.said) == (len(DATA), [])


def test_a_small_blob_goes_in_one_request(there: stand_in.Registry, origin: str) -> None:
    push = Pushing(origin, part_bytes=len(DATA))
    with push.registry:
        push()

    assert [seen.method for seen in there.seen] == ["POST", "PUT"]


def test_a_run_that_is_stopped_ends_its_part_and_another_goes_on_there(any_origin: str, tmp_path: Path) -> None:
    with proxy(any_origin) as between:
        with kept_sessions(tmp_path, any_origin, say=print) as sessions:
            first = Pushing(between.endpoint, sessions=sessions)
            first.stop_at = 3 * PART + 1
            with first.registry, pytest.raises(Stopped):
                first()
        with kept_sessions(tmp_path, any_origin, say=print) as sessions:
            second = Pushing(between.endpoint, sessions=sessions)
            with second.registry:
                second()

                assert second.arrived() == DATA
        assert (second.said, second.moved) == ([], len(DATA))
        assert between.asked_bytes < len(DATA) + 20_000


def test_an_upload_that_breaks_goes_on_from_what_arrived(there: stand_in.Registry, origin: str) -> None:
    with proxy(origin) as between:
        push = Pushing(between.endpoint)
        with push.registry:
            between.arm(TcpFault("reset", after_bytes=900))  # in the answers: after three parts or so
            with pytest.raises(Unreachable):
                push()
            assert push.moved == 0
            push()

            assert push.arrived() == DATA
    assert (push.moved, push.said) == (len(DATA), [])
    assert there.received_bytes <= len(DATA) + PART


@real
def test_a_registry_that_forgot_is_told_of_and_gets_all_of_it(tmp_path: Path) -> None:
    with serving_docker_registry(tmp_path / "docker") as origin:
        sessions = Sessions()
        first = Pushing(origin, sessions=sessions)
        first.stop_at = PART
        with first.registry, pytest.raises(Stopped):
            first()
        known = sessions.find(REPOSITORY, BLOB.digest)
        assert known is not None
        sessions.keep(REPOSITORY, BLOB.digest, Session(known.location.replace("_state=", "_state=x"), known.offset))
        second = Pushing(origin, sessions=sessions)
        with second.registry:
            second()

            assert second.arrived() == DATA
    assert second.said == [f"{origin[7:]} has forgotten 262.1 kB of {BLOB.digest[7:19]}: it starts anew"]


def test_what_a_registry_kept_wrongly_of_an_earlier_run_is_sent_anew(there: stand_in.Registry, origin: str) -> None:
    sessions = Sessions()
    first = Pushing(origin, sessions=sessions)
    first.stop_at = 2 * PART
    with first.registry, pytest.raises(Stopped):
        first()
    [upload] = (there.blob_path(BLOB.digest).parents[2] / "uploads").iterdir()
    upload.write_bytes(bytes(upload.stat().st_size))
    second = Pushing(origin, sessions=sessions)
    with second.registry:
        second()

        assert second.arrived() == DATA
    assert second.moved == len(DATA)


@pytest.mark.parametrize("limit", [PART, 100_000, 64 << 10])
def test_a_limit_on_bodies_is_found_and_remembered(there: stand_in.Registry, origin: str, limit: int) -> None:
    there.longest_body = limit
    push = Pushing(origin, part_bytes=64 << 20)
    with push.registry:
        push()
        refused = [seen for seen in there.seen if seen.status == 413]
        assert push.arrived() == DATA
        other = seeded(len(DATA), seed=8)
        push(other, LockedBlob(digest_of(other), len(other), BLOB.media_type))

    assert 0 < len(refused) == len([seen for seen in there.seen if seen.status == 413])
    assert len(push.said) == 1
    assert "limits bodies: parts of" in push.said[0]
    assert push.moved == 2 * len(DATA)


def test_a_limit_under_which_nothing_fits_is_told(there: stand_in.Registry, pushing: Pushing) -> None:
    there.longest_body = 1000

    with pytest.raises(TooLarge, match="413") as refused:
        pushing()
    assert refused.value.hint is not None
    assert "client_max_body_size" in refused.value.hint
    assert pushing.moved == 0


def test_a_registry_that_takes_no_parts_gets_whole_blobs(there: stand_in.Registry, pushing: Pushing) -> None:
    there.takes_parts = False
    pushing()

    assert pushing.arrived() == DATA
    assert "takes no parts" in pushing.said[0]
    assert pushing.moved == len(DATA)


def test_a_token_that_runs_out_between_parts_is_fetched_anew(tmp_path: Path) -> None:
    access = Access(None, None, with_tokens=True)
    there = stand_in.Registry(tmp_path / "registry", access=access)
    with serving_registry(there) as origin:
        push = Pushing(origin)
        with push.registry:
            push.stop_at = 3 * PART
            with pytest.raises(Stopped):
                push()
            access.tokens.clear()
            push.stop.clear()
            push.stop_at = None
            push.moved = 0
            push()

            assert push.arrived() == DATA
    assert push.moved == len(DATA)


@pytest.mark.parametrize("part_bytes", [PART, 64 << 20], ids=["in parts", "whole"])
def test_altered_data_never_become_a_blob_there(any_origin: str, part_bytes: int) -> None:
    push = Pushing(any_origin, part_bytes=part_bytes)
    with push.registry:
        with pytest.raises(TrustError, match=f"(?s)not what was locked.*want  {BLOB.digest}"):
            push(DATA[:-1] + bytes([DATA[-1] ^ 1]))

        assert push.registry.blob_size(REPOSITORY, BLOB.digest) is None
    assert push.moved == 0


@pytest.mark.parametrize("part_bytes", [PART, 64 << 20], ids=["in parts", "whole"])
def test_a_registry_that_checks_nothing_gets_no_altered_blob_either(
    there: stand_in.Registry, origin: str, part_bytes: int
) -> None:
    there.checks_digests = False
    push = Pushing(origin, part_bytes=part_bytes)
    with push.registry:
        with pytest.raises(TrustError, match="not what was locked"):
            push(DATA[:-1] + bytes([DATA[-1] ^ 1]))

        assert push.registry.blob_size(REPOSITORY, BLOB.digest) is None


@pytest.mark.parametrize("part_bytes", [PART, 64 << 20], ids=["in parts", "whole"])
def test_data_that_end_too_early_are_told_as_altered(any_origin: str, part_bytes: int) -> None:
    push = Pushing(any_origin, part_bytes=part_bytes)
    with push.registry, pytest.raises(TrustError, match="not what was locked"):
        push(DATA[:-1000])


@pytest.mark.parametrize("part_bytes", [PART, 64 << 20], ids=["in parts", "whole"])
def test_a_registry_that_keeps_other_bytes_is_found_out(there: stand_in.Registry, origin: str, part_bytes: int) -> None:
    there.alters_blobs = True
    push = Pushing(origin, part_bytes=part_bytes)

    with push.registry, pytest.raises(TrustError, match=f"(?s)keeps another blob.*want  {BLOB.digest}"):
        push()


def test_a_source_that_lost_its_blob_is_told_as_such(pushing: Pushing) -> None:
    def gone(start: int) -> BytesIO:
        raise NotThere("the disk was taken out")

    with pytest.raises(NotThere, match="taken out"):
        pushing.uploader.push(Upload(REPOSITORY, BLOB, gone), advance=lambda _: None)


def test_what_is_remembered_is_read_by_its_owner_alone_and_gone_when_it_arrived(
    there: stand_in.Registry, origin: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with kept_sessions(state, origin, say=print) as sessions:
        push = Pushing(origin, sessions=sessions)
        push.stop_at = PART
        with push.registry:
            with pytest.raises(Stopped):
                push()
            [kept] = state.rglob("*.json")
            assert kept.stat().st_mode & 0o777 == 0o600
            push.stop.clear()
            push.stop_at = None
            push()

    assert not [path for path in state.rglob("*") if path.parent.name == "uploads"]


def test_what_no_registry_remembers_any_more_is_thrown_away(origin: str, tmp_path: Path) -> None:
    with kept_sessions(tmp_path, origin, say=print) as sessions:
        sessions.keep(REPOSITORY, BLOB.digest, Session("/x", 5))
        [path] = tmp_path.rglob("*.json")
        os.utime(path, (0, 0))
    with kept_sessions(tmp_path, origin, say=print) as sessions:
        assert sessions.find(REPOSITORY, BLOB.digest) is None


def test_two_at_once_do_not_write_into_each_others_uploads(origin: str, tmp_path: Path) -> None:
    said: list[str] = []
    with (
        kept_sessions(tmp_path, origin, say=said.append) as first,
        kept_sessions(tmp_path, origin, say=said.append) as second,
    ):
        first.keep(REPOSITORY, BLOB.digest, Session("/x", 5))
        assert second.find(REPOSITORY, BLOB.digest) is None
    assert len(said) == 1
    assert "another sie-airgap" in said[0]


def test_without_a_place_to_remember_it_goes_on_and_says_so(origin: str, tmp_path: Path) -> None:
    (tmp_path / "uploads").write_text("in the way")
    said: list[str] = []
    with kept_sessions(tmp_path, origin, say=said.append) as sessions:
        push = Pushing(origin, sessions=sessions)
        with push.registry:
            push()

    assert "will start anew" in said[0]


@pytest.mark.parametrize("kept", [b"", b"{}", b'{"location": 1, "offset": 2}', b"\xff"])
def test_a_remembered_upload_that_cannot_be_read_is_none(tmp_path: Path, origin: str, kept: bytes) -> None:
    with kept_sessions(tmp_path, origin, say=print) as sessions:
        sessions.keep(REPOSITORY, BLOB.digest, Session("/x", 5))
        [path] = tmp_path.rglob("*.json")
        path.write_bytes(kept)
    with kept_sessions(tmp_path, origin, say=print) as sessions:
        assert sessions.find(REPOSITORY, BLOB.digest) is None


KILLED = r"""
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sie_airgap.oci.reference import parse_place
from sie_airgap.oci.registry import Registry
from sie_airgap.oci.sessions import kept_sessions
from sie_airgap.oci.uploads import Upload, Uploader
from sie_core.artifacts.digest import digest_of, digest_of_stream
from sie_core.artifacts.lock import LockedBlob
from sie_testing.carried import seeded

origin, state, part_bytes, kill_at, size_bytes = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
moved = 0


def advance(size_bytes):
    global moved
    moved += size_bytes
    if moved >= kill_at:
        os.kill(os.getpid(), signal.SIGKILL)


def push(seed):
    from io import BytesIO

    data = seeded(size_bytes, seed=seed)
    blob = LockedBlob(digest_of(data), size_bytes, "x/y")
    if registry.blob_size(f"sie/image-{seed}", blob.digest) is None:
        uploader.push(Upload(f"sie/image-{seed}", blob, lambda start: BytesIO(data[start:])), advance=advance)


with kept_sessions(state, origin, say=print) as sessions, Registry(parse_place(origin)) as registry:
    uploader = Uploader(registry, sessions=sessions, say=print, stop=threading.Event(), part_bytes=part_bytes)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(push, range(3)))
"""
EACH = 6 * PART + 777


def _killed_and_run_again(there: stand_in.Registry, origin: str, state: Path, kill_at: int) -> None:
    command = [sys.executable, "-c", KILLED, origin, str(state), str(PART)]
    killed = subprocess.run([*command, str(kill_at), str(EACH)], capture_output=True, timeout=60)
    assert killed.returncode == -9, killed.stderr
    again = subprocess.run([*command, str(1 << 60), str(EACH)], capture_output=True, timeout=60, text=True)
    assert again.returncode == 0, again.stderr

    assert there.received_bytes <= 3 * EACH + 3 * PART
    for seed in range(3):
        assert there.blob_path(digest_of(seeded(EACH, seed=seed))).stat().st_size == EACH


@pytest.mark.parametrize("kill_at", [1, 4 * PART + 5, 3 * EACH - 1])
def test_killed_it_sends_at_most_a_part_a_stream_again(
    there: stand_in.Registry, origin: str, tmp_path: Path, kill_at: int
) -> None:
    _killed_and_run_again(there, origin, tmp_path / "state", kill_at)


@pytest.mark.gap_kills
@pytest.mark.timeout(600)
def test_killed_at_fifty_points_it_sends_at_most_a_part_a_stream_again(tmp_path: Path) -> None:
    chance = random.Random(5)  # noqa: S311 - nothing secret is drawn
    for number in range(50):
        there = stand_in.Registry(tmp_path / f"registry-{number}")
        with serving_registry(there) as origin:
            _killed_and_run_again(there, origin, tmp_path / f"state-{number}", chance.randrange(1, 3 * EACH))


@pytest.mark.parametrize("location", ["http://127.0.0.1:1/elsewhere", "/v2/gone"])
def test_an_upload_whose_place_is_gone_starts_anew(origin: str, location: str) -> None:
    sessions = Sessions()
    sessions.keep(REPOSITORY, BLOB.digest, Session(location, PART))
    push = Pushing(origin, sessions=sessions)
    with push.registry:
        if location.startswith("/"):
            push()
            assert push.arrived() == DATA
        else:
            with pytest.raises(TransferError):
                push()


def test_an_upload_that_is_refused_for_good_says_why(there: stand_in.Registry, pushing: Pushing) -> None:
    there.takes_parts = False
    there.longest_body = PART

    with pytest.raises(Refused, match="413"):
        pushing()
    assert pushing.moved == 0


PUSHED = r"""
import sys
import threading
from pathlib import Path

from sie_airgap.store.blobs import window
from sie_airgap.oci.reference import parse_place
from sie_airgap.oci.registry import Registry
from sie_airgap.oci.sessions import Sessions
from sie_airgap.oci.uploads import Upload, Uploader
from sie_core.artifacts.lock import LockedBlob

origin, path, digest, size_bytes = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])


def highest_kib():
    # Not getrusage: what it tells includes the memory of whoever started this process.
    return int(dict(line.split(":", 1) for line in open("/proc/self/status"))["VmHWM"].split()[0])


begun = highest_kib()
with Registry(parse_place(origin)) as registry:
    uploader = Uploader(registry, sessions=Sessions(), say=print, stop=threading.Event())
    blob = LockedBlob(digest, size_bytes, "x/y")
    upload = Upload("sie/large", blob, lambda start: window(path, start=start, length=None))
    uploader.push(upload, advance=lambda _: None)
print(highest_kib() - begun)
"""


@real
@pytest.mark.gap_large
@pytest.mark.timeout(900)
def test_a_layer_of_six_gigabytes_takes_bounded_memory(tmp_path: Path) -> None:
    path, size_bytes = tmp_path / "layer", 6 << 30
    with path.open("wb") as file:
        file.truncate(size_bytes)  # sparse: it is read as zeros
    with path.open("rb") as file:
        digest, _ = digest_of_stream(file)
    with serving_docker_registry(tmp_path / "docker") as origin:
        command = [sys.executable, "-c", PUSHED, origin, str(path), digest, str(size_bytes)]
        pushed = subprocess.run(command, capture_output=True, text=True, timeout=800)
        assert pushed.returncode == 0, pushed.stderr
        with Registry(parse_place(origin)) as registry:
            assert registry.blob_size("sie/large", digest) == size_bytes
        shutil.rmtree(tmp_path / "docker" / "data")

    grown_mib = int(pushed.stdout) / 1024
    assert grown_mib < 48, f"{grown_mib:.0f} MiB more than at its start"
