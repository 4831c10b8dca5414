"""The one hash of a catalog.

Config service, gateway and workers compare it to know whether they speak of the same specs; it is the
ETag of the export too. Pure: the same specs and bundles give the same text everywhere, whatever order
they came in, and a field that holds its default counts as absent, so that a new field changes nothing
for those who do not use it.
"""

import hashlib
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from sie_core.catalog.spec import ModelSpec


def fingerprint(specs: Iterable[ModelSpec], bundles: Iterable[Struct]) -> str:
    """`sha256:` and 64 hex digits over the canonical JSON of both, each sorted by its own canonical form."""
    content = {"bundles": _sorted(bundles), "models": _sorted(specs)}
    return "sha256:" + hashlib.sha256(msgspec.json.encode(content)).hexdigest()


def _sorted(values: Iterable[Struct]) -> list[msgspec.Raw]:
    return [msgspec.Raw(encoded) for encoded in sorted(msgspec.json.encode(value, order="sorted") for value in values)]
