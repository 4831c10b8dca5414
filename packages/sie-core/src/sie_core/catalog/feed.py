"""Follow the config service's catalog: one thread, the standard library's `http.client`, conditional GETs.

Used by gateways and workers alike. An outage changes nothing: what was read last stays, the log says so
once, and asking goes on with growing pauses. `on_change` is called in the feed's thread, with a catalog
that is whole and has been checked.
"""

import contextlib
import http.client
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from sie_core.catalog.catalog import Catalog
from sie_core.catalog.export import EXPORT_PATH, read_export

PERIOD_S = 1.0
"""A second between two looks: an unchanged catalog is a 304 of a few bytes."""

LONGEST_PAUSE_S = 30.0
TIMEOUT_S = 10.0

LIMIT_BYTES = 64 << 20
"""A spec takes less than a KiB; whatever has this many bytes is something else."""

logger = logging.getLogger("sie.feed")


@dataclass(frozen=True)
class Unreachable:
    """What went wrong with one look; the next one may be better."""

    reason: str


def pause_s(failures: int) -> float:
    """How long to wait after so many failed looks in a row (0: the last one went well)."""
    return min(PERIOD_S * 2.0 ** min(failures, 10), LONGEST_PAUSE_S)


class Feed:
    """Follows one config service until it is stopped.

    Args:
        url: base URL of the config service, `http://` or `https://`.
        token: sent as bearer token; the read token suffices.
        on_change: called with every new catalog.
        wait: `wait(seconds)` is true once the feed is to stop; a test passes its own.

    Raises:
        ValueError: `url` is not an http URL.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        on_change: Callable[[Catalog], None],
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        parts = _parsed(url)
        self._url = url
        self._is_tls = parts.scheme == "https"
        self._host, self._port = str(parts.hostname), parts.port
        self._path = parts.path.rstrip("/") + EXPORT_PATH
        self._headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._on_change = on_change
        self._stopping = threading.Event()
        self._wait = wait if wait is not None else self._stopping.wait
        self._connection: http.client.HTTPConnection | None = None
        self._etag: str | None = None
        self._fingerprint: str | None = None
        self._thread = threading.Thread(target=self.follow, name="sie-catalog-feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns once the thread has ended, or cannot be woken within `TIMEOUT_S`; a look that hangs is cut off."""
        self._stopping.set()
        _shut(self._connection)
        if self._thread.is_alive():
            self._thread.join(timeout=TIMEOUT_S)
        self._close()

    def follow(self) -> None:
        """Look, pause, look again, until stopped."""
        failures = 0
        while not self._stopping.is_set():
            outcome = self.look()
            if isinstance(outcome, Unreachable):
                if failures == 0 and not self._stopping.is_set():
                    logger.warning(
                        "catalog_unreachable", extra={"fields": {"url": self._url, "reason": outcome.reason}}
                    )
                failures += 1
            else:
                if failures:
                    logger.info("catalog_reachable", extra={"fields": {"url": self._url, "after": failures}})
                failures = 0
                if outcome is not None:
                    self._on_change(outcome)
            if self._wait(pause_s(failures)):
                break
        self._close()

    def look(self) -> Catalog | Unreachable | None:
        """One conditional GET: a new catalog, None for an unchanged one, or why it did not work."""
        try:
            return self._get()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._close()
            return Unreachable(f"{type(error).__name__}: {error}")

    def _get(self) -> Catalog | Unreachable | None:
        headers = self._headers | ({"If-None-Match": self._etag} if self._etag else {})
        connection = self._open()
        connection.request("GET", self._path, headers=headers)
        answer = connection.getresponse()
        body = answer.read(LIMIT_BYTES + 1)
        if len(body) > LIMIT_BYTES:
            raise ValueError(f"the answer has more than {LIMIT_BYTES:,} bytes, which no catalog has")
        if answer.status == 304:
            return None
        if answer.status != 200:
            return Unreachable(f"HTTP {answer.status}: {body[:200].decode('utf-8', 'replace')}")
        catalog = read_export(body)
        self._etag = answer.getheader("ETag")
        if catalog.fingerprint == self._fingerprint:  # a proxy may have lost the ETag
            return None
        self._fingerprint = catalog.fingerprint
        return catalog

    def _open(self) -> http.client.HTTPConnection:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
            self._connection = kind(self._host, self._port, timeout=TIMEOUT_S)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _parsed(url: str) -> SplitResult:
    """Raises `ValueError` for what is no base URL. One with a password in it is not shown."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for what is no number
    except ValueError as error:
        raise ValueError(f"`SIE_CONFIG_SERVICE_URL` is `{url}`, want `http://host:port`: {error}") from error
    if "@" in parts.netloc:
        raise ValueError("`SIE_CONFIG_SERVICE_URL` has a user in it, want `http://host:port` and the token on its own")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"`SIE_CONFIG_SERVICE_URL` is `{url}`, want `http://host:port`")
    return parts


def _shut(connection: http.client.HTTPConnection | None) -> None:
    """Wake a thread that blocks on this connection: closing alone would leave it waiting."""
    sock = connection.sock if connection is not None else None  # the thread may close it just now
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
