"""Who may call: bearer tokens, the admin token, and what stays open.

A mode is one of `MODES`; anything else stops the process, because a typo in it must never open a door.
`token` and `static` mean the same (v0.3.1 had both names): one of the configured tokens is wanted.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from sie_core.errors import ApiError
from sie_core.http.asgi import Header, header

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
        given = _bearer(headers)
        if given is None:
            raise ApiError("UNAUTHORIZED", "no token was sent", hint="send `Authorization: Bearer <token>`")
        if not _is_one_of(given, self.tokens):
            raise ApiError("UNAUTHORIZED", "the token is not one that is known here")

    def check_read(self, headers: Iterable[Header]) -> None:
        """As `check` for the config service's reads, where the admin token serves as well."""
        if not self.required:
            return
        known = self.tokens if self.admin_token is None else (*self.tokens, self.admin_token)
        given = _bearer(headers)
        if given is None:
            raise ApiError("UNAUTHORIZED", "no token was sent", hint="send `Authorization: Bearer <token>`")
        if not _is_one_of(given, known):
            raise ApiError("FORBIDDEN", "the token is not one that is known here")

    def check_admin(self, headers: Iterable[Header]) -> None:
        """Raises `FORBIDDEN` for anything but the admin token; where nothing is configured, all may."""
        if self.admin_token is None and not self.required:
            return
        given = _bearer(headers)
        if given is None:
            raise ApiError("UNAUTHORIZED", "no token was sent", hint="send `Authorization: Bearer <admin token>`")
        if self.admin_token is None or not _is_one_of(given, (self.admin_token,)):
            raise ApiError("FORBIDDEN", "this needs the admin token", hint="the operator sets it as `SIE_ADMIN_TOKEN`")


def configure(
    mode: str, tokens: Iterable[str], *, admin_token: str | None = None, exempt_operational: bool = False
) -> Auth:
    """The check for a mode and its tokens.

    Raises `ValueError`, for the operator, when the mode is not known or wants tokens and there are none.
    """
    if mode not in MODES:
        raise ValueError(f"`SIE_AUTH_MODE` is `{mode}`, want one of {', '.join(f'`{name}`' for name in MODES)}")
    known = tuple(token.strip().encode() for token in tokens if token.strip())
    if mode != "none" and not known:
        raise ValueError(
            f"`SIE_AUTH_MODE` is `{mode}` and no token is set: set `SIE_AUTH_TOKEN` or `SIE_AUTH_TOKENS`, "
            "or the mode to `none`"
        )
    return Auth(
        tokens=known if mode != "none" else (),
        admin_token=admin_token.strip().encode() if admin_token and admin_token.strip() else None,
        required=mode != "none",
        exempt_operational=exempt_operational,
    )


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
