"""Float32 results in the dtype that a caller asked for. Pure.

int8 is symmetric about 0 and uint8 spans each row's own range, both without the scale being sent, as in
SIE v0.3.1: such vectors keep their direction (int8) or their order within the row (uint8), not their length.
`binary` and `ubinary` are the same bytes under two names: one bit for each positive number, eight a byte.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sie_core.wire.messages import Dense, Multivector, OutputDtype, Sparse
from sie_server.models.calls import SparseVector

Floats = NDArray[np.float32]


def dense(vector: Floats, dtype: OutputDtype) -> Dense:
    """`vector`: (dims,)."""
    return Dense(dims=len(vector), dtype=dtype, values=quantised(vector[None, :], dtype, constant=128)[0])


def multivector(rows: Floats, dtype: OutputDtype) -> Multivector:
    """`rows`: (tokens, dims)."""
    tokens, dims = rows.shape
    return Multivector(token_dims=dims, num_tokens=tokens, dtype=dtype, values=quantised(rows, dtype, constant=0))


def sparse(vector: SparseVector, dtype: OutputDtype) -> Sparse:
    """Only float16 makes sparse values smaller: the other dtypes leave them as they are."""
    values = vector.values.astype(np.float16) if dtype == "float16" else vector.values
    return Sparse(dims=vector.dims, dtype=values.dtype.name, indices=vector.indices, values=values)


def quantised(rows: Floats, dtype: OutputDtype, *, constant: int) -> NDArray[Any]:
    """(rows, dims) float32 → (rows, dims) of `dtype`, or (rows, ceil(dims / 8)) uint8 for the binary ones.

    Args:
        constant: what uint8 makes of a row whose numbers are all equal; v0.3.1 has one value for a single
            vector and another for rows.
    """
    match dtype:
        case "float32":
            return rows
        case "float16":
            return rows.astype(np.float16)
        case "int8":
            return _int8(rows)
        case "uint8":
            return _uint8(rows, constant)
        case "binary" | "ubinary":
            return np.packbits(rows > 0, axis=-1)


def _int8(rows: Floats) -> NDArray[np.int8]:
    largest = np.abs(rows).max(axis=-1, keepdims=True, initial=0)
    # Divided first: 127 over a number close to zero is more than a float32 holds.
    shares = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    scaled: NDArray[np.int8] = np.rint(shares * 127).astype(np.int8)
    return scaled


def _uint8(rows: Floats, constant: int) -> NDArray[np.uint8]:
    low, high = rows.min(axis=-1, keepdims=True), rows.max(axis=-1, keepdims=True)
    span = high - low
    scaled = np.rint(np.divide(rows - low, span, out=np.zeros_like(rows), where=span > 0) * 255)
    return np.where(span > 0, np.clip(scaled, 0, 255), constant).astype(np.uint8)
