"""LoRAs: what they add to linear layers, for some sequences of a batch and not for others.

`AdaptedOps` stands between a backbone and an engine's operations. To each of the linear layers that a LoRA
changes it adds the low-rank product of every LoRA of the batch at once, with a mask that leaves each token
its own; a batch may hold sequences of several LoRAs and of none. The factors are fed with the batch, so that one
network serves any number of LoRAs of the same layers.

Follows Hu et al. 2021, and peft 0.17 `tuners/lora/layer.py` for the scale.
"""

import functools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import LoadError
from sie_server.models.ops.plan import Feed, Plan
from sie_server.models.ops.protocol import Activation, Ops

X = TypeVar("X")
Floats = NDArray[np.float32]

_COMBINATIONS: Final = 4
"""Of LoRAs in one batch, whose stacked factors are kept: those of several take as much memory as they do themselves."""


@dataclass(frozen=True)
class Factors:
    """What is added to one layer: `up @ down`, the scale already in `up`.

    Attributes:
        down: (rank, in) float32.
        up: (out, rank) float32.
    """

    down: Floats
    up: Floats


@dataclass(frozen=True)
class Lora:
    """`layers`: by the name of the layer's weight in the base model's checkpoint."""

    name: str
    layers: Mapping[str, Factors]

    @property
    def rank(self) -> int:
        """The largest of its layers'."""
        return max(len(factors.down) for factors in self.layers.values())

    @property
    def size_bytes(self) -> int:
        return sum(factors.down.nbytes + factors.up.nbytes for factors in self.layers.values())


class Loras:
    """The LoRAs that a model has; safe from any thread."""

    def __init__(self, loras: Iterable[Lora] = ()) -> None:
        self._lock = threading.Lock()
        self._by_name = {lora.name: lora for lora in loras}
        self._stacked = functools.lru_cache(_COMBINATIONS)(self._stack)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @property
    def layers(self) -> frozenset[str]:
        """Every layer that one of them changes."""
        return frozenset(layer for lora in self._by_name.values() for layer in lora.layers)

    @property
    def size_bytes(self) -> int:
        return sum(lora.size_bytes for lora in self._by_name.values())

    def add(self, lora: Lora) -> None:
        with self._lock:
            self._by_name = {**self._by_name, lora.name: lora}

    def with_(self, lora: Lora) -> "Loras":
        """These and one more, apart from these."""
        return Loras([*self._by_name.values(), lora])

    def down(self, layer: str, width: int) -> Feed:
        """(rank of all in the batch, in)."""
        return Feed(
            f"lora_down {layer}", (-1, width), np.float32, lambda plan: self._factors(plan, layer, (1, width)).down
        )

    def up(self, layer: str, width: int, rows: tuple[int, int] | None) -> Feed:
        """(out, rank of all in the batch), or some rows of it."""

        def make(plan: Plan) -> Floats:
            whole = self._factors(plan, layer, (width, 1)).up
            return np.ascontiguousarray(whole if rows is None else whole[rows[0] : rows[1]])

        size = width if rows is None else rows[1] - rows[0]
        return Feed(f"lora_up {layer} {rows}", (size, -1), np.float32, make)

    def mask(self) -> Feed:
        """(T, rank of all in the batch): 1 where a rank is of the token's own LoRA."""
        return Feed("lora_mask", (-1, -1), np.float32, self._mask)

    def _mask(self, plan: Plan) -> Floats:
        names = _present(plan)
        ranks = [self._by_name[name].rank for name in names]
        mask = np.zeros((len(plan.ids), max(1, sum(ranks))), np.float32)
        ends = np.cumsum(ranks)
        for sequence, name in enumerate(plan.tokens.loras):
            if name is not None:
                at = names.index(name)
                first, last = plan.tokens.starts[sequence : sequence + 2]
                mask[first:last, ends[at] - ranks[at] : ends[at]] = 1
        return mask

    def _factors(self, plan: Plan, layer: str, shape: tuple[int, int]) -> Factors:
        names = _present(plan)
        if not names:
            return Factors(np.zeros((1, shape[1]), np.float32), np.zeros((shape[0], 1), np.float32))
        return self._stacked(names)[layer]

    def _stack(self, names: tuple[str, ...]) -> Mapping[str, Factors]:
        """Of every layer: a pass wants them all."""
        return {layer: self._of_layer(layer, names) for layer in self.layers}

    def _of_layer(self, layer: str, names: tuple[str, ...]) -> Factors:
        alone = self._by_name[names[0]].layers.get(layer) if len(names) == 1 else None
        if alone is not None and len(alone.down) == self._by_name[names[0]].rank:
            return alone
        sizes = next(
            (factors.down.shape[1], factors.up.shape[0])
            for lora in self._by_name.values()
            if (factors := lora.layers.get(layer)) is not None
        )
        downs, ups = [], []
        for name in names:
            lora = self._by_name[name]
            down, up = np.zeros((lora.rank, sizes[0]), np.float32), np.zeros((sizes[1], lora.rank), np.float32)
            if (factors := lora.layers.get(layer)) is not None:
                down[: len(factors.down)], up[:, : len(factors.down)] = factors.down, factors.up
            downs.append(down)
            ups.append(up)
        return Factors(np.concatenate(downs), np.concatenate(ups, axis=1))


def _present(plan: Plan) -> tuple[str, ...]:
    """The LoRAs of a batch, each once."""
    return tuple(sorted({name for name in plan.tokens.loras if name is not None}))


class AdaptedOps(Generic[X]):
    """See `protocol.Ops`: those of `inner`, with the LoRAs in the linear layers that they change."""

    def __init__(self, inner: Ops[X], loras: Loras) -> None:
        self._inner = inner
        self._loras = loras
        self._layers = loras.layers
        self._in_once = False
        self._named: dict[int, tuple[X, str, tuple[int, ...], tuple[int, int] | None]] = {}

    def weight(
        self, name: str, shape: Sequence[int], *, rows: tuple[int, int] | None = None, folded: bool = False
    ) -> X:
        made = self._inner.weight(name, shape, rows=rows, folded=folded)
        if name in self._layers:
            # Kept, so that nothing else gets its id.
            self._named[id(made)] = (made, name, tuple(shape), rows)
        return made

    def linear(self, x: X, weight: X, bias: X | None = None, *, activation: Activation | None = None) -> X:
        if id(weight) not in self._named:
            return self._inner.linear(x, weight, bias, activation=activation)
        _, name, (outputs, inputs), rows = self._named[id(weight)]
        if self._in_once:
            raise _computed_once(name)
        inner, loras = self._inner, self._loras
        low = inner.linear(x, inner.feed(loras.down(name, inputs)))
        own = inner.multiply(low, inner.feed(loras.mask()))
        added = inner.linear(own, inner.feed(loras.up(name, outputs, rows)))
        y = inner.add(inner.linear(x, weight, bias), added)
        return y if activation is None else inner.activation(y, activation)

    def once(self, weight: X, make: Callable[[X], Sequence[X]]) -> list[X]:
        if id(weight) in self._named:
            raise _computed_once(self._named[id(weight)][1])

        def unchanged(x: X) -> Sequence[X]:
            self._in_once = True
            made = make(x)
            self._in_once = False
            return made

        return self._inner.once(weight, unchanged)

    # The rest is the engine's own.

    def feed(self, feed: Feed) -> X:
        return self._inner.feed(feed)

    def has(self, name: str) -> bool:
        return self._inner.has(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _computed_once(name: str) -> LoadError:
    return LoadError(f"a LoRA changes `{name}`, of which a part of this architecture is computed only once")
