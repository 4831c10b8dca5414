"""The peers: sentence-transformers and infinity behind the same HTTP server, each run by its own environment.

The same uvicorn, the same bodies, no framework. With sentence-transformers a call is one `encode` of its texts, on
the one thread that owns the model, which is how a service around it is usually written; infinity batches calls itself.

    .venv-parity/bin/python -m bench.peer --model FOLDER --port PORT
    .venv-infinity/bin/python -m bench.peer --library infinity --model FOLDER --port PORT
"""

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn

from sie_core.wire.codec import CONTENT_TYPES, Format, decode_as, encode
from sie_core.wire.messages import Dense, EncodedItem, EncodeRequest, EncodeResponse

Encode = Callable[[list[str]], Awaitable[Any]]


def sentence_transformers(folder: str, device: str) -> Encode:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device=device)
    owner = ThreadPoolExecutor(1)

    async def run(texts: list[str]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(
            owner, lambda: model.encode(texts, show_progress_bar=False)
        )

    return run


def infinity(folder: str, device: str) -> Encode:
    """As its own server has it, but for the layers of BetterTransformer, which its last release cannot import."""
    from infinity_emb import AsyncEmbeddingEngine, EngineArgs

    arguments = EngineArgs(
        model_name_or_path=folder, engine="torch", device=device, bettertransformer=False, model_warmup=False
    )
    engine = AsyncEmbeddingEngine.from_args(arguments)
    starting = asyncio.Lock()

    async def run(texts: list[str]) -> Any:
        async with starting:
            if not engine.running:
                await engine.astart()
        vectors, _ = await engine.embed(texts)
        return vectors

    return run


class Peer:
    """A raw ASGI application; every path is `encode`."""

    def __init__(self, encode_texts: Encode) -> None:
        self._encode = encode_texts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        request = decode_as(body, Format.MSGPACK, EncodeRequest)
        texts = [item.text or "" for item in request.items]
        vectors = await self._encode(texts)
        items = [EncodedItem(dense=Dense(len(vector), "float32", vector)) for vector in vectors]
        reply = encode(EncodeResponse("peer", items), Format.MSGPACK)
        headers = [
            (b"content-type", CONTENT_TYPES[Format.MSGPACK].encode()),
            (b"content-length", str(len(reply)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": reply})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", choices=("sentence-transformers", "infinity"), default="sentence-transformers")
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    library = infinity if arguments.library == "infinity" else sentence_transformers
    app = Peer(library(arguments.model, os.environ.get("SIE_DEVICE", "cpu")))
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning", lifespan="off", access_log=False)


if __name__ == "__main__":
    main()
