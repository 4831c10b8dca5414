"""A sparse head, completed from the snapshot's own files. Pure.

Follows sentence-transformers 6.2 `sparse_encoder/modules/splade_pooling.py` and `sparse_static_embedding.py`; a
snapshot that lists no such module is SPLADE as its authors publish it: log(1 + relu), the largest over the tokens.
"""

from typing import Final, Literal

from msgspec import Struct

from sie_core.catalog.derive.modules import Modules
from sie_core.catalog.derive.snapshot import CONFIG, DEFAULT, SPEC, Config, Found, Reader, read_json, within
from sie_core.catalog.spec import SparseHead

LEXICAL_WEIGHTS: Final = "sparse_linear.pt"
IDF_FILES: Final = ("idf.json", "query_token_weights.txt")


class _Splade(Struct, frozen=True):
    pooling_strategy: Literal["max", "sum"] = "max"
    activation_function: Literal["relu", "log1p_relu"] = "relu"


class _Static(Struct, frozen=True):
    path: str | None = None


def complete_sparse(
    head: SparseHead, read: Reader, config: Config, where: str, modules: Modules
) -> tuple[SparseHead, dict[str, str]]:
    """The head with nothing left open, and each value's origin by name.

    Args:
        config: of the transformer, found at `where`.

    Raises:
        ValueError: weights that no file holds; the spec and a file that contradict each other.
    """
    dim = _dim(head, config, where)
    if head.head == "lexical":
        weights = Found(LEXICAL_WEIGHTS, DEFAULT) if head.weights is None else Found(head.weights, SPEC)
        complete = SparseHead(head="lexical", weights=weights.value, dim=dim.value)
        return complete, {"weights": weights.origin, "dim": dim.origin}
    said, origin = _Splade(), DEFAULT
    if modules.splade is not None:
        origin = within(modules.splade.path, CONFIG)
        said = read_json(read, origin, _Splade)
    twice = said.activation_function == "log1p_relu"
    activation = _first(head.activation, Found("log1p_log1p" if twice else "log1p", origin))
    pooling = _first(head.pooling, Found(said.pooling_strategy, origin))
    query = _first(head.query, Found("same" if modules.static_query is None else "idf", origin))
    origins = {
        "activation": activation.origin,
        "pooling": pooling.origin,
        "query": query.origin,
        "dim": dim.origin,
    }
    file = None
    if query.value == "idf":
        file = _idf(head, read, modules)
        origins["weights"] = file.origin
    complete = SparseHead(
        head="splade",
        activation=activation.value,
        pooling=pooling.value,
        query=query.value,
        weights=None if file is None else file.value,
        dim=dim.value,
    )
    return complete, origins


def _first(said: object, found: Found[str]) -> Found:  # type: ignore[type-arg]
    return found if said is None else Found(said, SPEC)


def _dim(head: SparseHead, config: Config, where: str) -> Found[int]:
    if config.vocab_size is None:
        raise ValueError(f"`{where}` has no `vocab_size`")
    if head.dim is not None and head.dim != config.vocab_size:
        raise ValueError(f"`sparse.dim` is {head.dim}, `vocab_size` in `{where}` is {config.vocab_size}")
    return Found(config.vocab_size, where)


def _idf(head: SparseHead, read: Reader, modules: Modules) -> Found[str]:
    """The file of a query's weights, or the folder of the module that holds them."""
    if head.weights is not None:
        return Found(head.weights, SPEC)
    if modules.static_query is not None:
        where = within(modules.static_query.path, CONFIG)
        path = read_json(read, where, _Static, _Static()).path
        if path is None:
            return Found(modules.static_query.path, where)
    file = next((name for name in IDF_FILES if read(name) is not None), None)
    if file is None:
        names = " or ".join(f"`{name}`" for name in IDF_FILES)
        raise ValueError(f"`sparse.query` is `idf`, and the snapshot has no {names}: name the file in `sparse.weights`")
    return Found(file, file)
