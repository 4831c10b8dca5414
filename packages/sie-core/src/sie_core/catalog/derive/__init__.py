"""What a snapshot says of itself: a spec completed from the files that sentence-transformers wrote beside the weights.

`derive` is given a spec and the bytes of the snapshot's small files, and answers the same spec with nothing
left open, and for every value the file that it came from. A spec's own values come first. What we cannot
serve is refused by name, with what we can. Reads nothing by itself; not here: the shape of the network,
which its backbone reads from `config.json`.

Follows sentence-transformers 6.2: `base/model.py` (modules, prompts), `base/modules/transformer.py` (length).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import msgspec

from sie_core.catalog.derive.dense import check_truncate_dim, complete_dense
from sie_core.catalog.derive.extract import complete_entailment
from sie_core.catalog.derive.label_network import LabelNetwork, read_label_network
from sie_core.catalog.derive.labels import ENCODER, complete_labels, read_encoder
from sie_core.catalog.derive.modules import read_modules
from sie_core.catalog.derive.multivector import complete_multivector
from sie_core.catalog.derive.positions import need_positions, positions_of, reserved_positions
from sie_core.catalog.derive.projection import Layer
from sie_core.catalog.derive.score import complete_score, of_cross_encoder
from sie_core.catalog.derive.snapshot import (
    CONFIG,
    DEFAULT,
    LENGTH,
    PROMPTS,
    SPEC,
    TOKENIZER,
    Config,
    Found,
    Length,
    Prompts,
    Reader,
    Tokenizer,
    read_json,
    within,
)
from sie_core.catalog.derive.spans import GLINER, complete_spans, read_gliner, spans_max_tokens
from sie_core.catalog.derive.sparse import complete_sparse
from sie_core.catalog.derive.static import STATIC, Static, read_static
from sie_core.catalog.spec import (
    LEAST_TOKENS,
    DenseHead,
    ExtractHead,
    ModelSpec,
    MultivectorHead,
    ScoreHead,
    SparseHead,
)

__all__ = ["CONFIG", "STATIC", "Architecture", "Derived", "LabelNetwork", "Layer", "Reader", "derive"]

Architecture = Literal[
    "bart",
    "bert",
    "camembert",
    "clip",
    "deberta-v2",
    "distilbert",
    "electra",
    "gemma3_text",
    "gte",
    "llama",
    "llama_bidirec",
    "mistral",
    "modernbert",
    "mpnet",
    "new",
    "nomic_bert",
    "qwen2",
    "qwen3",
    "roberta",
    "siglip",
    "static",
    "xlm-roberta",
]
"""`model_type` in `config.json`, of what there is a backbone for."""

_PICTURED: Final = ("clip", "siglip")

_DOCUMENT_PROMPTS: Final = ("document", "passage", "corpus")


@dataclass(frozen=True)
class Derived:
    """A spec with nothing left open.

    Attributes:
        given: the spec that was completed.
        architecture: which backbone.
        folder: of the snapshot, where `config.json`, the weights and the tokenizer are; "" for its root.
        lower_case: whether texts are lower-cased before the tokenizer sees them.
        max_tokens: longest item, special tokens included.
        dense: the dense head, complete; None where the spec has none; `sparse`, `multivector` and `score` likewise.
        query: template of a query, or None for the text as it is.
        document: template of a document, likewise.
        origins: each value's name, as in the spec, and the file that it came from, or `spec`, or `default`.
        dense_layers: linear layers after the pooling.
        multivector_layers: linear layers from a token's hidden state to its vector.
        skipped: words whose tokens have no vector in a document.
        pools_prompt: whether a prompt's tokens are part of a mean.
        truncate_dim: a dense vector is cut to so many; None: it is as long as it is.
        rescaled: whether what is cut to that is scaled to length 1 again.
        extract: the extract head, complete where its kind leaves something open.
        inside: the key of `config.json` under which the network's own is; None: it is the whole.
        config: the file that says what the network is.
        borrowed: whether the tokenizer is the base's.
        labels: what reads the labels; None where nothing but the network itself does.
    """

    given: ModelSpec
    architecture: Architecture
    folder: str
    lower_case: bool
    max_tokens: int
    dense: DenseHead | None
    sparse: SparseHead | None
    multivector: MultivectorHead | None
    score: ScoreHead | None
    query: str | None
    document: str | None
    origins: Mapping[str, str]
    dense_layers: tuple[Layer, ...] = ()
    multivector_layers: tuple[Layer, ...] = ()
    skipped: tuple[str, ...] = ()
    pools_prompt: bool = True
    truncate_dim: int | None = None
    rescaled: bool = True
    extract: ExtractHead | None = None
    inside: str | None = None
    config: str = CONFIG
    borrowed: bool = False
    labels: LabelNetwork | None = None

    @property
    def spec(self) -> ModelSpec:
        """The spec as it would have to be written without the snapshot."""
        return msgspec.structs.replace(
            self.given,
            max_tokens=self.max_tokens,
            dense=self.dense,
            sparse=self.sparse,
            multivector=self.multivector,
            score=self.score,
            extract=self.extract,
            query=self.query,
            document=self.document,
        )


def derive(
    spec: ModelSpec,
    read: Reader,
    base: Reader = lambda path: None,
    labels_base: Reader = lambda path: None,
) -> Derived:
    """The spec, completed; `base` reads the snapshot of its base, and `labels_base` that of its labels' base.

    Raises:
        ValueError: a file is missing or is not what it should be; an architecture, a module or a pooling
            that we do not serve; two files, or the spec and a file, that contradict each other.
    """
    if (static := read_static(spec, read)) is not None:
        return _of_static(spec, static, read_json(read, PROMPTS, Prompts, Prompts()))
    if spec.extract is not None and spec.extract.head == "spans":
        return _of_gliner(spec, read, base, labels_base)
    modules = read_modules(read)
    folder = modules.transformer.path
    where = within(folder, CONFIG)
    encoder = read_encoder(spec, read, where)
    config = encoder or read_json(read, where, Config)
    length = read_json(read, within(folder, LENGTH), Length, Length())
    prompts = read_json(read, PROMPTS, Prompts, Prompts())
    architecture = _architecture(None if encoder is not None else spec.architecture, config, where)
    if architecture in _PICTURED and spec.outputs != ("dense",):
        have = ", ".join(f"`{name}`" for name in spec.outputs)
        raise ValueError(f"the spec of `{spec.id}` has {have}: a model of texts and pictures has `dense` alone")
    max_tokens = _max_tokens(spec, read, folder, config, length)
    own = of_cross_encoder(read, prompts)
    query, document = _templates(spec, prompts, own)
    origins = {"max_tokens": max_tokens.origin}
    dense = sparse = multivector = score = None
    extract = spec.extract
    if spec.dense is not None:
        dense = complete_dense(spec.dense, read, config, where, prompts, modules)
        origins |= {f"dense.{name}": origin for name, origin in dense.origins.items()}
    if spec.sparse is not None:
        sparse, found = complete_sparse(spec.sparse, read, config, where, modules)
        origins |= {f"sparse.{name}": origin for name, origin in found.items()}
    if spec.multivector is not None:
        multivector = complete_multivector(spec.multivector, read, config, where, modules, max_tokens=max_tokens.value)
        origins |= {f"multivector.{name}": origin for name, origin in multivector.origins.items()}
    if spec.score is not None:
        score, found = complete_score(spec.score, read, where, own)
        origins |= {f"score.{name}": origin for name, origin in found.items()}
    if encoder is not None and spec.extract is not None:
        extract, found = complete_labels(spec.extract, read, where)
        origins |= {f"extract.{name}": origin for name, origin in found.items()}
    if spec.extract is not None and spec.extract.head == "entailment":
        extract, found = complete_entailment(spec.extract, read, where)
        origins |= {f"extract.{name}": origin for name, origin in found.items()}
    origins |= {"query": query.origin, "document": document.origin}
    return Derived(
        given=spec,
        architecture=architecture,
        folder=folder,
        lower_case=length.do_lower_case,
        max_tokens=max_tokens.value,
        dense=dense.head if dense else None,
        sparse=sparse,
        multivector=multivector.head if multivector else None,
        score=score,
        query=query.value,
        document=document.value,
        origins=origins,
        dense_layers=dense.layers if dense else (),
        multivector_layers=multivector.layers if multivector else (),
        skipped=multivector.skipped if multivector else (),
        pools_prompt=dense is None or dense.pools_prompt,
        truncate_dim=prompts.truncate_dim,
        rescaled=dense is None or dense.rescaled,
        extract=extract,
        inside=None if encoder is None else ENCODER,
    )


def _of_gliner(spec: ModelSpec, read: Reader, base: Reader, labels_base: Reader) -> Derived:
    config = read_gliner(spec, read, base)
    labels = read_label_network(spec, read, labels_base)
    if labels is not None:
        _text_architecture(labels.architecture, f"`labels_encoder_config` in `{GLINER}`")
    assert spec.extract is not None
    extract, found = complete_spans(spec.extract)
    max_tokens = spans_max_tokens(spec, read, base, config)
    return Derived(
        given=spec,
        architecture=_text_architecture(config.model_type, f"`{GLINER}`"),
        folder="",
        lower_case=False,
        max_tokens=max_tokens.value,
        dense=None,
        sparse=None,
        multivector=None,
        score=None,
        query=None,
        document=None,
        origins={"max_tokens": max_tokens.origin} | {f"extract.{name}": origin for name, origin in found.items()},
        extract=extract,
        inside=ENCODER,
        config=GLINER,
        borrowed=read(TOKENIZER) is None,
        labels=labels,
    )


def _of_static(spec: ModelSpec, static: Static, prompts: Prompts) -> Derived:
    query = _template(spec.query, ("query",), prompts)
    document = _template(spec.document, _DOCUMENT_PROMPTS, prompts)
    check_truncate_dim(prompts)
    return Derived(
        given=spec,
        architecture="static",
        folder=static.folder,
        lower_case=False,
        max_tokens=static.max_tokens.value,
        dense=static.dense,
        sparse=None,
        multivector=None,
        score=None,
        query=query.value,
        document=document.value,
        origins=static.origins | {"query": query.origin, "document": document.origin},
        truncate_dim=prompts.truncate_dim,
        rescaled=static.origins["dense.normalize"] == SPEC,
    )


def _architecture(said: str | None, config: Config, where: str) -> Architecture:
    if said is not None and said != config.model_type:
        raise ValueError(f"`architecture` is `{said}`, `model_type` in `{where}` is `{config.model_type}`")
    return _known(config.model_type, f"`{where}`", get_args(Architecture))


def _text_architecture(said: str, where: str) -> Architecture:
    """Of a network inside another."""
    return _known(said, where, [one for one in get_args(Architecture) if one not in (*_PICTURED, STATIC)])


def _known(said: str, where: str, supported: Sequence[Architecture]) -> Architecture:
    for known in supported:
        if said == known:
            return known
    raise ValueError(
        f"`model_type` in {where} is `{said}`: supported are {', '.join(f'`{known}`' for known in supported)}"
    )


def _max_tokens(spec: ModelSpec, read: Reader, folder: str, config: Config, length: Length) -> Found[int]:
    """The spec's, or `max_seq_length`, or the tokenizer's own limit; never more than there are positions."""
    config_name = within(folder, CONFIG)
    positions, reserved = positions_of(config), reserved_positions(config)
    if spec.max_tokens is not None:
        if positions is not None and need_positions(config) and spec.max_tokens > positions - reserved:
            but = f", and no token has the first {reserved}" if reserved else ""
            raise ValueError(
                f"`max_tokens` is {spec.max_tokens}, `max_position_embeddings` in `{config_name}` is {positions}{but}"
            )
        return Found(spec.max_tokens, SPEC)
    limits = [] if positions is None else [Found(positions - reserved, config_name)]
    if length.max_seq_length is not None:
        limits.append(Found(length.max_seq_length, within(folder, LENGTH)))
    else:
        tokenizer = read_json(read, within(folder, TOKENIZER), Tokenizer, Tokenizer())
        if tokenizer.model_max_length is not None and tokenizer.model_max_length < 2**31:
            limits.append(Found(int(tokenizer.model_max_length), within(folder, TOKENIZER)))
    if not limits:
        raise ValueError(
            f"no file of the snapshot says how long an item may be: set `max_tokens` in the spec of `{spec.id}`"
        )
    # The last of the equal ones: the file that was written to say it.
    found = min(reversed(limits), key=lambda limit: limit.value)
    if found.value < LEAST_TOKENS:
        raise ValueError(f"`{found.origin}` has an item be {found.value} tokens: want {LEAST_TOKENS} at least")
    return found


def _templates(spec: ModelSpec, prompts: Prompts, own: Prompts) -> tuple[Found[str | None], Found[str | None]]:
    """Of a query and of a document; of a pair only the default prompt stands, and before the first text."""
    if spec.score is not None and spec.score.head == "classify":
        return _template(spec.query, (), own), _template(spec.document, (), Prompts())
    return _template(spec.query, ("query",), prompts), _template(spec.document, _DOCUMENT_PROMPTS, prompts)


def _template(said: str | None, names: Sequence[str], prompts: Prompts) -> Found[str | None]:
    """A prompt is what stands before the text; the default one stands where none has the name."""
    if said is not None:
        return Found(said, SPEC)
    default = prompts.default_prompt_name
    if default is not None and default not in prompts.prompts:
        known = ", ".join(f"`{name}`" for name in prompts.prompts) or "none"
        raise ValueError(f"`default_prompt_name` in `{PROMPTS}` is `{default}`, its prompts are {known}")
    named = next((name for name in names if name in prompts.prompts), default)
    prompt = prompts.prompts[named] if named is not None else ""
    return Found(prompt + "{text}", PROMPTS) if prompt else Found(None, DEFAULT)
