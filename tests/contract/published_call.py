"""Run by the published client's own interpreter: what it gets from the servers at the two URLs given, as JSON.

The first serves the real MiniLM, the second a tiny model that does everything.
"""

import asyncio
import json
import sys
from typing import Any

import numpy as np

from sie_sdk import RequestError, SIEAsyncClient, SIEClient, sparse_embedding

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
WHOLE = "acme/whole"
URL, TINY_URL = sys.argv[1:]
QUERY: Any = {"id": "q", "text": "what is it"}
ITEMS: Any = [{"id": "a", "text": "one"}, {"text": "two words"}]
RED: Any = np.full((8, 16, 3), (200, 10, 10), np.uint8)


def refused(call) -> str:
    try:
        call()
    except RequestError as error:
        return f"{error.status_code} {error.code}"
    return "answered"


def blocking() -> dict:
    with SIEClient(URL) as client:
        waiting: dict[str, Any] = {"gpu": "l4", "wait_for_capacity": True, "provision_timeout_s": 600}
        one = client.encode(MODEL, {"text": "hello world"}, **waiting)
        two = client.encode(
            MODEL, [{"id": "a", "text": "hello world"}, {"text": "b"}], output_dtype="int8", is_query=True
        )
        return {
            "dense": one["dense"].tolist(),
            "dtype": str(one["dense"].dtype),
            "timing": sorted(one["timing"]),
            "int8": [[result.get("id"), str(result["dense"].dtype), len(result["dense"])] for result in two],
            "models": [model["name"] for model in client.list_models()],
            "unknown": refused(lambda: client.encode("acme/nothing", {"text": "x"})),
            "unsupported": refused(lambda: client.encode(MODEL, {"text": "x"}, output_types=["sparse"])),
        }


async def awaiting() -> list:
    async with SIEAsyncClient(URL) as client:
        return (await client.encode(MODEL, {"text": "hello world"}))["dense"].tolist()


def whole() -> dict:
    """Every verb and output of the tiny model."""
    with SIEClient(TINY_URL) as client:
        types: Any = ["dense", "sparse", "multivector"]
        (all_outputs,) = client.encode(WHOLE, [{"text": "two words"}], output_types=types, output_dtype="float16")
        sparse = client.encode(WHOLE, {"text": "two words"}, options={"profile": "sparse"})
        picture = client.encode(WHOLE, {"images": [RED]})
        return {
            "score": client.score(WHOLE, QUERY, ITEMS, instruction="find"),
            "extract": client.extract(WHOLE, ITEMS, labels=["words"]),
            "extract_one": client.extract(WHOLE, {"text": "two words"}, labels=["words"]),
            "outputs": {
                "dense": [str(all_outputs["dense"].dtype), all_outputs["dense"].tolist()],
                "multivector": [str(all_outputs["multivector"].dtype), list(all_outputs["multivector"].shape)],
                "indices": str(all_outputs["sparse"]["indices"].dtype),
            },
            "variant": [sorted(sparse), sparse_embedding(sparse)],
            "picture": picture["dense"].tolist(),
            "unlabelled": refused(lambda: client.extract(WHOLE, ITEMS)),
            "undeclared": refused(lambda: client.score("acme/plain", QUERY, ITEMS)),
        }


async def awaiting_whole() -> list:
    async with SIEAsyncClient(TINY_URL) as client:
        return [
            await client.score(WHOLE, QUERY, ITEMS, instruction="find"),
            await client.extract(WHOLE, ITEMS, labels=["words"]),
        ]


said = {**blocking(), "awaited": asyncio.run(awaiting())}
print(json.dumps(said | {"whole": whole(), "awaited_whole": asyncio.run(awaiting_whole())}))
