"""What a lock asks to be carried: every blob once, with the words an operator knows it by.

Pure. `snapshot` fetches these, `pack` cuts them into volumes, `unpack` and `mirror` look for them.
"""

from collections.abc import Iterator

from msgspec import Struct

from sie_core.artifacts.digest import Digest
from sie_core.artifacts.lock import Lock

LOCK_NAME = "airgap.lock"


class Content(Struct, frozen=True):
    """One blob and what it is called in messages: "`model.safetensors` of `org/name`"."""

    digest: Digest
    size_bytes: int
    label: str


def contents(lock: Lock) -> tuple[Content, ...]:
    """Every blob of the lock once, in the order in which it is packed.

    What the far side needs first stands first: the wheels and the chart, then images, then weights.
    """
    seen: dict[Digest, Content] = {}
    for content in _all(lock):
        seen.setdefault(content.digest, content)
    return tuple(seen.values())


def labels(lock: Lock) -> dict[Digest, str]:
    return {content.digest: content.label for content in contents(lock)}


def _all(lock: Lock) -> Iterator[Content]:
    for wheel in lock.wheels:
        yield Content(wheel.digest, wheel.size_bytes, f"wheel `{wheel.file}`")
    for chart in lock.charts:
        yield Content(chart.digest, chart.size_bytes, f"chart `{chart.file}`")
    for image in lock.images:
        for blob in image.blobs:
            yield Content(blob.digest, blob.size_bytes, f"{kind_of_blob(blob.media_type)} of image `{image.reference}`")
    for model in lock.models:
        for file in model.files:
            yield Content(file.digest, file.size_bytes, f"`{file.path}` of `{model.id}`")


def kind_of_blob(media_type: str) -> str:
    """What a blob of an image is, in a word."""
    if "index" in media_type or "manifest" in media_type:
        return "manifest"
    return "config" if "config" in media_type or "container.image" in media_type else "layer"
