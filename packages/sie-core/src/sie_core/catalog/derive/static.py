"""A model of static embeddings: a table of vectors by token, as model2vec or sentence-transformers saved it. Pure.

Follows model2vec 0.10 `persistence/` and sentence-transformers 6.2 `sentence_transformer/modules/static_embedding.py`.
"""

from dataclasses import dataclass
from typing import Any, Final

from sie_core.catalog.derive.snapshot import CONFIG, DEFAULT, MODULES, SPEC, Found, Module, Reader, read_json, within
from sie_core.catalog.spec import DenseHead, ModelSpec

STATIC: Final = "static"
"""The architecture, for which no `config.json` has a name."""

TOKENIZER_FILE: Final = "tokenizer.json"

_KIND: Final = "StaticEmbedding"
_MODEL2VEC: Final = "model2vec"
_MODEL2VEC_TOKENS: Final = 512
_UNLIMITED_TOKENS: Final = 1_000_000
"""Where nothing says it: a table has no positions, and a text costs next to nothing."""


@dataclass(frozen=True)
class Static:
    """What its files say; `dense.dim` stays the spec's, since only the table says it.

    Attributes:
        folder: of the snapshot, where the table and the tokenizer are.
    """

    folder: str
    max_tokens: Found[int]
    dense: DenseHead
    origins: dict[str, str]


def read_static(spec: ModelSpec, read: Reader) -> Static | None:
    """None where the snapshot is of another kind.

    Raises:
        ValueError: other modules than the table and a scaling to length 1; a spec of something else.
    """
    modules = read_json(read, MODULES, list[Module], [])
    config = read_json(read, CONFIG, dict[str, Any], {})
    of_model2vec = config.get("model_type") == _MODEL2VEC
    if not of_model2vec and (not modules or modules[0].kind != _KIND):
        return None
    if spec.architecture not in (None, STATIC):
        raise ValueError(f"`architecture` is `{spec.architecture}`, the snapshot is a table of vectors: `{STATIC}`")
    if spec.outputs != ("dense",):
        raise ValueError(f"the spec has {', '.join(f'`{name}`' for name in spec.outputs)}: a table has `dense` alone")
    kinds = [module.kind for module in modules]
    if kinds not in ([], [_KIND], [_KIND, "Normalize"]):
        listed = ", ".join(f"`{kind}`" for kind in kinds)
        raise ValueError(f"`{MODULES}` lists {listed}: supported is `{_KIND}`, then `Normalize` or nothing")
    folder = modules[0].path if modules else ""
    folder = "" if folder == "." else folder
    if folder.startswith("/") or ".." in folder.split("/"):
        raise ValueError(f"`{MODULES}` has a module at `{folder}`: want a folder of the snapshot")
    normalize = Found("Normalize" in kinds, MODULES)
    if of_model2vec and "normalize" in config:
        normalize = Found(config["normalize"] is True, CONFIG)
    max_tokens = _max_tokens(spec, read, config, folder, of_model2vec=of_model2vec)
    head = spec.dense or DenseHead()
    if head.normalize is not None:
        normalize = Found(head.normalize, SPEC)
    dense = DenseHead(normalize=normalize.value, dim=head.dim)
    origins = {"max_tokens": max_tokens.origin, "dense.normalize": normalize.origin}
    return Static(folder, max_tokens, dense, origins)


def _max_tokens(
    spec: ModelSpec, read: Reader, config: dict[str, Any], folder: str, *, of_model2vec: bool
) -> Found[int]:
    if spec.max_tokens is not None:
        return Found(spec.max_tokens, SPEC)
    if of_model2vec:
        said = config.get("max_length", _MODEL2VEC_TOKENS)
        origin = CONFIG if "max_length" in config else DEFAULT
        return Found(said if isinstance(said, int) else _UNLIMITED_TOKENS, origin)
    path = within(folder, TOKENIZER_FILE)
    truncation = read_json(read, path, dict[str, Any]).get("truncation") or {}
    if isinstance(said := truncation.get("max_length"), int):
        return Found(said, path)
    return Found(_UNLIMITED_TOKENS, DEFAULT)
