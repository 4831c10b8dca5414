"""How blobs are laid out on volumes: nothing lost, nothing twice, nothing too large."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.archive.medium import MEDIA, VolumeSize, parse_volume_size
from sie_airgap.archive.plan import Piece, lay_out, with_offsets
from sie_airgap.archive.volume_format import BLOCK_BYTES, Volume, decode_volume, encode_volume
from sie_core.artifacts.digest import Digest, digest_of

sizes = st.lists(st.integers(0, 5_000_000), max_size=30)
limits = st.integers(1 << 20, 4 << 20)


def named(sizes: list[int]) -> list[tuple[Digest, int]]:
    return [(digest_of(b"%d" % number), size_bytes) for number, size_bytes in enumerate(sizes)]


def volumes_of(layout: list[list[Piece]]) -> list[Volume]:
    lock = digest_of(b"lock")
    empty = [Volume(1, "sie-test", lock, number + 1, len(layout), 0, {}, ()) for number in range(len(layout))]
    return [with_offsets(volume, pieces) for volume, pieces in zip(empty, layout, strict=True)]


@given(sizes, limits)
def test_every_byte_of_every_blob_stands_in_exactly_one_place(sizes: list[int], limit: int) -> None:
    blobs = named(sizes)
    pieces = [piece for volume in lay_out(blobs, volume_bytes=limit, reserved_bytes=[100]) for piece in volume]

    for digest, size_bytes in blobs:
        mine = sorted((piece.start, piece.size_bytes) for piece in pieces if piece.blob == digest)
        ends = [start + length for start, length in mine]
        assert [start for start, _ in mine] == [0, *ends[:-1]]
        assert ends[-1] == size_bytes


@given(sizes, limits)
def test_no_volume_is_larger_than_its_medium(sizes: list[int], limit: int) -> None:
    layout = lay_out(named(sizes), volume_bytes=limit, reserved_bytes=[0])

    assert all(volume.size_bytes <= limit for volume in volumes_of(layout))


@given(sizes, limits)
def test_only_blobs_that_fit_on_no_volume_are_cut(sizes: list[int], limit: int) -> None:
    layout = lay_out(named(sizes), volume_bytes=limit, reserved_bytes=[0])
    largest_whole = max((p.size_bytes for pieces in layout for p in pieces if p.of == 1), default=0)

    assert all(piece.blob_size_bytes >= largest_whole for pieces in layout for piece in pieces if piece.of > 1)


@given(sizes, limits)
def test_members_follow_each_other_without_overlap(sizes: list[int], limit: int) -> None:
    for volume in volumes_of(lay_out(named(sizes), volume_bytes=limit, reserved_bytes=[0])):
        position = 0
        for member in volume.members:
            assert member.offset >= position + BLOCK_BYTES
            assert member.offset % BLOCK_BYTES == 0
            position = member.offset + member.size_bytes
        assert volume.size_bytes >= position + 2 * BLOCK_BYTES


@given(sizes, limits)
def test_an_index_comes_back_as_it_was_and_has_the_length_its_offsets_count_on(sizes: list[int], limit: int) -> None:
    for volume in volumes_of(lay_out(named(sizes), volume_bytes=limit, reserved_bytes=[0])):
        data = encode_volume(volume)

        assert decode_volume(data) == volume
        if volume.members:
            assert volume.members[0].offset == BLOCK_BYTES + len(data) + BLOCK_BYTES


@given(sizes, limits)
def test_the_same_blobs_are_laid_out_alike(sizes: list[int], limit: int) -> None:
    once = lay_out(named(sizes), volume_bytes=limit, reserved_bytes=[7])

    assert lay_out(named(sizes), volume_bytes=limit, reserved_bytes=[7]) == once


def test_a_volume_without_room_for_the_lock_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        lay_out(named([1]), volume_bytes=1 << 20, reserved_bytes=[1 << 20])


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("700MB", 700_000_000),
        ("4GiB", 4 << 30),
        ("2 g", 2_000_000_000),
        ("1048576", 1 << 20),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size_bytes: int) -> None:
    assert parse_volume_size(text) == VolumeSize(size_bytes)


@pytest.mark.parametrize("name", MEDIA)
def test_media_are_known_by_name(name: str) -> None:
    assert parse_volume_size(name.upper()) == MEDIA[name]


@pytest.mark.parametrize("text", ["", "cd", "4 apples", "-1GB", "1.5GB", "10kB", "0"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"`"):
        parse_volume_size(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"number":1', b'"number":7'),
        (b'"version":1', b'"version":9'),
        (b"blobs/sha256/", b"../../sha256/"),
        (b'"offset":', b'"offset":99999999'),
        (b'"archive"', b'"Archive"'),
    ],
)
def test_an_index_that_cannot_be_is_refused(old: bytes, new: bytes) -> None:
    (volume,) = volumes_of(lay_out(named([100]), volume_bytes=1 << 20, reserved_bytes=[0]))
    data = encode_volume(volume)
    assert old in data

    with pytest.raises(ValueError, match=r"."):
        decode_volume(data.replace(old, new))
