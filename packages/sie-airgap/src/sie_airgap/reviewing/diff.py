"""What changed between two locks, a fact an entry, and how much of the new one the old one did not carry. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from sie_airgap.amounts import counted, sized
from sie_airgap.store.contents import contents
from sie_core.artifacts.lock import Lock, LockedChart, LockedFile, LockedImage, LockedModel, LockedWheel

Sign = Literal["+", "-", "~"]
_SHORT = 12
_MANY_WHEELS = 20


class Change(Struct, frozen=True, omit_defaults=True):
    """One fact that changed.

    Attributes:
        sign: `+` is new, `-` is gone, `~` is another.
        kind: `model`, `file`, `image`, `chart`, `wheel`.
        name: of the model or image; of a file its model and its path.
        field: which of its facts; of the thing itself none.
        before: as the old lock has it, likewise `after`: whole digests, commits, lists joined by `, `.
        told: what a reviewer sees after the name.
    """

    sign: Sign
    kind: str
    name: str
    told: str
    field: str = ""
    before: str | None = None
    after: str | None = None

    @property
    def line(self) -> str:
        indent = "    " if self.kind == "file" or self.field else ""
        name = self.field or (self.name.partition(" ")[2] if self.kind == "file" else f"{self.kind} {self.name}")
        return f"{indent}{self.sign} {name}  {self.told}"


@dataclass(frozen=True)
class Weight:
    """What the new lock needs, and how much of it the old one did not carry; each digest once."""

    size_bytes: int
    anew_bytes: int


def difference(old: Lock | None, new: Lock) -> tuple[Change, ...]:
    """Each fact that changed, by kind and name; none when the same things are carried. `old` None: all is new."""
    return (
        *_models(old.models if old is not None else (), new.models),
        *_images(old.images if old is not None else (), new.images),
        *_files("chart", old.charts if old is not None else (), new.charts),
        *_files("wheel", old.wheels if old is not None else (), new.wheels),
    )


def weight(old: Lock | None, new: Lock) -> Weight:
    """How much of the new lock would have to be carried to where the old one's content is."""
    have = {content.digest for content in contents(old)} if old is not None else set()
    sizes = [(content.size_bytes, content.digest in have) for content in contents(new)]
    return Weight(sum(size for size, _ in sizes), sum(size for size, is_there in sizes if not is_there))


def lines(changes: Iterable[Change]) -> Iterator[str]:
    """For people: what changed inside of a model or an image is indented below it, and many wheels are counted."""
    changes, head = tuple(changes), ""
    wheels = Counter(change.sign for change in changes if _is_whole_wheel(change))
    counted_out = {sign for sign, number in wheels.items() if number > _MANY_WHEELS}
    for change in changes:
        if _is_whole_wheel(change) and change.sign in counted_out:
            continue
        owner = change.name.partition(" ")[0]
        if (change.kind == "file" or change.field) and owner != head:
            yield f"~ {'model' if change.kind == 'file' else change.kind} {owner}"
        head = owner
        yield change.line
    yield from (f"{sign} {wheels[sign]} wheels" for sign in sorted(counted_out))


def _is_whole_wheel(change: Change) -> bool:
    return change.kind == "wheel" and not change.field


def _models(before: Sequence[LockedModel], now: Sequence[LockedModel]) -> Iterator[Change]:
    old, new = {model.id: model for model in before}, {model.id: model for model in now}
    for name in sorted({*old, *new}):
        was, is_now = old.get(name), new.get(name)
        if was is None and is_now is not None:
            told = (
                f"at {is_now.revision[:_SHORT]}, licence {is_now.license or 'not named'}, "
                f"{counted(len(is_now.files), 'file')}, {sized(is_now.size_bytes)}, for {', '.join(is_now.why)}"
            )
            yield Change("+", "model", name, told, after=is_now.revision)
        elif is_now is None and was is not None:
            yield Change("-", "model", name, f"at {was.revision[:_SHORT]}", before=was.revision)
        elif was is not None and is_now is not None and was != is_now:
            yield from tuple(_model(name, was, is_now)) or (_otherwise("model", name),)


def _model(name: str, was: LockedModel, now: LockedModel) -> Iterator[Change]:
    if was.revision != now.revision:
        told = f"{was.revision[:_SHORT]} → {now.revision[:_SHORT]}"
        yield Change("~", "model", name, told, before=was.revision, after=now.revision)
    for field, label in (
        ("repo", "repository"),
        ("ref", "ref"),
        ("license", "licence"),
        ("gated", "gated"),
        ("why", "asked for by"),
        ("remote_code", "remote code"),
        ("absent", "absent"),
    ):
        yield from _field("model", name, label, _text(getattr(was, field)), _text(getattr(now, field)))
    files = {file.path: file for file in was.files}, {file.path: file for file in now.files}
    for path in sorted({*files[0], *files[1]}):
        yield from _file(f"{name} {path}", files[0].get(path), files[1].get(path))


def _file(name: str, was: LockedFile | None, now: LockedFile | None) -> Iterator[Change]:
    if was is None and now is not None:
        yield Change("+", "file", name, sized(now.size_bytes), after=now.digest)
    elif now is None and was is not None:
        yield Change("-", "file", name, sized(was.size_bytes), before=was.digest)
    elif was is not None and now is not None and was.digest != now.digest:
        told = f"{_blob(was.digest, was.size_bytes)} → {_blob(now.digest, now.size_bytes)}"
        yield Change("~", "file", name, told, before=was.digest, after=now.digest)


def _images(before: Sequence[LockedImage], now: Sequence[LockedImage]) -> Iterator[Change]:
    old, new = {image.reference: image for image in before}, {image.reference: image for image in now}
    for name in sorted({*old, *new}):
        was, is_now = old.get(name), new.get(name)
        if was is None and is_now is not None:
            told = f"{_blob(is_now.digest, _size(is_now))}, {', '.join(is_now.platforms)}, for {'; '.join(is_now.why)}"
            yield Change("+", "image", name, told, after=is_now.digest)
        elif is_now is None and was is not None:
            yield Change("-", "image", name, _blob(was.digest, _size(was)), before=was.digest)
        elif was is not None and is_now is not None and was != is_now:
            yield from tuple(_image(name, was, is_now)) or (_otherwise("image", name),)


def _image(name: str, was: LockedImage, now: LockedImage) -> Iterator[Change]:
    if was.digest != now.digest:
        told = f"{_blob(was.digest, _size(was))} → {_blob(now.digest, _size(now))}"
        yield Change("~", "image", name, told, before=was.digest, after=now.digest)
    for field, before, after in (
        ("platforms", _text(tuple(was.platforms)), _text(tuple(now.platforms))),
        ("named by", _text(was.why), _text(now.why)),
        ("referred to by", _referrers(was), _referrers(now)),
    ):
        yield from _field("image", name, field, before, after)


def _referrers(image: LockedImage) -> str:
    """Signatures and the like, by what they are called and the first digits of their digests."""
    named = ((one.tag or one.artifact_type or "a referrer", one.digest[7 : 7 + _SHORT]) for one in image.referrers)
    return ", ".join(f"{name} {digest}" for name, digest in named)


def _files(
    kind: str, before: Sequence[LockedChart | LockedWheel], now: Sequence[LockedChart | LockedWheel]
) -> Iterator[Change]:
    was, is_now = {one.file: one for one in before}, {one.file: one for one in now}
    for name in sorted({*was, *is_now}):
        a, b = was.get(name), is_now.get(name)
        if a is None and b is not None:
            yield Change("+", kind, name, _blob(b.digest, b.size_bytes), after=b.digest)
        elif b is None and a is not None:
            yield Change("-", kind, name, _blob(a.digest, a.size_bytes), before=a.digest)
        elif a is not None and b is not None and a.digest != b.digest:
            told = f"{_blob(a.digest, a.size_bytes)} → {_blob(b.digest, b.size_bytes)}"
            yield Change("~", kind, name, told, before=a.digest, after=b.digest)
        elif a != b:
            yield _otherwise(kind, name)


def _otherwise(kind: str, name: str) -> Change:
    """For what no reviewer asks of an entry, a hub's own id for example: it is another lock all the same."""
    return Change("~", kind, name, "the same bytes, written down otherwise", field="entry")


def _field(kind: str, name: str, field: str, before: str, after: str) -> Iterator[Change]:
    if before != after:
        told = f"{before or 'nothing'} → {after or 'nothing'}"
        yield Change("~", kind, name, told, field=field, before=before, after=after)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(one) for one in value)
    return "" if value is None else str(value)


def _blob(digest: str, size_bytes: int) -> str:
    return f"{digest.removeprefix('sha256:')[:_SHORT]} ({sized(size_bytes)})"


def _size(image: LockedImage) -> int:
    return sum(blob.size_bytes for blob in image.blobs)
