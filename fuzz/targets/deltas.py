"""What makes archives small: deltas, recipes with their compressed steps, receipts."""

import json
from collections.abc import Iterator
from typing import Any

from fuzz.target import Target, checked, compact, same
from sie_airgap.deltas.delta import Base, ByRecipe, Delta, decode_delta, encode_delta
from sie_airgap.deltas.receipt import HeldBlob, PlaceTraits, Receipt, decode_receipt, encode_receipt
from sie_airgap.deltas.recipe import (
    HEAD_BYTES,
    MAGIC,
    Carried,
    Copied,
    Planes,
    Recipe,
    compressed,
    decode_steps,
    decompressed,
    encode_steps,
    steps_bytes,
)
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.errors import TrustError

_ONE, _TWO = sorted((digest_of(b"1"), digest_of(b"2")))
_PLAIN = bytes(range(64)) * 32
_STORED = compressed(_PLAIN, 4) or b""


def _deltas() -> Iterator[bytes]:
    made = ByRecipe(_ONE, _TWO, 9, (_ONE, _TWO))
    yield encode_delta(Delta(1, Base("s3://bucket", _ONE, 3), (_ONE, _TWO), (made,)))
    yield encode_delta(Delta(1, None, (), ()))


def _read_delta(data: bytes) -> None:
    delta = decode_delta(data, where="delta.json")
    same(data, encode_delta(delta))
    _ = delta.by_blob


def _recipes() -> Iterator[bytes]:
    steps = (Copied(0, 5, 10), Carried(3), Planes(len(_PLAIN), len(_STORED), 4))
    made = Recipe(_ONE, sum(step.size_bytes for step in steps), (_TWO,), steps)
    yield encode_steps(made) + b"abc" + _STORED


def _steps_of(data: bytes) -> Any:
    return json.loads(data[HEAD_BYTES : HEAD_BYTES + steps_bytes(data[:HEAD_BYTES])])


def _recipe_of(text: str) -> bytes:
    steps = compact(text)
    return MAGIC + len(steps).to_bytes(8, "little") + steps + b"abc" + _STORED


def _read_recipe(data: bytes) -> None:
    size_bytes = steps_bytes(data[:HEAD_BYTES])
    recipe = decode_steps(data[HEAD_BYTES : HEAD_BYTES + size_bytes])
    same(data[: HEAD_BYTES + size_bytes], encode_steps(recipe))
    position = HEAD_BYTES + size_bytes
    for step in recipe.steps:
        if isinstance(step, Copied):
            continue
        stored = data[position : position + step.stored_bytes]
        position += step.stored_bytes
        if isinstance(step, Planes):
            assert len(decompressed(stored, step)) == step.size_bytes


def _stored() -> Iterator[bytes]:
    yield _STORED


def _read_stored(data: bytes) -> None:
    assert len(decompressed(data, Planes(len(_PLAIN), max(1, len(data)), 4))) == len(_PLAIN)


def _receipts() -> Iterator[bytes]:
    held = (HeldBlob(_ONE, 5, "models--org--name/snapshots/x/y"), HeldBlob(_TWO, 0, "z"))
    yield encode_receipt(Receipt(1, "s3://bucket/prefix", _ONE, 4, held, PlaceTraits("s3", True, False)))


def _read_receipt(data: bytes) -> None:
    receipt = decode_receipt(data)
    same(encode_receipt(decode_receipt(encode_receipt(receipt))), encode_receipt(receipt))
    _ = receipt.digests


TARGETS = (
    Target("delta", _deltas, checked(_read_delta, TrustError), json.loads, compact),
    Target("recipe", _recipes, checked(_read_recipe, ValueError), _steps_of, _recipe_of),
    Target("compressed-step", _stored, checked(_read_stored, ValueError)),
    Target("receipt", _receipts, checked(_read_receipt, ValueError), json.loads, compact),
)
