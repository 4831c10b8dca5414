"""The operations that backbones are written in.

An engine implements them eagerly or as nodes of a graph; a backbone cannot tell. `X` is the engine's
own idea of a tensor. Nothing here has a size that depends on a batch: what does is in `plan.Plan`,
which an engine feeds by itself. An operation enters when a backbone needs it.

Shapes: T tokens of the batch, end to end.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

X = TypeVar("X")

Activation = Literal["gelu"]
"""`gelu` is the exact one, over the error function."""


class Ops(Protocol[X]):
    """Attributes:
    ids: (T,) token ids of the batch.
    positions: (T,) position of each token in its item, from 0.
    """

    @property
    def ids(self) -> X: ...

    @property
    def positions(self) -> X: ...

    def weight(self, name: str, shape: Sequence[int]) -> X:
        """A tensor of the checkpoint, as float32 whatever it is stored as; `LoadError` where it is not so."""
        ...

    def row(self, table: X, index: int) -> X:
        """(rows, width) → (1, width)."""
        ...

    def embedding(self, table: X, ids: X) -> X:
        """(rows, width), (T,) → (T, width)."""
        ...

    def linear(self, x: X, weight: X, bias: X, *, activation: Activation | None = None) -> X:
        """(T, in), (out, in), (out,) → (T, out)."""
        ...

    def layer_norm(self, x: X, weight: X, bias: X, *, epsilon: float) -> X:
        """Over the last axis."""
        ...

    def add(self, a: X, b: X) -> X: ...

    def attention(self, query: X, key: X, value: X, *, heads: int) -> X:
        """(T, width) each → (T, width): every token sees the tokens of its own item, both ways."""
        ...
