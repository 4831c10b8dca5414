"""Which part of a sequence a token is of, told to a network that was not made for it: GLiClass's segments.

`SegmentedOps` stands between a backbone and an engine's operations, and adds to what is looked up for the tokens'
ids what is learned of their part. Follows gliclass 0.1.21 `model.py` (`GLiClassUniEncoder.forward`); of its three
parts the third, examples, is not asked here.
"""

from typing import Any, Final, Generic

from sie_server.models.heads.head import X
from sie_server.models.ops.plan import IDS, Feed
from sie_server.models.ops.protocol import Ops

_PARTS: Final = 3


class SegmentedOps(Generic[X]):
    """See `protocol.Ops`: those of `inner`.

    Args:
        weight: the tensor's name, (3, width).
        segments: (T,), the part that each token is of.
    """

    def __init__(self, inner: Ops[X], weight: str, width: int, segments: Feed) -> None:
        self._inner = inner
        self._weight, self._width, self._segments = weight, width, segments
        self._ids: X | None = None

    def feed(self, feed: Feed) -> X:
        made = self._inner.feed(feed)
        if feed is IDS:
            self._ids = made
        return made

    def gather(self, table: X, rows: X) -> X:
        found = self._inner.gather(table, rows)
        if rows is not self._ids:
            return found
        parts = self._inner.weight(self._weight, (_PARTS, self._width))
        return self._inner.add(found, self._inner.gather(parts, self._inner.feed(self._segments)))

    # The rest is the engine's own.

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
