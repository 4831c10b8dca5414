"""`delta.json`: what an archive leaves to the far side, because a receipt said that it is there.

Pure. A blob that the far side has is left out. One that it lacks and that resembles what it has is carried as a
recipe. Recipes are also how a blob travels compressed: then there may be no base.
"""

from collections.abc import Mapping
from functools import cached_property

import msgspec
from msgspec import Struct

from sie_airgap.store.contents import Content, contents, labels
from sie_core.artifacts.digest import Digest, parse_digest
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.lock import Lock
from sie_core.artifacts.manifest import canonical_json

DELTA_NAME = "delta.json"
DELTA_VERSION = 1


class Base(Struct, frozen=True, forbid_unknown_fields=True):
    """Of the receipt: the place that it was of, and the lock that was there."""

    place: str
    lock: Digest
    serial: int


class ByRecipe(Struct, frozen=True, order=True, forbid_unknown_fields=True):
    """A blob that is carried as a recipe, the recipe's own digest and length, and the blobs that it copies from."""

    blob: Digest
    recipe: Digest
    recipe_bytes: int
    sources: tuple[Digest, ...]


class Delta(Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """Attributes:
    base: None where nothing is left to the far side.
    left_out: digests of the blobs that are not carried, sorted.
    recipes: sorted by blob.
    """

    version: int
    base: Base | None
    left_out: tuple[Digest, ...]
    recipes: tuple[ByRecipe, ...]

    @cached_property
    def by_blob(self) -> Mapping[Digest, ByRecipe]:
        return {one.blob: one for one in self.recipes}


NOTHING = Delta(DELTA_VERSION, None, (), ())
"""Of an archive that carries everything as it is."""


def encode_delta(delta: Delta) -> bytes:
    return canonical_json(delta)


def decode_delta(data: bytes, *, where: str) -> Delta:
    """Raises `TrustError` for what `encode_delta` did not write."""
    try:
        delta = msgspec.json.decode(data, type=Delta)
        if delta.version != DELTA_VERSION:
            raise ValueError(f"version {delta.version}, this toolkit reads {DELTA_VERSION}")
        for digest in delta.left_out:
            parse_digest(digest)
        for one in delta.recipes:
            for digest in (one.blob, one.recipe, *one.sources):
                parse_digest(digest)
        if list(delta.left_out) != sorted(set(delta.left_out)) or list(delta.recipes) != sorted(set(delta.recipes)):
            raise ValueError("it is not sorted, or something stands twice")
        if delta.base is None and (delta.left_out or any(one.sources for one in delta.recipes)):
            raise ValueError("it leaves something out and says not what is expected to have it")
        if encode_delta(delta) != data:
            raise ValueError("it is in another form than it is written in")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise TrustError(
            f"`{DELTA_NAME}` cannot be read", where=where, want="what `pack` wrote", have=str(error)
        ) from error
    return delta


def carried(lock: Lock, delta: Delta) -> tuple[Content, ...]:
    """What stands on the volumes, in the order in which it is packed: blobs, and recipes in the place of theirs."""
    left_out = set(delta.left_out)
    found: dict[Digest, Content] = {}
    for content in contents(lock):
        recipe = delta.by_blob.get(content.digest)
        if recipe is not None:
            found.setdefault(recipe.recipe, Content(recipe.recipe, recipe.recipe_bytes, f"recipe of {content.label}"))
        elif content.digest not in left_out:
            found.setdefault(content.digest, content)
    return tuple(found.values())


def weights_of(delta: Delta, lock: Lock) -> Delta:
    """What of a delta concerns the models' files alone: what a bucket is asked for."""
    files = {file.digest for model in lock.models for file in model.files}
    left_out = tuple(digest for digest in delta.left_out if digest in files)
    return msgspec.structs.replace(
        delta, left_out=left_out, recipes=tuple(one for one in delta.recipes if one.blob in files)
    )


def carried_labels(lock: Lock, delta: Delta) -> dict[Digest, str]:
    """What blobs and recipes are called in messages."""
    return {**labels(lock), **{content.digest: content.label for content in carried(lock, delta)}}
