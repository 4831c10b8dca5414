"""Fetching: waits for what passes, resumes what broke, and takes nothing that is not what was locked."""

from collections.abc import Iterator
from io import BytesIO, StringIO
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest

from sie_airgap.failures import Incomplete
from sie_airgap.patience import ATTEMPTS
from sie_airgap.progress import Lines, Silent
from sie_airgap.store.blobs import BlobFolder, lock_of
from sie_airgap.store.snapshot import OpenImageBlob, missing, snapshot
from sie_airgap.verifying.store import verify_store
from sie_core.artifacts.digest import digest_of, hex_of
from sie_core.artifacts.errors import NoPermission, NoSpace, NotThere, TrustError, Unreachable
from sie_core.artifacts.lock import Lock, LockedBlob, LockedImage
from sie_core.artifacts.stores.hub import Hub
from sie_testing.carried import CHART, FILES, WHEEL
from sie_testing.hub import Fault, FaultKind, serving_hub
from sie_testing.hub import Hub as Fake

LAYER = b"layer" * 1000
WEIGHTS = digest_of(FILES["org/large"]["model.safetensors"])


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    for model, files in FILES.items():
        for path, data in files.items():
            file = tmp_path / "hub" / model / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    pins = dict.fromkeys(FILES, "ab" * 20)
    return Fake(tmp_path / "hub", pins=pins, lfs_above_bytes=1000)  # type: ignore[arg-type]


@pytest.fixture
def hub(fake: Fake) -> Iterator[Hub]:
    with serving_hub(fake) as endpoint:
        yield Hub(endpoint)


@pytest.fixture
def fresh(tmp_path: Path) -> BlobFolder:
    """A store as `lock` leaves it: wheels and charts are there."""
    store = BlobFolder(tmp_path / "fresh")
    store.add(WHEEL)
    store.add(CHART)
    return store


def no_images(image: LockedImage, blob: LockedBlob, start: int) -> BinaryIO:
    raise NotThere(f"{image.reference} has no {blob.digest}")


def fetched(
    lock: Lock, store: BlobFolder, hub: Hub, *, waits: list[float] | None = None, open_blob: OpenImageBlob = no_images
) -> int:
    """How many bytes there were to fetch; what would have been waited is added to `waits`."""
    waited = [] if waits is None else waits
    return snapshot(lock, store, hub=hub, open_blob=open_blob, progress=Silent(), wait=waited.append).size_bytes


def test_everything_locked_is_in_the_store(lock: Lock, fresh: BlobFolder, hub: Hub) -> None:
    fetched(lock, fresh, hub)

    assert verify_store(lock, fresh, progress=Silent()) == []
    assert lock_of(fresh) == lock


def test_a_second_run_asks_for_nothing(lock: Lock, fresh: BlobFolder, fake: Fake, hub: Hub) -> None:
    fetched(lock, fresh, hub)
    fake.seen.clear()

    assert fetched(lock, fresh, hub) == 0
    assert not fake.seen


def test_the_store_is_for_no_lock_until_all_of_it_is_there(lock: Lock, fresh: BlobFolder, fake: Fake, hub: Hub) -> None:
    fake.set_faults(Fault(FaultKind.GATED, match="/org/small/*"))
    with pytest.raises(NoPermission):
        fetched(lock, fresh, hub)

    with pytest.raises(Incomplete):
        lock_of(fresh)
    assert fresh.size(WEIGHTS) is not None


def test_a_busy_hub_is_waited_for_as_long_as_it_says(lock: Lock, fresh: BlobFolder, fake: Fake, hub: Hub) -> None:
    fake.set_faults(Fault(FaultKind.STATUS, match="*/model.safetensors", status=429, retry_after_s=7, times=2))

    waits: list[float] = []
    fetched(lock, fresh, hub, waits=waits)
    assert waits == [7.0, 7.0]


def test_what_is_waited_for_is_said(lock: Lock, fresh: BlobFolder, fake: Fake, hub: Hub) -> None:
    fake.set_faults(Fault(FaultKind.STATUS, status=503, times=1))
    told = StringIO()

    lines = Lines(told, clock=lambda: 0.0)

    snapshot(lock, fresh, hub=hub, open_blob=no_images, progress=lines, wait=lambda seconds: None)
    assert "answered 503 for" in told.getvalue()
    assert "; again in 1 s\n" in told.getvalue()


def test_a_hub_that_stays_down_is_unreachable(lock: Lock, fresh: BlobFolder, fake: Fake, hub: Hub) -> None:
    fake.set_faults(Fault(FaultKind.STATUS, match="*/model.safetensors", status=503))

    waits: list[float] = []
    with pytest.raises(Unreachable, match="503"):
        fetched(lock, fresh, hub, waits=waits)
    assert waits == [2.0**attempt for attempt in range(ATTEMPTS - 1)]


def test_a_connection_that_breaks_goes_on_from_the_byte_it_broke_at(
    lock: Lock, fresh: BlobFolder, fake: Fake, hub: Hub
) -> None:
    fake.set_faults(Fault(FaultKind.TRUNCATE, match=f"/org/large/{hex_of(WEIGHTS)}", after_bytes=1_000_000, times=1))

    fetched(lock, fresh, hub)
    asked = [seen.range for seen in fake.seen if seen.origin == "blobs" and "large" in seen.path]
    assert verify_store(lock, fresh, progress=Silent()) == []
    assert any(range_ is not None and not range_.startswith("bytes=0-") for range_ in asked)


def test_other_bytes_than_were_locked_are_refused(lock: Lock, fresh: BlobFolder, hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "hub/org/large/model.safetensors"
    altered = bytearray(path.read_bytes())
    altered[5] ^= 1
    path.write_bytes(bytes(altered))

    with pytest.raises(TrustError) as caught:
        fetched(lock, fresh, hub)
    assert "model.safetensors" in str(caught.value)
    assert caught.value.hint is not None
    assert "lock --check" in caught.value.hint
    assert fresh.size(WEIGHTS) is None


def test_wheels_that_are_gone_are_named(lock: Lock, fresh: BlobFolder) -> None:
    fresh.path(digest_of(WHEEL)).unlink()

    with pytest.raises(Incomplete, match=r"sie_airgap-0\.3\.1"):
        missing(lock, fresh)


def with_image(lock: Lock) -> Lock:
    blob = LockedBlob(digest_of(LAYER), len(LAYER), "application/vnd.oci.image.layer.v1.tar")
    image = LockedImage("ghcr.io/x/y:1", blob.digest, blob.media_type, {}, (blob,), (), ("Deployment/y",))
    return msgspec.structs.replace(lock, images=(image,))


def test_image_blobs_go_on_where_they_broke(lock: Lock, fresh: BlobFolder, hub: Hub) -> None:
    starts: list[int] = []

    def breaking(image: LockedImage, blob: LockedBlob, start: int) -> BinaryIO:
        starts.append(start)
        return Broken(LAYER[start : start + 2000]) if len(starts) == 1 else BytesIO(LAYER[start:])

    fetched(with_image(lock), fresh, hub, open_blob=breaking)
    assert starts == [0, 2000]
    assert fresh.size(digest_of(LAYER)) == len(LAYER)


class Broken(BytesIO):
    """Ends in a broken connection."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise Unreachable("the connection was reset")
        return data


def test_an_image_blob_that_is_another_is_refused(lock: Lock, fresh: BlobFolder, hub: Hub) -> None:
    def wrong(image: LockedImage, blob: LockedBlob, start: int) -> BinaryIO:
        return BytesIO((b"X" * len(LAYER))[start:])

    with pytest.raises(TrustError) as caught:
        fetched(with_image(lock), fresh, hub, open_blob=wrong)
    assert caught.value.want.startswith(digest_of(LAYER))
    assert not fresh.arriving(digest_of(LAYER)).exists()


def test_what_does_not_fit_is_not_begun(
    lock: Lock, fresh: BlobFolder, fake: Fake, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(fresh.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))

    with pytest.raises(NoSpace, match="1,000 bytes free"):
        fetched(lock, fresh, hub)
    assert not fake.seen
