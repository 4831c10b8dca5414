"""A model small enough to reason about: it obeys the engine's protocol and needs no weights.

One word is one token. A vector is made of the item's own tokens and of nothing else, so that an answer that
was mixed up with a neighbour's, or cut from the wrong batch, is a wrong number and not a plausible one.
"""

import re
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sie_core.errors import ApiError
from sie_core.wire.messages import OutputType
from sie_server.models.calls import (
    Call,
    Encode,
    Entity,
    Extract,
    Extracted,
    Output,
    Precision,
    Prepared,
    Result,
    Score,
    SparseVector,
    Tokens,
    Wanted,
)

FIRST, LAST = 101, 102
VOCABULARY = 1000


@dataclass
class TinyModel:
    """See `sie_server.models.calls.Model`.

    Attributes:
        before_run: called in the device's thread with each batch: a test's place to wait or to raise.
        batches: the lengths of every batch that ran, in order.
        closed: whether `close` was called; running after it is an error.
    """

    outputs: tuple[OutputType, ...] = ("dense",)
    width: int = 8
    max_tokens: int = 16
    before_run: Callable[[Sequence[Prepared]], None] = lambda batch: None
    batches: list[list[int]] = field(default_factory=list)
    streams: set[int] = field(default_factory=set)
    threads: set[str] = field(default_factory=set)
    closed: bool = False

    precision: Precision = "f32"
    memory_bytes: int = 1024
    token_bytes: int = 0
    batch_tokens: int | None = None

    @property
    def dims(self) -> Mapping[OutputType, int]:
        known: dict[OutputType, int] = {"dense": self.width, "sparse": VOCABULARY, "multivector": self.width}
        return {name: known[name] for name in self.outputs}

    def estimate_tokens(self, call: Call) -> int:
        return sum(min(len(str(one)) // 4 + 2, self.max_tokens) for one in call.inputs)

    def prepare(self, call: Call) -> list[Prepared]:
        """One sequence an item; of a score the query's words come first."""
        match call:
            case Encode(outputs=outputs):
                for output in outputs:
                    if output not in self.outputs:
                        raise ApiError("OUTPUT_UNSUPPORTED", f"the tiny model has no `{output}` output")
                normalized = bool(call.options.get("normalize", True))
                before, after = call.instruction or "", "?" if call.is_query else ""
                return [
                    self._given(one, index, outputs)
                    if isinstance(one, Tokens)
                    else self._prepared(f"{before} {one} {after}", index, outputs, normalized)
                    for index, one in enumerate(call.inputs)
                ]
            case Score(query=query):
                return [self._prepared(f"{query} {text}", index, ("logits",)) for index, text in enumerate(call.inputs)]
            case Extract(labels=labels):
                if not labels:
                    raise ApiError("INVALID_INPUT", "`params.labels` is empty, and the tiny model needs labels")
                return [self._prepared(str(text), index, ("spans",)) for index, text in enumerate(call.inputs)]

    def working_bytes(self, batch: Sequence[Prepared]) -> int:
        return sum(item.tokens for item in batch) * self.token_bytes

    def run(self, batch: Sequence[Prepared], *, stream: int) -> list[Output]:
        if self.closed:
            raise RuntimeError("the model was closed")
        self.before_run(batch)
        self.batches.append([item.tokens for item in batch])
        self.streams.add(stream)
        self.threads.add(threading.current_thread().name)
        return [self.output(item) for item in batch]

    def finish(self, call: Call, prepared: Sequence[Prepared], outputs: Sequence[Output | ApiError]) -> list[Result]:
        """The logit is the score; what a label names is found wherever it stands in the text."""
        results: list[Result] = []
        for one, output in zip(call.inputs, outputs, strict=True):
            if isinstance(output, ApiError) or isinstance(call, Encode):
                results.append(output)
            elif isinstance(call, Score):
                assert output.logits is not None
                results.append(float(output.logits[0]))
            else:
                text = str(one)
                places = [
                    (label, match.start()) for label in call.labels for match in re.finditer(re.escape(label), text)
                ]
                results.append(
                    Extracted(tuple(Entity(label, label, 1.0, start, start + len(label)) for label, start in places))
                )
        return results

    def close(self) -> None:
        self.closed = True

    def output(self, item: Prepared) -> Output:
        """What one sequence must come out as, whatever it is batched with."""
        rows = np.stack([np.cos(np.arange(1, self.width + 1) * float(token)) for token in item.ids]).astype(np.float32)
        pooled = rows.mean(axis=0)
        if item.normalized:
            pooled = pooled / np.linalg.norm(pooled)
        words = np.unique(item.ids[1:-1]).astype(np.int32)
        sparse = SparseVector(words, np.ones(len(words), np.float32), VOCABULARY)
        return Output(
            dense=pooled if "dense" in item.wanted else None,
            sparse=sparse if "sparse" in item.wanted else None,
            multivector=rows if "multivector" in item.wanted else None,
            logits=pooled[:1] if "logits" in item.wanted else None,
        )

    def _given(self, tokens: Tokens, index: int, wanted: tuple[Wanted, ...]) -> Prepared:
        return Prepared(np.array(tokens.ids, np.int32), False, wanted, index)

    def _prepared(self, text: str, index: int, wanted: tuple[Wanted, ...], normalized: bool = True) -> Prepared:
        words = text.split()
        room = self.max_tokens - 2
        ids = [FIRST, *(zlib.crc32(word.encode()) % VOCABULARY for word in words[:room]), LAST]
        return Prepared(np.array(ids, np.int32), len(words) > room, wanted, index, normalized=normalized)
