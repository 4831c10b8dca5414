"""A chart's folder as one `.tgz` whose digest is the same each time.

`helm package` stamps the time and compresses by whatever zlib it was built with, so the same chart has
another digest on each run. Here members are sorted, owners and times are zero, links are the files behind them,
and the gzip stream is written in stored blocks: a chart is a hundred kilobytes, and the bytes then depend on no
library's version.
"""

import io
import re
import struct
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from sie_airgap.charts.folder import chart_files
from sie_airgap.charts.tree import MOST_YAML_BYTES, ChartTree, gunzipped, is_asked_for, missing, read, unpacked
from sie_airgap.failures import Incomplete, Misused

MEDIA_TYPE = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"

_GZIP_HEADER = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF))
"""Deflate, no flags, no time, no extra flags, operating system unknown."""
_STORED_BLOCK = 0xFFFF
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_VERSION = re.compile(r"[0-9A-Za-z.+-]+")


@dataclass(frozen=True)
class ChartName:
    """What a chart calls itself in Chart.yaml."""

    name: str
    version: str

    @property
    def file(self) -> str:
        """`sie-cluster-0.3.1.tgz`"""
        return f"{self.name}-{self.version}.tgz"


def tree_of(chart: Path) -> ChartTree:
    """A chart, a folder or a `.tgz`, with all that is inside it.

    Raises:
        Incomplete: there is no Chart.yaml, or charts that it depends on are not in its charts/.
        Misused: it is no chart.
    """
    try:
        tree = _read(chart)
        _refuse_missing_dependencies(tree, chart)
    except ValueError as error:
        raise Misused(f"`{chart}` is not a chart: {error}", hint="a folder, or a .tgz of `helm package`") from error
    return tree


def identify(chart: Path) -> ChartName:
    """The name and version of a chart: a folder or a `.tgz`. Raises as `tree_of`."""
    return _named(tree_of(chart), chart)


def _read(chart: Path) -> ChartTree:
    if chart.is_dir():
        files = {path: real.read_bytes() for path, real in chart_files(chart).items() if is_asked_for(path)}
    else:
        files = unpacked(chart.read_bytes()) if chart.is_file() else {}
    if "Chart.yaml" not in files:
        raise Incomplete(f"`{chart}` is not a chart: it has no Chart.yaml")
    return read(files)


def pack(chart_dir: Path) -> bytes:
    """The packaged chart, less what its .helmignore leaves out. Raises as `tree_of`."""
    name = identify(chart_dir)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, real in chart_files(chart_dir).items():
            data = real.read_bytes()
            member = tarfile.TarInfo(f"{name.name}/{path}")
            member.size, member.mode = len(data), 0o644
            try:
                tar.addfile(member, io.BytesIO(data))
            except ValueError as error:
                raise Misused(f"`{chart_dir}`: `{path}` does not go into a chart's package: {error}") from error
    return stored_gzip(packed.getvalue())


def chart_yaml(tgz: bytes) -> bytes | None:
    """Chart.yaml of a packaged chart; None where it has none. Raises `ValueError` for what is no `.tgz`."""
    try:
        with tarfile.open(fileobj=io.BytesIO(gunzipped(tgz)), mode="r:") as tar:
            for member in tar:
                if re.fullmatch(r"[^/]+/Chart\.yaml", member.name) and (found := tar.extractfile(member)) is not None:
                    return found.read(MOST_YAML_BYTES)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(str(error)) from error
    return None


def _named(tree: ChartTree, chart: Path) -> ChartName:
    name, version = tree.about.get("name"), tree.about.get("version")
    if not isinstance(name, str) or not isinstance(version, str):
        raise Misused(f"`{chart}`: Chart.yaml has name `{name}` and version `{version}`, want two strings")
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        raise Misused(f"`{chart}`: Chart.yaml has name `{name}` and version `{version}`: no file can be called so")
    return ChartName(name=name, version=version)


def _refuse_missing_dependencies(tree: ChartTree, chart: Path) -> None:
    lacking = list(missing(tree))
    if lacking:
        told = ", ".join(f"`{wanted}` (of `{of}`)" for of, wanted in lacking)
        folder = f"{chart}" if chart.is_dir() else f"{tree.name}"
        unpack = "" if chart.is_dir() else f"`tar xzf {chart}`, then "
        raise Incomplete(
            f"`{chart}` depends on charts that are not in its charts/: {told}",
            hint=f"{unpack}`helm dependency build {folder}` on the connected side, and give the folder `{folder}`",
        )


def stored_gzip(data: bytes) -> bytes:
    """A gzip stream of deflate's stored blocks, empty data included."""
    parts = [_GZIP_HEADER]
    for start in range(0, max(len(data), 1), _STORED_BLOCK):
        block = data[start : start + _STORED_BLOCK]
        is_last = start + _STORED_BLOCK >= len(data)
        parts.append(struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block)
    parts.append(struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF))
    return b"".join(parts)
