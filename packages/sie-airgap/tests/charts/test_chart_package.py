"""The packaged chart: the same bytes each time, whole, and nothing that does not belong."""

import gzip
import io
import os
import shutil
import socket
import tarfile
from pathlib import Path

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
    ("values", "why"),
    [
        (b"&x {inner: *x}", "inside itself"),
        (b"a: &a [*a]", "inside itself"),
        (LAUGHS, "aliases"),
        (b"[" * 200_000, "nested more than 200 deep"),
        (b"a: 2026-13-99", "not YAML"),
    ],
)
def test_values_that_never_end_are_refused_by_their_file(values, why):
    with pytest.raises(ValueError, match=rf"values\.yaml .*{why}"):
        read_chart({"Chart.yaml": b"name: outer", "values.yaml": values})


def test_a_link_inside_the_chart_is_the_file_behind_it(chart):
    """As helm renders it; a folder behind a link is its files, and a copy with the files themselves is the same."""
    (chart / "files").symlink_to("templates")
    (chart / "templates" / "b.yaml").symlink_to("../values.yaml")
    copy = chart.parent / "copy"
    shutil.copytree(chart, copy)

    members = _members(pack(chart))
    assert members["demo/templates/b.yaml"] == members["demo/files/b.yaml"] == b"{}\n"
    assert pack(copy) == pack(chart)


def _pipe(path):
    os.mkfifo(path)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.symlink_to("../../secret"), "`x` is a link that leads out of the chart, to `.*secret`"),
        (lambda path: path.symlink_to("/etc"), "`x` is a link that leads out of the chart, to `/etc`"),
        (lambda path: path.symlink_to("/dev/zero"), "`x` is a link that leads out of the chart, to `/dev/zero`"),
        (lambda path: path.symlink_to("nothing"), "`x` is a link to `nothing`, which leads nowhere"),
        (lambda path: path.symlink_to("x"), "`x` is a link to `x`, which leads nowhere"),
        (lambda path: path.symlink_to("."), "`x` is a link to a folder that it is in itself"),
        (_pipe, "`x` is a device, a pipe or a socket"),
        (_socket, "`x` is a device, a pipe or a socket"),
        (lambda path: path.with_name("a\x1b[2J").touch(), r"'a\\x1b\[2J' is no name"),
        (lambda path: path.with_name(os.fsdecode(b"\xff")).touch(), r"'\\udcff' is no name in UTF-8"),
    ],
)
@pytest.mark.parametrize("read", [pack, identify])
def test_what_no_chart_holds_is_refused_by_name_and_not_read(chart, tmp_path, monkeypatch, read, make, said):
    (tmp_path.parent / "secret").write_text("mine")
    monkeypatch.chdir(chart)
    make(Path("x"))

    with pytest.raises(Misused, match=said) as caught:
        read(chart)
    assert caught.value.exit_code == 2
    (chart / ".helmignore").write_text("?\na?*\n")
    assert list(_members(pack(chart)))[-1] == "demo/values.yaml"


def test_every_one_of_them_is_told(chart):
    _pipe(chart / "pipe")
    (chart / "templates" / "out").symlink_to("/etc/passwd")

    with pytest.raises(Misused, match=r"`pipe` is .*; `templates/out` is a link that leads out"):
        pack(chart)


def test_helmignore_that_leads_out_is_not_read(chart):
    (chart / ".helmignore").symlink_to("/etc/passwd")

    with pytest.raises(Misused, match=r"`\.helmignore` is a link that leads out"):
        pack(chart)


def test_folder_longer_than_any_chart_is_not_read(chart):
    with (chart / "long").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(Misused, match="more than 104,857,600 bytes"):
        pack(chart)


def test_links_that_multiply_end(chart):
    for number in range(20):
        folder = chart / f"f{number}"
        folder.mkdir()
        (folder / "leaf").touch()
        if number:
            (folder / "a").symlink_to(f"../f{number - 1}")
            (folder / "b").symlink_to(f"../f{number - 1}")

    with pytest.raises(Misused, match="more than 10,000"):
        pack(chart)


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("c/../../x", tarfile.REGTYPE, r"`c/\.\./\.\./x` leads out of the chart"),
        ("c/templates\\..\\..\\x", tarfile.REGTYPE, "leads out of the chart"),
        ("/c/x", tarfile.REGTYPE, "`/c/x` leads out of the chart"),
        ("c/values.yaml", tarfile.SYMTYPE, r"`values\.yaml` is a link, a device or a pipe"),
        ("c/templates/x", tarfile.LNKTYPE, "`templates/x` is a link"),
        ("c/templates/x", tarfile.CHRTYPE, "`templates/x` is a link, a device"),
        ("c/templates/x", tarfile.FIFOTYPE, "`templates/x` is a link, a device or a pipe"),
        (os.fsdecode(b"c/\xff"), tarfile.REGTYPE, r"'c/\\udcff' is no name in UTF-8"),
        ("c/Chart.yaml", tarfile.REGTYPE, r"`Chart\.yaml` stands there twice"),
    ],
)
@pytest.mark.parametrize("inside", [False, True], ids=["given", "a dependency"])
def test_member_that_no_chart_has_is_refused_by_name(chart, tmp_path, name, kind, said, inside):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("c/Chart.yaml"))
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    (chart / "charts").mkdir()
    package = chart / "charts" / "c.tgz" if inside else tmp_path / "c.tgz"
    package.write_bytes(made.getvalue())

    with pytest.raises(Misused, match=rf"{'charts/' if inside else ''}c.tgz.*{said}"):
        identify(chart if inside else package)
