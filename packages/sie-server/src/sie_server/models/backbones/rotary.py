"""Rotary positions: how fast each pair of a head's values turns, and the angles' cosines and sines as tables.

Follows transformers 5.23 `modeling_rope_utils.py` (default, linear, llama3, yarn), and for `ntk` the published
code of Alibaba's NewModel as vLLM restates it (`rotary_embedding/ntk_scaling_rope.py`). In float32, as they
compute it: at position 8000 a frequency that is one rounding off is an angle that is 5e-4 off.
"""

import math
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from sie_server.models.calls import LoadError
from sie_server.models.ops.plan import POSITIONS
from sie_server.models.ops.protocol import Ops

X = TypeVar("X")

KINDS: Final = ("default", "linear", "llama3", "yarn", "ntk")
_LONGEST: Final = 2**20


class Rotary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`rope_parameters` of a `config.json`, or its older `rope_scaling`; what each kind needs is checked on use."""

    rope_theta: float | None = None
    rope_type: str | None = None
    type: str | None = None
    factor: float | None = None
    original_max_position_embeddings: int | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    mixed_b: float | None = None
    partial_rotary_factor: float = 1.0

    @property
    def kind(self) -> str:
        return self.rope_type or self.type or "default"


def read_rotary(value: Any, *, theta: float, longest: int | None, where: str = "rope_parameters") -> Rotary:
    """One network's, or one kind of layer's, rotary positions, with nothing left open.

    Args:
        value: the mapping in `config.json`; None where it has none.
        theta: where the mapping has none.
        longest: `max_position_embeddings`.

    Raises:
        LoadError: a kind that we do not compute, a key that we do not know, or a kind without what it needs.
    """
    try:
        found = msgspec.convert(value or {}, Rotary)
    except msgspec.ValidationError as error:
        raise LoadError(f"`{where}` in `config.json`: {error}") from error
    if found.kind not in KINDS:
        supported = ", ".join(f"`{kind}`" for kind in KINDS)
        raise LoadError(f"`rope_type` of `{where}` in `config.json` is `{found.kind}`: supported are {supported}")
    if found.partial_rotary_factor != 1:
        raise LoadError(
            f"`partial_rotary_factor` in `config.json` is {found.partial_rotary_factor}: supported is 1, whole heads"
        )
    read = msgspec.structs.replace(
        found,
        rope_type=found.kind,
        rope_theta=theta if found.rope_theta is None else found.rope_theta,
        original_max_position_embeddings=found.original_max_position_embeddings or longest,
    )
    needed = {
        "linear": ("factor",),
        "ntk": ("factor",),
        "yarn": ("factor", "original_max_position_embeddings"),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    }
    for name in needed.get(read.kind, ()):
        if getattr(read, name) is None:
            raise LoadError(f"`{where}` in `config.json` is `{read.kind}` and has no `{name}`")
    return read


def angles(ops: Ops[X], rotary: Rotary, size: int, longest: int) -> tuple[X, X]:
    """Cosines and sines of the batch's positions, (T, size) each, for `Ops.rotary`.

    Args:
        size: of a head.
        longest: how many positions there are.
    """
    if size % 2:
        raise LoadError(f"a head has {size} values, and rotary positions turn pairs of them")
    if longest > _LONGEST:
        raise LoadError(f"`max_tokens` is {longest}: supported are {_LONGEST} rotary positions", hint="set it lower")
    turns, scale = frequencies(rotary, size)
    at = np.arange(longest, dtype=np.float32)[:, None] * turns
    positions = ops.feed(POSITIONS)
    # Both halves of a head have the same angles: the tables hold one.
    halves = [ops.gather(ops.constant(_scaled(table(at.astype(np.float64)), scale)), positions) for table in _TABLES]
    cosine, sine = (ops.concat([half, half]) for half in halves)
    return cosine, sine


_TABLES: Final = (np.cos, np.sin)


def frequencies(rotary: Rotary, size: int) -> tuple[NDArray[np.float32], float]:
    """(size / 2,) float32 radians a position, and what the cosines and sines are multiplied with."""
    theta, factor = rotary.rope_theta or 0.0, rotary.factor or 1.0
    match rotary.kind:
        case "linear":
            return _default(theta, size) / np.float32(factor), 1.0
        case "llama3":
            return _llama3(rotary, _default(theta, size), factor), 1.0
        case "yarn":
            return _yarn(rotary, theta, size, factor)
        case "ntk":
            return _ntk(rotary, theta, size, factor), 1.0
        case _:
            return _default(theta, size), 1.0


def _default(theta: float, size: int) -> NDArray[np.float32]:
    return np.float32(1) / _periods(theta, size)


def _periods(theta: float, size: int) -> NDArray[np.float32]:
    exponents = np.arange(0, size, 2).astype(np.float32) / np.float32(size)
    return np.power(theta, exponents.astype(np.float64)).astype(np.float32)


def _llama3(rotary: Rotary, turns: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    low, high = rotary.low_freq_factor or 1.0, rotary.high_freq_factor or 1.0
    before = rotary.original_max_position_embeddings or 0
    length = np.float32(2 * math.pi) / turns
    smooth = (np.float32(before) / length - np.float32(low)) / np.float32(high - low)
    between = (1 - smooth) * turns / np.float32(factor) + smooth * turns
    found = np.where(length > before / low, turns / np.float32(factor), turns)
    return np.where((length >= before / high) & (length <= before / low), between, found).astype(np.float32)


def _yarn(rotary: Rotary, theta: float, size: int, factor: float) -> tuple[NDArray[np.float32], float]:
    before = rotary.original_max_position_embeddings or 0

    def turned(times: float) -> float:
        """Which pair turns so many times within the original length."""
        return size * math.log(before / (times * 2 * math.pi)) / (2 * math.log(theta))

    low, high = turned(rotary.beta_fast or 32), turned(rotary.beta_slow or 1)
    if rotary.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    ramp = (np.arange(size // 2, dtype=np.float32) - np.float32(low)) / np.float32(max(high - low, 0.001))
    kept = 1 - np.clip(ramp, 0, 1)
    periods = _periods(theta, size)
    turns = 1 / (np.float32(factor) * periods) * (1 - kept) + 1 / periods * kept
    return turns.astype(np.float32), _yarn_scale(rotary, factor)


def _yarn_scale(rotary: Rotary, factor: float) -> float:
    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if rotary.attention_factor is not None:
        return rotary.attention_factor
    if rotary.mscale and rotary.mscale_all_dim:
        return scale(rotary.mscale) / scale(rotary.mscale_all_dim)
    return scale(1.0)


def _ntk(rotary: Rotary, theta: float, size: int, factor: float) -> NDArray[np.float32]:
    if rotary.mixed_b is None:
        return _default(theta * factor, size) / np.float32(factor ** (2 / size))
    weight = math.log(factor) / (size / 2) ** rotary.mixed_b
    place = np.arange(1, size // 2 + 1, dtype=np.float32) ** np.float32(rotary.mixed_b)
    slower: NDArray[np.float32] = np.exp(np.float32(weight) * place)
    return _default(theta, size) / slower


def _scaled(table: NDArray[np.float64], scale: float) -> NDArray[np.float32]:
    found: NDArray[np.float32] = table.astype(np.float32) * np.float32(scale)
    return found
