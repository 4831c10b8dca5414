"""What a lock costs to carry: bytes by kind, disk on both sides, volumes of each medium, time on a line. Pure."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from msgspec import Struct

from sie_airgap.archive.medium import VolumeSize
from sie_airgap.archive.plan import lay_out_on
from sie_airgap.store.contents import contents
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.lock import Lock, encode_lock
from sie_core.artifacts.selection import without_weights

_LINK = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*([kMG])bit/s")
_BITS = {"k": 1e3, "M": 1e6, "G": 1e9}


class Amount(Struct, frozen=True):
    """So much of one kind: `each_once_bytes` counts a blob that several name once, under the first of them."""

    kind: str
    count: int
    size_bytes: int
    each_once_bytes: int


class Volumes(Struct, frozen=True):
    """How many volumes of one medium; None where the medium is too small for any."""

    medium: str
    volume_bytes: int
    count: int | None


class Crossing(Struct, frozen=True):
    """How long a line takes for all of it, and for what the store still lacks, when nothing else is on it."""

    link: str
    whole_s: int
    lacking_s: int


class Bill(Struct, frozen=True):
    """All of it.

    Attributes:
        amounts: by kind, in the order in which they are carried.
        size_bytes: each blob once.
        lacking_bytes: of these, what the store does not have.
        largest_bytes: of one blob: what a medium, or a proxy's limit, has to take in pieces.
        bucket_bytes: of the models' files where workers read them; a file of two models lies there twice.
        registry_bytes: of the images.
        largest_model: id and bytes of the model that takes most of a worker's cache.
    """

    amounts: tuple[Amount, ...]
    size_bytes: int
    lacking_bytes: int
    largest_bytes: int
    bucket_bytes: int
    registry_bytes: int
    largest_model: tuple[str, int] | None
    volumes: tuple[Volumes, ...]
    crossings: tuple[Crossing, ...]

    @property
    def connected_bytes(self) -> int:
        """The most on one disk of the connected side: the store, and its volumes beside it."""
        return 2 * self.size_bytes

    @property
    def far_bytes(self) -> int:
        """The most on one disk of the far side where everything lies on it: bucket, registry, and a store."""
        return self.size_bytes + self.bucket_bytes + self.registry_bytes


def bill(
    lock: Lock,
    present: Collection[Digest],
    *,
    media: Mapping[str, VolumeSize],
    beside_bytes: Callable[[int], int],
    links: Sequence[str],
) -> Bill:
    """Args:
    present: what the store has already.
    media: how large a volume may be, by the medium's name.
    beside_bytes: as of `lay_out_on`.
    links: as `parse_link` reads them.
    """
    wanted = contents(lock)
    size_bytes = sum(content.size_bytes for content in wanted)
    lacking_bytes = sum(content.size_bytes for content in wanted if content.digest not in present)
    blobs = [(content.digest, content.size_bytes) for content in wanted]
    reserved_bytes = [len(encode_lock(lock))]
    largest = max(lock.models, key=lambda model: model.size_bytes, default=None)
    in_bucket = {
        (model.repo, model.revision, file.path): file.size_bytes for model in lock.models for file in model.files
    }
    return Bill(
        amounts=tuple(_amounts(lock)),
        size_bytes=size_bytes,
        lacking_bytes=lacking_bytes,
        largest_bytes=max((content.size_bytes for content in wanted), default=0),
        bucket_bytes=sum(in_bucket.values()),
        registry_bytes=sum({blob.digest: blob.size_bytes for image in lock.images for blob in image.blobs}.values()),
        largest_model=(largest.id, largest.size_bytes) if largest is not None else None,
        volumes=tuple(
            Volumes(medium, size.most_bytes, _count(blobs, size, reserved_bytes, beside_bytes))
            for medium, size in media.items()
        ),
        crossings=tuple(Crossing(link, _seconds(size_bytes, link), _seconds(lacking_bytes, link)) for link in links),
    )


def parse_link(text: str) -> float:
    """Bits a second of `50Mbit/s`. Raises `ValueError`."""
    match = _LINK.fullmatch(text.strip())
    if match is None or float(match[1]) == 0:
        raise ValueError(f"`{text}` is not a bandwidth: want a number with `kbit/s`, `Mbit/s` or `Gbit/s`")
    return float(match[1]) * _BITS[match[2]]


def _seconds(size_bytes: int, link: str) -> int:
    return -int(-size_bytes * 8 // parse_link(link))


def _count(
    blobs: Sequence[tuple[Digest, int]],
    size: VolumeSize,
    reserved_bytes: Sequence[int],
    beside_bytes: Callable[[int], int],
) -> int | None:
    try:
        return len(lay_out_on(size, blobs, reserved_bytes=reserved_bytes, beside_bytes=beside_bytes))
    except ValueError:
        return None


def _amounts(lock: Lock) -> Iterator[Amount]:
    seen: set[Digest] = set()
    kinds: dict[str, list[tuple[Digest, int]]] = {}
    for kind, digest, size_bytes in _all(lock):
        kinds.setdefault(kind, []).append((digest, size_bytes))
    for kind, listed in kinds.items():
        anew = {digest: size_bytes for digest, size_bytes in listed if digest not in seen}
        seen |= set(anew)
        yield Amount(kind, len(listed), sum(size_bytes for _, size_bytes in listed), sum(anew.values()))


def _all(lock: Lock) -> Iterator[tuple[str, Digest, int]]:
    yield from (("wheels", wheel.digest, wheel.size_bytes) for wheel in lock.wheels)
    yield from (("charts", chart.digest, chart.size_bytes) for chart in lock.charts)
    yield from (("blobs of images", blob.digest, blob.size_bytes) for image in lock.images for blob in image.blobs)
    for model in lock.models:
        others = set(without_weights(file.path for file in model.files))
        for file in model.files:
            yield "other files of models" if file.path in others else "weights", file.digest, file.size_bytes
