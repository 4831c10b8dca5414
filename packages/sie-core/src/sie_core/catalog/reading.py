"""A spec out of a YAML file: in our own form, or in that of SIE v0.3.1's model files. Pure."""

from typing import Any

import msgspec
import yaml

from sie_core.catalog.older import is_older, read_older
from sie_core.catalog.spec import ModelSpec, check_spec
from sie_core.ids import nearest


def parse_spec(text: str | bytes, *, where: str) -> ModelSpec:
    """A spec from YAML, ours or v0.3.1's.

    Raises:
        ValueError: `where`, the key, and what was wanted; a misspelt key is answered with the nearest known one.
    """
    try:
        loaded: Any = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{where} is not a spec: want a mapping with `id`, have {type(loaded).__name__}")
    try:
        spec = read_older(loaded) if is_older(loaded) else _read(loaded)
        check_spec(spec)
    except (msgspec.ValidationError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    return spec


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
