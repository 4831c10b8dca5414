"""A model's spec: what it is, said in as few lines as its snapshot allows.

A spec holds what the snapshot's own files do not say; `derive` fills in the rest and says from which
file each value came. A spec never names code, and an unknown key is refused by name.
"""

from pathlib import PurePosixPath
from typing import Any, Literal

import msgspec
import yaml
from msgspec import Struct

from sie_core.ids import ModelId, Revision, nearest, parse_model_id, parse_revision

LEAST_TOKENS = 3

Pooling = Literal["cls", "mean", "last"]


class Source(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where the weights come from: a hub repository and the commit meant (None: resolved once, when locking)."""

    repo: ModelId
    revision: Revision | None = None


class DenseHead(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One vector an item.

    Attributes:
        head: `pooled` is the only kind of dense head.
        pooling: how the hidden states become one; None: the snapshot says.
        normalize: to unit length; None: the snapshot says.
        dim: length of the vector; None: the snapshot says.
    """

    head: Literal["pooled"] = "pooled"
    pooling: Pooling | None = None
    normalize: bool | None = None
    dim: int | None = None


class ModelSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a caller gets under one model id.

    Attributes:
        id: what callers name.
        source: the repository that holds the weights, when it is not `id` at an open revision.
        max_tokens: longest item, special tokens included; None: the snapshot says.
        dense: the dense output, if the model has one.
        query: template of a query, with `{text}` and perhaps `{instruction}`.
        document: template of a document, likewise.
        default_instruction: what `{instruction}` is when a query names none.
    """

    id: ModelId
    source: Source | None = None
    max_tokens: int | None = None
    dense: DenseHead | None = None
    query: str | None = None
    document: str | None = None
    default_instruction: str | None = None

    @property
    def repo(self) -> ModelId:
        return self.source.repo if self.source is not None else self.id

    @property
    def revision(self) -> Revision | None:
        return self.source.revision if self.source is not None else None

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("dense",) if self.dense is not None else ()


def parse_spec(text: str | bytes, *, where: str) -> ModelSpec:
    """A spec from YAML.

    Raises:
        ValueError: `where`, the key, and what was wanted; a misspelt key is answered with the nearest known one.
    """
    try:
        loaded: Any = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{where} is not a spec: want a mapping with `id`, have {type(loaded).__name__}")
    _refuse_unknown(loaded, ModelSpec, where)
    try:
        spec = msgspec.convert(loaded, ModelSpec)
        check_spec(spec)
    except (msgspec.ValidationError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    return spec


def check_spec(spec: ModelSpec) -> None:
    """Raises `ValueError` for a value of the right type that cannot be meant."""
    parse_model_id(spec.id)
    if spec.source is not None:
        parse_model_id(spec.source.repo)
        if spec.source.revision is not None:
            parse_revision(spec.source.revision)
    if spec.max_tokens is not None and spec.max_tokens < LEAST_TOKENS:
        raise ValueError(f"`max_tokens` is {spec.max_tokens}: want at least {LEAST_TOKENS}, two of them special tokens")
    if spec.dense is not None and spec.dense.dim is not None and spec.dense.dim < 1:
        raise ValueError(f"`dense.dim` is {spec.dense.dim}: want a positive number")
    for name, template in (("query", spec.query), ("document", spec.document)):
        if template is not None and "{text}" not in template:
            raise ValueError(f"`{name}` has no `{{text}}` in it: {template!r}")
    if not spec.outputs:
        raise ValueError("a spec names at least one output: `dense`")


def dump_spec(spec: ModelSpec) -> str:
    """The spec as YAML, in the order of its fields."""
    return str(yaml.safe_dump(msgspec.to_builtins(spec), sort_keys=False, allow_unicode=True))


def spec_name_matches(path: str, spec: ModelSpec) -> bool:
    """Whether a file is named after the model in it (`ORG__NAME.yaml`)."""
    return PurePosixPath(path).name == spec.id.replace("/", "__") + ".yaml"


def _refuse_unknown(loaded: dict[str, Any], struct: type[Struct], where: str) -> None:
    known = struct.__struct_fields__
    for key in loaded:
        if key not in known:
            near = nearest(str(key), known, most=1)
            meant = (
                f"; did you mean `{near[0]}`?" if near else f"; known are {', '.join(f'`{name}`' for name in known)}"
            )
            raise ValueError(f"{where}: unknown key `{key}`{meant}")
