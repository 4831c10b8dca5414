"""The types of a raw ASGI application, as the servers write them, and the header look-up that every handler needs.

A scope's headers are a list of (lower-case name, value) pairs of bytes; they are looked up in place,
since a handler wants one or two of about ten and a dict would cost more than it saves.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


def header(headers: Iterable[Header], name: bytes) -> str | None:
    """The first value of a header, decoded as Latin-1; None where it is absent. `name` is lower-case."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return None
