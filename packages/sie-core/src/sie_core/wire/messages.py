"""Every request and reply body, as structs.

Arrays are `numpy.ndarray` here and become msgpack-numpy maps or nested lists in `codec`. Keys that a
caller sends and we do not know are reported, not refused (`X-SIE-Warnings`): v0.3.1 ignored them.
The shapes are those of SIE v0.3.1; where ours go beyond it, `docs/formats/wire.md` says so.
"""

from collections.abc import Iterable
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
    """One input; `multivector` is for the client's own MaxSim, and no model reads it."""

    id: str | None = None
    text: str | None = None
    images: list[Media] | None = None
    audio: Media | None = None
    video: Media | None = None
    document: Media | None = None
    metadata: dict[str, Any] | None = None
    multivector: Any = None


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


class ScoreRequest(Struct, omit_defaults=True):
    query: Item
    items: list[Item]
    instruction: str | None = None
    options: dict[str, Any] | None = None


class ScoreEntry(Struct):
    """How well one item answers the query.

    Attributes:
        item_id: the item's own, or `item-` and its index.
        score: higher is better; None where the item failed.
        rank: from 0; items that failed come last.
    """

    item_id: str
    score: float | None
    rank: int
    error: ItemError | UnsetType = UNSET


class ScoreResponse(Struct, omit_defaults=True):
    """`scores`: best first, one for each item."""

    model: str
    scores: list[ScoreEntry]
    query_id: str | None = None
    timing: Timing | None = None


class ExtractParams(Struct, omit_defaults=True):
    """`labels`: what to look for; `output_schema`: a JSON schema of `data`, for models that fill one in."""

    labels: list[str] | None = None
    output_schema: dict[str, Any] | None = None
    instruction: str | None = None
    options: dict[str, Any] | None = None


class ExtractRequest(Struct, omit_defaults=True):
    items: list[Item]
    params: ExtractParams | None = None


class Entity(Struct):
    """A stretch of the text, characters `start` to `end` (exclusive), or a region of a picture."""

    text: str
    label: str
    score: float
    start: int | None = None
    end: int | None = None
    bbox: list[int] | None = None


class Relation(Struct):
    head: str
    tail: str
    relation: str
    score: float


class Classification(Struct):
    label: str
    score: float


class DetectedObject(Struct):
    """`bbox`: x, y, width and height in pixels."""

    label: str
    score: float
    bbox: list[int]


class ExtractedItem(Struct):
    """`id`: the item's own, or `item-` and its index."""

    id: str
    entities: list[Entity] = []
    relations: list[Relation] = []
    classifications: list[Classification] = []
    objects: list[DetectedObject] = []
    data: dict[str, Any] = {}
    error: ItemError | UnsetType = UNSET


class ExtractResponse(Struct, omit_defaults=True):
    model: str
    items: list[ExtractedItem]
    timing: Timing | None = None


class Named(Struct):
    """All that a gateway reads of a body, on the routes whose path names no model."""

    model: str


class EmbeddingsRequest(Struct, omit_defaults=True):
    """`POST /v1/embeddings`, as OpenAI's clients send it.

    Attributes:
        input: a text, several, or token ids of the model's own, for one input or for several.
        dimensions: so many of each vector's first numbers, made of length 1 again; None for all.
        user: taken and not used.
    """

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


class Embedding(Struct):
    """`embedding`: numbers, or base64 of float32, little-endian."""

    embedding: Any
    index: int
    object: str = "embedding"


class Usage(Struct):
    """Tokens that went through the model."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(Struct):
    data: list[Embedding]
    model: str
    usage: Usage
    object: str = "list"


class RerankText(Struct):
    text: str


class RerankRequest(Struct, omit_defaults=True):
    """`POST /v1/rerank`.

    Attributes:
        top_n: so many of the best; None for all.
        return_documents: whether the texts come back too.
    """

    model: str
    query: str | RerankText
    documents: list[str | RerankText]
    top_n: int | None = None
    return_documents: bool = False


class RerankResult(Struct):
    """`index`: of the document in the request."""

    index: int
    relevance_score: float
    document: RerankText | UnsetType = UNSET


class RerankResponse(Struct):
    """`results`: best first."""

    model: str
    results: list[RerankResult]
    usage: Usage
    object: str = "list"


class ModelDims(Struct, omit_defaults=True):
    dense: int | None = None
    sparse: int | None = None
    multivector: int | None = None


class ModelEntry(Struct):
    """One model of `GET /v1/models`, read by SIE clients (`models`) and by OpenAI clients (`data`) alike.

    Attributes:
        state: available, loading, loaded, unloading or failed.
        revision: the commit served; None until it is known.
        verified: whether every file was checked against what a lock, or the hub, says of it.
        adopted: true where it was checked against a manifest that was only made of a bucket filled by hand: its
            files have not changed since, and nothing says what they were before.
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
    adopted: bool | UnsetType = UNSET
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


def profiles(variants: Iterable[str]) -> dict[str, dict[str, bool]]:
    """A model's variants as `ModelEntry` lists them: its plain form is the default."""
    return {"default": {"is_default": True}} | {name: {"is_default": name == "default"} for name in variants}


class ModelList(Struct):
    """`models` and `data` hold the same entries."""

    models: list[ModelEntry]
    data: list[ModelEntry]
    object: str = "list"


class Served(Struct, frozen=True, omit_defaults=True):
    """A loaded model, as its worker knows it: `revision`, `verified`, `precision`, `adopted` as in `ModelEntry`."""

    revision: str
    verified: bool = False
    precision: str = ""
    adopted: bool = False


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
