"""Names of images and of the places that they are copied to. Pure.

ghcr.io/superlinked/sie-server:v0.3.1     Reference: registry, repository, tag
http://10.77.0.2:5000/sie                 Place: where, with which scheme, under which prefix
"""

import re
from dataclasses import dataclass, replace

from sie_core.artifacts.digest import Digest, parse_digest

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")
_LOOPBACK = re.compile(r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]+)?")
_MAX_REPOSITORY = 255

DOCKER_HUB = "docker.io"


@dataclass(frozen=True)
class Reference:
    """One image by name. `tag` and `digest` are never both None; with both, the digest decides."""

    registry: str
    repository: str
    tag: str | None
    digest: Digest | None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"

    @property
    def name(self) -> str:
        """The repository's last part: `sie-server`."""
        return self.repository.rpartition("/")[2]

    @property
    def asked(self) -> str:
        """What a registry is asked for: the digest, else the tag."""
        return self.digest or self.tag or "latest"


@dataclass(frozen=True)
class Place:
    """A registry and the path under which things lie there.

    Attributes:
        origin: `https://host[:port]`, or `http://…`.
        host: `host[:port]`, as it stands in an image's name.
        prefix: repositories begin with it; empty for none.
    """

    origin: str
    host: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.origin}/{self.prefix}" if self.prefix else self.origin

    def repository(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name


def parse_reference(text: str) -> Reference:
    """Reads a name as container engines do: no registry is Docker Hub, neither tag nor digest is `latest`.

    Raises `ValueError` for what no registry would take.
    """
    rest, at, digest = text.partition("@")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, colon, tag = rest, "", ""
    first, slash, others = head.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, repository = first, others
    else:
        registry, repository = DOCKER_HUB, head if slash else f"library/{head}"
    _check(text, registry, repository, tag if colon else "latest")
    known = parse_digest(digest) if at else None
    return Reference(registry, repository, tag or (None if known else "latest"), known)


def _check(text: str, registry: str, repository: str, tag: str) -> None:
    if _HOST.fullmatch(registry) is None:
        raise ValueError(f"`{text}` is not an image: `{registry}` is not a host")
    if _REPOSITORY.fullmatch(repository) is None or len(repository) > _MAX_REPOSITORY:
        want = "lower-case letters, digits, `.`, `_`, `-`, `/`"
        raise ValueError(f"`{text}` is not an image: `{repository}` is not a repository ({want})")
    if _TAG.fullmatch(tag) is None:
        raise ValueError(f"`{text}` is not an image: `{tag}` is not a tag")


def parse_place(text: str) -> Place:
    """Reads `HOST[:PORT][/PREFIX]`, with `https://`, `http://`, `oci://` or `oci+http://` before it or nothing.

    `oci+http://` is `http://` where that alone would name something else than a registry. Without a scheme that says
    otherwise it is https, and http on loopback, as container engines do.
    Raises `ValueError` for what cannot be one.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    if scheme not in ("", "oci", "oci+http", "http", "https"):
        raise ValueError(f"`{text}` is not a registry: `{scheme}://` is none of https://, http://, oci://, oci+http://")
    scheme = scheme.removeprefix("oci+")
    host, _, prefix = rest.rstrip("/").partition("/")
    if _HOST.fullmatch(host) is None:
        raise ValueError(f"`{text}` is not a registry: `{host}` is not a host")
    if prefix and _REPOSITORY.fullmatch(prefix) is None:
        raise ValueError(f"`{text}` is not a registry: `{prefix}` cannot begin a repository's name")
    if scheme not in ("http", "https"):
        scheme = "http" if _LOOPBACK.fullmatch(host) is not None else "https"
    return Place(f"{scheme}://{host}", host, prefix)


def place_of(reference: Reference) -> Place:
    """Where the image lies by its own name; the repository is not in the prefix."""
    host = "registry-1.docker.io" if reference.registry == DOCKER_HUB else reference.registry
    return replace(parse_place(host), host=reference.registry)


def mirrored(reference: Reference, place: Place, *, full_name: bool = False) -> Reference:
    """What the image is called once it is mirrored: the place, its own last name, its tag.

    With `full_name` its registry and whole path stand in the place of its last name, which is what a rule can be
    written for (`mirror.rules`), and what keeps images of two registries apart. An image named by digest alone keeps
    its digest, and is tagged with the digest's first twelve digits, since registries collect what has no tag.
    """
    tag = reference.tag or f"sha256-{(reference.digest or '')[7:19]}"
    digest = reference.digest if reference.tag is None else None
    name = f"{path_of_registry(reference.registry)}/{reference.repository}" if full_name else reference.name
    return Reference(place.host, place.repository(name), tag, digest)


def path_of_registry(host: str) -> str:
    """A registry's host as the first part of a path: `ghcr.io`, `localhost-5000`."""
    return re.sub(r"[^a-z0-9.]+", "-", host.lower()).strip("-.")
