"""What is written behind is all there, each piece in its place, and a disk that fails is heard of."""

import itertools
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sie_core.artifacts.write_behind import BEHIND_BYTES, WriteBehind
from sie_testing.store_suite import blob


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 20_000), max_size=20), order=st.randoms(use_true_random=False))
def test_pieces_from_several_threads_each_land_in_their_place(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], order: random.Random
) -> None:
    data, path = blob(20_000), tmp_path_factory.mktemp("behind") / "x"
    edges = sorted({0, *cuts, len(data)})
    pieces = list(itertools.pairwise(edges))
    order.shuffle(pieces)
    with path.open("wb") as there, WriteBehind(there.fileno()) as file, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda piece: file.write(data[piece[0] : piece[1]], piece[0]), pieces))

    assert path.read_bytes() == data


def test_a_file_much_longer_than_what_is_written_behind_is_whole(tmp_path: Path) -> None:
    path, piece = tmp_path / "x", blob(BEHIND_BYTES // 4)
    with path.open("wb") as there, WriteBehind(there.fileno()) as file:
        for number in range(12):
            file.write(piece, number * len(piece))

    assert path.read_bytes() == piece * 12


def write(path: Path, pieces: Iterator[bytes]) -> None:
    with path.open("wb") as there, WriteBehind(there.fileno()) as file:
        for piece in pieces:
            file.write(piece, 0)


class TestADiskThatCannotKeepIt:
    """/dev/null takes bytes, and says that it cannot be waited for."""

    def test_is_heard_of_at_the_end(self) -> None:
        with pytest.raises(OSError, match="Invalid argument"):
            write(Path("/dev/null"), iter([b"few"]))

    def test_is_heard_of_before_the_end_of_a_long_file(self) -> None:
        piece = bytes(BEHIND_BYTES)
        left = iter(range(1_000))

        with pytest.raises(OSError, match="Invalid argument"):
            write(Path("/dev/null"), (piece for _ in left))

        assert next(left, None) is not None

    def test_does_not_hide_why_the_writing_stopped(self) -> None:
        def stopping() -> Iterator[bytes]:
            yield bytes(BEHIND_BYTES)
            raise KeyError("the reason")

        with pytest.raises(KeyError, match="the reason"):
            write(Path("/dev/null"), stopping())

    def test_takes_no_more_when_it_is_full(self) -> None:
        with pytest.raises(OSError, match="No space"):
            write(Path("/dev/full"), iter([b"few"]))
