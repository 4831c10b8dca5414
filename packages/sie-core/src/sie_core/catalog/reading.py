"""Specs and bundles out of YAML files: in our own form, or specs in that of SIE v0.3.1's model files."""

from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import msgspec

from sie_core.catalog.catalog import Bundle, Catalog
from sie_core.catalog.older import is_older, read_older
from sie_core.catalog.spec import ModelSpec, check_spec, spec_name_matches
from sie_core.ids import nearest
from sie_core.yaml_documents import document


def parse_spec(text: str | bytes, *, where: str) -> ModelSpec:
    """A spec from YAML, ours or v0.3.1's.

    Raises:
        ValueError: `where`, the key, and what was wanted; a misspelt key is answered with the nearest known one.
    """
    loaded = document(text, where=where)
    if not isinstance(loaded, dict):
        raise ValueError(f"{where} is not a spec: want a mapping with `id`, have {type(loaded).__name__}")
    try:
        spec = read_older(loaded) if is_older(loaded) else _read(loaded)
        check_spec(spec)
    except (msgspec.ValidationError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    return spec


def read_catalog(folder: Traversable | Path) -> Catalog:
    """The catalog of a folder with `models/*.yaml` and `bundles.yaml`; raises `ValueError`."""
    return Catalog.of(read_specs(folder / "models"), read_bundles(folder / "bundles.yaml"))


def read_specs(folder: Traversable | Path) -> list[ModelSpec]:
    """Every `*.yaml` of a folder.

    Raises `ValueError` for a file that is no spec, or is not named after the model in it.
    """
    specs = []
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".yaml"):
            spec = parse_spec(file.read_bytes(), where=file.name)
            if not spec_name_matches(file.name, spec):
                raise ValueError(f"{file.name} holds `{spec.id}`: want it named `{spec.id.replace('/', '__')}.yaml`")
            specs.append(spec)
    return specs


def read_bundles(file: Traversable | Path) -> list[Bundle]:
    """Raises `ValueError` for a file that is not a list of bundles, naming the entry and the key."""
    loaded = document(file.read_bytes(), where=file.name)
    try:
        return msgspec.convert(loaded, list[Bundle])
    except msgspec.ValidationError as error:
        raise ValueError(f"{file.name}: {error}") from error


def _read(loaded: dict[str, Any]) -> ModelSpec:
    known = ModelSpec.__struct_fields__
    for key in loaded:
        if key not in known:
            near = nearest(str(key), known, most=1)
            meant = (
                f"; did you mean `{near[0]}`?" if near else f"; known are {', '.join(f'`{name}`' for name in known)}"
            )
            raise ValueError(f"unknown key `{key}`{meant}")
    return msgspec.convert(loaded, ModelSpec)
