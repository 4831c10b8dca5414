"""`gc`: nothing goes that a lock needs which is there, is on its way or is named; from a bucket, what is given up."""

import fcntl
import json
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.archive.cut import plan_archive
from sie_airgap.archive.packing import pack
from sie_airgap.failures import Drift, Misused
from sie_airgap.mirror.discarding import discard_from_bucket, plan_bucket_discard
from sie_airgap.mirror.patient_bucket import PatientBucket
from sie_airgap.mirror.weights import mirror_weights
from sie_airgap.progress import Silent
from sie_airgap.store.begun import begun, begun_locks
from sie_airgap.store.blobs import BlobFolder, lock_of, write_lock
from sie_airgap.store.claims import Claim, alone_bytes, dropped, given_up, needed
from sie_airgap.store.discarding import discard, plan_discard
from sie_airgap.verifying.bucket import verify_bucket
from sie_airgap.verifying.store import verify_store
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import Lock, lock_digest, lock_file
from sie_core.artifacts.stores.open import open_store
from sie_core.ids import Revision
from sie_testing.carried import FILES, Run, filled_store, make_lock, seeded

LATER = {
    "org/large": {"config.json": b"{}", "model.safetensors": seeded(400_000, seed=7)},
    "org/small": FILES["org/small"],
}
SECOND = make_lock(LATER, serial=2, revision=Revision("cd" * 20))
OLD_WEIGHTS = digest_of(FILES["org/large"]["model.safetensors"])


@pytest.fixture
def far(tmp_path: Path, airgap: Run, archive: Path) -> BlobFolder:
    """A store that took lock 1 and then lock 2."""
    second = filled_store(tmp_path / "second", SECOND, LATER)
    pack(plan_archive(SECOND, second, name="b"), second, tmp_path / "archive 2", progress=Silent())
    assert airgap("unpack", archive, "--store", "far")[0] == 0
    assert airgap("unpack", "archive 2", "--store", "far")[0] == 0
    return BlobFolder(tmp_path / "far")


@pytest.fixture
def url(tmp_path: Path, lock: Lock, store: BlobFolder) -> str:
    """A bucket that lock 1 and then lock 2 were mirrored to."""
    url = f"file://{tmp_path}/bucket"
    mirror_weights(lock, store, open_store(url), progress=Silent())
    second = filled_store(tmp_path / "second bucket's", SECOND, LATER)
    mirror_weights(SECOND, second, open_store(url), progress=Silent())
    return url


def test_every_lock_taken_here_keeps_its_blobs_until_it_is_given_up(airgap: Run, far: BlobFolder, lock: Lock) -> None:
    code, out, _ = airgap("gc", "far", "--delete")
    assert (code, out.splitlines()[-1]) == (0, "nothing to remove from far: a lock needs all of it")
    assert "--drop 1 gives up 3.0 MB that no other needs" in out

    code, out, err = airgap("gc", "far", "--drop", "1")
    assert (code, out.splitlines()[-1]) == (0, "to remove from far: 1 file, 3.0 MB")
    assert "--delete removes it" in err
    assert far.size(OLD_WEIGHTS) is not None

    code, out, _ = airgap("gc", "far", "--drop", "1", "--delete")
    assert (code, out.splitlines()[-1]) == (0, "removed from far: 1 file, 3.0 MB")
    assert far.size(OLD_WEIGHTS) is None
    assert verify_store(SECOND, far, progress=Silent()) == []
    code, _, err = airgap("rollback", "--to", "1", "--store", "far")
    assert code == 2
    assert "those that were: 2" in err


def test_nothing_goes_when_a_lock_came_after_the_plan(far: BlobFolder) -> None:
    plan = plan_discard(far, drop=[1])
    write_lock(far.root / "airgap.lock", msgspec.structs.replace(SECOND, serial=3))

    with pytest.raises(Drift, match=r"lock number 3 came to .* meanwhile; nothing was removed"):
        discard(far, plan)

    assert far.size(OLD_WEIGHTS) is not None


def test_the_lock_that_a_place_is_for_cannot_be_given_up(airgap: Run, far: BlobFolder, url: str) -> None:
    for what in ("far", url):
        code, _, err = airgap("gc", what, "--drop", "2", "--delete")
        assert code == 2
        assert "is for lock number 2, which cannot be given up" in err

    code, _, err = airgap("gc", "far", "--drop", "9", "--delete")
    assert code == 0
    assert "note: there is no lock number 9 in far" in err


def test_what_an_interrupted_unpack_brought_stays_for_the_next_run(
    airgap: Run, tmp_path: Path, lock: Lock, store: BlobFolder
) -> None:
    """One of two volumes was there: what came of it is of a lock that the store is not for yet."""
    third = make_lock(FILES, serial=3)
    again = filled_store(tmp_path / "third", third, FILES)
    assert airgap("pack", "media", "--store", "third", "--volume-size", "2MB")[0] == 0
    write_lock(store.root / "airgap.lock", make_lock({}, serial=2))
    for digest in again.sizes():
        store.path(digest).unlink()
    assert airgap("unpack", "media/v0001.tar", "--store", store.root)[0] == 10
    came = {path: path.stat().st_size for path in store.root.rglob("*") if path.is_file()}
    store.add(b"of nobody")

    code, out, _ = airgap("gc", store.root, "--delete")
    assert (code, out.splitlines()[-1]) == (0, f"removed from {store.root}: 1 file, 9 B")
    assert "begun and not ended" in out
    assert {path: path.stat().st_size for path in store.root.rglob("*") if path.is_file()} == came

    assert airgap("unpack", "media", "--store", store.root)[0] == 0
    assert begun_locks(store) == ()
    assert lock_of(store) == third


def test_what_is_on_its_way_can_be_given_up_too(airgap: Run, store: BlobFolder, tmp_path: Path) -> None:
    def killed() -> None:
        with begun(store, SECOND):
            store.add(LATER["org/large"]["model.safetensors"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert airgap("gc", store.root, "--delete")[1].endswith("a lock needs all of it\n")
    code, out, _ = airgap("gc", store.root, "--drop", "2", "--delete")
    assert (code, out.splitlines()[-1]) == (0, f"removed from {store.root}: 1 file, 400.0 kB")
    assert begun_locks(store) == ()


def test_the_connected_side_keeps_what_its_newest_lock_names(airgap: Run, store: BlobFolder, tmp_path: Path) -> None:
    """`lock` has put a chart there that the store's own lock does not name yet."""
    chart = store.add(b"the next chart")
    write_lock(tmp_path / "airgap.lock", make_lock({"org/x": {"a": b"the next chart"}}, serial=2))

    airgap("gc", store.root, "--delete")
    assert store.size(chart) is not None
    (tmp_path / "airgap.lock").unlink()
    airgap("gc", store.root, "--delete")
    assert store.size(chart) is None


def test_where_no_lock_says_what_stays_nothing_goes(airgap: Run, tmp_path: Path) -> None:
    bare = BlobFolder(tmp_path / "bare")
    bare.add(b"something")

    code, _, err = airgap("gc", "bare", "--delete")
    assert code == 4
    assert "no lock says which blobs of bare stay" in err
    assert len(bare.sizes()) == 1


def test_nothing_is_removed_while_another_run_fills_the_store(airgap: Run, far: BlobFolder) -> None:
    handle = os.open(far.root, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        code, _, err = airgap("gc", "far", "--drop", "1", "--delete")
    finally:
        os.close(handle)

    assert code == 10
    assert "another sie-airgap is writing" in err
    assert far.size(OLD_WEIGHTS) is not None


def test_a_bucket_loses_what_only_the_lock_given_up_named(airgap: Run, url: str, tmp_path: Path, lock: Lock) -> None:
    by_hand = tmp_path / "bucket/models--by--hand/snapshots/x/config.json"
    by_hand.parent.mkdir(parents=True)
    by_hand.write_text("{}")
    code, out, err = airgap("gc", url, "--delete")
    assert (code, out.splitlines()[-1]) == (0, f"nothing to remove from {url}: a lock needs all of it")
    assert "note: left alone: 1 file that no lock there names" in err

    code, out, _ = airgap("gc", url, "--drop", "1", "--delete", "--output", "json")
    told = json.loads(out)
    assert code == 0
    assert lock_file(lock_digest(lock)) in told["files"]
    assert not [name for name in told["files"] if (tmp_path / "bucket" / name).exists()]
    assert by_hand.exists()
    assert verify_bucket(open_store(url), SECOND, progress=Silent()) == []
    receipt = json.loads((tmp_path / "bucket/.sie/receipt.json").read_bytes())
    assert OLD_WEIGHTS not in {blob["digest"] for blob in receipt["blobs"]}


def test_the_lock_goes_last_so_that_a_run_that_stopped_goes_on(url: str, tmp_path: Path, lock: Lock) -> None:
    class Stopped(Exception):
        pass

    class Stopping(PatientBucket):
        left = 5

        def delete(self, name: str) -> None:
            self.left -= 1
            if self.left < 0:
                raise Stopped
            super().delete(name)

    bucket = open_store(url)
    stopping = Stopping(bucket, say=print)
    with pytest.raises(Stopped):
        discard_from_bucket(stopping, plan_bucket_discard(stopping, drop=[1]), _task())

    whole = PatientBucket(bucket, say=print)
    plan = plan_bucket_discard(whole, drop=[1])
    assert lock_file(lock_digest(lock)) in plan.names
    assert not [name for name in plan.names if "/refs/" in name or "/manifests/" in name]
    discard_from_bucket(whole, plan, _task())
    assert [claim.lock.serial for claim in plan_bucket_discard(whole).claims] == [2]


def test_a_bucket_that_somebody_uploads_to_is_left_alone(airgap: Run, url: str, tmp_path: Path) -> None:
    (tmp_path / "bucket" / ".incoming-x").write_bytes(b"half")
    before = sorted((tmp_path / "bucket").rglob("*"))

    code, _, err = airgap("gc", url, "--drop", "1", "--delete")
    assert code == 10
    assert "1 upload to " in err
    assert ".incoming-x, begun 20" in err
    assert sorted((tmp_path / "bucket").rglob("*")) == before


def test_a_lock_that_came_meanwhile_and_needs_what_went_is_told(url: str, tmp_path: Path) -> None:
    third = filled_store(tmp_path / "third", make_lock(FILES, serial=3), FILES)
    bucket = PatientBucket(open_store(url), say=print)
    plan = plan_bucket_discard(bucket, drop=[1])
    mirror_weights(lock_of(third), third, open_store(url), progress=Silent())

    with pytest.raises(Drift, match=r"lock number 3 came"):
        discard_from_bucket(bucket, plan, _task())


def test_a_lock_in_a_bucket_that_nobody_can_read_stops_it(airgap: Run, url: str, lock: Lock, tmp_path: Path) -> None:
    (tmp_path / "bucket" / lock_file(lock_digest(lock))).write_bytes(b'{"version": 9}')

    code, _, err = airgap("gc", url)
    assert code == 3
    assert lock_file(lock_digest(lock)) in err


NAMES = st.frozensets(st.sampled_from("abcdef"))


@given(st.lists(NAMES, min_size=1, max_size=5), st.data())
def test_nothing_that_a_kept_lock_needs_ever_goes(needs: list[frozenset[str]], data: st.DataObject) -> None:
    claims = [
        Claim(msgspec.structs.replace(SECOND, serial=number), "", names, is_current=number == 1)
        for number, names in enumerate(needs, start=1)
    ]
    drop = data.draw(st.sets(st.integers(min_value=2, max_value=max(2, len(needs))))) & set(range(2, len(needs) + 1))
    left = dropped(claims, drop, where="here")

    goes = given_up(left)
    assert not goes & needed(left)
    assert goes | needed(left) == frozenset().union(*needs)
    there = dict.fromkeys("abcdef", 1)
    for claim in left:
        if not claim.is_dropped and not claim.is_current:
            again = dropped(claims, {*drop, claim.lock.serial}, where="here")
            assert alone_bytes(claim, left, there) == len(given_up(again)) - len(goes)
    with pytest.raises(Misused, match="cannot be given up"):
        dropped(claims, {1}, where="here")


def _task() -> Silent:
    return Silent()
