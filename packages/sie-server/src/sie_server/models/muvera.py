"""One vector of a multivector whose inner products are near MaxSim: MUVERA's fixed dimensional encoding. Pure.

Follows "MUVERA: Multi-Vector Retrieval via Fixed Dimensional Encodings" (arXiv 2405.19504) and google/graph-mining
`sketching/point_cloud/fixed_dimensional_encoding.cc`: random planes part the space, a query's tokens are summed and a
document's averaged in each part, and that is repeated with other planes. Empty parts stay zero. What is drawn is drawn
by numpy's `default_rng`, of the seed 42 plus the repetition for planes and projections, of 42 for the last sketch: an
encoding is good for those of the same settings alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SEED: Final = 42

MOST_VALUES: Final = 2**22
"""Of an encoding before its last sketch: 16 MB."""

_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "num_repetitions": (1, 256),
    "num_simhash_projections": (0, 12),
    "projection_dim": (1, 4096),
    "final_projection_dim": (1, 65536),
}


@dataclass(frozen=True)
class Muvera:
    """Settings, by the names that a call gives them.

    Attributes:
        num_repetitions: how often the space is parted.
        num_simhash_projections: planes that part it: k make 2^k parts.
        projection_dim: what every vector is projected to first; None: it stays as it is.
        final_projection_dim: length of the encoding.
    """

    num_repetitions: int = 40
    num_simhash_projections: int = 6
    projection_dim: int | None = None
    final_projection_dim: int = 10240

    def values(self, dims: int) -> int:
        """Length of an encoding before its last sketch, of vectors of `dims`."""
        return self.num_repetitions * (1 << self.num_simhash_projections) * (self.projection_dim or dims)


def read_muvera(options: object, dims: int) -> Muvera:
    """The settings in a call's map.

    Args:
        options: `options.muvera`; what it leaves out is as it is by default.
        dims: of the model's vectors.

    Raises:
        ValueError: no map; a setting that there is not, or out of its range; more values than `MOST_VALUES`.
    """
    known = [field.name for field in fields(Muvera)]
    if not isinstance(options, Mapping):
        raise ValueError(f"`muvera` is `{options}`: want a map, `{{}}` for its defaults")
    for name, value in options.items():
        if name not in known:
            raise ValueError(f"`muvera` has `{name}`: known are {', '.join(f'`{one}`' for one in known)}")
        least, most = _RANGES[name]
        if value is None and name == "projection_dim":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"`muvera.{name}` is `{value}`: want a whole number from {least} to {most}")
    settings = Muvera(**options)
    if settings.values(dims) > MOST_VALUES:
        raise ValueError(
            f"`muvera` makes {settings.values(dims):,} values of a vector of {dims} before they are sketched: want "
            f"{MOST_VALUES:,} at most, by a lower `num_repetitions`, `num_simhash_projections` or `projection_dim`"
        )
    return settings


def encoded(vectors: Floats, settings: Muvera, *, is_query: bool) -> Floats:
    """(tokens, dims) → (final_projection_dim,): sums of a query's tokens, means of a document's; zeros of none."""
    count, dims = vectors.shape
    parts, width = 2**settings.num_simhash_projections, settings.projection_dim or dims
    drawn = _drawn(settings, dims)
    whole = np.zeros((settings.num_repetitions, parts, width), np.float32)
    for repetition in range(settings.num_repetitions if count else 0):
        which = _parts(vectors @ drawn.planes[repetition])
        rows = vectors if drawn.projections is None else vectors @ drawn.projections[repetition]
        np.add.at(whole[repetition], which, rows)
        if not is_query:
            sizes = np.bincount(which, minlength=parts)
            whole[repetition] /= np.maximum(sizes, 1)[:, None].astype(np.float32)
    sketched = np.bincount(
        drawn.places, weights=whole.reshape(-1) * drawn.signs, minlength=settings.final_projection_dim
    )
    return sketched.astype(np.float32)


def _parts(sides: Floats) -> NDArray[np.intp]:
    """(tokens, planes) → (tokens,): the side of each plane a token is on as a Gray code's bits, read as its place."""
    found = np.zeros(len(sides), np.intp)
    for side in sides.T:
        found = (found << 1) + ((side > 0) ^ (found & 1))
    return found


@dataclass(frozen=True)
class _Drawn:
    """What is drawn for some settings and vectors of some length.

    Attributes:
        planes: (repetitions, dims, planes).
        projections: (repetitions, dims, projection_dim), one sign in every row; None: vectors stay as they are.
        places: (values,), where each goes in the encoding.
        signs: (values,), -1 or 1.
    """

    planes: Floats
    projections: Floats | None
    places: NDArray[np.int64]
    signs: Floats


@lru_cache(maxsize=4)
def _drawn(settings: Muvera, dims: int) -> _Drawn:
    seeds = range(SEED, SEED + settings.num_repetitions)
    shape = (dims, settings.num_simhash_projections)
    planes = np.array([np.random.default_rng(seed).normal(size=shape) for seed in seeds], np.float32)
    projections = None
    if settings.projection_dim is not None:
        projections = np.array([_projection(seed, dims, settings.projection_dim) for seed in seeds], np.float32)
    last = np.random.default_rng(SEED)
    values = settings.values(dims)
    places = last.integers(0, settings.final_projection_dim, size=values)
    signs = last.choice([-1.0, 1.0], size=values).astype(np.float32)
    return _Drawn(planes, projections, places, signs)


def _projection(seed: int, dims: int, width: int) -> Floats:
    drawn = np.random.default_rng(seed)
    made = np.zeros((dims, width), np.float32)
    places = drawn.integers(0, width, size=dims)
    made[np.arange(dims), places] = drawn.choice([-1.0, 1.0], size=dims)
    return made
