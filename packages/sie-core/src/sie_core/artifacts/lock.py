"""`airgap.lock`: everything that crosses the gap, by digest, as bytes that have one digest themselves.

`encode_lock` writes the one form a lock has: JSON with sorted keys, indented so that a review sees one fact
a line, UTF-8, LF at the end, no floats. The sha256 of those bytes is the lock's identity at every stop: in
an archive's volumes, in the bucket (`lock_file`), in the values a chart is installed with.

`decode_lock` takes nothing else. A lock that somebody edited is refused with every violation and both
values, since what it says is then no longer what was resolved.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from enum import Enum

import msgspec
from msgspec import Struct

from sie_core.artifacts.digest import Digest, digest_of, hex_of, parse_digest
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.manifest import FileEntry, Manifest, canonical_json, is_plain, parse_path
from sie_core.ids import ModelId, Revision, is_revision, parse_model_id, parse_revision

LOCK_VERSION = 1
LOCK_MEDIA_TYPE = "application/vnd.sie.airgap-lock.v1+json"
BASE_OF = "base of "
"""Begins the reason for a repository that only a model's configuration and tokenizer are taken from."""
LABELS_ENCODER_OF = "labels encoder of "
"""Likewise, for the labels of a GLiNER with two encoders."""
ADAPTED_BY = "adapted by "
"""Begins the reason for the whole model that a LoRA changes."""
_OF_ANOTHER = re.compile(rf"(?:{BASE_OF}|{LABELS_ENCODER_OF}|{ADAPTED_BY}|variant `[^`]*` of )(\S+)")
_LONGEST_TEXT = 2000
_SHOWN_BYTES = 24

CHART_NAME = "sie-cluster"
"""The chart of the system; others may be carried beside it."""

LOCKS_FOLDER = ".sie/locks/"
CURRENT_FILE = ".sie/current"
"""In a bucket: the digest (71 characters, no newline) of the lock that was mirrored last."""


class LockedFile(Struct, frozen=True, order=True, forbid_unknown_fields=True, omit_defaults=True):
    """One file of a model.

    Attributes:
        path: as in the repository.
        digest: of its bytes.
        size_bytes: its length.
        hub_id: the hub's own name for it: the git blob's sha1 (40 hex digits), or for LFS files the sha256 (64).
        derived_from: for a file that the hub does not have, the path of the one that it was made from when
            locking; its `hub_id` is its own sha256 then.
    """

    path: str
    digest: Digest
    size_bytes: int
    hub_id: str
    derived_from: str | None = None

    @property
    def entry(self) -> FileEntry:
        return FileEntry(path=self.path, digest=self.digest, size_bytes=self.size_bytes)


class LockedModel(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One hub repository at one commit.

    Attributes:
        id: the model callers name.
        repo: the repository its files come from; differs from `id` where the spec says so.
        ref: what was asked for: a branch, a tag, or the commit that the spec pins.
        revision: the commit it was resolved to.
        license: as the repository's card says, several joined with ` AND `; None where it says nothing.
        gated: the hub asks for an accepted licence before it hands out files.
        why: who asked for it: `preloadModels of values.yaml`, `--model`, `bundle NAME`, …
        files: what is carried, sorted by path.
        absent: paths that loaders ask for and this commit does not have, sorted.
        remote_code: code that the repository asks its loaders to run, as `FILE: KEY = NAME`, sorted. None of it is
            carried or run.
    """

    id: ModelId
    repo: ModelId
    ref: str
    revision: Revision
    license: str | None
    gated: bool
    why: tuple[str, ...]
    files: tuple[LockedFile, ...]
    absent: tuple[str, ...]
    remote_code: tuple[str, ...] = ()

    @property
    def is_part(self) -> bool:
        """Whether nobody calls it by its own name: a LoRA, or only a part of other models."""
        is_lora = any(file.path == "adapter_config.json" for file in self.files)
        return is_lora or not self.has_weights

    @property
    def has_weights(self) -> bool:
        """Whether it is carried with its weights: of what is only somebody's base, a network's form is enough."""
        return not self.why or not all(reason.startswith((BASE_OF, LABELS_ENCODER_OF)) for reason in self.why)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def manifest(self) -> Manifest:
        """What a cache or bucket that holds this model holds beside it."""
        return Manifest(repo=self.repo, revision=self.revision, files=tuple(file.entry for file in self.files))


class LockedBlob(Struct, frozen=True, order=True, forbid_unknown_fields=True):
    """One blob of an image: a manifest, a config or a layer."""

    digest: Digest
    size_bytes: int
    media_type: str


class LockedReferrer(Struct, frozen=True, order=True, forbid_unknown_fields=True):
    """One manifest that refers to one of an image's: a signature, an attestation, a list of contents.

    Attributes:
        subject: the manifest that it is about; of the image, or of another referrer.
        digest: its own.
        artifact_type: what it is, as it says itself; may be empty.
        tag: by which it is found, where it is (`sha256-HEX.sig`); None where it names its subject.
    """

    subject: Digest
    digest: Digest
    artifact_type: str
    tag: str | None


class LockedImage(Struct, frozen=True, forbid_unknown_fields=True):
    """One image.

    Attributes:
        reference: exactly as the chart renders it, tag included; never where it was read from.
        digest: of the index, or of the manifest where there is no index.
        media_type: of what `digest` names.
        platforms: `linux/amd64` and so on → digest of that platform's manifest.
        blobs: everything the image and its referrers consist of, manifests included, sorted by digest.
        referrers: what refers to it and is carried with it, sorted by subject and digest.
        why: the objects and containers that name it.
    """

    reference: str
    digest: Digest
    media_type: str
    platforms: Mapping[str, Digest]
    blobs: tuple[LockedBlob, ...]
    referrers: tuple[LockedReferrer, ...]
    why: tuple[str, ...]


class UnlockedImage(Struct, frozen=True, order=True, forbid_unknown_fields=True):
    """An image that a chart was seen to name and that is not carried, with what names it and why it is not."""

    reference: str
    why: tuple[str, ...]


class LockedChart(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One packaged chart.

    Attributes:
        name: as its Chart.yaml says, likewise `version`.
        file: `NAME-VERSION.tgz`.
        digest: of that file.
        size_bytes: its length.
        not_locked: images that it names with other values than the operator's, or that only looked like some; sorted.
        not_tried: its values that are off and that it was not rendered with once, as `a.b.c`; sorted.
    """

    name: str
    version: str
    file: str
    digest: Digest
    size_bytes: int
    not_locked: tuple[UnlockedImage, ...] = ()
    not_tried: tuple[str, ...] = ()


class LockedWheel(Struct, frozen=True, forbid_unknown_fields=True):
    """One wheel of the toolkit, the SDK or what they need, installed on the far side with `--no-index`."""

    file: str
    digest: Digest
    size_bytes: int


class Lock(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything the far side needs. `serial` counts up; `previous` is the digest of the lock before."""

    version: int
    serial: int
    previous: Digest | None
    models: tuple[LockedModel, ...]
    images: tuple[LockedImage, ...]
    charts: tuple[LockedChart, ...]
    wheels: tuple[LockedWheel, ...]

    def model(self, model_id: str) -> LockedModel | None:
        return next((model for model in self.models if model.id == model_id), None)

    @property
    def chart(self) -> LockedChart | None:
        """The chart of the system."""
        return next((chart for chart in self.charts if chart.name == CHART_NAME), None)


def part_of(reason: str) -> ModelId | None:
    """The model whose part something is, where that is the reason; None where somebody asked for the thing itself."""
    found = _OF_ANOTHER.fullmatch(reason)
    return ModelId(found[1]) if found is not None else None


class Violation(Struct, frozen=True):
    """One thing that a lock may not be: which key, what it has to be, what it is."""

    where: str
    want: str
    have: str


class _Refused(Enum):
    """Why bytes are not taken as a lock, and what to do."""

    EDITED = (
        "the lock is not as it was written",
        "a lock is never edited by hand; `sie-airgap lock` writes it again",
    )
    NEWER = (
        "the lock is of a version that is not known here",
        "read it with the sie-airgap that wrote it: `start.sh` beside the volumes installs that one",
    )
    NO_LOCK = (
        "this is no lock",
        "name the file that `sie-airgap lock` wrote, usually `airgap.lock`; if this is it, it was damaged on its way",
    )


class LockInvalid(TrustError):
    """A lock that `encode_lock` did not write, with all that is wrong with it."""

    def __init__(self, where: str, violations: Sequence[Violation], why: _Refused = _Refused.EDITED) -> None:
        first = violations[0]
        message, hint = why.value
        super().__init__(message, where=f"{where}: {first.where}", want=first.want, have=first.have, hint=hint)
        self.violations = tuple(violations)
        others = (f"  at    {where}: {one.where}\n  want  {one.want}\n  have  {one.have}" for one in violations[1:])
        self.args = ("\n".join([self.args[0], *others]),)


def lock_file(digest: Digest) -> str:
    """Where a bucket keeps the lock of that digest."""
    return f"{LOCKS_FOLDER}{hex_of(digest)}.json"


def signatures_file(digest: Digest) -> str:
    """Where a bucket keeps that lock's signatures, where it has any."""
    return lock_file(digest) + ".dsse"


def encode_lock(lock: Lock) -> bytes:
    """The lock's only form. Raises `ValueError` for a lock that `decode_lock` would refuse."""
    if broken := list(violations(lock)):
        raise ValueError(f"not a lock: {broken[0].where}: want {broken[0].want}, have {broken[0].have}")
    return _written(lock)


def lock_digest(lock: Lock) -> Digest:
    return digest_of(encode_lock(lock))


def decode_lock(data: bytes, *, where: str = "airgap.lock") -> Lock:
    """Raises `LockInvalid` (a `TrustError`) naming every violation; `where` is the file or URL it came from."""
    is_lock = False
    try:
        version = msgspec.json.decode(data, type=_Versioned).version
        is_lock = True
        if version != LOCK_VERSION:
            known = [Violation("version", f"{LOCK_VERSION}: what this program reads", str(version))]
            raise LockInvalid(where, known, _Refused.NEWER if version > LOCK_VERSION else _Refused.EDITED)
        lock = msgspec.json.decode(data, type=Lock)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        have = str(error) if is_lock else _begins(data, error)
        known = [Violation("the whole", f"a lock of version {LOCK_VERSION}", have)]
        raise LockInvalid(where, known, _Refused.EDITED if is_lock else _Refused.NO_LOCK) from error
    if broken := [*violations(lock), *_form(data, _written(lock))]:
        raise LockInvalid(where, broken)
    return lock


def _begins(data: bytes, error: Exception) -> str:
    """What stands there instead of a lock."""
    if not data.strip():
        return "an empty file"
    return f"{error}; it begins with {data[:_SHOWN_BYTES]!r}"


class _Versioned(Struct):
    """What every version of a lock says first: everything else may mean something else in another."""

    version: int


def violations(lock: Lock) -> Iterator[Violation]:
    """All that the types cannot say: values that cannot be, and order."""
    if lock.version != LOCK_VERSION:
        yield Violation("version", str(LOCK_VERSION), str(lock.version))
    if lock.serial < 1:
        yield Violation("serial", "1 or more", str(lock.serial))
    if lock.previous is not None:
        yield from _digest("previous", lock.previous)
    yield from _sorted("models", [model.id for model in lock.models])
    yield from _sorted("images", [image.reference for image in lock.images])
    yield from _sorted("charts", [chart.file for chart in lock.charts])
    yield from _sorted("wheels", [wheel.file for wheel in lock.wheels])
    for model in lock.models:
        yield from _model(model, f"models[{model.id}]")
    for image in lock.images:
        yield from _image(image, f"images[{image.reference}]")
    for chart in lock.charts:
        yield from _plain_file(f"charts[{chart.file}]", chart.file, chart.digest, chart.size_bytes)
        yield from _sightings(chart, f"charts[{chart.file}]")
    for wheel in lock.wheels:
        yield from _plain_file(f"wheels[{wheel.file}]", wheel.file, wheel.digest, wheel.size_bytes)


def _model(model: LockedModel, where: str) -> Iterator[Violation]:
    yield from _parses(f"{where}.id", parse_model_id, model.id)
    yield from _parses(f"{where}.repo", parse_model_id, model.repo)
    yield from _parses(f"{where}.revision", parse_revision, model.revision)
    for name, text in [("ref", model.ref), ("license", model.license or ""), *(("why", each) for each in model.why)]:
        yield from _text(f"{where}.{name}", text)
    yield from _sorted(f"{where}.remote_code", model.remote_code)
    for text in model.remote_code:
        yield from _text(f"{where}.remote_code", text)
    yield from _sorted(f"{where}.files", [file.path for file in model.files])
    yield from _sorted(f"{where}.absent", model.absent)
    for path in set(model.absent) & {file.path for file in model.files}:
        yield Violation(f"{where}.absent", "no path that is in files", path)
    if not model.files:
        yield Violation(f"{where}.files", "one file or more", "none")
    fetched = {file.path for file in model.files if file.derived_from is None}
    for file in model.files:
        yield from _locked_file(file, f"{where}.files[{file.path}]")
        if file.derived_from is not None and file.derived_from not in fetched:
            at = f"{where}.files[{file.path}].derived_from"
            yield Violation(at, "a path in files that the hub has", file.derived_from)
    for path in model.absent:
        yield from _parses(f"{where}.absent", parse_path, path)


def _locked_file(file: LockedFile, where: str) -> Iterator[Violation]:
    yield from _parses(f"{where}.path", parse_path, file.path)
    yield from _digest(f"{where}.digest", file.digest)
    yield from _size(f"{where}.size_bytes", file.size_bytes)
    if len(file.hub_id) == 64:
        if file.hub_id != hex_of(file.digest):
            yield Violation(f"{where}.digest", f"sha256:{file.hub_id} (its hub_id)", file.digest)
    elif file.derived_from is not None:
        yield Violation(f"{where}.hub_id", f"{hex_of(file.digest)}: the hub does not have it", file.hub_id)
    elif not is_revision(file.hub_id):
        yield Violation(f"{where}.hub_id", "40 or 64 lower-case hex digits", file.hub_id)


def _image(image: LockedImage, where: str) -> Iterator[Violation]:
    texts = [image.reference, image.media_type, *image.platforms, *(blob.media_type for blob in image.blobs)]
    for text in [*texts, *image.why]:
        yield from _text(where, text)
    yield from _sorted(f"{where}.blobs", [blob.digest for blob in image.blobs])
    known = {blob.digest for blob in image.blobs}
    for name, digest in [("digest", image.digest), *((f"platforms.{k}", v) for k, v in image.platforms.items())]:
        yield from _digest(f"{where}.{name}", digest)
        if digest not in known:
            yield Violation(f"{where}.{name}", "a digest that is in blobs", digest)
    yield from _referrers(image.referrers, known, where)
    for blob in image.blobs:
        yield from _digest(f"{where}.blobs[{blob.digest}].digest", blob.digest)
        yield from _size(f"{where}.blobs[{blob.digest}].size_bytes", blob.size_bytes)


def _referrers(referrers: Sequence[LockedReferrer], known: Set[Digest], where: str) -> Iterator[Violation]:
    yield from _sorted(f"{where}.referrers", [f"{one.subject} {one.digest} {one.tag or ''}" for one in referrers])
    for one in referrers:
        for name, digest in (("subject", one.subject), ("digest", one.digest)):
            if digest not in known:
                yield Violation(f"{where}.referrers[{one.digest}].{name}", "a digest that is in blobs", digest)
        if one.tag is not None and not one.tag.startswith(f"sha256-{hex_of(one.subject)}."):
            yield Violation(f"{where}.referrers[{one.digest}].tag", f"sha256-{hex_of(one.subject)}.KIND", one.tag)


def _sightings(chart: LockedChart, where: str) -> Iterator[Violation]:
    yield from _sorted(f"{where}.not_locked", [image.reference for image in chart.not_locked])
    yield from _sorted(f"{where}.not_tried", chart.not_tried)
    for text in (*chart.not_tried, *(each for image in chart.not_locked for each in (image.reference, *image.why))):
        yield from _text(where, text)


def _plain_file(where: str, name: str, digest: Digest, size_bytes: int) -> Iterator[Violation]:
    yield from _parses(f"{where}.file", parse_path, name)
    if "/" in name:
        yield Violation(f"{where}.file", "a file name without folders", name)
    yield from _digest(f"{where}.digest", digest)
    yield from _size(f"{where}.size_bytes", size_bytes)


def _parses(where: str, parse: Callable[[str], object], text: str) -> Iterator[Violation]:
    try:
        parse(text)
    except ValueError as error:
        yield Violation(where, "what can be one", str(error))


def _text(where: str, text: str) -> Iterator[Violation]:
    """A lock is read on terminals, and much of it was written by strangers: no letter in it may move a cursor."""
    if not is_plain(text) or len(text) > _LONGEST_TEXT:
        have = ascii(text[:100]) + (f" and {len(text) - 100} more" if len(text) > 100 else "")
        yield Violation(where, f"{_LONGEST_TEXT} characters at most, none of them for control", have)


def _digest(where: str, text: str) -> Iterator[Violation]:
    try:
        parse_digest(text)
    except ValueError:
        yield Violation(where, "sha256: and 64 lower-case hex digits", text)


def _size(where: str, size_bytes: int) -> Iterator[Violation]:
    if size_bytes < 0:
        yield Violation(where, "0 or more", str(size_bytes))


def _sorted(where: str, names: Iterable[str]) -> Iterator[Violation]:
    have = list(names)
    want = sorted(set(have))
    if have != want:
        at = next((i for i, (a, b) in enumerate(zip(have, want, strict=False)) if a != b), len(want))
        expected = want[at] if at < len(want) else "nothing (it stands twice)"
        yield Violation(f"{where}, entry {at + 1}", f"sorted, each once: {expected}", have[at])


def _written(lock: Lock) -> bytes:
    return msgspec.json.format(canonical_json(lock).rstrip(b"\n"), indent=2) + b"\n"


def _form(have: bytes, want: bytes) -> Iterator[Violation]:
    """The first line where the bytes are not the canonical ones: order of keys, spaces, a missing or second LF."""
    if have == want:
        return
    have_lines, want_lines = have.split(b"\n"), want.split(b"\n")
    for number, (a, b) in enumerate(zip(have_lines, want_lines, strict=False), start=1):
        if a != b:
            yield Violation(f"line {number}", repr(b.decode()), repr(a.decode("utf-8", "replace")))
            return
    yield Violation("length", f"{len(want_lines)} lines, LF at the end", f"{len(have_lines)} lines")
