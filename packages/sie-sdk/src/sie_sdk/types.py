"""What callers pass and get: typed dicts with the keys of SIE v0.3.1.

Nothing here checks anything at run time; the server validates what it is sent. numpy is named for type
checkers only, so that importing the clients does not import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OutputType = Literal["dense", "sparse", "multivector"]
OutputDType = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
ModelState = Literal["available", "loading", "loaded", "unloading", "failed"]


class ImageInput(TypedDict, total=False):
    """A picture: the bytes of a file, and its format (`png`, `jpeg`, …)."""

    data: bytes
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
    """A document: the bytes of a file, and its format (`pdf`, `docx`, …)."""

    data: bytes
    format: str


class Item(TypedDict, total=False):
    """One input. `id` comes back with its result."""

    id: str
    text: str
    images: list[ImageInput]
    audio: AudioInput
    video: VideoInput
    document: DocumentInput
    metadata: dict[str, Any]


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


class ModelDims(TypedDict, total=False):
    """Dimensions of each output; of `sparse`, the size of the vocabulary."""

    dense: int
    sparse: int
    multivector: int


class ModelInfo(TypedDict, total=False):
    """One model that the server would serve. A gateway says less than a worker where no worker has it yet."""

    name: str
    loaded: bool
    state: ModelState
    inputs: list[str]
    outputs: list[str]
    dims: ModelDims
    max_sequence_length: int
    revision: str
    verified: bool
    precision: str
    device: str
    bundles: list[str]
    worker_count: int


class PoolSpec(TypedDict, total=False):
    """Which pool a client's calls go to."""

    name: str


__all__ = [
    "AudioInput",
    "DocumentInput",
    "EncodeResult",
    "ImageInput",
    "Item",
    "ItemErrorInfo",
    "ModelDims",
    "ModelInfo",
    "ModelState",
    "OutputDType",
    "OutputType",
    "PoolSpec",
    "SparseResult",
    "TimingInfo",
    "VideoInput",
]
