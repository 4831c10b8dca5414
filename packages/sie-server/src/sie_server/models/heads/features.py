"""One vector an item that the network itself has pooled and projected, scaled to length 1 where asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sie_server.models.heads.head import Pass, X
from sie_server.models.heads.pooled import finished
from sie_server.models.ops.protocol import Ops

FEATURES: Final = "features"
"""The output that it reads, (S, dim)."""


@dataclass(frozen=True)
class Features:
    """See `head.Head`; gives `Output.dense`.

    Attributes:
        dims: as of `pooled.Pooled`, and `rescaled`.
    """

    dims: int | None = None
    rescaled: bool = True

    def build(self, ops: Ops[X], hidden: X) -> None:
        """Nothing: whoever builds the network makes the output, which the hidden state does not suffice for."""

    def read(self, done: Pass) -> Sequence[NDArray[np.float32]]:
        vectors = done.arrays[FEATURES][: len(done.items)]
        return finished(vectors, done.items, dims=self.dims, rescaled=self.rescaled)
