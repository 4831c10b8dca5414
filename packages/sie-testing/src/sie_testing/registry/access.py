"""Who may use a registry: nobody is asked, a password, or a token got for a password (the docker token dance)."""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from sie_testing.web import Answer, Request, json_answer

SERVICE = "stand-in"
TOKEN_PATH = "/token"


@dataclass
class Access:
    """The rules and the tokens given out.

    Attributes:
        user, password: None lets everybody in.
        with_tokens: the password opens `/token` only, and a token of the right scope opens the rest.
        read_only: pushing is refused with 403 (or a token without `push`).
    """

    user: str | None = None
    password: str | None = None
    with_tokens: bool = False
    read_only: bool = False
    tokens: dict[str, frozenset[tuple[str, str]]] = field(default_factory=dict)

    def token(self, request: Request) -> Answer:
        """Gives a token for `scope=repository:NAME:pull,push`, which may be missing or stand for several."""
        if not self._has_password(request):
            return Answer(401, {"WWW-Authenticate": f'Basic realm="{SERVICE}"'})
        granted = set()
        for scope in (part for name, value in request.pairs if name == "scope" for part in value.split()):
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            granted |= {(name, action) for action in actions.split(",") if self._may(kind, action)}
        token = secrets.token_urlsafe(24)
        self.tokens[token] = frozenset(granted)
        return json_answer({"token": token, "expires_in": 300})

    def refusal(self, request: Request, repository: str | None, action: str) -> Answer | None:
        """What is answered instead, for somebody who may not; None for somebody who may."""
        if self.with_tokens:
            return self._token_refusal(request, repository, action)
        if not self._has_password(request):
            return _denied(401, {"WWW-Authenticate": f'Basic realm="{SERVICE}"'})
        return _denied(403, {}) if self.read_only and action == "push" else None

    def _may(self, kind: str, action: str) -> bool:
        return kind == "repository" and (action == "pull" or not self.read_only)

    def _token_refusal(self, request: Request, repository: str | None, action: str) -> Answer | None:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        granted = self.tokens.get(token) if kind == "Bearer" else None
        if granted is not None and (repository is None or (repository, action) in granted):
            return None
        realm = f"http://{request.headers.get('Host')}{TOKEN_PATH}"
        challenge = f'Bearer realm="{realm}",service="{SERVICE}"'
        if repository is not None:
            wanted = "pull" if action == "pull" else "pull,push"
            challenge += f',scope="repository:{repository}:{wanted}"'
        return _denied(401, {"WWW-Authenticate": challenge})

    def _has_password(self, request: Request) -> bool:
        if self.user is None:
            return True
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        right = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return kind == "Basic" and secrets.compare_digest(given, right)


def _denied(status: int, headers: Mapping[str, str]) -> Answer:
    code = "UNAUTHORIZED" if status == 401 else "DENIED"
    return json_answer({"errors": [{"code": code, "message": "access denied"}]}, status=status, headers=headers)
