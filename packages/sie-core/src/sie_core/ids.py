"""Names that travel between the parts of SIE: parsing, path-safe forms, and the nearest known name.

Every name is a `NewType` over `str` with one parser here, so that a branch cannot pass for a commit.
Digests are in `artifacts.digest`.
"""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import NewType

ModelId = NewType("ModelId", str)
"""`org/name`, as a hub repository is named; one or more path segments."""

Revision = NewType("Revision", str)
"""A commit: 40 lower-case hex digits. Never a branch or a tag (those are refs)."""

BundleName = NewType("BundleName", str)
PoolName = NewType("PoolName", str)
MachineProfile = NewType("MachineProfile", str)

MODEL_ID_LENGTH = 256

_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_REVISION = re.compile(r"[0-9a-f]{40}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def parse_model_id(text: str) -> ModelId:
    """Raises `ValueError` for what cannot be a repository name: empty, `..`, `--`, a backslash, a trailing slash.

    Hubs refuse `--` too: it stands for the slash in `cache_folder`, where `a--b/c` would be taken for `a/b--c`.
    """
    if len(text) > MODEL_ID_LENGTH or ".." in text or "--" in text or _MODEL_ID.fullmatch(text) is None:
        shown = text[:MODEL_ID_LENGTH]
        raise ValueError(f"`{shown}` is not a model id: want `org/name` of letters, digits, `.`, `_` and single `-`")
    return ModelId(text)


def parse_revision(text: str) -> Revision:
    """Raises `ValueError` for anything but 40 lower-case hex digits."""
    if _REVISION.fullmatch(text) is None:
        raise ValueError(f"`{text}` is not a commit: want 40 lower-case hex digits")
    return Revision(text)


def is_revision(text: str) -> bool:
    return _REVISION.fullmatch(text) is not None


def _parse_label(text: str, what: str) -> str:
    if _LABEL.fullmatch(text) is None:
        raise ValueError(f"`{text}` is not a {what}: want lower-case letters, digits and `-`, 63 at most")
    return text


def parse_bundle_name(text: str) -> BundleName:
    return BundleName(_parse_label(text, "bundle name"))


def parse_pool_name(text: str) -> PoolName:
    return PoolName(_parse_label(text, "pool name"))


def parse_machine_profile(text: str) -> MachineProfile:
    return MachineProfile(_parse_label(text, "machine profile"))


def cache_folder(model: ModelId) -> str:
    """The folder of a model in the hub's cache layout: `models--ORG--NAME`."""
    return "models--" + model.replace("/", "--")


def spec_file_name(model: ModelId) -> str:
    """The file that holds a model's spec: `ORG__NAME.yaml`."""
    return model.replace("/", "__") + ".yaml"


def nearest(name: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """The known names most like `name`, best first; none where nothing is alike.

    Letter case and the part before the slash count less than the rest: people forget the organisation. What is longer
    than any name is like none: comparing takes as long as it is, and callers choose it.
    """
    if len(name) > MODEL_ID_LENGTH:
        return []
    wanted = name.lower()
    tail = wanted.rsplit("/", 1)[-1]

    def likeness(candidate: str) -> float:
        whole = candidate.lower()
        return max(
            SequenceMatcher(None, wanted, whole).ratio(),
            SequenceMatcher(None, tail, whole.rsplit("/", 1)[-1]).ratio(),
        )

    scored = sorted(((likeness(candidate), candidate) for candidate in known), key=lambda pair: (-pair[0], pair[1]))
    return [candidate for score, candidate in scored[:most] if score >= 0.5]
