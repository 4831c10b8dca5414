"""What every store owes, whoever implements it: one suite, run on each.

A test module subclasses `StoreSuite` and gives the `store` fixture: an empty store, another one each time.
"""

import io

import numpy as np
import pytest

from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import NotThere, TrustError
from sie_core.artifacts.store import Destination, Stat, Store
from sie_testing.places import PAGE_NAMES


def blob(size_bytes: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size_bytes)


def put(store: Store, name: str, data: bytes) -> None:
    store.put(name, io.BytesIO(data), size_bytes=len(data), digest=digest_of(data))


def get(store: Store, name: str, *, start: int = 0, length: int | None = None) -> bytes:
    with store.open(name, start=start, length=length) as stream:
        return stream.read()


class StoreSuite:
    """`large_bytes` is a size at which the store at hand sends a file in several pieces."""

    large_bytes = 3 << 20

    @pytest.fixture
    def store(self) -> Destination:
        raise NotImplementedError

    def test_what_was_put_is_read_back(self, store: Destination) -> None:
        put(store, "models--a--b/refs/main", b"5617")

        assert get(store, "models--a--b/refs/main") == b"5617"
        assert store.stat("models--a--b/refs/main") == Stat(name="models--a--b/refs/main", size_bytes=4)

    def test_an_empty_file_is_a_file(self, store: Destination) -> None:
        put(store, ".no_exist/added_tokens.json", b"")

        assert store.stat(".no_exist/added_tokens.json") == Stat(name=".no_exist/added_tokens.json", size_bytes=0)
        assert get(store, ".no_exist/added_tokens.json") == b""

    def test_a_large_file_is_read_back(self, store: Destination) -> None:
        data = blob(self.large_bytes)
        put(store, "model.safetensors", data)

        assert digest_of(get(store, "model.safetensors")) == digest_of(data)

    def test_a_range_is_exactly_that_range(self, store: Destination) -> None:
        data = blob(100_000)
        put(store, "x", data)

        assert get(store, "x", start=70_000, length=1_000) == data[70_000:71_000]
        assert get(store, "x", start=99_990) == data[99_990:]
        assert get(store, "x", start=99_990, length=1_000) == data[99_990:]
        assert get(store, "x", start=5, length=0) == b""
        assert get(store, "x", start=100_000, length=1) == b""

    def test_a_stream_can_be_read_in_pieces(self, store: Destination) -> None:
        data = blob(10_000)
        put(store, "x", data)
        with store.open("x") as stream:
            pieces = list(iter(lambda: stream.read(999), b""))

        assert b"".join(pieces) == data

    def test_what_is_not_there_is_none_and_cannot_be_opened(self, store: Destination) -> None:
        assert store.stat("no/such/file") is None
        with pytest.raises(NotThere):
            store.open("no/such/file")

    def test_data_with_another_digest_are_refused_and_not_stored(self, store: Destination) -> None:
        with pytest.raises(TrustError, match="not what was declared"):
            store.put("x", io.BytesIO(b"altered"), size_bytes=7, digest=digest_of(b"correct"))

        assert store.stat("x") is None

    @pytest.mark.parametrize("data", [b"short", b"too long by far", b""])
    def test_data_of_another_length_are_refused_and_not_stored(self, store: Destination, data: bytes) -> None:
        with pytest.raises(TrustError, match="not what was declared"):
            store.put("x", io.BytesIO(data), size_bytes=7, digest=digest_of(data))

        assert store.stat("x") is None

    def test_a_large_file_with_a_flipped_bit_is_refused_and_not_stored(self, store: Destination) -> None:
        data = bytearray(blob(self.large_bytes))
        digest = digest_of(bytes(data))
        data[-1] ^= 1

        with pytest.raises(TrustError):
            store.put("model.safetensors", io.BytesIO(bytes(data)), size_bytes=len(data), digest=digest)
        assert store.stat("model.safetensors") is None
        assert list(store.list("")) == []

    def test_a_refused_put_leaves_the_old_file(self, store: Destination) -> None:
        put(store, "x", b"old")
        with pytest.raises(TrustError):
            store.put("x", io.BytesIO(b"new"), size_bytes=3, digest=digest_of(b"other"))

        assert get(store, "x") == b"old"

    def test_a_second_put_replaces_the_first(self, store: Destination) -> None:
        put(store, "x", b"one")
        put(store, "x", b"three")

        assert get(store, "x") == b"three"

    def test_a_listing_has_every_file_under_the_prefix_in_order_of_name(self, store: Destination) -> None:
        names = ["a/b/c", "a.txt", "a/b.txt", "a/b/a", "ab", "b", ".sie/current", "a/ü", "a/b c"]
        for name in names:
            put(store, name, name.encode())

        assert [stat.name for stat in store.list("")] == sorted(names)
        assert [stat.name for stat in store.list("a/b")] == ["a/b c", "a/b.txt", "a/b/a", "a/b/c"]
        assert [stat.name for stat in store.list("a/b/")] == ["a/b/a", "a/b/c"]
        assert [stat.size_bytes for stat in store.list("a/ü")] == [4]
        assert list(store.list("none")) == []

    def test_a_listing_can_be_longer_than_a_page(self, store: Destination) -> None:
        names = [f"many/{number:04}" for number in range(2 * PAGE_NAMES + 5)]
        for name in names:
            put(store, name, b"x")

        assert [stat.name for stat in store.list("many/")] == names

    def test_a_copy_is_a_file_of_its_own(self, store: Destination) -> None:
        data = blob(70_000)
        put(store, "a/x", data)

        assert store.copy("a/x", "b/c/x", size_bytes=len(data))
        put(store, "a/x", b"other")
        assert get(store, "b/c/x") == data

    def test_a_copy_of_what_is_not_there_or_has_another_length_is_none(self, store: Destination) -> None:
        put(store, "short", b"12")

        assert not store.copy("none", "x", size_bytes=3)
        assert not store.copy("short", "y", size_bytes=3)
        assert store.stat("x") is None

    def test_nothing_is_left_unfinished(self, store: Destination) -> None:
        put(store, "model.safetensors", blob(self.large_bytes))

        assert list(store.unfinished("")) == []

    def test_deleting_twice_is_no_error(self, store: Destination) -> None:
        put(store, "x/y", b"1")
        store.delete("x/y")
        store.delete("x/y")

        assert store.stat("x/y") is None
        assert list(store.list("")) == []

    @pytest.mark.parametrize("name", ["../x", "/x", "a//b", "", "a/../b"])
    def test_a_name_that_leaves_the_store_is_refused(self, store: Destination, name: str) -> None:
        with pytest.raises(ValueError, match="not a relative path"):
            store.open(name)
        with pytest.raises(ValueError, match="not a relative path"):
            put(store, name, b"x")
