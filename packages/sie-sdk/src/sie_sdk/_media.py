"""Items with pictures and documents, made ready to be sent: files are read and pictures encoded here.

Apart from `_inputs`, which does no I/O. An item without either is passed on as it is, and an item of the
caller's is never changed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from sie_sdk.types import Item

Items = TypeVar("Items", Item, Sequence[Item], Item | Sequence[Item])


def any_in(items: Item | Sequence[Item]) -> bool:
    """Whether there is a picture or a document in them; what cannot be an item has none."""
    found = [items] if isinstance(items, Mapping) else items
    return isinstance(found, Sequence) and any(isinstance(item, Mapping) and _has_media(item) for item in found)


def ready(items: Items) -> Items:
    """One item, or a list of them, with every picture and document as bytes.

    Raises:
        TypeError, ValueError, FileNotFoundError, ImportError: what cannot be sent; the first two name its item.
    """
    given: Any = items
    if isinstance(given, Mapping):
        return cast(Items, _ready(given, "the item"))
    return cast(Items, [_ready(item, f"item {position}") for position, item in enumerate(given)])


def _has_media(item: Mapping[str, object]) -> bool:
    return item.get("images") is not None or item.get("document") is not None


def _ready(item: Any, named: str) -> Any:
    if not isinstance(item, Mapping) or not _has_media(item):
        return item
    from sie_sdk.documents import convert_item_document
    from sie_sdk.images import convert_item_images

    try:
        return convert_item_document(convert_item_images(dict(item)))
    except TypeError as error:
        raise TypeError(f"{named}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{named}: {error}") from error
