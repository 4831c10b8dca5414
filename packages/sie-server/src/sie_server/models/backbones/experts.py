"""A mixture of experts for a feed-forward: each token is what a few of many layers make of it, by a router's weights.

Every expert is computed for every token and the weights of those not chosen are 0: the experts are two matrices, and
no token is moved. Follows the published code of Nomic's v2 (`modeling_hf_nomic_bert.py`) as several
reimplementations restate it: softmax over all experts, the largest taken as they are, one bias after the sum.
"""

from typing import TypeVar

import msgspec

from sie_server.models.ops.protocol import Activation, Ops

X = TypeVar("X")


class Experts(msgspec.Struct, frozen=True):
    """`count` of them, of which a token has `chosen`, in one layer of `every`."""

    count: int
    chosen: int
    every: int

    def within(self, layer: int) -> bool:
        """Whether a layer's feed-forward is a mixture."""
        return layer % self.every == 1 % self.every


def mixture(ops: Ops[X], experts: Experts, x: X, at: str, width: int, inner: int, activation: Activation) -> X:
    """(T, width) → (T, width).

    Args:
        at: what stands before the tensors' names, with its dot.
        inner: width of one expert.
    """
    count, whole = experts.count, experts.count * inner
    router = ops.weight(at + "router.layer.weight", (count, width))
    weights = ops.largest_shares(ops.linear(x, router), experts.chosen)
    wide = ops.linear(x, ops.weight(at + "experts.mlp.w1", (whole, width)), activation=activation)
    weighted = ops.merged(ops.multiply(ops.heads(wide, count), ops.heads(weights, count)))
    narrow = ops.product(weighted, ops.weight(at + "experts.mlp.w2", (whole, width)))
    return ops.add(narrow, ops.weight(at + "experts.bias", (width,)))
