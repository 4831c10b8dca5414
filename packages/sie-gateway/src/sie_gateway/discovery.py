"""Where workers are: every address of every host named in `SIE_GATEWAY_WORKERS`, looked up each second.

A headless Service has one address per ready pod, so a name that is looked up is all that a cluster needs.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from sie_core.settings import SettingsError
from sie_gateway.workers import Address


@dataclass(frozen=True)
class Found:
    """What there is now, as far as names could be looked up.

    Attributes:
        failed: hosts of which nothing is known for want of a name service, and why: what was known of them holds.
    """

    addresses: frozenset[Address]
    failed: Mapping[str, str]


Lookup = Callable[[str, int], Awaitable[list[tuple[int, str]]]]
_NO_SUCH_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))


def parse_targets(urls: Sequence[str]) -> tuple[Address, ...]:
    """Host (a name or an address) and port of each entry.

    Raises `SettingsError` for an entry that is not `http://host:port`.
    """
    return tuple(_target(url) for url in urls)


def _target(url: str) -> Address:
    hint = "want a comma-separated list of `http://host:port`"
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # what a look-up does first, and fails of
    except ValueError as error:
        raise SettingsError(f"`SIE_GATEWAY_WORKERS` has `{url}`: {error}", hint=hint) from error
    if parts.scheme != "http" or not parts.hostname or port is None or parts.path.strip("/") or parts.query:
        raise SettingsError(f"`SIE_GATEWAY_WORKERS` has `{url}`", hint=hint)
    return Address(parts.hostname, port)


async def look_up(host: str, port: int) -> list[tuple[int, str]]:
    """The system's own resolver: family and address of each answer."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(answer[0], str(answer[4][0])) for answer in answers]


async def resolve(targets: Sequence[Address], *, lookup: Lookup = look_up) -> Found:
    """Every address of every target. A name that is known not to exist has none: a Service without a pod."""
    addresses: set[Address] = set()
    failed: dict[str, str] = {}
    for target in targets:
        try:
            addresses |= _one_family(await lookup(target.host, target.port), target.port)
        except OSError as error:
            if error.errno not in _NO_SUCH_NAME:
                failed[target.host] = str(error)
    return Found(frozenset(addresses), failed)


def _one_family(answers: Sequence[tuple[int, str]], port: int) -> set[Address]:
    """IPv4 where there is any: the two addresses of a dual-stack pod are one worker."""
    v4 = {Address(host, port) for family, host in answers if family == socket.AF_INET}
    return v4 or {Address(host, port) for _, host in answers}
