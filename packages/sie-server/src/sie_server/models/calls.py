"""What the engine and a model say to each other: calls, prepared items, outputs, and the `Model` protocol.

Nothing here computes. `build.load` makes a `Model`; the engine calls `prepare` from any thread and
`run` from one thread per stream.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sie_core.wire.messages import OutputType

Precision = Literal["f32", "bf16"]
"""What the linear layers compute in; outputs are float32 either way."""


class LoadError(Exception):
    """A snapshot that cannot be served: what, where and both values, and what to do (`hint`).

    It is the files' or the spec's fault, so that trying again without a person does not help.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Call:
    """One call's items and what is asked of them; the variant's options are already merged in.

    Attributes:
        texts: one per item, in the order of the answer; may be empty strings.
        outputs: what every item's `Output` must hold.
        is_query: whether the texts are queries (else documents), where the model tells them apart.
        instruction: overrides the model's default instruction; None leaves it.
        options: the rest of `params.options`, as on the wire; a name no head knows is an `INVALID_INPUT`.
    """

    texts: tuple[str, ...]
    outputs: tuple[OutputType, ...] = ("dense",)
    is_query: bool = False
    instruction: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """One item, tokenised: what a batch is made of.

    Attributes:
        ids: (tokens,) int32, special tokens included.
        truncated: true when the text was longer than the model takes.
        outputs: as in its call.
        normalized: whether its dense vector is scaled to length 1.
    """

    ids: NDArray[np.int32]
    truncated: bool
    outputs: tuple[OutputType, ...]
    normalized: bool

    @property
    def tokens(self) -> int:
        """The item's cost, and the length batches are grouped by."""
        return len(self.ids)


@dataclass(frozen=True)
class SparseVector:
    """`indices`: (n,) int32, ascending; `values`: (n,) float32; `dims`: size of the vocabulary."""

    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    dims: int


@dataclass(frozen=True)
class Output:
    """One item's outputs; None for what was not asked.

    Attributes:
        dense: (dims,) float32.
        multivector: (tokens, dims) float32.
    """

    dense: NDArray[np.float32] | None = None
    sparse: SparseVector | None = None
    multivector: NDArray[np.float32] | None = None


class Model(Protocol):
    """A loaded model: all that the engine knows."""

    @property
    def precision(self) -> Precision: ...

    @property
    def dims(self) -> Mapping[OutputType, int]:
        """The outputs it has, with their sizes."""
        ...

    @property
    def max_tokens(self) -> int:
        """Longer texts are truncated to this many tokens, special tokens included."""
        ...

    @property
    def memory_bytes(self) -> int:
        """What it holds beside the mapped checkpoint, about: the packed weights."""
        ...

    def estimate_tokens(self, call: Call) -> int:
        """What the call will cost, about, from the texts' bytes: for admission, before tokenising."""
        ...

    def prepare(self, call: Call) -> list[Prepared]:
        """Prompts and tokenises; CPU only, from any thread, many at once.

        Raises:
            ApiError: `OUTPUT_UNSUPPORTED` or `INVALID_INPUT`, the caller's fault.
        """
        ...

    def run(self, batch: Sequence[Prepared], *, stream: int) -> list[Output]:
        """One forward pass over a batch, in its order; two calls at once must name different streams.

        Args:
            batch: at least one item.
            stream: 0 to the streams asked for at load, exclusive.
        """
        ...

    def close(self) -> None:
        """Gives the memory back; no call may be running or follow."""
        ...
