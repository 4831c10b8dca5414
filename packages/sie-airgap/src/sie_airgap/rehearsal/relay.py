"""`python -m sie_airgap.rehearsal.relay LISTEN TARGET`: pass TCP connections on, as `kubectl port-forward` would.

LISTEN and TARGET are `HOST:PORT`, or `unix:PATH`, which crosses network namespaces.
"""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable

_CHUNK_BYTES = 1 << 16

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def relay(listen: str, target: str, *, listening: Callable[[], None]) -> None:
    """Serve until cancelled; `listening` is called once connections are taken."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await _connect(target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        far_writer.close()
        writer.close()

    server = await _listen(listen, serve)
    listening()
    async with server:
        await server.serve_forever()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


async def _connect(target: str) -> Streams:
    if target.startswith("unix:"):
        return await asyncio.open_unix_connection(target.removeprefix("unix:"))
    host, port = _split(target)
    return await asyncio.open_connection(host, port)


async def _listen(
    listen: str, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> asyncio.Server:
    if listen.startswith("unix:"):
        return await asyncio.start_unix_server(serve, listen.removeprefix("unix:"))
    host, port = _split(listen)
    return await asyncio.start_server(serve, host, port)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # Either side may go away at any time; the other then learns it by the end of its stream.
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()


def main(arguments: list[str]) -> None:
    listen, target = arguments
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(relay(listen, target, listening=lambda: print("listening", flush=True)))


if __name__ == "__main__":
    main(sys.argv[1:])
