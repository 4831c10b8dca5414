"""All specs and bundles that a process knows, frozen: which models there are and who serves them.

`Catalog.shipped()` is what every program starts with, from one file in this package; `feed.py` replaces
it with what the config service says. A catalog that exists has been checked: ids are unique and a
bundle names only models that are there. Not here: the YAML that people write (`reading`), of which
`tools/catalog.py` makes that one file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from sie_core.catalog.fingerprint import fingerprint
from sie_core.catalog.refusals import why_refused
from sie_core.catalog.spec import ModelSpec
from sie_core.errors import ApiError
from sie_core.ids import BundleName, ModelId, nearest, parse_bundle_name

SHIPPED: Final = ("specs", "shipped.json")
"""Where in this package every spec and bundle stands in one file: 136 files of YAML took 60 ms of each start."""


class Bundle(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The models that one worker image serves.

    Attributes:
        models: their ids, or `all` for every model of the catalog.
        priority: of several bundles with a model, the one with the lowest number is meant first.
    """

    name: BundleName
    models: Literal["all"] | tuple[ModelId, ...]
    priority: int = 100

    def holds(self, model: ModelId) -> bool:
        return self.models == "all" or model in self.models


@dataclass(frozen=True)
class Catalog:
    """Specs by id, and the bundles in order of priority, then name. Build one with `of` or `shipped`."""

    specs: Mapping[ModelId, ModelSpec]
    bundles: tuple[Bundle, ...]

    @classmethod
    def of(cls, specs: Iterable[ModelSpec], bundles: Iterable[Bundle]) -> "Catalog":
        """Raises `ValueError` for an id or bundle that stands twice, and a bundle with a model that is not there."""
        by_id = _unique({}, ((spec.id, spec) for spec in specs), "model")
        by_name = _unique({}, ((bundle.name, bundle) for bundle in bundles), "bundle")
        for bundle in by_name.values():
            parse_bundle_name(bundle.name)
            for model in () if bundle.models == "all" else bundle.models:
                if model not in by_id:
                    raise ValueError(f"bundle `{bundle.name}` names `{model}`, which has no spec")
        ordered = sorted(by_name.values(), key=lambda bundle: (bundle.priority, bundle.name))
        return cls(specs=dict(sorted(by_id.items())), bundles=tuple(ordered))

    @classmethod
    def shipped(cls) -> "Catalog":
        """The specs that came with this version."""
        data = resources.files("sie_core").joinpath(*SHIPPED).read_bytes()
        shipped = msgspec.json.decode(data, type=_Shipped)
        return cls.of(shipped.specs, shipped.bundles)

    def as_shipped(self) -> str:
        """The text of the file that `shipped` reads: a line for each spec, so that a change of one is seen."""
        bundles, *specs = (msgspec.json.encode(one).decode() for one in (self.bundles, *self.specs.values()))
        return f'{{"bundles":{bundles},"specs":[\n' + ",\n".join(specs) + "\n]}\n"

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.specs.values(), self.bundles)

    def find(self, model: str) -> ModelSpec | None:
        return self.specs.get(ModelId(model))

    def no_model(self, model: str) -> ApiError:
        """What to answer to somebody who names a model that is not here: the nearest ids, or why it is not served."""
        reason = why_refused(model)
        if reason is not None:
            return ApiError("MODEL_NOT_FOUND", f"model `{model}` is not served: {reason}")
        near = nearest(model, self.specs)
        meant = f"did you mean {', '.join(f'`{one}`' for one in near)}?"
        hint = meant if near else "`GET /v1/models` lists every model"
        message = f"model `{model}` is not in the catalog"
        return ApiError("MODEL_NOT_FOUND", message, hint=hint, extra={"nearest": near})

    def bundle(self, name: str) -> Bundle | None:
        return next((bundle for bundle in self.bundles if bundle.name == name), None)

    def bundles_of(self, model: ModelId) -> tuple[BundleName, ...]:
        """The bundles that hold a model, the one that is meant first in front."""
        return tuple(bundle.name for bundle in self.bundles if bundle.holds(model))

    def models_of(self, bundle: str) -> tuple[ModelId, ...]:
        """The models of a bundle, sorted; none for a bundle that is not there."""
        found = self.bundle(bundle)
        return tuple(model for model in self.specs if found is not None and found.holds(model))


class _Shipped(Struct, frozen=True, forbid_unknown_fields=True):
    bundles: tuple[Bundle, ...]
    specs: tuple[ModelSpec, ...]


def _unique(seen: dict[Any, Any], pairs: Iterable[tuple[Any, Any]], what: str) -> dict[Any, Any]:
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"{what} `{key}` stands twice")
        seen[key] = value
    return seen
