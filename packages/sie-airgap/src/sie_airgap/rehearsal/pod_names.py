"""Names and paths of rendered manifests, held against what an API server would accept. Pure.

A rehearsal makes folders, files and shell scripts of them, and a chart may be anybody's: a key called
`../../etc/passwd` must not become a path here that it could not become in a cluster.
"""

import re
from pathlib import PurePosixPath

from sie_airgap.failures import Misused

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_KEY = re.compile(r"[A-Za-z0-9._-]{1,253}")


def name(text: str, what: str) -> str:
    """Of a workload, a container or a volume. Raises `Misused`."""
    if _NAME.fullmatch(text) is None:
        raise Misused(f"{what} is called `{text}`: want lower-case letters, digits, `-` and `.`")
    return text


def key(text: str, what: str) -> str:
    """Of a Secret's or ConfigMap's data. Raises `Misused`."""
    if _KEY.fullmatch(text) is None or text in (".", ".."):
        raise Misused(f"{what} has the key `{text}`: want letters, digits, `-`, `_` and `.`")
    return text


def inner_path(text: str, what: str) -> str:
    """A path inside a volume, or nothing for all of it. Raises `Misused`."""
    if text.startswith("/") or ".." in PurePosixPath(text).parts or "\0" in text:
        raise Misused(f"{what} is `{text}`: want a path inside the volume, without `..`")
    return text


def absolute_path(text: str, what: str) -> str:
    """A path inside a container or on the node. Raises `Misused`."""
    if not text.startswith("/") or ".." in PurePosixPath(text).parts or "\0" in text:
        raise Misused(f"{what} is `{text}`: want an absolute path without `..`")
    return text
