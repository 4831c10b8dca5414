"""The heads of vectors, and what their tasks need, of a completed spec."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sie_core.catalog.derive import Derived
from sie_core.catalog.spec import MultivectorHead
from sie_server.models.calls import LoadError, Wanted
from sie_server.models.checkpoint import Checkpoint, joined, open_checkpoint, open_tensors
from sie_server.models.heads.head import Head
from sie_server.models.heads.multivector import TokenVectors
from sie_server.models.heads.pooled import Pooled
from sie_server.models.heads.projection import read_dense
from sie_server.models.heads.sparse import batch_tokens, read_lexical, read_splade
from sie_server.models.query_weights import QueryWeights, read_query_weights
from sie_server.models.tasks.around import Marks
from sie_server.models.tokenizer_settings import Role
from sie_server.models.tokenizing import TextTokenizer

_DROPPED: tuple[Role, ...] = ("cls", "eos", "pad", "unk")
_ENDS: tuple[Role, ...] = ("sep", "eos")


def with_layers(checkpoint: Checkpoint, derived: Derived, folder: Path) -> Checkpoint:
    """With the tensors of files and folders beside it, each under its file's or folder's name and a colon."""
    sources = {layer.source for layer in (*derived.dense_layers, *derived.multivector_layers) if layer.source}
    if derived.sparse is not None and derived.sparse.head == "lexical" and derived.sparse.weights is not None:
        sources.add(derived.sparse.weights)
    opened = {
        f"{source}:": open_checkpoint(folder / source) if (folder / source).is_dir() else open_tensors(folder / source)
        for source in sorted(sources)
    }
    return joined(checkpoint, opened) if opened else checkpoint


def vector_heads(
    derived: Derived, config: bytes, checkpoint: Checkpoint, tokenizer: Callable[[], TextTokenizer]
) -> dict[Wanted, Head]:
    """By what is read off a pass; `config` is the transformer's `config.json`."""
    heads: dict[Wanted, Head] = {}
    if derived.dense is not None and derived.dense.pooling is not None:
        layers = tuple(
            read_dense(layer, lambda name, shape: checkpoint.weight(name, shape).floats())
            for layer in derived.dense_layers
        )
        heads["dense"] = Pooled(derived.dense.pooling, layers, derived.truncate_dim, derived.rescaled)
    sparse = derived.sparse
    if sparse is not None and sparse.head == "splade":
        heads["sparse"] = read_splade(config, twice=sparse.activation == "log1p_log1p", pooling=sparse.pooling or "max")
    if sparse is not None and sparse.head == "lexical":
        ids = [tokenizer().special_id(role) for role in _DROPPED]
        dropped = np.array([one for one in ids if one is not None], np.int32)
        heads["sparse"] = read_lexical(config, f"{sparse.weights}:", dropped)
    if derived.multivector is not None:
        head = derived.multivector
        skipped = [tokenizer().find(word) for word in derived.skipped]
        unknown = tokenizer().special_id("unk")
        ids = [one for one in skipped if one is not None and one != unknown]
        heads["multivector"] = TokenVectors(
            derived.multivector_layers, head.normalize, head.skip_first, np.array(ids, np.int32)
        )
    return heads


def query_weights_of(derived: Derived, folder: Path, tokenizer: TextTokenizer) -> QueryWeights | None:
    """What a query becomes without the network; None where it goes through it.

    Args:
        folder: of the snapshot.
    """
    sparse = derived.sparse
    if sparse is None or sparse.query != "idf" or sparse.weights is None or sparse.dim is None:
        return None
    if derived.dense is not None or derived.multivector is not None:
        raise LoadError(f"`{derived.given.id}` weighs queries without the network, and has more outputs than `sparse`")
    return read_query_weights(folder / sparse.weights, tokenizer, dims=sparse.dim, max_tokens=derived.max_tokens)


def batch_tokens_of(derived: Derived) -> int | None:
    """Most tokens in a batch, of a model whose every token has a logit for each id of the vocabulary."""
    if derived.sparse is None or derived.sparse.head != "splade" or derived.sparse.dim is None:
        return None
    return batch_tokens(derived.sparse.dim)


def marks_of(head: MultivectorHead | None, tokenizer: TextTokenizer) -> tuple[Marks, Marks] | None:
    """A query's and a document's, whose lengths may differ; None where the model has no multivector."""
    if head is None:
        return None
    ends = frozenset(one for one in map(tokenizer.special_id, _ENDS) if one is not None)
    mask = tokenizer.special_id("mask") if head.expand else None
    if head.expand and mask is None:
        raise LoadError("a query is filled up with mask tokens, and the tokenizer names none")
    query = Marks(
        _marker(head.query_marker, tokenizer), head.query_tokens or 0, ends, mask, bool(head.attend_expansion)
    )
    return query, Marks(_marker(head.document_marker, tokenizer), head.document_tokens or 0, ends)


def _marker(written: str | None, tokenizer: TextTokenizer) -> int | None:
    """Its id; pylate saves one with the space after it as one token, others without."""
    if not written:
        return None
    found = tokenizer.find(written)
    return tokenizer.token_id(written.strip()) if found is None else found
