"""What changed between two locks, a line a fact. Pure."""

from collections.abc import Iterator, Mapping
from typing import TypeVar

from sie_core.artifacts.lock import Lock, LockedModel
from sie_core.ids import ModelId

T = TypeVar("T")


def difference(old: Lock | None, new: Lock) -> Iterator[str]:
    """Lines that begin with `+`, `-` or `~`; none when the same things are carried. `old` None: everything is new."""
    yield from _models({} if old is None else {model.id: model for model in old.models}, new)
    pairs = (
        (
            "image",
            {} if old is None else {one.reference: one.digest for one in old.images},
            {one.reference: one.digest for one in new.images},
        ),
        (
            "chart",
            {} if old is None else {one.file: one.digest for one in old.charts},
            {one.file: one.digest for one in new.charts},
        ),
        (
            "wheel",
            {} if old is None else {one.file: one.digest for one in old.wheels},
            {one.file: one.digest for one in new.wheels},
        ),
    )
    for kind, before, after in pairs:
        for name in sorted({*before, *after}):
            yield from _entry(kind, name, before.get(name), after.get(name))


def _entry(kind: str, name: str, before: str | None, after: str | None) -> Iterator[str]:
    if before is None:
        yield f"+ {kind} {name} {after}"
    elif after is None:
        yield f"- {kind} {name} {before}"
    elif before != after:
        yield f"~ {kind} {name} {before} → {after}"


def _models(before: Mapping[ModelId, LockedModel], new: Lock) -> Iterator[str]:
    after = {model.id: model for model in new.models}
    for name in sorted({*before, *after}):
        was, now = before.get(name), after.get(name)
        if was is None and now is not None:
            yield f"+ model {name} at {now.revision}, {len(now.files)} files, {now.size_bytes:,} bytes"
        elif now is None and was is not None:
            yield f"- model {name} at {was.revision}"
        elif was is not None and now is not None and was != now:
            yield from _model(name, was, now)


def _model(name: str, was: LockedModel, now: LockedModel) -> Iterator[str]:
    if was.revision != now.revision:
        yield f"~ model {name} {was.revision} → {now.revision}"
    files = {file.path: file.digest for file in was.files}, {file.path: file.digest for file in now.files}
    for path in sorted({*files[0], *files[1]}):
        yield from _entry("file", f"{name} {path}", files[0].get(path), files[1].get(path))
    for field in ("repo", "ref", "license", "gated", "why", "absent"):
        if getattr(was, field) != getattr(now, field):
            yield f"~ model {name} {field}: {getattr(was, field)} → {getattr(now, field)}"
