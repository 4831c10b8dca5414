"""Running digests are those of hashlib, however the bytes come."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from sie_core.artifacts.hashing import THREAD_FROM_BYTES, Hashing

PIECES = st.lists(st.sampled_from([b"", b"a", b"bc" * 700, bytes(THREAD_FROM_BYTES), b"x" * (THREAD_FROM_BYTES + 1)]))


@given(PIECES)
def test_the_digest_is_that_of_all_bytes_in_order(pieces: list[bytes]) -> None:
    running = Hashing()
    for piece in pieces:
        running.update(piece)

    whole = b"".join(pieces)
    assert running.digest == "sha256:" + hashlib.sha256(whole).hexdigest()
    assert running.size_bytes == len(whole)


@given(PIECES, PIECES)
def test_a_copy_goes_on_by_itself(before: list[bytes], after: list[bytes]) -> None:
    first = Hashing()
    for piece in before:
        first.update(piece)
    second = first.copy()
    for piece in after:
        second.update(piece)

    assert first.digest == "sha256:" + hashlib.sha256(b"".join(before)).hexdigest()
    assert second.digest == "sha256:" + hashlib.sha256(b"".join(before + after)).hexdigest()
    assert second.size_bytes == first.size_bytes + sum(map(len, after))
