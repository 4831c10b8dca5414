"""A chart with the charts inside it: what each is called, depends on, and has for values. Pure.

`helm show values` knows the outer chart's own values.yaml only; what a chart inside has switched off by default
stands in its own, under the name or alias that it is depended on by. `read` takes the files of a chart's folder
or of a `.tgz` and goes into `charts/`, where both may lie again.
"""

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sie_airgap.charts.switches import overlaid
from sie_core.artifacts.manifest import is_plain
from sie_core.yaml_documents import document

MOST_YAML_BYTES = 4 << 20
_MOST_FILES_BYTES = 64 << 20
_MOST_UNPACKED_BYTES = 100 << 20
"""Helm itself reads no chart that unpacks to more."""
_DEEPEST = 8
_WANTED = re.compile(r"(?:Chart\.yaml|values\.yaml|charts/.+)")


@dataclass(frozen=True)
class ChartTree:
    """One chart.

    Attributes:
        about: its Chart.yaml.
        values: its own values.yaml.
        inside: the charts in its `charts/`.
    """

    about: Mapping[str, Any]
    values: Mapping[str, Any]
    inside: tuple["ChartTree", ...]

    @property
    def name(self) -> str:
        return str(self.about.get("name", "?"))


def gunzipped(tgz: bytes) -> bytes:
    """What a `.tgz` holds, as a tar. Raises `ValueError` for one that goes on beyond any chart, `OSError` for none."""
    with gzip.open(io.BytesIO(tgz)) as stream:
        tar = stream.read(_MOST_UNPACKED_BYTES + 1)
    if len(tar) > _MOST_UNPACKED_BYTES:
        raise ValueError(f"{len(tgz):,} bytes unpack to more than {_MOST_UNPACKED_BYTES:,}")
    return tar


def unpacked(tgz: bytes) -> dict[str, bytes]:
    """The files that matter here, by their path in the chart. Raises `ValueError` for what is no chart's `.tgz`."""
    files: dict[str, bytes] = {}
    seen: set[str] = set()
    left = _MOST_FILES_BYTES
    try:
        with tarfile.open(fileobj=io.BytesIO(gunzipped(tgz)), mode="r:") as tar:
            for member in tar:
                _refuse_what_no_chart_has(member, seen)
                path = member.name.partition("/")[2]
                if not member.isfile() or not is_asked_for(path):
                    continue
                left -= member.size
                if left < 0:
                    raise ValueError(f"its charts/ holds more than {_MOST_FILES_BYTES:,} bytes")
                stream = tar.extractfile(member)
                files[path] = stream.read() if stream is not None else b""
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(str(error)) from error
    return files


def is_asked_for(path: str) -> bool:
    """Whether a file of a chart is one that `read` looks at."""
    return _WANTED.fullmatch(path) is not None


def _refuse_what_no_chart_has(member: tarfile.TarInfo, seen: set[str]) -> None:
    """Helm, too, refuses what leads out; of two files with one name it takes one, and of a link it makes nothing."""
    path = member.name.partition("/")[2]
    if member.name.startswith("/") or ".." in re.split(r"[/\\]", member.name):
        raise ValueError(f"`{member.name}` leads out of the chart")
    if not is_plain(member.name) or not is_text(member.name):
        raise ValueError(f"{member.name!a} is no name in UTF-8 without control characters")
    if not member.isfile() and not member.isdir():
        raise ValueError(f"`{path}` is a link, a device or a pipe")
    if member.isfile() and path in seen:
        raise ValueError(f"`{path}` stands there twice")
    seen.add(path)


def is_text(name: str) -> bool:
    """Whether the bytes behind a name of a file are UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def read(files: Mapping[str, bytes], *, depth: int = 0) -> ChartTree:
    """The chart that has these files. Raises `ValueError` naming the file that is not what it should be."""
    if depth > _DEEPEST:
        raise ValueError(f"charts lie more than {_DEEPEST} deep in each other")
    about = _mapping(files, "Chart.yaml")
    if not isinstance(about.get("dependencies") or [], list):
        raise ValueError("Chart.yaml has `dependencies` that are no list")
    inside = tuple(read(each, depth=depth + 1) for each in _charts(files))
    return ChartTree(about, _mapping(files, "values.yaml"), inside)


def effective_values(tree: ChartTree) -> dict[str, Any]:
    """What the chart renders with by default, the charts inside it under the names that it gives them."""
    values = dict(tree.values)
    for chart in tree.inside:
        for name in _names(tree, chart):
            over = values.get(name)
            values[name] = overlaid(effective_values(chart), over if isinstance(over, Mapping) else {})
    return values


def missing(tree: ChartTree) -> Iterator[tuple[str, str]]:
    """Each (chart, dependency) that is not inside, at any depth. Raises `ValueError` for one that has no name."""
    present = {chart.name for chart in tree.inside}
    for wanted in tree.about.get("dependencies") or []:
        if not isinstance(wanted, dict) or not isinstance(wanted.get("name"), str):
            raise ValueError(f"Chart.yaml has the dependency `{wanted}`, want a mapping with a name")
        if wanted["name"] not in present:
            yield tree.name, wanted["name"]
    for chart in tree.inside:
        yield from missing(chart)


def _names(tree: ChartTree, chart: ChartTree) -> list[str]:
    told = [each for each in tree.about.get("dependencies") or [] if isinstance(each, dict)]
    return [str(each.get("alias") or chart.name) for each in told if each.get("name") == chart.name] or [chart.name]


def _charts(files: Mapping[str, bytes]) -> Iterator[Mapping[str, bytes]]:
    folders: dict[str, dict[str, bytes]] = {}
    for path, data in files.items():
        first, _, rest = path.removeprefix("charts/").partition("/")
        if not path.startswith("charts/"):
            continue
        if rest:
            folders.setdefault(first, {})[rest] = data
        elif first.endswith(".tgz"):
            yield _unpacked_inside(path, data)
    # A folder without a Chart.yaml is none of Helm's business either; README and the like lie there.
    yield from (folder for folder in folders.values() if "Chart.yaml" in folder)


def _unpacked_inside(path: str, data: bytes) -> dict[str, bytes]:
    try:
        return unpacked(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _mapping(files: Mapping[str, bytes], path: str) -> Mapping[str, Any]:
    data = files.get(path, b"")
    if len(data) > MOST_YAML_BYTES:
        raise ValueError(f"{path} has {len(data):,} bytes, at most {MOST_YAML_BYTES:,} are read")
    told = document(data, where=path) or {}
    if not isinstance(told, dict):
        raise ValueError(f"{path} is a {type(told).__name__}, want a mapping")
    return told
