"""The operations that backbones and heads are written in.

An engine implements them eagerly or as nodes of a graph; a backbone cannot tell. `X` is the engine's
own idea of a tensor. Nothing here has a size that depends on a batch: what does is fed with it, as a `Feed`
of its plan. An operation enters when a backbone needs it.

Shapes: T tokens of the batch, end to end; S items; G the longest item's tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from numpy.typing import NDArray

from sie_server.models.ops.plan import Feed

X = TypeVar("X")

Activation = Literal["gelu", "gelu_tanh", "silu", "relu", "tanh", "sigmoid", "quick_gelu"]
"""`gelu` is the exact one, over the error function; `quick_gelu` is x · sigmoid(1.702 x)."""


@dataclass(frozen=True)
class Relative(Generic[X]):
    """What distances between tokens add to attention, beside what the tokens are: DeBERTa's.

    Attributes:
        rows: (2 G,), the row of the tables for each of `plan.distances`.
        keys: (R, heads · size): a query times the row of its distance to a key is added to their scaled product.
        queries: (R, heads · size): likewise a key times the row of a query's distance to it; None: nothing is.
    """

    rows: Feed
    keys: X | None = None
    queries: X | None = None


class Ops(Protocol[X]):
    """What a network is made of."""

    def feed(self, feed: Feed) -> X:
        """An input that depends on the batch; the same one however often it is asked for."""
        ...

    def has(self, name: str) -> bool:
        """Whether the checkpoint has a tensor of that name."""
        ...

    def weight(
        self, name: str, shape: Sequence[int], *, rows: tuple[int, int] | None = None, folded: bool = False
    ) -> X:
        """A tensor of the checkpoint, as float32 whatever it is stored as; `LoadError` where it is not so.

        Args:
            shape: of the whole tensor.
            rows: only these of its first axis, end exclusive: one part of a fused layer.
            folded: its axes after the first as one: a convolution's, that is a linear layer of patches.
        """
        ...

    def constant(self, array: NDArray[Any]) -> X:
        """float32 or int32."""
        ...

    def gather(self, table: X, rows: X) -> X:
        """(rows, …), (N,) → (N, …): an embedding, or items' tokens."""
        ...

    def linear(self, x: X, weight: X, bias: X | None = None, *, activation: Activation | None = None) -> X:
        """(…, in), (out, in), (out,) → (…, out)."""
        ...

    def product(self, x: X, table: X) -> X:
        """(…, in), (in, out) → (…, out): a linear layer that is stored the other way round."""
        ...

    def layer_norm(self, x: X, weight: X, bias: X | None, *, epsilon: float) -> X:
        """Over the last axis."""
        ...

    def rms_norm(self, x: X, weight: X, *, epsilon: float) -> X:
        """Over the last axis: x / sqrt(mean(x²) + epsilon) · weight."""
        ...

    def activation(self, x: X, kind: Activation) -> X: ...

    def log1p(self, x: X) -> X:
        """log(1 + x), of what is not negative."""
        ...

    def add(self, a: X, b: X) -> X:
        """Broadcasts as numpy does, as `multiply` does."""
        ...

    def multiply(self, a: X, b: X) -> X: ...

    def split(self, x: X, sizes: Sequence[int]) -> list[X]:
        """Along the last axis."""
        ...

    def concat(self, parts: Sequence[X]) -> X:
        """Along the last axis."""
        ...

    def heads(self, x: X, heads: int) -> X:
        """(T, heads · size) → (T, heads, size)."""
        ...

    def merged(self, x: X) -> X:
        """(T, heads, size) → (T, heads · size)."""
        ...

    def rotary(self, x: X, cosine: X, sine: X, *, heads: int) -> X:
        """Turns the halves of every head: x · cosine + (-second, first) · sine.

        Args:
            x: (T, heads · size).
            cosine: (T, size), both halves written out; `sine` likewise.
        """
        ...

    def attention(
        self,
        query: X,
        key: X,
        value: X,
        *,
        heads: int,
        kv_heads: int | None = None,
        scale: float | None = None,
        causal: bool = False,
        window: int | None = None,
        bias: X | None = None,
        relative: Relative[X] | None = None,
    ) -> X:
        """(T, heads · size) each → (T, heads · size): every token sees the tokens of its own item.

        Args:
            kv_heads: of key and value, each shared by `heads / kv_heads` of the query's; None: as many.
            scale: of the products; None: size ** -0.5.
            causal: whether a token sees only itself and those before it.
            window: a token sees those at a distance of at most this; None: all.
            bias: (heads, G, G) or (1, heads, G, G), added to the scaled products of every item; or (S, 1, 1, G), to
                those of each item's own keys.
            relative: what else is added to them; needs as many heads of keys as of queries.
        """
        ...

    def distance_bias(self, table: X, rows: Feed) -> X:
        """(R, heads) → (heads, G, G), for `attention`: each head's number of the distance of a query to a key.

        Args:
            rows: (2 G,), the row of `table` for each of `plan.distances`.
        """
        ...

    def once(self, weight: X, make: Callable[[X], Sequence[X]]) -> list[X]:
        """`make(weight)`, computed in float32 when the model is loaded and not in every pass; no feeds in it."""
        ...

    def lstm(self, x: X, weight: X, recurrent: X, bias: X) -> X:
        """(S, G, in) → (S · G, size): one layer from the first cell of each row to the last, as torch has it.

        Args:
            weight: (4 size, in), of input, forget, cell and output gate; `recurrent` (4 size, size) likewise.
            bias: (4 size,), of both together.
        """
        ...

    def largest_shares(self, x: X, count: int) -> X:
        """(T, n): the softmax over the last axis, and 0 for all but its `count` largest."""
        ...

    def item_max(self, x: X) -> X:
        """(T, width) → (S, width): the largest of each item's tokens."""
        ...

    def item_mean(self, x: X) -> X:
        """(T, width) → (S, width): the mean of each item's tokens."""
        ...

    def weighted(self, x: X, shares: X) -> X:
        """(T, width), (N, T) → (N, width): sums of tokens, each times its share."""
        ...

    def output(self, name: str, x: X) -> None:
        """Makes it a result of every pass, under that name; float32."""
        ...
