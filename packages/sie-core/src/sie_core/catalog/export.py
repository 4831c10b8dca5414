"""A catalog as it travels: what the config service sends and gateways and workers read. Pure.

One struct, written and read here, so that the two ends cannot drift apart; the reader computes the
fingerprint anew and refuses content that does not have the one it says.
"""

from typing import Any

import msgspec
from msgspec import Struct

from sie_core.catalog.catalog import Bundle, Catalog
from sie_core.catalog.spec import ModelSpec, check_spec, dump_spec

SNAPSHOT_VERSION = 1
EXPORT_PATH = "/v1/configs/export"


class ExportedModel(Struct, frozen=True):
    """One model. `model_config` is the spec; `raw_yaml` the same for readers of v0.3.1's export."""

    model_id: str
    model_config: ModelSpec
    raw_yaml: str
    affected_bundles: list[str]


class Export(Struct, frozen=True):
    """`generated_at` is when this epoch began to be served (ISO 8601, UTC), not when it was asked for."""

    snapshot_version: int
    epoch: int
    generated_at: str
    fingerprint: str
    models: list[ExportedModel]
    bundles: list[Bundle]


def export_of(catalog: Catalog, *, epoch: int, generated_at: str) -> Export:
    return Export(
        snapshot_version=SNAPSHOT_VERSION,
        epoch=epoch,
        generated_at=generated_at,
        fingerprint=catalog.fingerprint,
        models=[
            ExportedModel(
                model_id=spec.id,
                model_config=spec,
                raw_yaml=dump_spec(spec),
                affected_bundles=list(catalog.bundles_of(spec.id)),
            )
            for spec in catalog.specs.values()
        ],
        bundles=list(catalog.bundles),
    )


def encode_export(export: Export) -> bytes:
    return msgspec.json.encode(export)


def read_export(data: bytes) -> Catalog:
    """The catalog in an export.

    Raises `ValueError` when it is not one, is of another version, holds a spec that cannot be meant, or
    has another fingerprint than it says (a proxy cut it, or the two ends are of different versions).
    """
    try:
        version: Any = msgspec.json.decode(data, type=dict[str, Any]).get("snapshot_version")
        if version != SNAPSHOT_VERSION:
            raise ValueError(f"the export has `snapshot_version` {version}, want {SNAPSHOT_VERSION}")
        export = msgspec.json.decode(data, type=Export)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a catalog export: {error}") from error
    for model in export.models:
        check_spec(model.model_config)
    catalog = Catalog.of((model.model_config for model in export.models), export.bundles)
    if catalog.fingerprint != export.fingerprint:
        raise ValueError(f"the export says {export.fingerprint} and holds {catalog.fingerprint}")
    return catalog
