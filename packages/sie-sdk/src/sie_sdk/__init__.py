"""The Python client of SIE, blocking and awaiting.

from sie_sdk import SIEClient

with SIEClient("http://localhost:8080") as client:
    vector = client.encode("BAAI/bge-m3", {"text": "hello world"})["dense"]
"""

from sie_sdk._version import __version__
from sie_sdk.client import SIEAsyncClient, SIEClient
from sie_sdk.encoding import (
    SparseVector,
    dense_embedding,
    multivector_embedding,
    normalize_sparse_vector,
    sparse_embedding,
    sparse_embedding_dict,
)
from sie_sdk.exceptions import (
    GatedModelError,
    LoraLoadingError,
    ModelLoadFailedError,
    ModelLoadingError,
    PoolError,
    ProvisioningError,
    RequestError,
    ResourceExhaustedError,
    ServerError,
    SIEConnectionError,
    SIEError,
)
from sie_sdk.types import (
    EncodeResult,
    Entity,
    ExtractResult,
    Item,
    ModelInfo,
    PoolSpec,
    ScoreResult,
    SparseResult,
    TimingInfo,
)

__all__ = [
    "EncodeResult",
    "Entity",
    "ExtractResult",
    "GatedModelError",
    "Item",
    "LoraLoadingError",
    "ModelInfo",
    "ModelLoadFailedError",
    "ModelLoadingError",
    "PoolError",
    "PoolSpec",
    "ProvisioningError",
    "RequestError",
    "ResourceExhaustedError",
    "SIEAsyncClient",
    "SIEClient",
    "SIEConnectionError",
    "SIEError",
    "ScoreResult",
    "ServerError",
    "SparseResult",
    "SparseVector",
    "TimingInfo",
    "__version__",
    "dense_embedding",
    "multivector_embedding",
    "normalize_sparse_vector",
    "sparse_embedding",
    "sparse_embedding_dict",
]
