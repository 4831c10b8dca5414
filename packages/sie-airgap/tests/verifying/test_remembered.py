"""What `verify` read of a store is not read again, unless it may have changed."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.archive.media import read_media
from sie_airgap.mirror.weights import mirror_weights
from sie_airgap.progress import Silent
from sie_airgap.settings import state_folder
from sie_airgap.store.blobs import BlobFolder
from sie_airgap.verifying.bucket import verify_bucket
from sie_airgap.verifying.media import verify_media
from sie_airgap.verifying.remembered import Remembered, is_exchangeable, record_of, stamp_of
from sie_airgap.verifying.stamps import SETTLED_NS, Stamp, decode_stamps, encode_stamps
from sie_airgap.verifying.store import verify_store
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import Lock, lock_digest
from sie_core.artifacts.stores.local import LocalStore
from sie_testing.archives import flip, forge, packed, placed, volume_at, volumes
from sie_testing.carried import FILES, Run
from sie_testing.mounts import mounted, needs_mounts

BLOBS = 7
WEIGHTS = digest_of(FILES["org/large"]["model.safetensors"])


@pytest.fixture
def record(store: BlobFolder) -> Path:
    path = record_of(state_folder(), store.root)
    path.unlink(missing_ok=True)
    return path


def _later_ns() -> int:
    """Some time after everything here was written."""
    return time.time_ns() + 10 * SETTLED_NS


def _verified(lock: Lock, store: BlobFolder, record: Path, *, deep: bool = False) -> tuple[int, list[str]]:
    """How many blobs were known, and the findings."""
    known = Remembered(record, deep=deep, now_ns=_later_ns())
    findings = verify_store(lock, store, progress=Silent(), remembered=known)
    return known.count, [str(one) for one in findings]


def _flip(path: Path) -> None:
    """One bit another, in place, with the length and the mtime as they were; not in the tick of its last change."""
    before = path.stat()
    times = before.st_atime_ns, before.st_mtime_ns
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        os.utime(path, ns=times)
    with path.open("r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=times)
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)


def _stamp(path: Path) -> Stamp:
    with path.open("rb") as file:
        stamp = stamp_of(file.fileno())
    assert stamp is not None
    return stamp


def test_what_was_read_and_is_unchanged_is_not_read_again(lock: Lock, store: BlobFolder, record: Path) -> None:
    assert _verified(lock, store, record) == (0, [])
    assert _verified(lock, store, record) == (BLOBS, [])
    assert _verified(lock, store, record, deep=True) == (0, [])
    assert _verified(lock, store, record) == (BLOBS, [])


def test_a_flipped_bit_is_found_though_the_mtime_was_put_back(lock: Lock, store: BlobFolder, record: Path) -> None:
    _verified(lock, store, record)
    _flip(store.path(WEIGHTS))

    known, (finding,) = _verified(lock, store, record)
    assert known == BLOBS - 1
    assert "`model.safetensors` of `org/large` is not what was locked" in finding
    assert WEIGHTS not in decode_stamps(record.read_bytes())
    assert len(_verified(lock, store, record)[1]) == 1


def test_a_file_put_in_its_place_is_read(lock: Lock, store: BlobFolder, record: Path) -> None:
    _verified(lock, store, record)
    path = store.path(WEIGHTS)
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[::-1])
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)

    assert len(_verified(lock, store, record)[1]) == 1


def test_deep_reads_even_what_the_record_vouches_for(lock: Lock, store: BlobFolder, record: Path, airgap: Run) -> None:
    """As when a disk goes bad under a file: nobody wrote to it. Here the record is made to say so."""
    path = store.path(WEIGHTS)
    _flip(path)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_bytes(encode_stamps({WEIGHTS: _stamp(path)}))

    code, out, err = airgap("verify", store.root)
    assert code == 0, err
    assert "1 file of it, 3.0 MB, read before and not written to since: `--deep` reads them again" in out
    record.write_bytes(encode_stamps({WEIGHTS: _stamp(path)}))
    code, _, err = airgap("verify", store.root, "--deep")
    assert code == 3
    assert "`model.safetensors` of `org/large` is not what was locked" in err


def test_what_was_written_just_now_is_not_remembered(lock: Lock, store: BlobFolder, record: Path, airgap: Run) -> None:
    """By the real clock: this store is younger than two seconds, or its blobs are read twice all the same."""
    now_ns = min(path.stat().st_ctime_ns for path in (store.root / "blobs" / "sha256").iterdir()) + SETTLED_NS - 1
    verify_store(lock, store, progress=Silent(), remembered=Remembered(record, now_ns=now_ns))
    assert decode_stamps(record.read_bytes()) == {}


def test_a_blob_that_cannot_be_read_is_told_and_the_others_are_read(
    store: BlobFolder, record: Path, airgap: Run
) -> None:
    """As of a bad disk; a folder stands for it, which nobody can read either, the superuser included."""
    bad, missing = store.path(WEIGHTS), store.path(digest_of(FILES["org/small"]["sub/vocab.txt"]))
    bad.unlink()
    bad.mkdir()
    missing.unlink()

    code, _, err = airgap("verify", store.root)
    assert code == 4
    assert f"cannot be read\n  at    {bad}\n  want  {WEIGHTS}\n  have  Is a directory" in err
    assert f"`sub/vocab.txt` of `org/small` is not in {store.root}" in err


def test_how_much_was_not_read_is_told(lock: Lock, store: BlobFolder, record: Path, airgap: Run) -> None:
    _verified(lock, store, record)

    code, out, _ = airgap("verify", store.root, "--output", "json")
    assert code == 0
    facts = {"verified": [str(store.root)], "findings": 0, "lock": lock_digest(lock), "remembered": BLOBS}
    assert json.loads(out) == facts


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b'{"version":2,"files":{}}', b'{"version":1,"files":{"x":{"device":1}}}']
)
def test_a_record_that_cannot_be_read_says_nothing(lock: Lock, store: BlobFolder, record: Path, data: bytes) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_bytes(data)

    assert _verified(lock, store, record) == (0, [])
    assert _verified(lock, store, record) == (BLOBS, [])


def test_a_record_that_cannot_be_written_is_said_and_nothing_else(
    lock: Lock, store: BlobFolder, airgap: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").write_bytes(b"a file where the folder should be")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    code, out, err = airgap("verify", store.root)
    assert (code, out) == (0, f"{store.root}: every byte is what was locked\n")
    assert "note: what was read is not remembered" in err


def test_stores_have_records_of_their_own(tmp_path: Path) -> None:
    assert record_of(tmp_path, tmp_path / "a") != record_of(tmp_path, tmp_path / "b")
    assert record_of(tmp_path, tmp_path / "a") == record_of(tmp_path, tmp_path / "x" / ".." / "a")


times = st.integers(0, 1 << 62)
stamps = st.builds(Stamp, times, times, times, times, times)


@given(st.dictionaries(st.binary().map(digest_of), stamps))
def test_a_record_reads_as_it_was_written(files: dict[str, Stamp]) -> None:
    assert decode_stamps(encode_stamps(files)) == files


@given(stamps, times)
def test_only_what_is_two_seconds_old_and_finely_dated_is_settled(stamp: Stamp, now_ns: int) -> None:
    if stamp.is_settled(now_ns):
        assert now_ns - stamp.mtime_ns >= SETTLED_NS
        assert now_ns - stamp.ctime_ns >= SETTLED_NS
        assert stamp.ctime_ns % 1_000_000


@pytest.mark.parametrize(
    ("mtime_ns", "ctime_ns", "now_ns", "settled"),
    [
        (5, 5, SETTLED_NS + 5, True),
        (5, 5, SETTLED_NS + 4, False),
        (5, 6, SETTLED_NS + 5, False),
        (6, 5, SETTLED_NS + 5, False),
        (5, 3_000_000_000, 9_000_000_000, False),
    ],
)
def test_when_a_file_is_settled(mtime_ns: int, ctime_ns: int, now_ns: int, settled: bool) -> None:
    assert Stamp(1, 1, 1, mtime_ns, ctime_ns).is_settled(now_ns) is settled


def test_a_bucket_on_this_disk_is_remembered_file_by_file(
    lock: Lock, store: BlobFolder, record: Path, tmp_path: Path
) -> None:
    """Two files of the same bytes are two: what holds for one says nothing of the other."""
    there = LocalStore(tmp_path / "bucket")
    mirror_weights(lock, store, there, progress=Silent())

    def looked(*, deep: bool = False) -> tuple[int, int]:
        known = Remembered(record, deep=deep, now_ns=_later_ns())
        findings = verify_bucket(there, lock, progress=Silent(), remembered=known)
        return known.count, len(findings)

    files = sum(len(model.files) for model in lock.models)
    assert looked() == (0, 0)
    assert looked() == (files, 0)
    _flip(there.root / f"models--org--large/snapshots/{lock.models[0].revision}/model.safetensors")
    assert looked() == (files - 1, 1)
    assert looked(deep=True) == (0, 1)


def _disk(sys: Path, at: str, *, removable: str, partition: bool) -> int:
    """A disk as the kernel shows it below /sys, with the number 8:16; or 8:17, its partition."""
    folder = sys / "devices" / at / "block" / "sdb"
    (folder / "sdb1").mkdir(parents=True)
    (folder / "removable").write_text(f"{removable}\n")
    (sys / "dev" / "block").mkdir(parents=True)
    (sys / "dev" / "block" / "8:17").symlink_to(folder / "sdb1")
    (sys / "dev" / "block" / "8:16").symlink_to(folder)
    return os.makedev(8, 17 if partition else 16)


@pytest.mark.parametrize("partition", [False, True])
@pytest.mark.parametrize(
    ("at", "removable", "exchangeable"),
    [("pci0/ata1", "0", False), ("pci0/ata1", "1", True), ("pci0/usb2/2-1", "0", True)],
)
def test_a_disk_that_can_be_pulled_out_is_known(
    tmp_path: Path, at: str, removable: str, exchangeable: bool, partition: bool
) -> None:
    device = _disk(tmp_path, at, removable=removable, partition=partition)
    assert is_exchangeable(device, sys=tmp_path) is exchangeable
    with (tmp_path / "file").open("wb") as file:
        assert stamp_of(file.fileno(), sys=tmp_path) is not None


@needs_mounts
def test_a_medium_that_cannot_be_written_to_is_read_each_time(
    lock: Lock, store: BlobFolder, record: Path, tmp_path: Path
) -> None:
    """A disc and its copy show the same times and inodes."""
    with mounted(tmp_path / "disc", "-o", "bind,ro", str(store.root)) as disc:
        for _ in range(2):
            assert _verified(lock, BlobFolder(disc), record) == (0, [])


@pytest.fixture
def cut(tmp_path: Path, lock: Lock, store: BlobFolder) -> Path:
    """An archive with a blob that is cut across its volumes, and a parity volume."""
    return packed(lock, store, tmp_path / "cut", parity=10)


def _media(record: Path, *paths: Path, deep: bool = False) -> tuple[int, int]:
    """How many volumes were known, and how many findings there are."""
    known = Remembered(record, deep=deep, now_ns=_later_ns())
    findings = verify_media(read_media(paths), progress=Silent(), remembered=known)
    return known.count, len(findings)


def test_volumes_are_remembered(cut: Path, record: Path) -> None:
    count = len(volumes(cut)) + 1
    assert _media(record, cut) == (0, 0)
    assert _media(record, cut) == (count, 0)
    assert _media(record, cut, deep=True) == (0, 0)

    path, offset = placed(cut, "sub/vocab.txt", "org/small")
    flip(path, offset)
    assert _media(record, cut) == (count - 1, 1)
    assert _media(record, cut) == (count - 1, 1)


def test_a_volume_is_read_again_under_other_sums(cut: Path, record: Path) -> None:
    _media(record, cut)
    (cut / "SHA256SUMS").write_text(f"{'0' * 64}  v0001.tar\n")

    assert _media(record, cut) == (0, 1)


def test_parts_that_were_right_one_by_one_are_put_together_all_the_same(
    cut: Path, record: Path, lock: Lock, store: BlobFolder
) -> None:
    """Altered together with its checksums, a part is right by itself; only the blob's digest shows it."""
    path = volumes(cut)[0]
    member = next(one for one in volume_at(path).members if not one.whole)
    flip(path, member.offset + 5)
    forge(path, volume_at(path))
    (cut / "SHA256SUMS").unlink()
    (cut / "p0001.tar").unlink()
    every = volumes(cut)
    for one in every:  # each alone, remembered by the same record
        kept = decode_stamps(record.read_bytes()) if record.is_file() else {}
        _media(record, one)
        record.write_bytes(encode_stamps(kept | decode_stamps(record.read_bytes())))

    known, findings = _media(record, cut)
    assert (known, findings) == (len(every), 1)


def test_what_was_put_together_is_known_with_its_parts(cut: Path, record: Path) -> None:
    _media(record, cut)
    first = volumes(cut)[0]
    first.replace(cut / "x")
    shutil.copy(cut / "x", first)
    (cut / "x").unlink()

    assert _media(record, cut) == (len(volumes(cut)), 0)  # the parity volume and all but the first


def test_media_are_remembered_by_the_verb(cut: Path, airgap: Run) -> None:
    record = record_of(state_folder(), cut)
    record.unlink(missing_ok=True)
    _media(record, cut)

    code, out, err = airgap("verify", cut)
    assert code == 0, err
    assert "4 files of it" in out
    assert "`--deep` reads them again" in out


@needs_mounts
def test_volumes_on_a_disc_are_read_each_time(cut: Path, record: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disc", "-o", "bind,ro", str(cut)) as disc:
        for _ in range(2):
            assert _media(record, disc) == (0, 0)
