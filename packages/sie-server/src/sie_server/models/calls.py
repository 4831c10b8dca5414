"""What the engine and a model say to each other: calls, prepared sequences, outputs, and the `Model` protocol.

Nothing here computes. `build.load` makes a `Model`; the engine calls `prepare` and `finish` from any thread and
`run` from one thread per stream.

A call is about items; what runs are sequences. One item is one sequence for an embedding, a pair of it and
the query for a cross-encoder, a pair for each label for zero-shot classification. `prepare` makes the sequences,
`finish` makes the items' results of what they became.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sie_core.catalog.spec import Pooling
from sie_core.errors import ApiError
from sie_core.wire.messages import OutputType

Precision = Literal["f32", "bf16", "f16"]
"""What the linear layers compute in; outputs are float32 either way. f16 only where torch computes."""

Task = Literal["encode", "score", "extract"]

Wanted = Literal["dense", "sparse", "multivector", "logits", "spans"]
"""What can be read off a pass: the outputs of `encode`, and what scores and extractions are made of."""


class LoadError(Exception):
    """A snapshot that cannot be served: what, where and both values, and what to do (`hint`).

    It is the files' or the spec's fault, so that trying again without a person does not help.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Picture:
    """A picture as it came: `data` is a file's bytes (JPEG, PNG, …)."""

    data: bytes


@dataclass(frozen=True)
class Tokens:
    """A text as the model's own token ids, special tokens among them: they run as they are."""

    ids: tuple[int, ...]


Input = str | Picture | Tokens
"""One item's content."""


@dataclass(frozen=True)
class Encode:
    """Items to vectors; the variant's options are already merged in.

    Attributes:
        inputs: one per item, in the order of the answer; texts may be empty.
        outputs: what every item's `Output` must hold.
        is_query: whether the items are queries (else documents), where the model tells them apart.
        instruction: overrides the model's default instruction; None leaves it.
        options: the rest of `params.options`, as on the wire; a name no part of the model knows is an `INVALID_INPUT`.
        variant: which of the spec's variants; None: the model as it is.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[OutputType, ...] = ("dense",)
    is_query: bool = False
    instruction: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    variant: str | None = None


@dataclass(frozen=True)
class Score:
    """How well each item answers the query; attributes as of `Encode`."""

    query: Input
    inputs: tuple[Input, ...]
    instruction: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    variant: str | None = None


@dataclass(frozen=True)
class Extract:
    """What is in each item; attributes as of `Encode`.

    Attributes:
        labels: what to look for; a model that needs them and has none says so.
        schema: `output_schema` of the wire, for models that read one.
    """

    inputs: tuple[Input, ...]
    labels: tuple[str, ...] = ()
    schema: Mapping[str, object] | None = None
    instruction: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    variant: str | None = None


Call = Encode | Score | Extract

TASK_OF: Mapping[type, Task] = {Encode: "encode", Score: "score", Extract: "extract"}


@dataclass(frozen=True)
class Asked:
    """What a sequence is read for, where another network reads that before it.

    Attributes:
        labels: each one's tokens, (tokens,) int32, special tokens included.
        threshold: what a score must be over.
        vectors: (labels, …) float32, what that network made of them; None before it ran.
    """

    labels: tuple[NDArray[np.int32], ...]
    threshold: float
    vectors: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Prepared:
    """One sequence, tokenised: what a batch is made of.

    Attributes:
        ids: (tokens,) int32, special tokens included; zeros for a picture's patches.
        truncated: true when the text was longer than the model takes.
        wanted: what is read off its pass.
        item: which of the call's items it belongs to; -1 for a query that is a sequence of its own.
        types: (tokens,) int32 token types; None where all are 0.
        is_query: as in its call.
        normalized: whether its dense vector is scaled to length 1.
        pooling: instead of the model's own.
        dims: its dense vector is cut to so many; None: it is as long as it is.
        unpooled: so many tokens at its start are left out of a mean: an instruction's.
        unseen: so many tokens at its end are seen by no token, and see the others.
        words: (tokens,) int32, which word of a text a token begins, from 1, or 0; None where words are of no account.
        patches: (tokens, values) float32 of a picture, one row a token; None for a text.
        lora: the LoRA that its linear layers use; None for the model as it is.
        asked: what it is read for; None where nothing is read before it.
        detail: what its own task must remember of it, for `finish` or a head.
        known: what it becomes, where that takes no network.
    """

    ids: NDArray[np.int32]
    truncated: bool
    wanted: tuple[Wanted, ...]
    item: int = 0
    types: NDArray[np.int32] | None = None
    is_query: bool = False
    normalized: bool = True
    pooling: Pooling | None = None
    dims: int | None = None
    unpooled: int = 0
    unseen: int = 0
    words: NDArray[np.int32] | None = None
    patches: NDArray[np.float32] | None = None
    lora: str | None = None
    asked: Asked | None = None
    detail: object = None
    known: "Output | None" = None

    @property
    def tokens(self) -> int:
        """The sequence's cost, and the length batches are grouped by."""
        return len(self.ids)


@dataclass(frozen=True)
class SparseVector:
    """`indices`: (n,) int32, ascending; `values`: (n,) float32; `dims`: size of the vocabulary."""

    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    dims: int


@dataclass(frozen=True)
class Output:
    """What was read off one sequence's pass; None for what was not wanted.

    Attributes:
        dense: (dims,) float32.
        multivector: (tokens, dims) float32.
        logits: (labels,) float32.
        spans: what the spans head found, for the task that asked.
    """

    dense: NDArray[np.float32] | None = None
    sparse: SparseVector | None = None
    multivector: NDArray[np.float32] | None = None
    logits: NDArray[np.float32] | None = None
    spans: object = None


@dataclass(frozen=True)
class Entity:
    """A stretch of the text: characters `start` to `end`, exclusive."""

    text: str
    label: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class Relation:
    head: str
    tail: str
    relation: str
    score: float


@dataclass(frozen=True)
class Classification:
    label: str
    score: float


@dataclass(frozen=True)
class Extracted:
    """What an item holds; classifications best first."""

    entities: tuple[Entity, ...] = ()
    relations: tuple[Relation, ...] = ()
    classifications: tuple[Classification, ...] = ()


Result = Output | float | Extracted | ApiError
"""What an item of `Encode`, of `Score`, of `Extract` becomes, or why it has none."""


Take = Callable[[int], object]
"""Told how many bytes are about to be taken; returns when they may be, or raises."""


class Model(Protocol):
    """A loaded model: all that the engine knows."""

    @property
    def precision(self) -> Precision: ...

    @property
    def dims(self) -> Mapping[OutputType, int]:
        """The outputs of `encode`, with their sizes."""
        ...

    @property
    def max_tokens(self) -> int:
        """Longer texts are truncated to this many tokens, special tokens included."""
        ...

    @property
    def batch_tokens(self) -> int | None:
        """Most tokens that one of its batches should have; None: as many as the worker is set to."""
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

    def working_bytes(self, batch: Sequence[Prepared]) -> int:
        """What a pass over the batch takes for a time beside that, about, where it is more than a long text's."""
        ...

    def run(self, batch: Sequence[Prepared], *, stream: int) -> list[Output]:
        """One forward pass over a batch, in its order; two calls at once must name different streams.

        Args:
            batch: at least one sequence; of any calls.
            stream: 0 to the streams asked for at load, exclusive.
        """
        ...

    def finish(self, call: Call, prepared: Sequence[Prepared], outputs: Sequence[Output | ApiError]) -> list[Result]:
        """One result per item of the call, in its order; an item whose sequence failed has its error."""
        ...

    def close(self) -> None:
        """Gives the memory back; no call may be running or follow."""
        ...
