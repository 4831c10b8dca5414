"""Packed batches: the sequences' tokens end to end, without padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import Prepared


@dataclass(frozen=True)
class TokenBatch:
    """Some sequences' tokens.

    Attributes:
        ids: (tokens,) int32, the sequences end to end.
        starts: (sequences + 1,) int32; sequence `i` is `ids[starts[i]:starts[i + 1]]`.
        types: (tokens,) int32; None where all are 0.
        unseen: (sequences,) int32, how many tokens at each one's end are seen by none; None where all are 0.
        patches: (tokens, values) float32 of pictures; None for texts.
        words: (tokens,) int32, which word of its sequence a token begins, from 1, or 0; None where none does.
        loras: each sequence's LoRA by name; nothing where none has one.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    types: NDArray[np.int32] | None = None
    unseen: NDArray[np.int32] | None = None
    patches: NDArray[np.float32] | None = None
    words: NDArray[np.int32] | None = None
    loras: tuple[str | None, ...] = ()

    @property
    def lengths(self) -> NDArray[np.int32]:
        """(sequences,) int32."""
        return np.diff(self.starts)


def pack(items: Sequence[NDArray[np.int32]]) -> TokenBatch:
    """Ids one after another.

    Raises:
        ValueError: no sequences, or one without tokens: it would have no mean and no first token.
    """
    starts = np.zeros(len(items) + 1, np.int32)
    np.cumsum([len(ids) for ids in items], out=starts[1:])
    if not items or np.any(starts[1:] == starts[:-1]):
        raise ValueError(f"a batch of {len(items)} sequences has one without tokens")
    return TokenBatch(np.concatenate(items, dtype=np.int32), starts)


def pack_prepared(items: Sequence[Prepared]) -> TokenBatch:
    """Sequences one after another, with all that they have; either all are pictures or none is."""
    packed = pack([item.ids for item in items])
    types = None
    if any(item.types is not None for item in items):
        types = np.concatenate([np.zeros_like(item.ids) if item.types is None else item.types for item in items])
    unseen = np.array([item.unseen for item in items], np.int32)
    words = None
    if any(item.words is not None for item in items):
        words = np.concatenate([np.zeros_like(item.ids) if item.words is None else item.words for item in items])
    patches = [item.patches for item in items if item.patches is not None]
    return TokenBatch(
        packed.ids,
        packed.starts,
        types,
        unseen if unseen.any() else None,
        np.concatenate(patches) if patches else None,
        words,
        tuple(item.lora for item in items) if any(item.lora is not None for item in items) else (),
    )
