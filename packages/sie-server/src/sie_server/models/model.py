"""A loaded model: a network with its heads, and the tasks it does, behind the engine's `Model` protocol."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sie_core.errors import ApiError
from sie_core.wire.messages import OutputType
from sie_server.models.calls import (
    TASK_OF,
    Call,
    Encode,
    Extract,
    Input,
    LoadError,
    Output,
    Picture,
    Precision,
    Prepared,
    Result,
    Score,
    Take,
    Task,
    Tokens,
    Wanted,
)
from sie_server.models.heads.head import Head, Pass
from sie_server.models.ops.plan import Plan, plan_batch
from sie_server.models.predicting import working_bytes
from sie_server.models.tasks.task import Task as TaskOf
from sie_server.models.tokens import pack_prepared

_MOST_REPEATED: Final = 2**26
"""Characters that a call may have of what stands beside each of its items: a body of two megabytes, half of it an
instruction and the rest items, would be a million million."""

_BYTES_PER_TOKEN: Final = 4
_SPECIAL_TOKENS: Final = 2


class Network(Protocol):
    """A compiled backbone with its heads: a batch's plan to arrays."""

    @property
    def precision(self) -> Precision: ...

    @property
    def memory_bytes(self) -> int: ...

    def run(self, plan: Plan, *, stream: int) -> Mapping[str, NDArray[np.float32]]:
        """By name, good until the stream's next run."""
        ...

    def settle(self) -> None:
        """Waits until it is as fast as it will be."""
        ...

    def close(self) -> None: ...


class Tower(Protocol):
    """What texts, or pictures, go through."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """The first says what it computes in."""
        ...

    def run(self, items: Sequence[Prepared], *, stream: int) -> list[Output]: ...


@dataclass(frozen=True)
class OneNetwork:
    """A network and what is read off its passes."""

    network: Network
    heads: Mapping[Wanted, Head]

    @property
    def networks(self) -> tuple[Network, ...]:
        return (self.network,)

    def run(self, items: Sequence[Prepared], *, stream: int) -> list[Output]:
        tokens = pack_prepared(items)
        done = Pass(items, tokens.starts, self.network.run(plan_batch(tokens), stream=stream))
        wanted = dict.fromkeys(name for item in items for name in item.wanted)
        found = {name: self.heads[name].read(done) for name in wanted}
        return [Output(**{name: found[name][index] for name in item.wanted}) for index, item in enumerate(items)]


@dataclass(frozen=True)
class LoadedModel:
    """See `calls.Model`.

    Attributes:
        name: the model's id, for messages.
        dims: the outputs of `encode`, with their sizes.
        max_tokens: longest sequence, special tokens included.
        text: what texts go through.
        tasks: what it does.
        pictures: what pictures go through, if it takes any.
        batch_tokens: most tokens in one of its batches; None: as many as the worker is set to.
        picture_tokens: of every picture, if it takes any.
        loras: see `add_lora`; None where the spec has no variant with one.
        with_lora: the variants that have one.
        query_apart: whether `score` reads the query once, by itself, and not with each item.
        labels_apart: whether `extract` reads each item once with each label, and not with all of them.
        labels_once: whether a call's labels are read once, and not with each of its items.
        pair_bytes: that a pass takes for each pair of positions of a text.
    """

    name: str
    dims: Mapping[OutputType, int]
    max_tokens: int
    text: Tower
    tasks: Mapping[Task, TaskOf]
    pictures: Tower | None = None
    batch_tokens: int | None = None
    picture_tokens: int = 0
    loras: Callable[[str, Path, Take], None] | None = None
    with_lora: frozenset[str] = frozenset()
    query_apart: bool = False
    labels_apart: bool = False
    labels_once: bool = False
    pair_bytes: int = 0

    @property
    def precision(self) -> Precision:
        return self.text.networks[0].precision

    @property
    def memory_bytes(self) -> int:
        return sum(network.memory_bytes for network in self._networks)

    def estimate_tokens(self, call: Call) -> int:
        """From the texts' lengths alone, four bytes a token: most English has four and a half, Chinese three."""
        match call:
            case Encode(inputs=inputs):
                return sum(self._estimate(one) for one in inputs)
            case Score(query=query, inputs=inputs) if self.query_apart:
                return sum(self._estimate(one) for one in (query, *inputs))
            case Score(query=query, inputs=inputs):
                return sum(self._estimate(query, one) for one in inputs)
            case Extract(inputs=inputs, labels=labels) if self.labels_apart:
                most = _BYTES_PER_TOKEN * (self.max_tokens - _SPECIAL_TOKENS)
                size = paired_bytes([_part(one) for one in inputs], [_part(one) for one in labels], most=most)
                return size // _BYTES_PER_TOKEN + _SPECIAL_TOKENS * len(inputs) * len(labels)
            case Extract(inputs=inputs, labels=labels) if self.labels_once:
                return sum(self._estimate(one) for one in (*inputs, *labels))
            case Extract(inputs=inputs, labels=labels):
                return sum(self._estimate(one, *labels) for one in inputs)

    def prepare(self, call: Call) -> list[Prepared]:
        _refuse_repeated(call, labels_once=self.labels_once)
        prepared = self._task(call).prepare(call)
        if call.variant in self.with_lora:
            return [replace(one, lora=call.variant) for one in prepared]
        return prepared

    def working_bytes(self, batch: Sequence[Prepared]) -> int:
        lengths = [item.tokens for item in batch if item.known is None and item.patches is None]
        return working_bytes(lengths, pair_bytes=self.pair_bytes)

    def run(self, batch: Sequence[Prepared], *, stream: int) -> list[Output]:
        outputs = {index: item.known for index, item in enumerate(batch) if item.known is not None}
        for tower, of_pictures in ((self.text, False), (self.pictures, True)):
            chosen = [
                index
                for index, item in enumerate(batch)
                if index not in outputs and (item.patches is not None) == of_pictures
            ]
            if tower is not None and chosen:
                found = tower.run([batch[index] for index in chosen], stream=stream)
                outputs.update(zip(chosen, found, strict=True))
        return [outputs[index] for index in range(len(batch))]

    def finish(self, call: Call, prepared: Sequence[Prepared], outputs: Sequence[Output | ApiError]) -> list[Result]:
        return self._task(call).finish(call, prepared, outputs)

    def add_lora(self, variant: str, folder: Path, take: Take = lambda size_bytes: None) -> None:
        """From its return on calls may name the variant, whose LoRA is in `folder`; blocks.

        Args:
            take: told how many bytes that takes for a time, before it takes them; returns when they may be taken. After
                the return `memory_bytes` counts those that stay.

        Raises:
            LoadError: the LoRA cannot be served.
        """
        if self.loras is None:
            raise LoadError(f"model `{self.name}` has no variant with a LoRA")
        self.loras(variant, folder, take)

    def settle(self) -> None:
        """Waits until it is as fast as it will be."""
        for network in self._networks:
            network.settle()

    def close(self) -> None:
        for network in self._networks:
            network.close()

    @property
    def _networks(self) -> tuple[Network, ...]:
        return self.text.networks + (() if self.pictures is None else self.pictures.networks)

    def _task(self, call: Call) -> TaskOf:
        name = TASK_OF[type(call)]
        if name not in self.tasks:
            have = ", ".join(f"`{task}`" for task in self.tasks)
            raise ApiError("INVALID_INPUT", f"model `{self.name}` does not declare the task `{name}`", f"it has {have}")
        return self.tasks[name]

    def _estimate(self, *parts: Input) -> int:
        if any(isinstance(part, Picture) for part in parts):
            return self.picture_tokens
        return min(sum(map(_part, parts)) // _BYTES_PER_TOKEN + _SPECIAL_TOKENS, self.max_tokens)


def _refuse_repeated(call: Call, *, labels_once: bool) -> None:
    beside = {"instruction": len(call.instruction or "")}
    if isinstance(call, Extract) and not labels_once:
        beside["labels"] = sum(map(len, call.labels))
    for name, characters in beside.items():
        if characters * len(call.inputs) > _MOST_REPEATED:
            raise ApiError(
                "INVALID_INPUT",
                f"`{name}` has {characters:,} characters, and stands beside each of {len(call.inputs):,} items: "
                f"want {_MOST_REPEATED:,} together",
                f"send fewer items a call, or a shorter `{name}`",
            )


def paired_bytes(items: Sequence[int], labels: Sequence[int], *, most: int) -> int:
    """The sizes of every pair of an item and a label together, each `most` at the most.

    Without making the pairs: by how many of the labels, in order of their sizes, each item leaves room for.
    """
    sizes, ordered = np.array(items, np.int64), np.sort(np.array(labels, np.int64))
    sums = np.concatenate([[0], np.cumsum(ordered)])
    whole = np.searchsorted(ordered, most - sizes, side="right")
    return int((sizes * whole + sums[whole] + (len(ordered) - whole) * most).sum())


def _part(part: Input) -> int:
    """In bytes, or what a text of so many tokens has."""
    match part:
        case str():
            return _size(part)
        case Tokens(ids=ids):
            return _BYTES_PER_TOKEN * len(ids)
    return 0


def _size(text: str) -> int:
    """In UTF-8; only what is not ASCII is encoded to know it."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
