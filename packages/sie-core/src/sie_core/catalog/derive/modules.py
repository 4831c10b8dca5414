"""Which parts a snapshot is made of, by sentence-transformers' `modules.json`. Pure.

Follows sentence-transformers 6.2: `base/model.py` (modules), `base/modules/router.py` (queries and documents by
different ways), and pylate 1.6 `models/colbert.py`, whose layers stand under names of its own.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from msgspec import Struct

from sie_core.catalog.derive.snapshot import MODULES, Module, Reader, read_json, within

ROUTES: Final = "router_config.json"

_Part = Literal["transformer", "pooling", "dense", "normalize", "splade", "mask"]
_PARTS: Final[Mapping[str, _Part]] = {
    "Transformer": "transformer",
    "MLMTransformer": "transformer",
    "Pooling": "pooling",
    "Dense": "dense",
    "Normalize": "normalize",
    "SpladePooling": "splade",
    "MultiVectorMask": "mask",
}
_ORDERS: Final[tuple[tuple[_Part, ...], ...]] = (
    ("transformer", "pooling", "dense", "normalize"),
    ("transformer", "splade"),
    ("transformer", "dense", "mask", "normalize"),
)
_NOTHING_TO_SCALE: Final[list[_Part | None]] = ["transformer", "normalize"]
_STATIC: Final = "SparseStaticEmbedding"


@dataclass(frozen=True)
class Modules:
    """A snapshot's parts; None and nothing for what it does not list.

    Attributes:
        transformer: the network.
        pooling: hidden states to one vector.
        dense: linear layers, in their order: after the pooling, or of every token where there is none.
        normalize: to unit length.
        splade: a language model's logits to a sparse vector.
        mask: which tokens have a vector.
        static_query: the weights that a query's tokens have instead of the network.
    """

    transformer: Module
    pooling: Module | None = None
    dense: tuple[Module, ...] = ()
    normalize: Module | None = None
    splade: Module | None = None
    mask: Module | None = None
    static_query: Module | None = None


def read_modules(read: Reader) -> Modules:
    """The parts; a snapshot without `modules.json` is a transformer alone.

    Raises:
        ValueError: a module that we do not serve, or not at that place; a path out of the snapshot.
    """
    modules = read_json(read, MODULES, list[Module], [Module("sentence_transformers.models.Transformer")])
    static = None
    where = MODULES
    if [module.kind for module in modules] == ["Router"]:
        where = within(modules[0].path, ROUTES)
        modules, static = _routed(read, modules[0], where)
    for module in modules:
        _refuse_outside(module, where)
    return _in_order(modules, static, where)


class _Routes(Struct, frozen=True):
    types: dict[str, str]
    structure: dict[str, list[str]]


def _routed(read: Reader, router: Module, where: str) -> tuple[list[Module], Module | None]:
    """The documents' way, and what a query's tokens are weighed by where queries go another way."""
    routes = read_json(read, where, _Routes)
    if set(routes.structure) != {"query", "document"}:
        ways = ", ".join(f"`{name}`" for name in routes.structure) or "none"
        raise ValueError(f"`{where}` has the routes {ways}: supported are `query` and `document`")
    query, document = (
        [Module(routes.types.get(name, name), within(router.path, name)) for name in routes.structure[way]]
        for way in ("query", "document")
    )
    if query == document:
        return document, None
    if [module.kind for module in query] != [_STATIC]:
        kinds = ", ".join(f"`{module.kind}`" for module in query) or "nothing"
        raise ValueError(f"`{where}` sends a query through {kinds}: supported is `{_STATIC}`, or as a document")
    _refuse_outside(query[0], where)
    return document, query[0]


def _in_order(modules: list[Module], static: Module | None, where: str) -> Modules:
    kinds = [module.kind for module in modules]
    parts = [_PARTS.get(kind) for kind in kinds]
    # Dense layers may be several; of the others there is one.
    once = [part for index, part in enumerate(parts) if part != "dense" or parts[index - 1] != "dense"]
    if once == _NOTHING_TO_SCALE or not any(_is_within(once, order) for order in _ORDERS):
        raise ValueError(
            f"`{where}` lists {', '.join(f'`{kind}`' for kind in kinds) or 'nothing'}: supported is `Transformer`, "
            "then `Pooling`, `Dense` and `Normalize`, or `SpladePooling`, or `Dense`, `MultiVectorMask` and `Normalize`"
        )
    found = {part: module for part, module in zip(parts, modules, strict=True) if part not in (None, "dense")}
    return Modules(
        transformer=modules[0],
        pooling=found.get("pooling"),
        dense=tuple(module for part, module in zip(parts, modules, strict=True) if part == "dense"),
        normalize=found.get("normalize"),
        splade=found.get("splade"),
        mask=found.get("mask"),
        static_query=static,
    )


def _is_within(parts: list[_Part | None], order: tuple[_Part, ...]) -> bool:
    """Whether `parts` begins with a transformer and is `order` with some left out."""
    places = [order.index(part) if part in order else -1 for part in parts]
    return bool(places) and places[0] == 0 and all(a < b for a, b in itertools.pairwise(places))


def _refuse_outside(module: Module, where: str) -> None:
    """A snapshot is somebody else's: it may not have files read beside it."""
    if module.path.startswith("/") or ".." in module.path.split("/"):
        raise ValueError(f"`{where}` has a module at `{module.path}`: want a folder of the snapshot")
