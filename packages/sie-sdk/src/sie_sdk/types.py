"""What callers pass and get: typed dicts with the keys of SIE v0.3.1.

Nothing here checks anything at run time; the server validates what it is sent. numpy is named for type
checkers only, so that importing the clients does not import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

OutputType = Literal["dense", "sparse", "multivector"]
OutputDType = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
ModelState = Literal["available", "loading", "loaded", "unloading", "failed"]


class ImageInput(TypedDict, total=False):
    """A picture, and the format that its bytes have where it is bytes (`png`, `jpeg`, …); left out, they say it."""

    data: Image | NDArray[Any] | bytes | str | Path
    format: str


class AudioInput(TypedDict, total=False):
    """Sound: the bytes of a file, its format, and samples a second."""

    data: bytes
    format: str
    sample_rate: int


class VideoInput(TypedDict, total=False):
    """A film: the bytes of a file, and its format."""

    data: bytes
    format: str


class DocumentInput(TypedDict, total=False):
    """A document: the bytes of a file or where it is, and its format (`pdf`, `docx`, …); left out, its name says it."""

    data: bytes | str | Path
    format: str


class Item(TypedDict, total=False):
    """One input. `id` comes back with its result.

    A picture is the bytes of a file, a path, a Pillow image or an array (height, width, 3) of uint8; all but
    bytes need Pillow. `multivector` is for `sie_sdk.scoring`: no model reads it.
    """

    id: str
    text: str
    images: Sequence[ImageInput | Image | NDArray[Any] | bytes | str | Path]
    audio: AudioInput
    video: VideoInput
    document: DocumentInput | bytes | str | Path
    metadata: dict[str, Any]
    multivector: NDArray[np.float32]


class SparseResult(TypedDict):
    """`indices`: (n,) int32, ascending token ids; `values`: (n,) their weights."""

    indices: NDArray[np.int32]
    values: NDArray[np.float32]


class TimingInfo(TypedDict, total=False):
    """Milliseconds that the worker spent on the call that this result came with."""

    total_ms: float
    queue_ms: float
    tokenization_ms: float
    inference_ms: float
    postprocessing_ms: float


class ItemErrorInfo(TypedDict, total=False):
    """Why one item of a list has no outputs; the others have theirs."""

    code: str
    message: str
    hint: str


class EncodeResult(TypedDict, total=False):
    """What one item became.

    `dense` is (dims,), `multivector` (tokens, dims); both of the dtype asked for, float32 where none was.
    With `binary` and `ubinary` eight dimensions share a uint8. `error` stands in the place of the outputs
    where this item alone failed, which happens in lists only: a call with one item raises.
    """

    id: str
    dense: NDArray[np.float32]
    sparse: SparseResult
    multivector: NDArray[np.float32]
    timing: TimingInfo
    error: ItemErrorInfo


class ScoreEntry(TypedDict, total=False):
    """How well one item answers the query.

    `item_id` is the item's own, or `item-` and its index. `rank` is 0 for the best. An item that failed comes last,
    with None as its score and `error`.
    """

    item_id: str
    score: float
    rank: int
    error: ItemErrorInfo


class ScoreResult(TypedDict, total=False):
    """Every item of a call of `score`, best first."""

    model: str
    query_id: str
    scores: list[ScoreEntry]
    timing: TimingInfo


class Entity(TypedDict, total=False):
    """A stretch of a text, characters `start` to `end` (exclusive), or a region of a picture (`bbox`)."""

    text: str
    label: str
    score: float
    start: int | None
    end: int | None
    bbox: list[int] | None


class Relation(TypedDict):
    """That `head` stands in `relation` to `tail`."""

    head: str
    tail: str
    relation: str
    score: float


class Classification(TypedDict):
    """One label, and how well it fits."""

    label: str
    score: float


class DetectedObject(TypedDict):
    """Something in a picture; `bbox` is x, y, width and height in pixels."""

    label: str
    score: float
    bbox: list[int]


EntityResult = Entity
RelationResult = Relation
ClassificationResult = Classification
ObjectResult = DetectedObject


class ExtractResult(TypedDict, total=False):
    """What one item holds. `error` as of `EncodeResult`; `data` where the model fills a schema in."""

    id: str
    entities: list[Entity]
    relations: list[Relation]
    classifications: list[Classification]
    objects: list[DetectedObject]
    data: dict[str, Any]
    timing: TimingInfo
    error: ItemErrorInfo


class ModelDims(TypedDict, total=False):
    """Dimensions of each output; of `sparse`, the size of the vocabulary."""

    dense: int
    sparse: int
    multivector: int


class ModelInfo(TypedDict, total=False):
    """One model that the server would serve; `profiles` are its variants.

    A gateway says less than a worker where no worker has it yet.
    """

    name: str
    loaded: bool
    state: ModelState
    inputs: list[str]
    outputs: list[str]
    dims: ModelDims
    max_sequence_length: int
    revision: str
    verified: bool
    adopted: bool
    precision: str
    device: str
    profiles: dict[str, dict[str, bool]]
    bundles: list[str]
    worker_count: int


class PoolSpec(TypedDict, total=False):
    """Which pool a client's calls go to."""

    name: str


__all__ = [
    "AudioInput",
    "Classification",
    "ClassificationResult",
    "DetectedObject",
    "DocumentInput",
    "EncodeResult",
    "Entity",
    "EntityResult",
    "ExtractResult",
    "ImageInput",
    "Item",
    "ItemErrorInfo",
    "ModelDims",
    "ModelInfo",
    "ModelState",
    "ObjectResult",
    "OutputDType",
    "OutputType",
    "PoolSpec",
    "Relation",
    "RelationResult",
    "ScoreEntry",
    "ScoreResult",
    "SparseResult",
    "TimingInfo",
    "VideoInput",
]
