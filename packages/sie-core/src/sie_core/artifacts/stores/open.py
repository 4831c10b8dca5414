"""A store from its URL: `s3://`, `gs://` or `file://`."""

import re
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sie_core.artifacts.manifest import parse_path
from sie_core.artifacts.store import Destination
from sie_core.artifacts.stores.local import LocalStore

SCHEMES = ("s3", "gs", "file")
_OTHER_NAMES = {"gcs": "gs", "minio": "s3", "s3a": "s3", "s3n": "s3"}
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")


def open_store(
    url: str,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    path_style: bool = True,
    journals: Path | None = None,
) -> Destination:
    """The store that `url` names. Nothing is contacted: the first call on the store is.

    Args:
        url: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `file:///FOLDER`.
        endpoint: of a server that is not AWS's or Google's own; None: `AWS_ENDPOINT_URL_S3`, or AWS or Google.
        region: of a bucket at `s3://`; None: `AWS_REGION`, the profile's, or `us-east-1`, which servers that have
            no regions accept.
        path_style: the bucket stands in the path and not in the host's name; MinIO, Ceph and SeaweedFS want it. An
            `addressing_style` in the AWS configuration file comes first.
        journals: a folder of this machine where uploads in parts are noted, so that one that was cut short goes on.
            None: it begins anew.

    Raises:
        ValueError: no such scheme (the nearest is named), no bucket, or a name no bucket can have.
    """
    scheme, place, prefix = parse_store_url(url)
    if scheme == "file":
        return LocalStore(Path(place))
    # The clients take most of a second to import, and a worker with a folder needs neither.
    if scheme == "gs":
        from sie_core.artifacts.stores.gcs import GcsStore

        return GcsStore(place, prefix, endpoint=endpoint)
    from sie_core.artifacts.stores.s3 import S3Store

    return S3Store(
        place,
        prefix,
        endpoint=endpoint,
        region=region,
        path_style=path_style,
        journals=journals,
    )


def parse_store_url(url: str) -> tuple[str, str, str]:
    """(scheme, bucket or folder, prefix) of a store's URL, without importing any client.

    Raises:
        ValueError: as `open_store`.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError(f"a store's URL has no user or password in it: want {parts.scheme}://BUCKET/PREFIX")
    scheme = parts.scheme.lower()
    if "://" not in url or scheme not in SCHEMES:
        raise ValueError(_no_such_scheme(url, scheme))
    if parts.query or parts.fragment:
        raise ValueError(f"`{url}` has `?` or `#` in it: want {scheme}://BUCKET/PREFIX and nothing after it")
    if scheme == "file":
        return scheme, str(_folder(url, parts.netloc, unquote(parts.path))), ""
    bucket, prefix = _bucket(url, parts.netloc), parts.path.strip("/")
    if prefix:
        parse_path(prefix)
    return scheme, bucket, prefix


def _no_such_scheme(url: str, scheme: str) -> str:
    known = ", ".join(f"{one}://" for one in SCHEMES)
    if "://" not in url:
        return f"`{url}` is not a bucket's URL: it has no scheme; want one of {known}"
    near = _OTHER_NAMES.get(scheme) or next(iter(get_close_matches(scheme, SCHEMES, n=1, cutoff=0.3)), None)
    meant = f"; did you mean `{near}://{url.split('://', 1)[1]}`?" if near else ""
    return f"`{url}` has the scheme `{scheme}`, want one of {known}{meant}"


def _folder(url: str, host: str, path: str) -> Path:
    if host not in ("", "localhost"):
        raise ValueError(f"`{url}` names the host `{host}`: want three slashes, `file:///{host}{path}`")
    if not path.startswith("/"):
        raise ValueError(f"`{url}` names no folder: want `file:///FOLDER`")
    return Path(path)


def _bucket(url: str, name: str) -> str:
    if not name:
        raise ValueError(f"`{url}` names no bucket: want `{url.split(':', 1)[0]}://BUCKET/PREFIX`")
    if _BUCKET.fullmatch(name) is None:
        raise ValueError(
            f"`{url}`: `{name}` cannot be a bucket's name: 3 to 63 lower-case letters, digits, `.`, `_` and `-`"
        )
    return name
