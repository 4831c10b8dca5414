"""`golden.json`: the answers of models to fixed questions, as bytes that are the same for the same answers.

The format alone: JSON with sorted keys, arrays little-endian in base64. `golden` records and compares, `grading`
says how near two answers are.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sie_core.artifacts.digest import Digest
from sie_core.artifacts.manifest import canonical_json
from sie_core.ids import ModelId, Revision

GOLDEN_VERSION = 2

Kind = Literal["dense", "sparse", "multivector", "score", "extract"]
"""What a model is asked for; `extract` is the `json` of `/v1/models`."""

Vector = NDArray[np.float32]


class Dense(Struct, frozen=True, forbid_unknown_fields=True, tag="dense", tag_field="kind"):
    """One vector: (dims,) float32."""

    values: bytes

    def __post_init__(self) -> None:
        _floats(self.values)

    @property
    def vector(self) -> Vector:
        return _floats(self.values)


class Sparse(Struct, frozen=True, forbid_unknown_fields=True, tag="sparse", tag_field="kind"):
    """Weights of some ids: (n,) int32, ascending, and (n,) float32."""

    indices: bytes
    values: bytes

    def __post_init__(self) -> None:
        if len(self.indices) != len(self.values):
            raise ValueError(f"{len(self.indices)} bytes of indices and {len(self.values)} of values")
        if (np.diff(self.ids) <= 0).any():
            raise ValueError("indices do not ascend")

    @property
    def ids(self) -> NDArray[np.int32]:
        return np.frombuffer(_whole(self.indices), dtype="<i4")

    @property
    def weights(self) -> Vector:
        return _floats(self.values)


class Multivector(Struct, frozen=True, forbid_unknown_fields=True, tag="multivector", tag_field="kind"):
    """One vector a token: (rows, dims) float32, row by row."""

    rows: int
    values: bytes

    def __post_init__(self) -> None:
        if self.rows < 0 or len(self.values) % (4 * max(self.rows, 1)) or (self.rows == 0 and self.values):
            raise ValueError(f"{len(self.values)} bytes are no {self.rows} rows")

    @property
    def matrix(self) -> Vector:
        return _floats(self.values).reshape(self.rows, -1) if self.rows else np.zeros((0, 0), np.float32)


class Score(Struct, frozen=True, forbid_unknown_fields=True, tag="score", tag_field="kind"):
    """How well the text answers the query: one float32."""

    values: bytes

    def __post_init__(self) -> None:
        if len(self.values) != 4:
            raise ValueError(f"{len(self.values)} bytes are not one score")

    @property
    def score(self) -> float:
        return float(_floats(self.values)[0])


class Found(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A label of the whole text, or of the stretch from character `start` to `end`, exclusive."""

    label: str
    text: str | None = None
    start: int | None = None
    end: int | None = None


class Extraction(Struct, frozen=True, forbid_unknown_fields=True, tag="extract", tag_field="kind"):
    """What was found, in the order of the text, and each one's score: (found,) float32."""

    found: tuple[Found, ...]
    scores: bytes

    def __post_init__(self) -> None:
        if len(self.scores) != 4 * len(self.found):
            raise ValueError(f"{len(self.scores)} bytes of scores, for {len(self.found)} found")
        if len(set(self.found)) < len(self.found):
            raise ValueError("something is found twice at one place")

    @property
    def values(self) -> Vector:
        return _floats(self.scores)


Said = Dense | Sparse | Multivector | Score | Extraction


class Answer(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What was said about one text, or the code of an error."""

    name: str
    text: str
    said: Said | None = None
    error: str | None = None


class Series(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The answers of one kind.

    Attributes:
        query: of a score.
        labels: of an extraction.
        threshold: what was asked for as the least score of an extraction; None where the model has none.
    """

    kind: Kind
    answers: tuple[Answer, ...]
    query: str | None = None
    labels: tuple[str, ...] = ()
    threshold: float | None = None

    def __post_init__(self) -> None:
        if (self.query is not None) != (self.kind == "score"):
            raise ValueError(f"a query belongs to scores and to nothing else, and this is of the kind `{self.kind}`")
        for answer in self.answers:
            if (answer.said is None) == (answer.error is None):
                raise ValueError(f"`{answer.name}` wants an answer or an error")
            if answer.said is not None and kind_of(answer.said) != self.kind:
                raise ValueError(f"`{answer.name}` is of the kind `{kind_of(answer.said)}`, among `{self.kind}`")


class GoldenModel(Struct, frozen=True, forbid_unknown_fields=True):
    """The answers of one model at one commit, and what they were computed in and on, where the server says it."""

    id: ModelId
    revision: Revision
    series: tuple[Series, ...]
    precision: str | None = None
    device: str | None = None


class Golden(Struct, frozen=True, forbid_unknown_fields=True):
    """What was recorded, of which lock, and with which toolkit (`environment`)."""

    version: int
    lock: Digest
    environment: Mapping[str, str]
    models: tuple[GoldenModel, ...]


class _Versioned(Struct):
    version: int


def encode_golden(golden: Golden) -> bytes:
    return canonical_json(golden)


def decode_golden(data: bytes) -> Golden:
    """Raises `ValueError` for what no `golden record` of this version wrote."""
    version = _decoded(data, _Versioned).version
    if version != GOLDEN_VERSION:
        raise ValueError(f"golden answers of version {version}, this toolkit reads {GOLDEN_VERSION}")
    golden: Golden = _decoded(data, Golden)
    return golden


def dense(vector: NDArray[Any]) -> Dense:
    return Dense(_f32(vector))


def sparse(indices: NDArray[Any], values: NDArray[Any]) -> Sparse:
    return Sparse(np.ascontiguousarray(indices, dtype="<i4").tobytes(), _f32(values))


def multivector(matrix: NDArray[Any]) -> Multivector:
    """Of (rows, dims)."""
    return Multivector(len(matrix), _f32(matrix))


def score(value: float) -> Score:
    return Score(_f32(np.array([value])))


def extraction(scored: Mapping[Found, float]) -> Extraction:
    """In the order of the text; what has no place in it by its label."""
    ordered = sorted(scored, key=lambda one: (one.start or 0, one.end or 0, one.label))
    return Extraction(tuple(ordered), _f32(np.array([scored[one] for one in ordered])))


def kind_of(said: Said) -> Kind:
    match said:
        case Dense():
            return "dense"
        case Sparse():
            return "sparse"
        case Multivector():
            return "multivector"
        case Score():
            return "score"
        case Extraction():
            return "extract"


def _decoded(data: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not golden answers: {error}") from error


def _f32(array: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(array, dtype="<f4").tobytes()


def _floats(values: bytes) -> Vector:
    return np.frombuffer(_whole(values), dtype="<f4")


def _whole(data: bytes) -> bytes:
    if len(data) % 4:
        raise ValueError(f"{len(data)} bytes are no numbers of 4")
    return data
