"""Run by the published client's own interpreter: what it gets from the server at the URL given, as JSON."""

import asyncio
import json
import sys
from typing import Any

from sie_sdk import RequestError, SIEAsyncClient, SIEClient

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
URL = sys.argv[1]


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


print(json.dumps({**blocking(), "awaited": asyncio.run(awaiting())}))
