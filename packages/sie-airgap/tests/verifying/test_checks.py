"""What a check found, written down: read back as it was, and refused by name where it is damaged."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.verifying.checks import LEVELS, Check, Kind, decode_check, encode_check, file_of
from sie_airgap.verifying.records import Records, differing, stamps_of, unchanged
from sie_airgap.verifying.stamps import SETTLED_NS, Stamp
from sie_core.artifacts.digest import digest_of

LOCK = digest_of(b"lock")
BUCKET = Check(4, Kind.BUCKET, LOCK, "s3://b/w/", 20, 20, 0, "as locked", "0.3.1", again=("verify", "s3://b/w/"))
SOON_NS = 4_000_000_000_000_000_000

numbers = st.integers(0, 1 << 62)
stamps = st.builds(Stamp, numbers, numbers, numbers, numbers, numbers)
checks = st.builds(
    Check,
    level=st.integers(0, 8),
    kind=st.sampled_from([str(kind) for kind in Kind] + ["proof"]),
    lock=st.binary().map(digest_of),
    place=st.text(),
    at_s=numbers,
    since_s=numbers,
    exit_code=st.integers(0, 130),
    said=st.text(),
    by=st.text(),
    files=st.dictionaries(st.text(), stamps, max_size=3),
    texts=st.dictionaries(st.text(), st.binary().map(digest_of), max_size=2),
    again=st.lists(st.text(), max_size=4).map(tuple),
    began_s=st.none() | numbers,
)


@given(checks)
def test_a_check_reads_as_it_was_written(check: Check) -> None:
    assert decode_check(encode_check(check)) == check
    assert file_of(decode_check(encode_check(check))) == file_of(check)


@given(checks, checks)
def test_checks_of_different_things_are_different_files(one: Check, other: Check) -> None:
    assert (file_of(one) == file_of(other)) == (one.of == other.of)


def test_every_kind_is_of_a_level_and_no_place_leaves_the_folder() -> None:
    assert set(LEVELS) == set(Kind)
    assert file_of(BUCKET).startswith(f"{LOCK[7:]}/L4-bucket-")
    assert ".." not in file_of(Check(4, Kind.BUCKET, LOCK, "../../x", 1, 1, 0, "", ""))


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (b'"version":1', b'"version":2', "version 2, this toolkit reads 1"),
        (b'"level":4', b'"level":9', "a level 9"),
        (b'"level":4', b'"level":"4"', "level"),
        (b"sha256:", b"sha1:", "sha1:"),
        (b'"by"', b'"By"', "By"),
        (b"{", b" {", "another form"),
        (b"s3://", b"\xff", "utf-8"),
        (b"}\n", b"", "truncated"),
    ],
)
def test_what_is_damaged_is_refused_with_the_reason(before: bytes, after: bytes, why: str) -> None:
    data = encode_check(BUCKET)
    assert before in data

    with pytest.raises(ValueError, match=why):
        decode_check(data.replace(before, after))


def test_the_next_check_of_a_place_takes_the_stead_of_the_last(tmp_path: Path) -> None:
    records, said = Records(tmp_path), list[str]()
    records.keep(BUCKET, said.append)
    kept = records.keep(Check(4, Kind.BUCKET, LOCK, "s3://b/w/", 40, 40, 0, "again", "0.3.1"), said.append)

    assert (kept.at_s, kept.since_s, kept.said) == (40, 20, "again")
    assert records.read() == ([kept], [])
    assert said == []


def test_a_damaged_record_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    records, said = Records(tmp_path), list[str]()
    records.keep(BUCKET, said.append)
    bad = records.path(BUCKET).with_name("L3-registry-0123456789abcdef.json")
    bad.write_bytes(b"{")
    moved = records.path(BUCKET).with_name("L4-bucket-0123456789abcdef.json")
    moved.write_bytes(encode_check(BUCKET))

    checks, unread = records.read()
    assert checks == [BUCKET]
    assert [one.path for one in unread] == [bad, moved]
    assert "belongs to" in unread[1].why


def test_a_damaged_record_is_written_anew(tmp_path: Path) -> None:
    records, said = Records(tmp_path), list[str]()
    records.keep(BUCKET, said.append)
    records.path(BUCKET).write_bytes(b"\xff")
    records.keep(BUCKET, said.append)

    assert said == []
    assert records.read() == ([BUCKET], [])


def test_a_record_that_cannot_be_written_is_said_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "checks").write_bytes(b"a file where the folder should be")
    said: list[str] = []

    assert Records(tmp_path).keep(BUCKET, said.append) == BUCKET
    assert "note: what was found is not remembered for `status`" in said[0]
    assert Records(tmp_path).read() == ([], [])


def test_files_are_known_again_only_if_all_of_them_stood_still(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"1")
    paths = [tmp_path / "a", tmp_path / "b", tmp_path / "absent"]
    before = stamps_of(paths)
    settled = {name: Stamp(1, 1, 1, 5, 5) for name in before}

    assert list(before) == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert unchanged(settled, settled, now_ns=5 + SETTLED_NS) == settled
    assert unchanged(settled, settled, now_ns=4 + SETTLED_NS) == {}
    assert unchanged({**settled, "on a stick": None}, {**settled, "on a stick": None}, now_ns=SOON_NS) == {}
    assert unchanged(settled, {**settled, str(tmp_path / "a"): Stamp(1, 2, 1, 5, 5)}, now_ns=SOON_NS) == {}
    assert differing({name: stamp for name, stamp in before.items() if stamp is not None}) == ([], [])


def test_a_file_that_was_written_to_or_taken_away_since_is_named(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(b"1")
    before = {name: stamp for name, stamp in stamps_of(paths).items() if stamp is not None}
    old = paths[0].stat()
    (tmp_path / "draft").write_bytes(b"2")
    os.utime(tmp_path / "draft", ns=(old.st_atime_ns, old.st_mtime_ns))
    (tmp_path / "draft").replace(paths[0])
    paths[1].unlink()

    assert differing(before) == ([str(paths[1])], [str(paths[0])])
