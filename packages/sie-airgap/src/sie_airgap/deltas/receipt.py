"""A receipt: what one place on the far side holds, as canonical JSON that is carried back.

The connected side needs no more to know which blobs need not travel again. Pure; `mirror` writes one into the bucket
that it has filled, and `sie-airgap receipt` one of a bucket or of a store. Over a one-way link none comes back: there a
lock that was taken says what the store that took it has.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
from msgspec import Struct

from sie_airgap.store.contents import contents
from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import Digest, hex_of, parse_digest
from sie_core.artifacts.lock import CURRENT_FILE, Lock, LockedModel, lock_digest, lock_file, signatures_file
from sie_core.artifacts.manifest import canonical_json, parse_path

RECEIPT_VERSION = 1
RECEIPT_FILE = ".sie/receipt.json"
"""In a bucket."""


class HeldBlob(Struct, frozen=True, order=True, forbid_unknown_fields=True):
    """One content that is there; `at` is a name that it has there, relative to the place's root."""

    digest: Digest
    size_bytes: int
    at: str


class PlaceTraits(Struct, frozen=True, forbid_unknown_fields=True):
    """What the mirror met at the place.

    Attributes:
        kind: `s3`, `gs`, `file`, or `store` for the toolkit's own.
        copies: a file was copied there without being sent again; None: there was none to copy.
        lists_at_once: what was written was listed when all had been written.
    """

    kind: str
    copies: bool | None
    lists_at_once: bool


class Receipt(Struct, frozen=True, forbid_unknown_fields=True):
    """What a place holds.

    Attributes:
        place: its URL, or the store's folder.
        lock: the digest of the lock that it was filled from, and that lock's `serial`.
        blobs: what it holds of that lock and of earlier ones, sorted by digest, each once. By name and length: a
            byte altered there does not show (`sie-airgap verify` reads all of them).
        traits: None where no mirror has told of them.
    """

    version: int
    place: str
    lock: Digest
    serial: int
    blobs: tuple[HeldBlob, ...]
    traits: PlaceTraits | None

    @property
    def digests(self) -> frozenset[Digest]:
        return frozenset(blob.digest for blob in self.blobs)


def encode_receipt(receipt: Receipt) -> bytes:
    return canonical_json(receipt)


def decode_receipt(data: bytes) -> Receipt:
    """Raises `ValueError` for bytes that are no receipt, with what is wrong with them."""
    try:
        receipt = msgspec.json.decode(data, type=Receipt)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a receipt: {error}") from error
    if receipt.version != RECEIPT_VERSION:
        raise ValueError(f"a receipt of version {receipt.version}, this program reads version {RECEIPT_VERSION}")
    parse_digest(receipt.lock)
    if receipt.serial < 1:
        raise ValueError(f"a receipt's serial is 1 or more, this one's is {receipt.serial}")
    for blob in receipt.blobs:
        parse_digest(blob.digest)
        parse_path(blob.at)
        if blob.size_bytes < 0:
            raise ValueError(f"`{blob.at}` has a negative size: {blob.size_bytes}")
    digests = [blob.digest for blob in receipt.blobs]
    if digests != sorted(set(digests)):
        raise ValueError("blobs are not sorted by digest, or one stands twice")
    return receipt


def receipt_of_bucket(
    place: str, lock: Lock, earlier: Iterable[Lock], listed: Mapping[str, int], traits: PlaceTraits | None
) -> Receipt:
    """Args: listed: name → length in bytes of every file there; earlier: the other locks that are there."""
    held = held_files([lock, *earlier], listed)
    sizes = {digest: listed[name] for digest, name in held.items()}
    blobs = tuple(sorted(HeldBlob(digest, sizes[digest], name) for digest, name in held.items()))
    return Receipt(RECEIPT_VERSION, place, lock_digest(lock), lock.serial, blobs, traits)


def receipt_of_store(place: str, lock: Lock, blobs: Mapping[Digest, int]) -> Receipt:
    """Args: blobs: digest → length of every whole blob of the store."""
    held = tuple(sorted(HeldBlob(one, size, f"blobs/sha256/{hex_of(one)}") for one, size in blobs.items()))
    traits = PlaceTraits(kind="store", copies=None, lists_at_once=True)
    return Receipt(RECEIPT_VERSION, place, lock_digest(lock), lock.serial, held, traits)


def receipt_of_taken(lock: Lock) -> Receipt:
    """What a store has that took this lock: where nothing comes back, all that can be known of it."""
    held = tuple(
        sorted(HeldBlob(one.digest, one.size_bytes, f"blobs/sha256/{hex_of(one.digest)}") for one in contents(lock))
    )
    return Receipt(
        RECEIPT_VERSION, f"whoever took lock number {lock.serial}", lock_digest(lock), lock.serial, held, None
    )


def held_files(locks: Iterable[Lock], listed: Mapping[str, int]) -> dict[Digest, str]:
    """Contents of locked files → a name that each has in a bucket, with the length that it must have."""
    found: dict[Digest, str] = {}
    for model in (model for lock in locks for model in lock.models):
        for entry in model.manifest.files:
            name = hf_layout.snapshot_file(model.repo, model.revision, entry.path)
            if listed.get(name) == entry.size_bytes:
                found.setdefault(entry.digest, name)
    return found


def strays(locks: Sequence[Lock], listed: Iterable[str]) -> tuple[str, ...]:
    """The names in a bucket that none of the locks there explains, sorted."""
    digests = [lock_digest(lock) for lock in locks]
    known = {CURRENT_FILE, RECEIPT_FILE, *map(lock_file, digests), *map(signatures_file, digests)}
    known |= {name for lock in locks for model in lock.models for name in names_of(model)}
    return tuple(sorted(set(listed) - known))


def names_of(model: LockedModel) -> Iterator[str]:
    """Every file of a model in a bucket."""
    repo, revision = model.repo, model.revision
    yield from (hf_layout.snapshot_file(repo, revision, file.path) for file in model.files)
    yield from (hf_layout.no_exist_file(repo, revision, path) for path in model.absent)
    yield hf_layout.tree_file(repo, revision)
    yield hf_layout.manifest_file(repo, revision)
    yield hf_layout.ref_file(repo)
