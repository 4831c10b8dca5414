"""Every request and reply body, as structs.

Arrays are `numpy.ndarray` here and become msgpack-numpy maps or nested lists in `codec`. Keys that a
caller sends and we do not know are reported, not refused (`X-SIE-Warnings`): v0.3.1 ignored them.
The shapes are those of SIE v0.3.1; where ours go beyond it, `docs/formats/wire.md` says so.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

OutputType = Literal["dense", "sparse", "multivector"]
OutputDtype = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
OUTPUT_TYPES: tuple[OutputType, ...] = ("dense", "sparse", "multivector")
OUTPUT_DTYPES: tuple[OutputDtype, ...] = ("float32", "float16", "int8", "uint8", "binary", "ubinary")


class Media(Struct, omit_defaults=True):
    """A picture, sound, film or document: bytes (base64 in JSON) and what they are."""

    data: bytes
    format: str | None = None
    sample_rate: int | None = None


class Item(Struct, omit_defaults=True):
    """One input."""

    id: str | None = None
    text: str | None = None
    images: list[Media] | None = None
    audio: Media | None = None
    video: Media | None = None
    document: Media | None = None
    metadata: dict[str, Any] | None = None


class EncodeParams(Struct, omit_defaults=True):
    output_types: list[OutputType] | None = None
    output_dtype: OutputDtype | None = None
    instruction: str | None = None
    options: dict[str, Any] | None = None


class EncodeRequest(Struct, omit_defaults=True):
    items: list[Item]
    params: EncodeParams | None = None


class Dense(Struct):
    """`values`: (dims,) of `dtype`; for `binary` and `ubinary` (ceil(dims / 8),) uint8."""

    dims: int
    dtype: str
    values: Any


class Sparse(Struct):
    """`indices`: (n,) int32, ascending; `values`: (n,) of `dtype`; `dims`: size of the vocabulary."""

    dims: int
    dtype: str
    indices: Any
    values: Any


class Multivector(Struct):
    """`values`: (num_tokens, token_dims) of `dtype`."""

    token_dims: int
    num_tokens: int
    dtype: str
    values: Any


class ItemError(Struct, omit_defaults=True):
    """What stands in the place of a failed item, so that results stay aligned with the items."""

    code: str
    message: str
    hint: str | None = None


class EncodedItem(Struct, omit_defaults=True):
    id: str | None = None
    dense: Dense | None = None
    sparse: Sparse | None = None
    multivector: Multivector | None = None
    error: ItemError | None = None


class Timing(Struct, omit_defaults=True):
    """Milliseconds, from the job's own stamps."""

    total_ms: float
    queue_ms: float
    tokenization_ms: float
    inference_ms: float
    postprocessing_ms: float | UnsetType = UNSET


class EncodeResponse(Struct, omit_defaults=True):
    model: str
    items: list[EncodedItem]
    timing: Timing | None = None


class ModelDims(Struct, omit_defaults=True):
    dense: int | None = None
    sparse: int | None = None
    multivector: int | None = None


class ModelEntry(Struct):
    """One model of `GET /v1/models`, read by SIE clients (`models`) and by OpenAI clients (`data`) alike.

    Attributes:
        state: available, loading, loaded, unloading or failed.
        revision: the commit served; None until it is known.
        verified: whether every file was checked against a manifest that the operator vouches for.
        precision: what a loaded model computes in: `f32` or `bf16`; both, with a comma, where workers differ.
        device: what a loaded model runs on, as the machine calls it.
    """

    name: str
    inputs: list[str]
    outputs: list[str]
    dims: ModelDims
    loaded: bool
    state: str
    max_sequence_length: int | None = None
    revision: str | None = None
    verified: bool | None = None
    precision: str | UnsetType = UNSET
    device: str | UnsetType = UNSET
    profiles: dict[str, dict[str, bool]] = {}
    last_error: dict[str, Any] | None = None
    bundles: list[str] = []
    worker_count: int | None = None
    workers: list[str] = []
    id: str = ""
    object: str = "model"
    owned_by: str = "sie"


class ModelList(Struct):
    """`models` and `data` hold the same entries."""

    models: list[ModelEntry]
    data: list[ModelEntry]
    object: str = "list"


class Served(Struct, frozen=True, omit_defaults=True):
    """A loaded model, as its worker knows it: `revision`, `verified` and `precision` as in `ModelEntry`."""

    revision: str
    verified: bool = False
    precision: str = ""


class WorkerStatus(Struct, omit_defaults=True):
    """`GET /heartbeat` of a worker: what a gateway must know to route to it, and to say who serves what.

    Attributes:
        loaded: ids of the models that answer at once.
        models: ids of all models it would serve.
        queued_tokens: tokens admitted and not yet answered, over all models.
        fingerprint: of the catalog that it holds.
        device: what its models run on, as people call it.
        hardware: the same, as the machine calls it.
        served: what each of `loaded` is.
    """

    name: str
    ready: bool
    machine_profile: str
    pool: str
    bundle: str
    loaded: list[str]
    models: list[str]
    queued_tokens: int
    fingerprint: str
    version: str
    device: str = "cpu"
    gpu_count: int = 0
    hardware: str = ""
    served: dict[str, Served] = {}
