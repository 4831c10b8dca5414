"""What people and strangers wrote: specs, charts with the charts inside them, METADATA of wheels."""

import io
import json
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from fuzz.target import Target, bare, checked
from sie_airgap.charts import tree
from sie_airgap.charts.package import chart_yaml, stored_gzip
from sie_airgap.locking.wheel_needs import lacking, parse_wheel
from sie_core.catalog.reading import parse_spec
from sie_core.catalog.spec import dump_spec

_SPECS = Path(__file__).resolve().parents[2] / "specs" / "models"
_SPEC = {
    "id": "org/name",
    "source": {"repo": "org/other", "revision": "0" * 40},
    "dense": {"head": "pooled", "pooling": "cls", "dim": 8},
    "query": "query: {text}",
    "variants": {"x": {"options": {"a": 1}, "lora": {"repo": "org/lora"}}},
}
_CHART = b"apiVersion: v2\nname: outer\nversion: 0.1.0\ndependencies:\n- {name: inner, alias: other, version: 1.0.0}\n"
_VALUES = b"a: &a {b: [1, 2.5, ~, true], c: 2026-01-01}\nd: *a\nother: {image: x}\n"


def _specs() -> Iterator[bytes]:
    yield json.dumps(_SPEC).encode()
    yield from (path.read_bytes() for path in islice(sorted(_SPECS.glob("*.yaml")), 8))


def _read_spec(data: bytes) -> None:
    spec = parse_spec(data, where="spec.yaml")
    assert parse_spec(dump_spec(spec), where="again") == spec


def _tar(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


def _charts() -> Iterator[bytes]:
    """The tar alone: it is put into gzip when it is read, for no flipped bit gets past a checksum."""
    inner = stored_gzip(
        _tar({"inner/Chart.yaml": b"name: inner\nversion: 1.0.0\n", "inner/values.yaml": b"image: y\n"})
    )
    files = {"outer/Chart.yaml": _CHART, "outer/values.yaml": _VALUES, "outer/charts/inner-1.0.0.tgz": inner}
    yield _tar(files)


def _read_chart(data: bytes) -> None:
    tgz = stored_gzip(data)
    _ = chart_yaml(tgz)
    _read_tree(tree.unpacked(tgz))


def _gzips() -> Iterator[bytes]:
    for data in _charts():
        yield stored_gzip(data)


def _read_gzip(data: bytes) -> None:
    _ = chart_yaml(data)
    tree.unpacked(data)


def _yamls() -> Iterator[bytes]:
    yield _CHART
    yield _VALUES


def _read_yaml(data: bytes) -> None:
    inner = {"charts/inner/Chart.yaml": b"name: inner", "charts/inner/values.yaml": data}
    _read_tree({"Chart.yaml": _CHART, "values.yaml": data, **inner})
    _read_tree({"Chart.yaml": data, **inner})


def _read_tree(files: dict[str, bytes]) -> None:
    read = tree.read(files)
    _ = list(tree.missing(read)), tree.effective_values(read), read.name


def _metadata() -> Iterator[bytes]:
    yield (
        b"Metadata-Version: 2.1\nName: sie-core\nVersion: 0.3.1\nRequires-Python: >=3.11\n"
        b"Requires-Dist: numpy<3,>=2.1 ; extra == 'x' and python_version < '4'\nRequires-Dist: click\n\ntext\n"
    )


def _read_metadata(data: bytes) -> None:
    lacking([parse_wheel("sie_core-0.3.1-py3-none-any.whl", data)])


TARGETS = (
    Target("spec", _specs, checked(_read_spec, ValueError), json.loads, bare),
    Target("chart", _charts, checked(_read_chart, ValueError), most_bytes=1 << 15),
    Target("chart-gzip", _gzips, checked(_read_gzip, ValueError), most_bytes=1 << 15),
    Target("chart-yaml", _yamls, checked(_read_yaml, ValueError)),
    Target("wheel-metadata", _metadata, checked(_read_metadata, ValueError)),
)
