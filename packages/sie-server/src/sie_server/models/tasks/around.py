"""What a ColBERT puts into a sequence: a marker after the first token, and mask tokens after a query.

Follows sentence-transformers 6.2 `multi_vector_encoder/model.py` and pylate 1.6 `models/colbert.py` (`tokenize`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sie_server.models.tokenizing import Tokenized


@dataclass(frozen=True)
class Marked:
    """A sequence; `unseen`: so many of its last tokens are seen by none."""

    ids: NDArray[np.int32]
    truncated: bool
    unseen: int = 0


@dataclass(frozen=True)
class Marks:
    """One role's: a query's or a document's.

    Attributes:
        marker: id of the token after the first; None: there is none.
        most: longest sequence, the marker included.
        ends: ids of which one may end a sequence, and then stays when it is cut.
        mask: id that fills a sequence up to `most`; None: it is not filled.
        attend: whether what fills it is seen.
    """

    marker: int | None
    most: int
    ends: frozenset[int]
    mask: int | None = None
    attend: bool = False

    def put(self, found: Tokenized) -> Marked:
        ids, truncated = found.ids, found.truncated
        room = self.most - (self.marker is not None)
        if len(ids) > room:
            kept = 1 if int(ids[-1]) in self.ends else 0
            ids, truncated = np.concatenate([ids[: room - kept], ids[len(ids) - kept :]]), True
        if self.marker is not None:
            ids = np.insert(ids, 1, np.int32(self.marker))
        filled = self.most - len(ids) if self.mask is not None else 0
        if self.mask is not None and filled:
            ids = np.concatenate([ids, np.full(filled, self.mask, np.int32)])
        return Marked(ids.astype(np.int32), truncated, 0 if self.attend else filled)
