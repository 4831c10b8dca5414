"""Everything that is known of a model, an image, a file or a digest: what it is, where from, and who asked. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from msgspec import Struct

from sie_airgap.amounts import counted, sized
from sie_airgap.oci.reference import parse_reference
from sie_airgap.store.contents import kind_of_blob
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.hf_layout import snapshot_file, snapshot_folder
from sie_core.artifacts.lock import (
    CHART_NAME,
    Lock,
    LockedBlob,
    LockedChart,
    LockedFile,
    LockedImage,
    LockedModel,
    LockedWheel,
    part_of,
)
from sie_core.ids import nearest

SHORTEST_DIGEST = 6
"""Digits of a digest or a commit that are enough to look for it."""


class Subject(Struct, frozen=True):
    """Something that a lock has.

    Attributes:
        kind: `model`, `file`, `image`, `blob`, `chart` or `wheel`.
        name: as messages call it; unique within its kind.
        digests: of the blobs that it consists of.
        size_bytes: of these, each once.
        facts: what is known of it, in the order in which it is told.
        why: who asked, each with who asked for that in turn.
    """

    kind: str
    name: str
    digests: tuple[Digest, ...]
    size_bytes: int
    facts: Mapping[str, str]
    why: tuple[str, ...]


def find(lock: Lock, what: str) -> tuple[Subject, ...]:
    """All that goes by a name: a model's id or repository, an image's name or its end, a file's path, a chart, a wheel,
    or the beginning of a digest, a commit or a hub's own id."""
    return (
        *(subject for model in lock.models for subject in _in_model(lock, model, what)),
        *(subject for image in lock.images for subject in _in_image(image, what)),
        *(_chart(chart) for chart in lock.charts if what in (chart.name, chart.file) or _begins(chart.digest, what)),
        *(_wheel(wheel) for wheel in lock.wheels if _is_wheel(wheel, what) or _begins(wheel.digest, what)),
    )


def likely(lock: Lock, what: str) -> list[str]:
    """Names of the lock that are most like one that it does not have."""
    files = {file.path for model in lock.models for file in model.files}
    known = {*(model.id for model in lock.models), *(image.reference for image in lock.images), *files}
    return nearest(what, sorted(known))


def asked_by(lock: Lock, reasons: Sequence[str], above: Collection[str] = ()) -> tuple[str, ...]:
    """Each reason, and where it is that something else needs it, who asked for that."""
    told = []
    for reason in reasons:
        whole = lock.model(part_of(reason) or "")
        if whole is None or whole.id in above:
            told.append(reason)
        else:
            told.append(f"{reason} ← {' and '.join(asked_by(lock, whole.why, (*above, whole.id)))}")
    return tuple(told)


def places(
    subject: Subject, *, present: Collection[Digest] | None, volumes: Mapping[str, Mapping[Digest, Sequence[str]]]
) -> dict[str, str]:
    """Where its bytes are.

    Args:
        present: what the store has; None where there is none to look at.
        volumes: by what is said of them (`on`, `would be on fat32`), the volumes of each blob.
    """
    told = {}
    if present is not None:
        have = sum(digest in present for digest in subject.digests)
        told["in the store"] = "yes" if have == len(subject.digests) else f"{have} of {len(subject.digests)} blobs"
    for said, on in volumes.items():
        names = sorted({name for digest in subject.digests for name in on.get(digest, ())})
        lacking = sum(digest not in on for digest in subject.digests)
        missing = f"; {counted(lacking, 'blob')} on none that is here" if lacking else ""
        told[said] = (", ".join(names) or "no volume") + missing
    return told


def _in_model(lock: Lock, model: LockedModel, what: str) -> Iterator[Subject]:
    if what in (model.id, model.repo) or _begins(model.revision, what):
        yield _model(lock, model)
    for file in model.files:
        path = f"{model.id}/{file.path}"
        is_its_path = what in (file.path, path, f"{model.id} {file.path}") or _ends(path, what)
        if is_its_path or _begins(file.digest, what) or _begins(file.hub_id, what):
            yield _file(lock, model, file)


def _model(lock: Lock, model: LockedModel) -> Subject:
    weights = sum(file.size_bytes for file in model.files if PurePosixPath(file.path).suffix == ".safetensors")
    facts = {
        "repository": model.repo,
        "commit": f"{model.revision}, which `{model.ref}` was when it was locked",
        "licence": model.license or "not named",
        "gate": "the hub wants its licence accepted" if model.gated else "open",
        "size": f"{sized(model.size_bytes)} in {counted(len(model.files), 'file')}, {sized(weights)} as safetensors",
        "carried": "whole" if model.has_weights else "without its weights: only as a part of others",
        "in a bucket": snapshot_folder(model.repo, model.revision),
    }
    if model.remote_code:
        facts["remote code"] = f"named, not carried, never run: {'; '.join(model.remote_code)}"
    parts = [f"{one.id} ({reason})" for one in lock.models for reason in one.why if part_of(reason) == model.id]
    if parts:
        facts["needs"] = ", ".join(parts)
    return Subject("model", model.id, *_blobs(model.files), facts, asked_by(lock, model.why))


def _file(lock: Lock, model: LockedModel, file: LockedFile) -> Subject:
    where = f"made when locking, from `{file.derived_from}`" if file.derived_from is not None else "the hub's own"
    facts = {
        "model": f"{model.id} at {model.revision}",
        "digest": file.digest,
        "size": f"{sized(file.size_bytes)} ({file.size_bytes:,} bytes)",
        "from": f"{where}, called {file.hub_id} there" if file.derived_from is None else where,
        "in a bucket": snapshot_file(model.repo, model.revision, file.path),
    }
    return Subject("file", f"{model.id} {file.path}", (file.digest,), file.size_bytes, facts, asked_by(lock, model.why))


def _in_image(image: LockedImage, what: str) -> Iterator[Subject]:
    if _is_image(image.reference, what) or _begins(image.digest, what):
        size_bytes = sum(blob.size_bytes for blob in image.blobs)
        facts = {
            "digest": image.digest,
            "media type": image.media_type,
            "platforms": ", ".join(f"{name} {digest}" for name, digest in image.platforms.items()) or "none named",
            "size": f"{sized(size_bytes)} in {counted(len(image.blobs), 'blob')}",
        }
        if image.referrers:
            kinds = (one.artifact_type or one.tag or "of no named type" for one in image.referrers)
            facts["carried with it"] = f"{counted(len(image.referrers), 'referrer')}: {', '.join(kinds)}"
        yield Subject("image", image.reference, *_blobs(image.blobs), facts, image.why)
    for blob in image.blobs:
        if blob.digest != image.digest and _begins(blob.digest, what):
            facts = {
                "image": image.reference,
                "what": f"a {kind_of_blob(blob.media_type)} ({blob.media_type})",
                "size": f"{sized(blob.size_bytes)} ({blob.size_bytes:,} bytes)",
            }
            name = f"{blob.digest} of {image.reference}"
            yield Subject("blob", name, (blob.digest,), blob.size_bytes, facts, image.why)


def _is_image(reference: str, what: str) -> bool:
    """Whether it is the whole name, or its end, with or without the tag: `acme/x`, `x:v1`, `x`."""
    try:
        whole = parse_reference(reference)
    except ValueError:
        return what == reference
    bare = f"{whole.registry}/{whole.repository}"
    names = [reference, str(whole), bare, *([f"{bare}:{whole.tag}"] if whole.tag is not None else [])]
    return any(name == what or _ends(name, what) for name in names)


def _chart(chart: LockedChart) -> Subject:
    facts = {"digest": chart.digest, "version": chart.version, "size": sized(chart.size_bytes)}
    if chart.not_locked:
        facts["names, and not carried"] = ", ".join(image.reference for image in chart.not_locked)
    if chart.not_tried:
        facts["not rendered with"] = ", ".join(chart.not_tried)
    given = "--chart" if chart.name == CHART_NAME else "--extra-chart"
    return Subject("chart", chart.file, (chart.digest,), chart.size_bytes, facts, (f"given with {given}",))


def _wheel(wheel: LockedWheel) -> Subject:
    facts = {"digest": wheel.digest, "size": sized(wheel.size_bytes)}
    why = ("found in the folder given with --wheels",)
    return Subject("wheel", wheel.file, (wheel.digest,), wheel.size_bytes, facts, why)


def _is_wheel(wheel: LockedWheel, what: str) -> bool:
    return what == wheel.file or what.lower().replace("-", "_") == wheel.file.partition("-")[0].lower()


def _blobs(held: Sequence[LockedFile] | Sequence[LockedBlob]) -> tuple[tuple[Digest, ...], int]:
    once = {one.digest: one.size_bytes for one in held}
    return tuple(once), sum(once.values())


def _ends(path: str, what: str) -> bool:
    return what != "" and path.endswith(f"/{what}")


def _begins(digest: str, what: str) -> bool:
    digits = what.removeprefix("sha256:").lower()
    return len(digits) >= SHORTEST_DIGEST and digest.removeprefix("sha256:").startswith(digits)
