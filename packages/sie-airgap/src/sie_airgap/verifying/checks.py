"""What a check found, as it is written down for `status` to read again. Pure.

One check of one place against one lock: which level of the ladder it is of, where, when, and how it ended. It says
nothing of another lock. Nobody is protected from who may write into this user's own folders; what is damaged there is
refused by name.

    {"again":["verify","s3://…"],"at_s":1795000000,"by":"0.3.1","exit_code":0,"files":{},"kind":"bucket","level":4,
     "lock":"sha256:…","place":"s3://…","said":"every byte is what was locked","since_s":1794000000,…,"version":1}
"""

import hashlib
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import NamedTuple

import msgspec
from msgspec import Struct

from sie_airgap.verifying.stamps import Stamp
from sie_core.artifacts.digest import Digest, hex_of, parse_digest
from sie_core.artifacts.manifest import canonical_json

VERSION = 1


class Level(IntEnum):
    """The rungs of the ladder, from what was carried to what answers."""

    SIGNATURE = 0
    INDEX = 1
    MEDIA = 2
    REGISTRY = 3
    BUCKET = 4
    MANIFESTS = 5
    RUNNING = 6
    ANSWERS = 7
    EGRESS = 8

    def __str__(self) -> str:
        return f"L{int(self)}"


class Kind(StrEnum):
    """What was checked. Another toolkit may write others: they are read by their level."""

    LOCK = "lock"
    INDEX = "index"
    MEDIA = "media"
    STORE = "store"
    REGISTRY = "registry"
    BUCKET = "bucket"
    MANIFESTS = "manifests"
    PODS = "pods"
    WORKER = "worker"
    ANSWERS = "answers"
    REHEARSED = "rehearsed"
    EGRESS = "egress"


LEVELS: Mapping[Kind, Level] = {
    Kind.LOCK: Level.SIGNATURE,
    Kind.INDEX: Level.INDEX,
    Kind.MEDIA: Level.MEDIA,
    Kind.STORE: Level.MEDIA,
    Kind.REGISTRY: Level.REGISTRY,
    Kind.BUCKET: Level.BUCKET,
    Kind.MANIFESTS: Level.MANIFESTS,
    Kind.PODS: Level.RUNNING,
    Kind.WORKER: Level.RUNNING,
    Kind.ANSWERS: Level.ANSWERS,
    Kind.REHEARSED: Level.ANSWERS,
    Kind.EGRESS: Level.EGRESS,
}


class Of(NamedTuple):
    """What a check is of."""

    lock: Digest
    level: int
    kind: str
    place: str


class Check(Struct, frozen=True, forbid_unknown_fields=True):
    """One check of one place.

    Attributes:
        at_s: when it ended, in seconds since 1970; `since_s`: when the first did of those without a finding until then.
        exit_code: 0, or that of the findings.
        said: what holds, or the first finding.
        by: the version of the toolkit.
        files: what was read there, as it stood then, where a file can be known again.
        texts: the small ones that it was of, by their digests.
        again: the words after `sie-airgap` that check it again.
        began_s: of pods, when the last of them was started.
    """

    level: int
    kind: str
    lock: Digest
    place: str
    at_s: int
    since_s: int
    exit_code: int
    said: str
    by: str
    files: Mapping[str, Stamp] = {}
    texts: Mapping[str, Digest] = {}
    again: tuple[str, ...] = ()
    began_s: int | None = None
    version: int = VERSION

    @property
    def of(self) -> "Of":
        """What it is a check of: the next one takes its stead."""
        return Of(self.lock, self.level, self.kind, self.place)

    def option(self, name: str) -> str | None:
        """What was given as `--name VALUE` to the check."""
        at = self.again.index(name) + 1 if name in self.again else len(self.again)
        return self.again[at] if at < len(self.again) else None


def encode_check(check: Check) -> bytes:
    return canonical_json(check)


def decode_check(data: bytes) -> Check:
    """Raises `ValueError`, with the reason, for what `encode_check` did not write."""
    try:
        check = msgspec.json.decode(data, type=Check)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if check.version != VERSION:
        raise ValueError(f"version {check.version}, this toolkit reads {VERSION}")
    if check.level not in list(Level):
        raise ValueError(f"a level {check.level}, there are 0 to {max(Level)}")
    parse_digest(check.lock)
    if encode_check(check) != data:
        raise ValueError("it is in another form than it is written in")
    return check


def file_of(check: Check) -> str:
    """Its name below the folder of records: one for each place, so that the next check of it takes its stead."""
    place = hashlib.sha256(check.place.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{hex_of(check.lock)}/L{int(check.level)}-{check.kind}-{place}.json"


def after(before: Check | None, check: Check) -> Check:
    """The same check, true since the first of an unbroken row where it follows one."""
    unbroken = before is not None and not before.exit_code and not check.exit_code and before.since_s <= check.at_s
    return msgspec.structs.replace(check, since_s=before.since_s if before and unbroken else check.at_s)
