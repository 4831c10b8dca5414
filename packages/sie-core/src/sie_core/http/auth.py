"""Who may call: bearer tokens, the admin token, and what stays open.

A mode is one of `MODES`; anything else stops the process, because a typo in it must never open a door.
`token` and `static` mean the same (v0.3.1 had both names): one of the configured tokens is wanted.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from sie_core.errors import ApiError
from sie_core.http.asgi import Header, header
from sie_core.settings import Secret

MODES = ("none", "token", "static")
ALWAYS_OPEN = frozenset({"/healthz", "/readyz"})
OPERATIONAL = frozenset({"/", "/health", "/metrics", "/heartbeat"})
"""Open too when `exempt_operational`: scrapers and load balancers often carry no token."""


@dataclass(frozen=True, repr=False)
class Auth:
    """The tokens that open a door. Its `repr` shows none of them.

    Attributes:
        tokens: any of them lets a caller in; empty where the mode is `none`.
        admin_token: wanted for what changes the system, where there is one; never valid for ordinary calls.
        required: whether ordinary calls need a token.
    """

    tokens: tuple[bytes, ...]
    admin_token: bytes | None
    required: bool
    exempt_operational: bool = False

    def __repr__(self) -> str:
        return f"Auth(required={self.required}, tokens={len(self.tokens)}, admin={self.admin_token is not None})"

    def check(self, path: str, headers: Iterable[Header]) -> None:
        """Raises `ApiError` `UNAUTHORIZED` unless the call carries a known token or its path is open."""
        if not self.required or path in ALWAYS_OPEN or (self.exempt_operational and path in OPERATIONAL):
            return
        if not _is_one_of(_sent(headers), self.tokens):
            raise ApiError("UNAUTHORIZED", "the token is not one that is known here")

    def check_read(self, headers: Iterable[Header]) -> None:
        """As `check` for the config service's reads, where the admin token serves as well."""
        if not self.required:
            return
        known = self.tokens if self.admin_token is None else (*self.tokens, self.admin_token)
        if not _is_one_of(_sent(headers), known):
            raise ApiError("FORBIDDEN", "the token is not one that is known here")

    def check_admin(self, headers: Iterable[Header]) -> None:
        """Raises `FORBIDDEN` for anything but the admin token; where nothing is configured, all may."""
        if self.admin_token is None and not self.required:
            return
        given = _sent(headers, "admin token")
        if self.admin_token is None or not _is_one_of(given, (self.admin_token,)):
            raise ApiError("FORBIDDEN", "this needs the admin token", hint="the operator sets it as `SIE_ADMIN_TOKEN`")


def configure(
    mode: str, tokens: Iterable[str], *, admin_token: str | None = None, exempt_operational: bool = False
) -> Auth:
    """The check for a mode and its tokens.

    Raises `ValueError`, for the operator, when the mode is not known or wants tokens and there are none, and for a
    token that no header can carry.
    """
    if mode not in MODES:
        raise ValueError(f"`SIE_AUTH_MODE` is `{mode}`, want one of {', '.join(f'`{name}`' for name in MODES)}")
    known = tuple(_sendable(token, "SIE_AUTH_TOKEN") for token in tokens if token.strip())
    admin = _sendable(admin_token, "SIE_ADMIN_TOKEN") if admin_token and admin_token.strip() else None
    if mode != "none" and not known:
        raise ValueError(
            f"`SIE_AUTH_MODE` is `{mode}` and no token is set: set `SIE_AUTH_TOKEN` or `SIE_AUTH_TOKENS`, "
            "or the mode to `none`"
        )
    return Auth(
        tokens=known if mode != "none" else (),
        admin_token=admin,
        required=mode != "none",
        exempt_operational=exempt_operational,
    )


def tokens_of(one: Secret | None, several: Secret | None) -> tuple[str, ...]:
    """The tokens in `SIE_AUTH_TOKEN` and, separated by commas, in `SIE_AUTH_TOKENS`; none where neither is set."""
    said = [one.reveal() if one is not None else "", *(several.reveal().split(",") if several is not None else ())]
    return tuple(token.strip() for token in said if token.strip())


def _sendable(token: str, name: str) -> bytes:
    """We send tokens ourselves: a line end in one would begin a header of its own. The message does not show it."""
    stripped = token.strip()
    if not (stripped.isascii() and stripped.isprintable() and " " not in stripped):
        raise ValueError(f"`{name}` holds a token with a space, a line end or a letter that no header can carry")
    return stripped.encode()


def _sent(headers: Iterable[Header], what: str = "token") -> bytes:
    """Raises `ApiError` `UNAUTHORIZED` where no token was sent."""
    given = _bearer(headers)
    if given is None:
        raise ApiError("UNAUTHORIZED", "no token was sent", hint=f"send `Authorization: Bearer <{what}>`")
    return given


def _bearer(headers: Iterable[Header]) -> bytes | None:
    """The token of `Authorization`; a bare one is taken as well, since v0.3.1 took it."""
    value = header(headers, b"authorization")
    if value is None or not value.strip():
        return None
    scheme, _, rest = value.strip().partition(" ")
    token = rest.strip() if scheme.lower() == "bearer" else value.strip()
    return token.encode("latin-1") or None


def _is_one_of(given: bytes, known: Iterable[bytes]) -> bool:
    """Compares with every token, each in constant time, so that timing tells neither a prefix nor which one."""
    found = False
    for token in known:
        found |= hmac.compare_digest(given, token)
    return found
