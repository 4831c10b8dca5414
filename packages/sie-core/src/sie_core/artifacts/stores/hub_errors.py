"""What went wrong at a hub, or between here and it: each kind as one of ours, with what to do about it.

Told apart: the hub itself, the storage that it sends readers to, a proxy on the way, and a certificate that nobody
here trusts. No message shows a query: the storage's addresses are signed in theirs.
"""

import re
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from ssl import SSLCertVerificationError
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from sie_core.artifacts.errors import NoPermission, NotThere, TransferError, Unreachable
from sie_core.ids import ModelId

FAILURES = (HTTPException, OSError)
"""What urllib and its answers raise; `HTTPError` and `URLError` are OSErrors."""

_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
_RESET_IN = re.compile(r";\s*t=(\d+)")
_PROXY_HINT = (
    "HTTPS_PROXY, HTTP_PROXY and NO_PROXY say which proxy is used; one that wants a login: http://USER:PASSWORD@…"
)


class PastTheEnd(Unreachable):
    """The range begins where the file has ended already."""


@dataclass(frozen=True)
class Asked:
    """What the hub at `endpoint` was asked for."""

    endpoint: str
    repo: ModelId
    what: str
    has_token: bool


def origin(url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def told(error: Exception, asked: Asked) -> TransferError:
    """Never raises."""
    if isinstance(error, HTTPError):
        with error:
            return _refused(error, asked)
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, SSLCertVerificationError):
        return _lasting(
            f"the certificate of {asked.endpoint} is not trusted: {reason.verify_message}",
            hint="name the file with your own CA in SSL_CERT_FILE or REQUESTS_CA_BUNDLE",
        )
    if (refused := _TUNNEL.search(str(reason))) and refused[1][0] == "4":
        return NoPermission(
            f"a proxy lets nobody through to {asked.endpoint} or to where it keeps large files: {reason}",
            hint=_PROXY_HINT,
        )
    return Unreachable(f"the hub at {asked.endpoint} does not answer for {asked.what}: {reason}")


def _refused(error: HTTPError, asked: Asked) -> TransferError:
    said = error.headers.get("X-Error-Code") or error.headers.get("X-Error-Message") or error.reason
    elsewhere = origin(error.url) != origin(asked.endpoint)
    who = f"the hub at {asked.endpoint}"
    if elsewhere:
        who = f"{origin(error.url)}, where {who} keeps large files,"
    message = f"{who} answered {error.code} for {asked.what}: {said}"
    if error.code == 407:
        return NoPermission(f"a proxy wants a login before it asks {asked.endpoint}: {said}", hint=_PROXY_HINT)
    if error.code in (401, 403):
        return NoPermission(message, hint=_STORAGE_HINT if elsewhere else _permission_hint(said, asked))
    if error.code == 404:
        return NotThere(message)
    answer = PastTheEnd(message) if error.code == 416 else Unreachable(message)
    answer.transient = error.code >= 500 or error.code in (408, 429)
    answer.retry_after_s = retry_after_s(error.headers)
    return answer


_STORAGE_HINT = (
    "the hub allowed it and gave a fresh address each time; a proxy or a firewall that lets only the hub through "
    "answers like this"
)


def _permission_hint(said: str, asked: Asked) -> str:
    if said == "GatedRepo":
        page = f"{asked.endpoint}/{asked.repo}"
        return f"accept the licence on the model's page, {page}, with the account that HF_TOKEN belongs to"
    return "HF_TOKEN may not read it" if asked.has_token else "set HF_TOKEN to a token that may read it"


def _lasting(message: str, *, hint: str) -> TransferError:
    error = Unreachable(message, hint=hint)
    error.transient = False
    return error


def retry_after_s(headers: Message) -> float | None:
    """How long the far end asks to be left alone: `Retry-After` in seconds or as a date, else `RateLimit`'s `t`."""
    after, now = headers.get("Retry-After", ""), headers.get("Date")
    if after.isascii() and after.isdigit():
        return float(after)
    try:
        return max(0.0, (parsedate_to_datetime(after) - parsedate_to_datetime(now or "")).total_seconds())
    except (ValueError, TypeError):
        reset = _RESET_IN.search(headers.get("RateLimit", ""))
        return float(reset[1]) if reset else None
