"""A model's spec: what it is, said in as few lines as its snapshot allows.

A spec holds what the snapshot's own files do not say; `derive` fills in the rest and says from which
file each value came. A spec never names code, and an unknown key is refused by name.
"""

from pathlib import PurePosixPath
from typing import Any, Literal

import msgspec
from msgspec import Struct

from sie_core.ids import ModelId, Revision, parse_model_id, parse_revision

LEAST_TOKENS = 3

Pooling = Literal["cls", "mean", "last", "weighted"]
"""`weighted` is the mean weighted by position, from 1."""

InputKind = Literal["text", "image"]
OutputKind = Literal["dense", "sparse", "multivector", "score", "json"]
"""What `/v1/models` lists as a model's outputs; `json` is extraction."""


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
        projection: folder of the snapshot with a linear layer after pooling; None: `modules.json` says.
    """

    head: Literal["pooled"] = "pooled"
    pooling: Pooling | None = None
    normalize: bool | None = None
    dim: int | None = None
    projection: str | None = None


class SparseHead(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A weight for each id of the vocabulary, most of them 0.

    Attributes:
        head: `splade`: a masked language model's logits, the largest over the tokens; `lexical`: one weight a
            token, the largest of each id (bge-m3).
        activation: what becomes of a positive logit x: log(1 + x), or that twice; None: the snapshot says.
        pooling: over the tokens, of what became of their logits; None: the snapshot says.
        query: `same` as of a document, or `idf`: no network, each token of the query has a weight from a file; None:
            the snapshot says.
        weights: file of the snapshot with the layer of its own, or file or folder with the idf; None: where its kind
            keeps it.
        dim: size of the vocabulary; None: the snapshot says.
    """

    head: Literal["splade", "lexical"]
    activation: Literal["log1p", "log1p_log1p"] | None = None
    pooling: Literal["max", "sum"] | None = None
    query: Literal["same", "idf"] | None = None
    weights: str | None = None
    dim: int | None = None


class MultivectorHead(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One vector a token.

    Attributes:
        head: `colbert` is the only kind.
        weights: file of the snapshot with the projection; None: where its kind keeps it.
        dim: length of each vector; None: the snapshot says.
        normalize: each to unit length.
        skip_first: whether the first position has no vector (bge-m3).
        query_marker: token that stands after the first of a query; `document_marker` likewise.
        query_tokens: longest query; `document_tokens` likewise; None: `max_tokens`.
        expand: whether a query is filled up with mask tokens to `query_tokens`.
        attend_expansion: whether those are seen by the others.
        skip_punctuation: whether punctuation of a document has no vector.
    """

    head: Literal["colbert"] = "colbert"
    weights: str | None = None
    dim: int | None = None
    normalize: bool = True
    skip_first: bool = False
    query_marker: str | None = None
    document_marker: str | None = None
    query_tokens: int | None = None
    document_tokens: int | None = None
    expand: bool | None = None
    attend_expansion: bool | None = None
    skip_punctuation: bool | None = None


class ScoreHead(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How well an item answers a query.

    Attributes:
        head: `classify`: a cross-encoder's logit; `verdict`: the logits of yes and no; `vectors`: of the model's
            own outputs.
        activation: of a logit; None: the snapshot says.
        template: of a verdict, with `{query}`, `{document}` and perhaps `{instruction}`.
        yes: the token for it, as `no`.
    """

    head: Literal["classify", "verdict", "vectors"]
    activation: Literal["sigmoid", "identity"] | None = None
    template: str | None = None
    yes: str | None = None
    no: str | None = None


class ExtractHead(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is found in an item.

    Attributes:
        head: `spans`: named stretches of the text (GLiNER); `entailment`: which labels it entails (NLI); `labels`:
            which labels, read before it, are its own (GLiClass).
        threshold: least score of a span or of a label, when a call does not say.
        hypothesis: of a label, with `{}` in its place.
        multi_label: whether labels are judged each by itself, or against each other.
        merge_adjacent: whether neighbouring spans of one label become one.
    """

    head: Literal["spans", "entailment", "labels"]
    threshold: float | None = None
    hypothesis: str | None = None
    multi_label: bool | None = None
    merge_adjacent: bool | None = None


class Lora(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A LoRA of a variant: a hub repository in PEFT's form and the commit meant."""

    repo: ModelId
    revision: Revision | None = None


class Variant(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What differs under one `options.profile`; None and nothing: as the model itself.

    Attributes:
        options: for calls that do not give them, by the wire's names.
        outputs: what `encode` gives, whatever a call asks for.
    """

    query: str | None = None
    document: str | None = None
    default_instruction: str | None = None
    options: dict[str, Any] = {}
    outputs: tuple[Literal["dense", "sparse", "multivector"], ...] = ()
    lora: Lora | None = None


class ModelSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a caller gets under one model id.

    Attributes:
        id: what callers name.
        source: the repository that holds the weights, when it is not `id` at an open revision.
        architecture: `model_type` of its `config.json`, or `gliner`, `gliclass` or `static`; None: whatever
            the snapshot has.
        max_tokens: longest item, special tokens included; None: the snapshot says.
        inputs: what an item may be.
        dense: the dense output, if the model has one; `sparse`, `multivector`, `score` and `extract` likewise.
        query: template of a query, with `{text}` and perhaps `{instruction}`.
        document: template of a document, likewise.
        default_instruction: what `{instruction}` is when a query names none.
        causal: whether a token sees only those before it; None: as the architecture has it.
        base: the repository with the network's configuration and the tokenizer, where `source` lacks them (GLiNER).
        labels_base: likewise for the network of the labels, of a GLiNER that has one of their own.
        variants: by the name that `options.profile` gives.
    """

    id: ModelId
    source: Source | None = None
    architecture: str | None = None
    max_tokens: int | None = None
    inputs: tuple[InputKind, ...] = ("text",)
    dense: DenseHead | None = None
    sparse: SparseHead | None = None
    multivector: MultivectorHead | None = None
    score: ScoreHead | None = None
    extract: ExtractHead | None = None
    query: str | None = None
    document: str | None = None
    default_instruction: str | None = None
    causal: bool | None = None
    base: Source | None = None
    labels_base: Source | None = None
    variants: dict[str, Variant] = {}

    @property
    def repo(self) -> ModelId:
        return self.source.repo if self.source is not None else self.id

    @property
    def revision(self) -> Revision | None:
        return self.source.revision if self.source is not None else None

    @property
    def bases(self) -> tuple[Source, ...]:
        """The repositories beside its own that it cannot be loaded without."""
        return tuple(source for source in (self.base, self.labels_base) if source is not None)

    @property
    def outputs(self) -> tuple[OutputKind, ...]:
        """As `/v1/models` lists them."""
        heads: dict[OutputKind, object] = {
            "dense": self.dense,
            "sparse": self.sparse,
            "multivector": self.multivector,
            "score": self.score,
            "json": self.extract,
        }
        return tuple(name for name, head in heads.items() if head is not None)

    @property
    def sizes(self) -> dict[str, int | None]:
        """The size of each output of `encode` that the model has; None where only the snapshot says it."""
        heads = {"dense": self.dense, "sparse": self.sparse, "multivector": self.multivector}
        return {name: head.dim for name, head in heads.items() if head is not None}


def check_spec(spec: ModelSpec) -> None:
    """Raises `ValueError` for a value of the right type that cannot be meant."""
    parse_model_id(spec.id)
    for source in (spec.source, *spec.bases):
        if source is not None:
            parse_model_id(source.repo)
            if source.revision is not None:
                parse_revision(source.revision)
    if spec.bases and (spec.extract is None or spec.extract.head != "spans"):
        named = "base" if spec.base is not None else "labels_base"
        raise ValueError(f"`{named}` is for the head `spans`: every other model has all of its files in one repository")
    if spec.max_tokens is not None and spec.max_tokens < LEAST_TOKENS:
        raise ValueError(f"`max_tokens` is {spec.max_tokens}: want at least {LEAST_TOKENS}, two of them special tokens")
    if spec.dense is not None and spec.dense.dim is not None and spec.dense.dim < 1:
        raise ValueError(f"`dense.dim` is {spec.dense.dim}: want a positive number")
    for name, template in (("query", spec.query), ("document", spec.document)):
        if template is not None and "{text}" not in template:
            raise ValueError(f"`{name}` has no `{{text}}` in it: {template!r}")
    if not spec.outputs:
        raise ValueError("a spec names at least one of `dense`, `sparse`, `multivector`, `score` and `extract`")


def dump_spec(spec: ModelSpec) -> str:
    """The spec as YAML, in the order of its fields."""
    import yaml  # here: a start needs none of it, and it takes 16 ms

    return str(yaml.safe_dump(msgspec.to_builtins(spec), sort_keys=False, allow_unicode=True))


def spec_name_matches(path: str, spec: ModelSpec) -> bool:
    """Whether a file is named after the model in it (`ORG__NAME.yaml`)."""
    return PurePosixPath(path).name == spec.id.replace("/", "__") + ".yaml"
