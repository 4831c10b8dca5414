"""What is read off a pass over a batch: the protocol of every head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import Prepared
from sie_server.models.ops.protocol import Ops

X = TypeVar("X")

HIDDEN: Final = "hidden"
"""The last hidden state, (T, width), which every pass results in."""


@dataclass(frozen=True)
class Pass:
    """What a pass over a batch gave.

    Attributes:
        items: the batch.
        starts: (items + 1,) int32: item `i` has the rows `starts[i]:starts[i + 1]` of what is per token.
        arrays: by name, float32: (T, …) per token, with some rows more than the batch has tokens, or (items, …).
            Views that the next pass overwrites: a head copies what it hands on.
    """

    items: Sequence[Prepared]
    starts: NDArray[np.int32]
    arrays: Mapping[str, NDArray[np.float32]]

    def per_token(self, name: str = HIDDEN) -> NDArray[np.float32]:
        """(tokens, …)."""
        return self.arrays[name][: self.starts[-1]]


class Head(Protocol):
    """One thing that is read off a pass."""

    def build(self, ops: Ops[X], hidden: X) -> None:
        """Adds to the network what `read` wants of it, by `ops.output`; nothing for what the hidden state suffices.

        Args:
            hidden: (T, width).
        """
        ...

    def read(self, done: Pass) -> Sequence[Any]:
        """One value per item of the batch, as the field of `Output` wants it; of items that do not want it, anything.

        The value must not share memory with the pass.
        """
        ...
