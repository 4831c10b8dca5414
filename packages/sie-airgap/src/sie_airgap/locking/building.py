"""Put a lock together: the chart and the wheels that were given, the models and images that were resolved.

What is known by digest alone (charts, wheels) is put into the store at once: nothing could bring it later.
"""

import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sie_airgap.charts.inventory import ImageUse
from sie_airgap.charts.package import identify
from sie_airgap.charts.package import pack as pack_chart
from sie_airgap.failures import Drift, Incomplete, Misused
from sie_airgap.locking.wheel_needs import OURS, Lack, Wheel, foreign, lacking, parse_wheel, told
from sie_airgap.store.blobs import BlobFolder
from sie_core.artifacts.digest import digest_of_stream
from sie_core.artifacts.lock import (
    LOCK_VERSION,
    Lock,
    LockedChart,
    LockedImage,
    LockedModel,
    LockedWheel,
    lock_digest,
)
from sie_core.artifacts.manifest import parse_path

_MOST_METADATA_BYTES = 4 << 20
_NO_ZIP = (ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)
"""What `zipfile` raises for bytes that are none: `RuntimeError` of what is encrypted, or packed in an unknown way."""
_MAKE_WHEELS = "`make wheels` in the checkout fills a folder with all of them"


def lock_chart(chart: Path, store: BlobFolder) -> LockedChart:
    """A chart's folder, packed to the same bytes each time, or a `.tgz` as it is; into the store."""
    name = identify(chart)
    data = pack_chart(chart) if chart.is_dir() else chart.read_bytes()
    return LockedChart(name.name, name.version, name.file, store.add(data), len(data))


def lock_wheels(folder: Path, store: BlobFolder, *, may_lack: bool = False) -> tuple[LockedWheel, ...]:
    """Every wheel of a folder, into the store.

    Args:
        may_lack: take wheels that do not install everywhere, too.

    Raises:
        Misused: a file that is no wheel, or one of ours that is not ours.
        Incomplete: ours, or what they need, is not there for every Python and machine.
    """
    paths = _wheel_files(folder)
    wheels = [read_wheel(path) for path in paths]
    if wrong := list(foreign(wheels)):
        raise Misused(f"the wheels in {folder} cannot be told apart: {'; '.join(wrong)}", hint=_MAKE_WHEELS)
    lacks = wheels_lacking(folder)
    ours = [lack for lack in lacks if lack.wanted.partition("=")[0] in OURS]
    if ours or (lacks and not may_lack):
        lines = "\n".join(f"  {told(lack)}" for lack in lacks)
        count = f"{len(wheels)} wheels in {folder}"
        partly = "" if ours else "; `--incomplete-wheels` takes them as they are"
        raise Incomplete(
            f"the toolkit cannot be installed from the {count} everywhere\n{lines}", hint=_MAKE_WHEELS + partly
        )
    return tuple(_lock_wheel(path, store) for path in paths)


def wheels_lacking(folder: Path) -> tuple[Lack, ...]:
    """What a folder of wheels lacks so that the toolkit and the SDK can be installed from it on every machine."""
    return lacking([read_wheel(path) for path in _wheel_files(folder)])


def _wheel_files(folder: Path) -> list[Path]:
    """Sorted. Raises `Misused` for every one that is no file of this folder: none of them is opened."""
    paths, root = sorted(folder.glob("*.whl")), folder.resolve()
    wrong = [f"{path.name!a} {why}" for path in paths if (why := _why_no_file(path, root)) is not None]
    if wrong:
        raise Misused(
            f"`{folder}` holds what is no wheel: {'; '.join(wrong)}", hint="put the wheel itself in its place"
        )
    return paths


def _why_no_file(path: Path, root: Path) -> str | None:
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return "is a link that leads nowhere"
    if not real.is_relative_to(root):
        return f"is a link that leads out of the folder, to `{real}`"
    if not real.is_file():
        return "is a folder, a device, a pipe or a socket"
    return None if path.name.isascii() else "is no name of a wheel"


def read_wheel(path: Path) -> Wheel:
    """Raises `Misused` for a file that pip would not install."""
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_members(archive.infolist())
            inside = [one for one in archive.infolist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", one.filename)]
            if len(inside) != 1:
                raise ValueError(f"`{path.name}` has {len(inside)} METADATA, want one")
            if inside[0].file_size > _MOST_METADATA_BYTES:
                size_bytes = f"{inside[0].file_size:,} bytes, at most {_MOST_METADATA_BYTES:,} are read"
                raise ValueError(f"`{inside[0].filename}` has {size_bytes}")
            return parse_wheel(path.name, archive.read(inside[0]))
    except _NO_ZIP as error:
        raise Misused(
            f"`{path}` is not a wheel: {error}", hint="fetch it again, or take it out of the folder"
        ) from error


def _refuse_members(members: Sequence[zipfile.ZipInfo]) -> None:
    """Raises `ValueError` for names that lead out of where pip unpacks, and for files that stand twice."""
    seen: set[str] = set()
    for name in (member.filename for member in members):
        parse_path(name.removesuffix("/"))
        if name in seen:
            raise ValueError(f"`{name}` stands there twice")
        seen.add(name)


def _lock_wheel(path: Path, store: BlobFolder) -> LockedWheel:
    with path.open("rb") as stream:
        digest, size_bytes = digest_of_stream(stream)
    if store.size(digest) is None:
        store.add(path.read_bytes())
    return LockedWheel(path.name, digest, size_bytes)


def check_given(lock: Lock, *, charts: Sequence[LockedChart] | None, wheels: Sequence[LockedWheel] | None) -> None:
    """Charts and wheels that were given for a lock that is not resolved again are the ones that it names.

    Raises `Drift` naming each that is not, with both digests; what was not given (None) is not looked at.
    """
    wrong = [
        line for given, locked in ((charts, lock.charts), (wheels, lock.wheels)) for line in _others(given, locked)
    ]
    if wrong:
        raise Drift(
            "what was given is not what is locked\n" + "\n".join(wrong),
            hint="give the files that were locked, or lock these with the same command without `--frozen`",
        )


def _others(
    given: Sequence[LockedChart] | Sequence[LockedWheel] | None, locked: Sequence[LockedChart] | Sequence[LockedWheel]
) -> Iterator[str]:
    have = {one.file: one.digest for one in given or ()}
    want = {one.file: one.digest for one in locked}
    for file in sorted({*have, *want}) if given is not None else ():
        if have.get(file) != want.get(file):
            yield f"{file}\n  want  {want.get(file, 'none')}\n  have  {have.get(file, 'none')}"


def standing_images(uses: Sequence[ImageUse], standing: Lock | None) -> tuple[list[LockedImage], list[ImageUse]]:
    """Images that stay as they are locked, but for who names them, and those that have to be resolved."""
    locked = {image.reference: image for image in (standing.images if standing is not None else ())}
    stay = [msgspec.structs.replace(locked[use.reference], why=use.why) for use in uses if use.reference in locked]
    return stay, [use for use in uses if use.reference not in locked]


def assemble(
    previous: Lock | None,
    *,
    models: Sequence[LockedModel],
    images: Sequence[LockedImage],
    charts: Sequence[LockedChart],
    wheels: Sequence[LockedWheel],
) -> Lock:
    """The lock: the previous one itself when nothing changed, else the next number after it."""
    lock = Lock(
        version=LOCK_VERSION,
        serial=1,
        previous=None,
        models=tuple(sorted(models, key=lambda model: model.id)),
        images=tuple(sorted(images, key=lambda image: image.reference)),
        charts=tuple(sorted(charts, key=lambda chart: chart.file)),
        wheels=tuple(sorted(wheels, key=lambda wheel: wheel.file)),
    )
    if previous is None:
        return lock
    same = msgspec.structs.replace(lock, serial=previous.serial, previous=previous.previous)
    if same == previous:
        return previous
    return msgspec.structs.replace(lock, serial=previous.serial + 1, previous=lock_digest(previous))
