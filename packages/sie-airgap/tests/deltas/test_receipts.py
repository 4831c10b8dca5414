"""A receipt is one text for one content, and nothing else is read as one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.deltas.receipt import (
    HeldBlob,
    PlaceTraits,
    Receipt,
    decode_receipt,
    encode_receipt,
    held_files,
    receipt_of_store,
    strays,
)
from sie_airgap.store.blobs import BlobFolder
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import Lock, lock_digest
from sie_testing.carried import CHART, FILES, WHEEL

_traits = st.none() | st.builds(
    PlaceTraits,
    kind=st.sampled_from(["s3", "gs", "file"]),
    copies=st.none() | st.booleans(),
    lists_at_once=st.booleans(),
)
_blobs = st.dictionaries(st.integers(0, 99), st.integers(0, 1 << 62), max_size=9).map(
    lambda sizes: tuple(
        sorted(HeldBlob(digest_of(b"%d" % name), size, f"blobs/{name}") for name, size in sizes.items())
    )
)


@given(blobs=_blobs, traits=_traits, serial=st.integers(1, 10**6))
def test_what_is_written_is_read(blobs: tuple[HeldBlob, ...], traits: PlaceTraits | None, serial: int) -> None:
    receipt = Receipt(1, "s3://models/weights/", digest_of(b"lock"), serial, blobs, traits)

    assert decode_receipt(encode_receipt(receipt)) == receipt
    assert encode_receipt(receipt).endswith(b"}\n")


GOOD = encode_receipt(
    Receipt(
        1, "x", digest_of(b"l"), 1, tuple(sorted(HeldBlob(digest_of(b"%d" % n), n, f"{n}") for n in range(3))), None
    )
)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a receipt"),
        (b"\xff", "not a receipt"),
        (GOOD.replace(b'"version":1', b'"version":2'), "version 2, this program reads version 1"),
        (GOOD.replace(b'"serial":1', b'"serial":0'), "serial is 1 or more"),
        (GOOD.replace(b"sha256:", b"md5:"), "is not a digest"),
        (GOOD.replace(b'"size_bytes":2', b'"size_bytes":-2'), "negative size"),
        (GOOD.replace(b'"at":"1"', b'"at":"../1"'), "not a relative path"),
        (GOOD.replace(digest_of(b"0").encode(), digest_of(b"1").encode()), "sorted by digest"),
        (GOOD.replace(b'"traits"', b'"trait"'), "not a receipt"),
    ],
)
def test_what_is_no_receipt_is_refused(data: bytes, said: str) -> None:
    assert decode_receipt(GOOD).serial == 1
    with pytest.raises(ValueError, match=said):
        decode_receipt(data)


def test_a_store_says_all_that_it_holds(lock: Lock, store: BlobFolder) -> None:
    store.add(b"of another lock")
    store.arriving(digest_of(b"x")).parent.mkdir()
    store.arriving(digest_of(b"x")).write_bytes(b"half of it")

    receipt = receipt_of_store("store", lock, store.sizes())
    held = [data for files in FILES.values() for data in files.values()]
    assert receipt.digests == {digest_of(data) for data in [*held, WHEEL, CHART, b"of another lock"]}
    assert all(Path(store.root / blob.at).stat().st_size == blob.size_bytes for blob in receipt.blobs)
    assert receipt.lock == lock_digest(lock)


def test_only_files_with_their_length_are_held(lock: Lock) -> None:
    prefix = f"models--org--large/snapshots/{lock.models[0].revision}"
    listed = {f"{prefix}/model.safetensors": 2_999_999, f"{prefix}/config.json": 2, "notes.txt": 2}

    assert held_files([lock], listed) == {digest_of(b"{}"): f"{prefix}/config.json"}
    assert strays([lock], listed) == ("notes.txt",)
    assert strays([], listed) == tuple(sorted(listed))
