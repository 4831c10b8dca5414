"""The catalog that is served, as of one epoch: what every route reads, prepared once.

This version serves the specs it was shipped with: there is one epoch, 0, and nothing changes it.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sie_core.catalog.catalog import Bundle, Catalog
from sie_core.catalog.export import encode_export, export_of
from sie_core.errors import ApiError
from sie_core.ids import BundleName, ModelId

SOURCE = "shipped"


@dataclass(frozen=True)
class Ledger:
    """One epoch.

    Attributes:
        began_at: when it began to be served (ISO 8601, UTC).
    """

    catalog: Catalog
    epoch: int
    began_at: str

    @property
    def etag(self) -> str:
        return f'"{self.catalog.fingerprint}"'

    @cached_property
    def export(self) -> bytes:
        return encode_export(export_of(self.catalog, epoch=self.epoch, generated_at=self.began_at))

    def epoch_view(self) -> dict[str, Any]:
        """`bundles_hash` is v0.3.1's name for the fingerprint."""
        fingerprint = self.catalog.fingerprint
        return {"epoch": self.epoch, "bundles_hash": fingerprint, "fingerprint": fingerprint}

    def models_view(self) -> dict[str, Any]:
        return {
            "models": [
                {
                    "model_id": model,
                    "profiles": ["default"],
                    "source": SOURCE,
                    "bundles": list(self.catalog.bundles_of(model)),
                }
                for model in self.catalog.specs
            ]
        }

    def bundles_view(self) -> list[dict[str, Any]]:
        """`adapter_count` is v0.3.1's; there are no such things here. Workers are the gateway's knowledge."""
        return [
            {
                "bundle_id": bundle.name,
                "priority": bundle.priority,
                "adapter_count": 0,
                "source": SOURCE,
                "connected_workers": 0,
                "models": list(self.catalog.models_of(bundle.name)),
            }
            for bundle in self.catalog.bundles
        ]

    def resolve(self, model: str, bundle: str | None) -> dict[str, Any]:
        """Which bundle serves a model.

        Raises `ApiError`: `MODEL_NOT_FOUND`, `NOT_FOUND` for a bundle, `CONFLICT` for one without the model.
        """
        spec = self.catalog.find(model)
        if spec is None:
            raise self.no_model(model)
        holding = list(self.catalog.bundles_of(ModelId(model)))
        if bundle is not None and self.catalog.bundle(bundle) is None:
            raise self.no_bundle(bundle)
        if bundle is not None and bundle not in holding:
            raise ApiError(
                "CONFLICT",
                f"bundle `{bundle}` does not hold model `{model}`",
                extra={"error": "bundle_conflict", "compatible_bundles": holding},
            )
        first = holding[0] if holding else None
        return {
            "model": model,
            "resolved_bundle": BundleName(bundle) if bundle is not None else first,
            "compatible_bundles": holding,
            "profiles": ["default"],
        }

    def bundle(self, name: str) -> Bundle:
        """Raises `ApiError` `NOT_FOUND`."""
        found = self.catalog.bundle(name)
        if found is None:
            raise self.no_bundle(name)
        return found

    def no_model(self, model: str) -> ApiError:
        error = self.catalog.no_model(model)
        return ApiError(error.code, error.message, hint=error.hint, extra={"error": "model_not_found"})

    def no_bundle(self, name: str) -> ApiError:
        known = ", ".join(f"`{bundle.name}`" for bundle in self.catalog.bundles)
        extra = {"error": "bundle_not_found"}
        return ApiError("NOT_FOUND", f"there is no bundle `{name}`", hint=f"bundles are {known}", extra=extra)
