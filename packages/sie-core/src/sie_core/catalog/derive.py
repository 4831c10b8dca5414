"""What a snapshot says of itself: a spec completed from the files that sentence-transformers wrote beside the weights.

`derive` is given a spec and the bytes of the snapshot's small files, and answers the same spec with nothing
left open, and for every value the file that it came from. A spec's own values come first. What we cannot
serve is refused by name, with what we can. Reads nothing by itself; not here: the shape of the network,
which its backbone reads from `config.json`.

Follows sentence-transformers 6.2: `base/model.py` (modules, prompts), `base/modules/transformer.py` (length).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar, get_args

import msgspec
from msgspec import Struct

from sie_core.catalog.spec import LEAST_TOKENS, DenseHead, ModelSpec, Pooling

Architecture = Literal["bert"]
"""`model_type` in `config.json`, of what there is a backbone for."""

CONFIG: Final = "config.json"
MODULES: Final = "modules.json"
LENGTH: Final = "sentence_bert_config.json"
PROMPTS: Final = "config_sentence_transformers.json"
TOKENIZER: Final = "tokenizer_config.json"
SPEC: Final = "spec"
"""Where a value came from when the spec itself says it."""

DEFAULT: Final = "default"
"""Where a value came from when no file says it."""

Reader = Callable[[str], bytes | None]
"""The bytes of a file of the snapshot by its path in it; None when it has none."""

_MODES: Final[Mapping[str, Pooling]] = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
_FLAG: Final = "pooling_mode_"
_FLAGS: Final[Mapping[str, str]] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
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
        dim: of the dense vector.
        query: template of a query, or None for the text as it is.
        document: template of a document, likewise.
        origins: each value's name, as in the spec, and the file that it came from, or `spec`, or `default`.
    """

    given: ModelSpec
    architecture: Architecture
    folder: str
    lower_case: bool
    max_tokens: int
    pooling: Pooling
    normalize: bool
    dim: int
    query: str | None
    document: str | None
    origins: Mapping[str, str]

    @property
    def spec(self) -> ModelSpec:
        """The spec as it would have to be written without the snapshot."""
        return msgspec.structs.replace(
            self.given,
            max_tokens=self.max_tokens,
            dense=DenseHead(pooling=self.pooling, normalize=self.normalize, dim=self.dim),
            query=self.query,
            document=self.document,
        )


class _Module(Struct, frozen=True):
    type: str
    path: str = ""

    @property
    def kind(self) -> str:
        return self.type.rsplit(".", 1)[-1]


class _Config(Struct, frozen=True):
    model_type: str
    hidden_size: int | None = None
    max_position_embeddings: int | None = None


class _Length(Struct, frozen=True):
    max_seq_length: int | None = None
    do_lower_case: bool = False


class _Tokenizer(Struct, frozen=True):
    model_max_length: float | None = None


class _Prompts(Struct, frozen=True):
    prompts: dict[str, str] = {}
    default_prompt_name: str | None = None


_S = TypeVar("_S")


@dataclass(frozen=True)
class _Found(Generic[_S]):
    """A value and where it was found."""

    value: _S
    origin: str


def derive(spec: ModelSpec, read: Reader) -> Derived:
    """The spec, completed.

    Raises:
        ValueError: a file is missing or is not what it should be; an architecture, a module or a pooling
            that we do not serve; two files, or the spec and a file, that contradict each other.
    """
    transformer, pooling, normalize = _modules(read)
    folder = transformer.path
    config = _read(read, _in(folder, CONFIG), _Config)
    architecture = _architecture(config, _in(folder, CONFIG))
    length = _read(read, _in(folder, LENGTH), _Length, _Length())
    prompts = _read(read, PROMPTS, _Prompts, _Prompts())
    max_tokens = _max_tokens(spec, read, folder, config, length)
    pooled = _pooling(spec, read, pooling, prompts, config)
    normalized = _normalize(spec, normalize)
    dim = _dim(spec, config, _in(folder, CONFIG))
    query = _template(spec.query, ("query",), prompts)
    document = _template(spec.document, _DOCUMENT_PROMPTS, prompts)
    return Derived(
        given=spec,
        architecture=architecture,
        folder=folder,
        lower_case=length.do_lower_case,
        max_tokens=max_tokens.value,
        pooling=pooled.value,
        normalize=normalized.value,
        dim=dim.value,
        query=query.value,
        document=document.value,
        origins={
            "max_tokens": max_tokens.origin,
            "dense.pooling": pooled.origin,
            "dense.normalize": normalized.origin,
            "dense.dim": dim.origin,
            "query": query.origin,
            "document": document.origin,
        },
    )


def _in(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _read(read: Reader, path: str, kind: type[_S], absent: _S | None = None) -> _S:
    data = read(path)
    if data is None:
        if absent is None:
            raise ValueError(f"the snapshot has no `{path}`")
        return absent
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"`{path}` cannot be read: {error}") from error


def _modules(read: Reader) -> tuple[_Module, _Module | None, _Module | None]:
    """Transformer, pooling and normalising; a snapshot without `modules.json` is a transformer and its mean."""
    modules = _read(read, MODULES, list[_Module], [_Module("sentence_transformers.models.Transformer")])
    kinds = [module.kind for module in modules]
    if kinds not in (["Transformer"], ["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ValueError(
            f"`{MODULES}` lists {', '.join(f'`{kind}`' for kind in kinds) or 'nothing'}: "
            "supported is `Transformer`, then `Pooling`, then `Normalize` or nothing"
        )
    for module in modules:
        # A snapshot is somebody else's: it may not have files read beside it.
        if module.path.startswith("/") or ".." in module.path.split("/"):
            raise ValueError(f"`{MODULES}` has a module at `{module.path}`: want a folder of the snapshot")
    first, pooling, normalize = (*modules, None, None)[:3]
    assert first is not None
    return first, pooling, normalize


def _architecture(config: _Config, where: str) -> Architecture:
    for known in get_args(Architecture):
        if config.model_type == known:
            return known  # type: ignore[no-any-return]
    supported = ", ".join(f"`{known}`" for known in get_args(Architecture))
    raise ValueError(f"`model_type` in `{where}` is `{config.model_type}`: supported are {supported}")


def _max_tokens(spec: ModelSpec, read: Reader, folder: str, config: _Config, length: _Length) -> _Found[int]:
    """The spec's, or `max_seq_length`, or the tokenizer's own limit; never more than there are positions."""
    config_name = _in(folder, CONFIG)
    positions = config.max_position_embeddings
    if spec.max_tokens is not None:
        if positions is not None and spec.max_tokens > positions:
            raise ValueError(
                f"`max_tokens` is {spec.max_tokens}, `max_position_embeddings` in `{config_name}` is {positions}"
            )
        return _Found(spec.max_tokens, SPEC)
    limits = [] if positions is None else [_Found(positions, config_name)]
    if length.max_seq_length is not None:
        limits.append(_Found(length.max_seq_length, _in(folder, LENGTH)))
    else:
        tokenizer = _read(read, _in(folder, TOKENIZER), _Tokenizer, _Tokenizer())
        if tokenizer.model_max_length is not None and tokenizer.model_max_length < 2**31:
            limits.append(_Found(int(tokenizer.model_max_length), _in(folder, TOKENIZER)))
    if not limits:
        raise ValueError(
            f"no file of the snapshot says how long an item may be: set `max_tokens` in the spec of `{spec.id}`"
        )
    # The last of the equal ones: the file that was written to say it.
    found = min(reversed(limits), key=lambda limit: limit.value)
    if found.value < LEAST_TOKENS:
        raise ValueError(f"`{found.origin}` has an item be {found.value} tokens: want {LEAST_TOKENS} at least")
    return found


def _pooling(
    spec: ModelSpec, read: Reader, module: _Module | None, prompts: _Prompts, config: _Config
) -> _Found[Pooling]:
    said = spec.dense.pooling if spec.dense is not None else None
    if module is None:
        return _Found("mean", DEFAULT) if said is None else _Found(said, SPEC)
    path = _in(module.path, CONFIG)
    raw = _read(read, path, dict[str, Any])
    width = raw.get("embedding_dimension", raw.get("word_embedding_dimension"))
    if width is not None and config.hidden_size is not None and width != config.hidden_size:
        raise ValueError(f"`{path}` pools vectors of {width}, `hidden_size` in `{CONFIG}` is {config.hidden_size}")
    if raw.get("include_prompt", True) is not True and any(prompts.prompts.values()):
        raise ValueError(f"`include_prompt` in `{path}` is false: supported is pooling over the prompt too")
    if said is not None:
        return _Found(said, SPEC)
    return _Found(_pooling_mode(raw, path), path)


def _pooling_mode(raw: Mapping[str, Any], path: str) -> Pooling:
    """Today's `pooling_mode`, or the flags that came before it; none set means the mean."""
    modes = raw.get("pooling_mode") or [mode for flag, mode in _FLAGS.items() if raw.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    unknown = [key for key, value in raw.items() if key.startswith(_FLAG) and key not in _FLAGS and value]
    if unknown or len(modes) != 1 or modes[0] not in _MODES:
        names = ", ".join(f"`{name}`" for name in [*unknown, *modes])
        raise ValueError(f"`{path}` pools by {names}: supported is one of {', '.join(f'`{mode}`' for mode in _MODES)}")
    return _MODES[modes[0]]


def _normalize(spec: ModelSpec, module: _Module | None) -> _Found[bool]:
    if spec.dense is not None and spec.dense.normalize is not None:
        return _Found(spec.dense.normalize, SPEC)
    return _Found(module is not None, MODULES)


def _dim(spec: ModelSpec, config: _Config, where: str) -> _Found[int]:
    if config.hidden_size is None:
        raise ValueError(f"`{where}` has no `hidden_size`")
    said = spec.dense.dim if spec.dense is not None else None
    if said is not None and said != config.hidden_size:
        raise ValueError(f"`dense.dim` is {said}, `hidden_size` in `{where}` is {config.hidden_size}")
    return _Found(config.hidden_size, where)


def _template(said: str | None, names: Sequence[str], prompts: _Prompts) -> _Found[str | None]:
    """A prompt is what stands before the text; the default one stands where none has the name."""
    if said is not None:
        return _Found(said, SPEC)
    default = prompts.default_prompt_name
    if default is not None and default not in prompts.prompts:
        known = ", ".join(f"`{name}`" for name in prompts.prompts) or "none"
        raise ValueError(f"`default_prompt_name` in `{PROMPTS}` is `{default}`, its prompts are {known}")
    named = next((name for name in names if name in prompts.prompts), default)
    prompt = prompts.prompts[named] if named is not None else ""
    return _Found(prompt + "{text}", PROMPTS) if prompt else _Found(None, DEFAULT)
