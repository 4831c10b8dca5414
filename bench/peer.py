"""The peer: sentence-transformers behind the same HTTP server, run by `.venv-parity`.

The same uvicorn, the same bodies, no framework. A call is one `encode` of its texts, on the one thread that
owns the model, which is how a service around sentence-transformers is usually written.

    .venv-parity/bin/python -m bench.peer --model FOLDER --port PORT
"""

import argparse
import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn

from sie_core.wire.codec import CONTENT_TYPES, Format, decode_as, encode
from sie_core.wire.messages import Dense, EncodedItem, EncodeRequest, EncodeResponse


class Peer:
    """A raw ASGI application; every path is `encode`."""

    def __init__(self, folder: str) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(folder, device=os.environ.get("SIE_DEVICE", "cpu"))
        self._owner = ThreadPoolExecutor(1)

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
        loop = asyncio.get_running_loop()
        vectors = await loop.run_in_executor(self._owner, self._encode, texts)
        items = [EncodedItem(dense=Dense(len(vector), "float32", vector)) for vector in vectors]
        reply = encode(EncodeResponse("peer", items), Format.MSGPACK)
        headers = [
            (b"content-type", CONTENT_TYPES[Format.MSGPACK].encode()),
            (b"content-length", str(len(reply)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": reply})

    def _encode(self, texts: list[str]) -> Any:
        return self._model.encode(texts, show_progress_bar=False)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    app = Peer(arguments.model)
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning", lifespan="off", access_log=False)


if __name__ == "__main__":
    main()
