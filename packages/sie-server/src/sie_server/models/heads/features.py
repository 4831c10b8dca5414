"""One vector an item that the network itself has pooled and projected, scaled to length 1 where asked."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sie_server.models.heads.head import Pass, X
from sie_server.models.heads.pooled import normalized
from sie_server.models.ops.protocol import Ops

FEATURES: Final = "features"
"""The output that it reads, (S, dim)."""


class Features:
    """See `head.Head`; gives `Output.dense`."""

    def build(self, ops: Ops[X], hidden: X) -> None:
        """Nothing: whoever builds the network makes the output, which the hidden state does not suffice for."""

    def read(self, done: Pass) -> Sequence[NDArray[np.float32]]:
        # A vector is cut before it is scaled, and each item owns its own: a slow reader keeps no batch alive.
        cut = [row[: item.dims].copy() for row, item in zip(done.arrays[FEATURES], done.items, strict=True)]
        return [normalized(row) if item.normalized else row for row, item in zip(cut, done.items, strict=True)]
