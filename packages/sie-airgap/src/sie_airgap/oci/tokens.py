"""The `Authorization` header for each repository of one registry: asked for when the registry asks for it.

A registry that wants nothing gets nothing. A password goes to the registry itself, or to the token service that
the registry names; never over http where the registry is https, and never to where a download is redirected.
"""

import base64
import threading
from collections.abc import Mapping

import httpx2
import msgspec

from sie_airgap.oci.auth import Challenge, Login, Logins, parse_challenge
from sie_airgap.oci.reference import Place
from sie_airgap.oci.refusals import login_hint, parts_of, refusal
from sie_core.artifacts.errors import NoPermission


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


class Tokens:
    """Headers by scope; safe to share between threads."""

    def __init__(self, place: Place, logins: Logins, client: httpx2.Client) -> None:
        self._place, self._logins, self._client = place, logins, client
        self._known: dict[str, str] = {}
        self.used_login = False
        self._guard = threading.Lock()

    def header(self, scope: str) -> dict[str, str]:
        """What to send now for this scope; nothing before the registry has asked."""
        with self._guard:
            known = self._known.get(scope)
        return {} if known is None else {"Authorization": known}

    def answer(self, scope: str, refused: httpx2.Response) -> bool:
        """Takes up a 401's challenge for the scope; False when it cannot be met or was met already.

        Raises `NoPermission` when the token service refuses the login.
        """
        challenge = parse_challenge(refused.headers.get("WWW-Authenticate", ""))
        login = self._login(scope)
        if challenge is None or (challenge.scheme == "basic" and login is None):
            return False
        self.used_login = self.used_login or login is not None
        value = _basic(login) if login and challenge.scheme == "basic" else self._bearer(challenge, scope, login)
        with self._guard:
            self._known[scope] = value
        return bool(refused.request.headers.get("Authorization") != value)

    def _login(self, scope: str) -> Login | None:
        return self._logins.find(self._place.host, parts_of(scope)[0])

    def _bearer(self, challenge: Challenge, scope: str, login: Login | None) -> str:
        try:
            realm = httpx2.URL(challenge.realm)
        except httpx2.InvalidURL as error:
            raise NoPermission(f"{self._place.host} sends us for a token to `{challenge.realm}`: {error}") from error
        if self._place.origin.startswith("https:") and realm.scheme != "https":
            raise NoPermission(f"{self._place.host} wants its password sent to {realm}, which is not https")
        query = {"service": [challenge.service], "scope": scope.split(" ")}
        headers: Mapping[str, str] = {} if login is None else {"Authorization": _basic(login)}
        got = self._client.get(realm, params=query, headers=headers)
        if got.status_code == 429 or got.status_code >= 500:
            raise refusal(
                got.status_code,
                asked=f"GET {realm.copy_with(query=None)}",
                body=got.content,
                place=self._place,
                scope=scope,
                retry_after=got.headers.get("Retry-After"),
            )
        if got.status_code != 200:
            raise NoPermission(
                f"{realm.host} gives no token for `{scope}`: {got.status_code}", hint=login_hint(self._place)
            )
        try:
            token = msgspec.json.decode(got.content, type=_Token)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise NoPermission(f"{realm} answers with no token: {error}") from error
        return f"Bearer {token.token or token.access_token}"


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.user}:{login.password.reveal()}".encode()).decode()
