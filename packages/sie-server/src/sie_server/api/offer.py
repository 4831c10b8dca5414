"""What this worker offers: the models of its bundle, out of the catalog of the moment. Pure."""

from dataclasses import dataclass
from functools import cached_property

from sie_core.catalog.catalog import Catalog
from sie_core.catalog.spec import ModelSpec
from sie_core.errors import ApiError
from sie_core.ids import ModelId, nearest


@dataclass(frozen=True)
class Offer:
    """A catalog seen through one bundle; replaced whole when the catalog changes."""

    catalog: Catalog
    bundle: str

    @cached_property
    def models(self) -> tuple[ModelId, ...]:
        return self.catalog.models_of(self.bundle)

    def spec(self, model: str) -> ModelSpec:
        """Raises `ApiError` MODEL_NOT_FOUND, naming the nearest ids that are offered."""
        spec = self.catalog.find(model)
        if spec is not None and spec.id in self.models:
            return spec
        if spec is None:
            raise self.catalog.no_model(model)
        near = nearest(model, self.models)
        hint = f"nearest: {', '.join(f'`{name}`' for name in near)}" if near else "`GET /v1/models` lists them all"
        message = f"model `{model}` is not in bundle `{self.bundle}`"
        raise ApiError("MODEL_NOT_FOUND", message, hint=hint, extra={"nearest": near})
