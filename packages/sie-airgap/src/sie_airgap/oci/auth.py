"""Who we are to a registry: docker's configuration file, and the challenge of a registry that wants a token. Pure."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from sie_core.settings import Secret

_PARAMETER = re.compile(r'([A-Za-z_]+)=(?:"([^"]*)"|([^",\s]+))')
_DOCKER_HUB_KEYS = ("docker.io", "index.docker.io", "https://index.docker.io/v1/")


@dataclass(frozen=True)
class Login:
    """A name and a password."""

    user: str
    password: Secret


@dataclass(frozen=True)
class Logins:
    """Every login of a docker configuration, by registry, or by registry and path."""

    by_place: Mapping[str, Login]

    def find(self, host: str, repository: str) -> Login | None:
        """The login for the longest part of `host/repository` that has one."""
        parts = [host, *repository.split("/")]
        for length in range(len(parts), 0, -1):
            login = self.by_place.get("/".join(parts[:length]))
            if login is not None:
                return login
        return None


NOBODY = Logins({})


@dataclass(frozen=True)
class Challenge:
    """What a registry asks for: `basic`, or `bearer` with where a token is to be had."""

    scheme: str
    realm: str
    service: str


class _Entry(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""


class _Config(msgspec.Struct):
    auths: dict[str, _Entry] = {}


def parse_logins(data: bytes, *, where: str) -> Logins:
    """Reads `auths` of a docker `config.json`, which a pull secret's `.dockerconfigjson` is too.

    Raises `ValueError`, with `where` and never with what is secret, for a file that cannot be read.
    """
    try:
        config = msgspec.json.decode(data, type=_Config)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"{where} is not a docker configuration") from error
    found = {_place(key): login for key, entry in config.auths.items() if (login := _login(key, entry, where))}
    return Logins(found)


def _place(key: str) -> str:
    if key in _DOCKER_HUB_KEYS:
        return "docker.io"
    return key.partition("://")[2].partition("/")[0] if "://" in key else key.rstrip("/")


def _login(key: str, entry: _Entry, where: str) -> Login | None:
    if entry.username:
        return Login(entry.username, Secret(entry.password))
    if not entry.auth:
        return None  # kept by a credential helper
    try:
        user, colon, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise ValueError(f"{where}: `auth` of `{key}` is not the base64 of `user:password`")
    return Login(user, Secret(password.rstrip("\0")))


def parse_challenge(header: str) -> Challenge | None:
    """Reads `WWW-Authenticate`; None for one that nobody here can answer."""
    scheme, _, rest = header.partition(" ")
    said = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(rest)}
    if scheme.lower() == "bearer" and "realm" in said:
        return Challenge("bearer", said["realm"], said.get("service", ""))
    return Challenge("basic", said.get("realm", ""), "") if scheme.lower() == "basic" else None
