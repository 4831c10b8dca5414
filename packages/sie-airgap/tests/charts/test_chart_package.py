"""The packaged chart: the same bytes each time, whole, and nothing that does not belong."""

import gzip
import io
import os
import shutil
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sie_airgap.charts.package import ChartName, chart_yaml, identify, pack, stored_gzip
from sie_airgap.charts.tree import read as read_chart
from sie_airgap.charts.tree import unpacked
from sie_airgap.failures import Incomplete, Misused


@pytest.fixture
def chart(tmp_path):
    folder = tmp_path / "demo"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: demo\nversion: 1.2.3\n")
    (folder / "values.yaml").write_text("{}\n")
    (folder / "templates" / "a.yaml").write_text("# nothing\n" * 20_000)
    return folder


def _members(packed):
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_package_holds_every_file_under_the_charts_name(chart):
    members = _members(pack(chart))

    assert list(members) == ["demo/Chart.yaml", "demo/templates/a.yaml", "demo/values.yaml"]
    assert members["demo/templates/a.yaml"] == (chart / "templates" / "a.yaml").read_bytes()


def test_package_has_the_same_bytes_from_another_folder_at_another_time(chart, tmp_path):
    copy = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(chart, copy)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)

    assert pack(copy) == pack(chart)


@pytest.mark.parametrize(
    ("rule", "left_out"),
    [
        ("*.bak", ["x.bak", "templates/y.bak"]),
        ("ci/", ["ci/z.yaml"]),
        ("templates/y.bak", ["templates/y.bak"]),
        ("# *.bak\n\nci", ["ci/z.yaml"]),
    ],
)
def test_helmignore_leaves_out_what_it_names(chart, rule, left_out):
    (chart / "ci").mkdir()
    for name in ("x.bak", "templates/y.bak", "ci/z.yaml"):
        (chart / name).write_text("x")
    everything = set(_members(pack(chart)))

    (chart / ".helmignore").write_text(f".helmignore\n{rule}\n")

    assert everything - set(_members(pack(chart))) == {f"demo/{name}" for name in left_out}


def test_rule_that_is_not_understood_is_refused_by_name(chart):
    (chart / ".helmignore").write_text("!values.yaml\n")

    with pytest.raises(Misused, match=r"`!values\.yaml`"):
        pack(chart)


def _package(name):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        data = f"name: {name}\nversion: 2.14.3\n".encode()
        member = tarfile.TarInfo(f"{name}/Chart.yaml")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def test_dependency_that_is_not_inside_is_named(chart):
    (chart / "Chart.yaml").write_text("name: demo\nversion: 1.2.3\ndependencies: [{name: keda, version: 2.x}]\n")

    with pytest.raises(Incomplete, match="`keda`"):
        pack(chart)

    (chart / "charts").mkdir()
    (chart / "charts" / "keda-2.14.3.tgz").write_bytes(_package("keda"))
    assert "demo/charts/keda-2.14.3.tgz" in _members(pack(chart))


def test_chart_is_known_by_its_folder_and_by_its_package(chart, tmp_path):
    package = tmp_path / "any-name.tgz"
    package.write_bytes(pack(chart))

    assert identify(chart) == identify(package) == ChartName("demo", "1.2.3")
    assert identify(package).file == "demo-1.2.3.tgz"


def test_folder_without_chart_yaml_is_no_chart(tmp_path):
    with pytest.raises(Incomplete, match=r"has no Chart\.yaml"):
        pack(tmp_path)


@given(st.integers(0, 200_000))
def test_stored_stream_is_gzip_whatever_the_length(length):
    data = bytes(length)

    assert gzip.decompress(stored_gzip(data)) == data


@pytest.mark.parametrize("read", [unpacked, chart_yaml])
def test_package_that_unpacks_without_end_fills_no_memory(read):
    bomb = io.BytesIO()
    with gzip.open(bomb, "wb", compresslevel=9) as stream:
        stream.write(tarfile.TarInfo("c/README.md").tobuf())
        for _ in range(101):
            stream.write(bytes(1 << 20))

    with pytest.raises(ValueError, match=r"unpack to more than 104,857,600"):
        read(bomb.getvalue())


@pytest.mark.parametrize("name", ["c/Chart.yaml", "c/values.yaml", "c/charts/a/Chart.yaml"])
def test_file_that_stands_twice_is_refused_by_name(name):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo(name))

    with pytest.raises(ValueError, match=rf"`{name[2:]}` stands there twice"):
        unpacked(made.getvalue())


LAUGHS = b"a0: &a0 [x]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (i, i, i - 1, i - 1) for i in range(1, 40))


@pytest.mark.parametrize(
    ("values", "why"), [(b"&x {inner: *x}", "inside itself"), (b"a: &a [*a]", "inside itself"), (LAUGHS, "aliases")]
)
def test_values_that_never_end_are_refused_by_their_file(values, why):
    with pytest.raises(ValueError, match=rf"values\.yaml .*{why}"):
        read_chart({"Chart.yaml": b"name: outer", "values.yaml": values})
