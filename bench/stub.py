"""A worker that answers at once, so that what stands in front of it can be measured.

python -m bench.stub --port PORT
"""

import argparse
from typing import Any

import numpy as np
import uvicorn

from sie_core.catalog.catalog import Catalog
from sie_core.wire.codec import Format, encode
from sie_core.wire.messages import Dense, EncodedItem, EncodeResponse, WorkerStatus
from sie_testing.cluster import MINILM

STATUS = WorkerStatus(
    name="stub",
    ready=True,
    machine_profile="cpu",
    pool="default",
    bundle="default",
    loaded=[MINILM],
    models=[MINILM],
    queued_tokens=0,
    fingerprint=Catalog.shipped().fingerprint,
    version="0.3.1",
)
HEARTBEAT = encode(STATUS, Format.JSON)
REPLY = encode(
    EncodeResponse(MINILM, [EncodedItem(dense=Dense(384, "float32", np.zeros(384, np.float32)))]), Format.MSGPACK
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body", False):
        pass
    is_call = scope["path"].startswith("/v1/")
    body, kind = (REPLY, b"application/msgpack") if is_call else (HEARTBEAT, b"application/json")
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off", access_log=False)


if __name__ == "__main__":
    main()
