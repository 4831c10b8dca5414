"""What may come in on a connection, before a program of ours sees a call.

The parser refuses what two readers could take for different requests: two lengths, a length beside chunks, folded
header lines, a lone CR or LF. What it leaves open is closed here:

- A head has an end, and so have trailers and the headers of chunks: `HEAD_LIMIT_BYTES` without progress are too
  many. A head that stops coming is waited for as long as an idle connection is kept.
- Trailers are dropped. They come after the token was checked, and would become headers.
- Nothing is upgraded. The parser skips the body of a request that asks for it: with a body it is refused, and
  without one answered as if it had not asked, on a connection that is closed then.
- What is refused here is answered in the form of every error.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from sie_core.errors import ApiError
from sie_core.http.asgi import Header
from sie_core.http.respond import JSON, error_headers, new_request_id, to_json

HEAD_LIMIT_BYTES: Final = 64 << 10
"""What a caller may send in headers: SDKs and proxies take less than 8 KiB, and other servers refuse from there on."""

READ_OUT_S = 2.0
"""The longest that a caller who was refused is still listened to: closed with bytes unread, a connection is reset, and
a caller that sends all before it reads would see the reset and not the answer."""


class _Refused(Exception):
    """Stops the parser; what is answered is in `_refusal`."""


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with an end to everything that a caller may send beside a body."""

    _quiet_bytes = 0
    """Came since the last end of a head or byte of a body."""

    _timer: asyncio.TimerHandle | None = None
    _refusal: ApiError | None = None
    _is_in_body = False
    _is_deaf = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._progress()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        self._quiet_bytes += len(data)
        super().data_received(data)
        if self._quiet_bytes == 0 or self._is_deaf:
            return
        if self._quiet_bytes > HEAD_LIMIT_BYTES:
            self._refusal = _too_many_headers()
            self.send_400_response("")
        elif self._timer is None and not self._is_in_body:
            self._start_timer()

    def on_headers_complete(self) -> None:
        # One read may have brought a head and much of its body: only then it is measured.
        if self._quiet_bytes > HEAD_LIMIT_BYTES and _length(self.url, self.headers) > HEAD_LIMIT_BYTES:
            raise self._refused(_too_many_headers())
        upgrades = self.parser.should_upgrade()
        if upgrades and _has_body(self.headers):
            said = "a body came with `Upgrade`, which this server does not do"
            raise self._refused(ApiError("INVALID_INPUT", said, hint="send the request without `Upgrade`"))
        self._progress()
        super().on_headers_complete()
        self.headers = []  # the call has its own: what comes now are trailers
        self._is_in_body = True
        if upgrades:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._progress()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._progress()
        self._is_in_body = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Also for what is refused here with another status. Ends the connection; no call hears of it any more."""
        self._is_deaf = True
        self._progress()
        if self._may_answer():
            self.transport.write(
                self._answer(self._refusal or ApiError("INVALID_INPUT", "this is no HTTP/1.1 request"))
            )
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self._refusal is None:
            self.transport.close()
        else:
            self.loop.call_later(READ_OUT_S, self.transport.close)

    def _may_answer(self) -> bool:
        """Whether no other answer has begun or is owed first: two on one line would be taken for one another."""
        if self.cycle is None:
            return True  # type: ignore[unreachable]  # it is so before the first request
        if self._is_in_body:
            return not self.cycle.response_started and not self.pipeline
        return self.cycle.response_complete

    def _answer(self, error: ApiError) -> bytes:
        body = to_json(error.body())
        headers = [
            *self.server_state.default_headers,
            (b"content-type", JSON),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *error_headers(error, request_id=new_request_id()),
        ]
        lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
        return STATUS_LINE[error.kind.status] + lines + b"\r\n" + body

    def _refused(self, error: ApiError) -> _Refused:
        self._refusal = error
        return _Refused(error.message)

    def _progress(self) -> None:
        self._quiet_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: uvicorn's tells the operator to install what is not wanted here."""


def _length(url: bytes, headers: Iterable[Header]) -> int:
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)


def _has_body(headers: Iterable[Header]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 ")) for name, value in headers
    )


def _too_many_headers() -> ApiError:
    return ApiError(
        "HEADERS_TOO_LARGE",
        f"the request has more than {HEAD_LIMIT_BYTES} bytes of headers",
        hint="a proxy or a cookie jar may have added some",
        extra={"limit_bytes": HEAD_LIMIT_BYTES},
    )
