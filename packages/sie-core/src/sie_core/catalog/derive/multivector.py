"""A multivector head, completed from the snapshot's own files. Pure.

Three kinds of snapshot say how their ColBERT works: pylate's (`config_sentence_transformers.json`), those of ColBERT
itself (`HF_ColBERT` in `config.json`, `artifact.metadata`), and those of sentence-transformers (`MultiVectorMask`,
`sentence_bert_config.json`). Follows sentence-transformers 6.2 `multi_vector_encoder/model.py`, which reads all three.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from msgspec import Struct

from sie_core.catalog.derive.modules import Modules
from sie_core.catalog.derive.projection import Layer, read_layers
from sie_core.catalog.derive.snapshot import (
    CONFIG,
    DEFAULT,
    LENGTH,
    PROMPTS,
    SPEC,
    Config,
    Found,
    Reader,
    read_json,
    within,
)
from sie_core.catalog.spec import MultivectorHead

METADATA: Final = "artifact.metadata"

_STANFORD: Final = "HF_ColBERT"
_QUERY_TOKENS: Final = 32
_STANFORD_DIM: Final = 128

T = TypeVar("T")


@dataclass(frozen=True)
class Multivector:
    """A head with nothing left open.

    Attributes:
        layers: every token's hidden state to its vector.
        skipped: words whose tokens have no vector in a document.
        origins: each value's, by name.
    """

    head: MultivectorHead
    layers: tuple[Layer, ...]
    skipped: tuple[str, ...]
    origins: Mapping[str, str]


class _Pylate(Struct, frozen=True):
    model_type: str | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    query_length: int | None = None
    document_length: int | None = None
    do_query_expansion: bool | None = None
    attend_to_expansion_tokens: bool | None = None
    skiplist_words: list[str] | None = None

    @property
    def said(self) -> bool:
        return any(getattr(self, name) is not None for name in self.__struct_fields__ if name != "model_type")


class _Stanford(Struct, frozen=True):
    query_token_id: str | None = None
    doc_token_id: str | None = None
    query_maxlen: int | None = None
    doc_maxlen: int | None = None
    attend_to_mask_tokens: bool | None = None
    mask_punctuation: bool | None = None
    dim: int | None = None


class _Expansion(Struct, frozen=True):
    strategy: str
    attend: bool = False
    token: str | None = None
    length: int | None = None


class _Lengths(Struct, frozen=True):
    query_length: int | None = None
    document_length: int | None = None
    query_expansion: _Expansion | None = None


class _Mask(Struct, frozen=True):
    skiplist_words: tuple[str, ...] = ()
    skiplist_tasks: tuple[str, ...] = ("document",)
    keep_only_token_ids: list[int] | None = None


@dataclass(frozen=True)
class _Said:
    """What the snapshot says, whichever kind it is; `where` it does."""

    where: str = DEFAULT
    query_marker: str | None = None
    document_marker: str | None = None
    query_tokens: int | None = None
    document_tokens: int | None = None
    expand: bool = False
    attend: bool = False
    skipped: tuple[str, ...] = ()
    dim: int | None = None


def complete_multivector(
    head: MultivectorHead, read: Reader, config: Config, where: str, modules: Modules, *, max_tokens: int
) -> Multivector:
    """The head with nothing left open.

    Args:
        config: of the transformer, found at `where`.
        max_tokens: of the model; no query and no document is longer.

    Raises:
        ValueError: no projection; a rule that we do not serve; the spec and a file that contradict each other.
    """
    if config.hidden_size is None:
        raise ValueError(f"`{where}` has no `hidden_size`")
    said = _said(read, config, modules)
    query_marker = _first(head.query_marker, said.query_marker, said)
    document_marker = _first(head.document_marker, said.document_marker, said)
    expand = _first(head.expand, said.expand, said)
    attend = _first(head.attend_expansion, said.attend, said)
    query_tokens = _tokens(head.query_tokens, said.query_tokens, said, max_tokens, "query_tokens")
    document_tokens = _tokens(head.document_tokens, said.document_tokens, said, max_tokens, "document_tokens")
    skip = _first(head.skip_punctuation, bool(said.skipped), said)
    skipped = said.skipped if head.skip_punctuation is None else tuple(string.punctuation) if skip.value else ()
    layers, origin = _layers(head, read, config, modules, said)
    dim = layers[-1].outputs if layers else config.hidden_size
    if head.dim is not None and head.dim != dim:
        raise ValueError(f"`multivector.dim` is {head.dim}, `{origin}` makes vectors of {dim}")
    complete = MultivectorHead(
        weights=head.weights,
        dim=dim,
        normalize=head.normalize and (modules.mask is None or modules.normalize is not None),
        skip_first=head.skip_first,
        query_marker=query_marker.value,
        document_marker=document_marker.value,
        query_tokens=query_tokens.value,
        document_tokens=document_tokens.value,
        expand=expand.value,
        attend_expansion=attend.value,
        skip_punctuation=skip.value,
    )
    origins = {
        "dim": origin,
        "query_marker": query_marker.origin,
        "document_marker": document_marker.origin,
        "query_tokens": query_tokens.origin,
        "document_tokens": document_tokens.origin,
        "expand": expand.origin,
        "attend_expansion": attend.origin,
        "skip_punctuation": skip.origin,
    }
    return Multivector(complete, layers, skipped, origins)


def _first(mine: T | None, theirs: T, said: _Said) -> Found[T]:
    return Found(theirs, said.where if theirs is not None else DEFAULT) if mine is None else Found(mine, SPEC)


def _tokens(mine: int | None, theirs: int | None, said: _Said, most: int, name: str) -> Found[int]:
    if mine is not None:
        if mine > most:
            raise ValueError(f"`multivector.{name}` is {mine}, `max_tokens` is {most}")
        return Found(mine, SPEC)
    return Found(most, "max_tokens") if theirs is None or theirs > most else Found(theirs, said.where)


def _said(read: Reader, config: Config, modules: Modules) -> _Said:
    if modules.mask is not None:
        return _native(read, modules)
    pylate = read_json(read, PROMPTS, _Pylate, _Pylate())
    if pylate.model_type == "ColBERT" or pylate.said:
        words = pylate.skiplist_words
        return _Said(
            where=PROMPTS,
            query_marker=pylate.query_prefix or None,
            document_marker=pylate.document_prefix or None,
            query_tokens=pylate.query_length or _QUERY_TOKENS,
            document_tokens=pylate.document_length,
            expand=pylate.do_query_expansion is not False,
            attend=bool(pylate.attend_to_expansion_tokens),
            skipped=tuple(string.punctuation if words is None else words),
        )
    if _STANFORD in config.architectures:
        stanford = read_json(read, METADATA, _Stanford, _Stanford())
        return _Said(
            where=METADATA if read(METADATA) is not None else CONFIG,
            query_marker=stanford.query_token_id or "[unused0]",
            document_marker=stanford.doc_token_id or "[unused1]",
            query_tokens=stanford.query_maxlen or _QUERY_TOKENS,
            document_tokens=stanford.doc_maxlen,
            expand=True,
            attend=bool(stanford.attend_to_mask_tokens),
            skipped=tuple(string.punctuation) if stanford.mask_punctuation is not False else (),
            dim=stanford.dim or _STANFORD_DIM,
        )
    return _Said()


def _native(read: Reader, modules: Modules) -> _Said:
    """Markers are part of the prompts here."""
    assert modules.mask is not None
    at = within(modules.mask.path, CONFIG)
    mask = read_json(read, at, _Mask, _Mask())
    if mask.keep_only_token_ids:
        raise ValueError(f"`keep_only_token_ids` in `{at}` is {mask.keep_only_token_ids}: supported is none")
    if mask.skiplist_words and mask.skiplist_tasks != ("document",):
        raise ValueError(f"`skiplist_tasks` in `{at}` is {list(mask.skiplist_tasks)}: supported is ['document']")
    where = within(modules.transformer.path, LENGTH)
    lengths = read_json(read, where, _Lengths, _Lengths())
    expansion = lengths.query_expansion
    if expansion is not None and (expansion.strategy != "fixed" or expansion.token is not None):
        raise ValueError(
            f"`query_expansion` in `{where}` is `{expansion.strategy}` with `{expansion.token}`: supported is `fixed` "
            "with the tokenizer's own mask token"
        )
    return _Said(
        where=where,
        query_tokens=lengths.query_length if expansion is None else expansion.length,
        document_tokens=lengths.document_length,
        expand=expansion is not None,
        attend=expansion is not None and expansion.attend,
        skipped=mask.skiplist_words,
    )


def _layers(
    head: MultivectorHead, read: Reader, config: Config, modules: Modules, said: _Said
) -> tuple[tuple[Layer, ...], str]:
    """And where they are."""
    width: Any = config.hidden_size
    if head.weights is not None:
        return (Layer(head.weights, "", width, head.dim or width, bias=None),), head.weights
    if modules.pooling is None and modules.dense:
        return read_layers(modules.dense, read, width), within(modules.dense[-1].path, CONFIG)
    if _STANFORD in config.architectures:
        return (Layer("", "linear.", width, head.dim or said.dim or _STANFORD_DIM, bias=False),), said.where
    if modules.mask is not None:
        return (), CONFIG
    raise ValueError("the snapshot has no projection of its tokens' vectors: name its file in `multivector.weights`")
