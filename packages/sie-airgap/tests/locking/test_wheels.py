"""Wheels that are carried: ours and nobody else's, and enough of the others for every Python and machine."""

import os
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sie_airgap.failures import Incomplete, Misused
from sie_airgap.locking.building import lock_wheels, wheels_lacking
from sie_airgap.locking.wheel_needs import TARGETS, Target, told
from sie_airgap.store.blobs import BlobFolder
from sie_testing.wheels import OURS, write_ours, write_wheel

ROOT = Path(__file__).resolve().parents[4]
EVERYWHERE = tuple(str(target) for target in TARGETS)


@pytest.fixture
def store(tmp_path: Path) -> BlobFolder:
    return BlobFolder(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_ours(tmp_path / "wheels")


def needs(folder: Path, *requires: str) -> None:
    """The toolkit needs these besides."""
    write_wheel(folder, "sie-airgap", requires=(*OURS["sie-airgap"], *requires))


def lacks(folder: Path) -> dict[str, tuple[str, ...]]:
    return {lack.wanted: lack.targets for lack in wheels_lacking(folder)}


def test_ours_alone_are_enough_where_they_need_nothing_else(folder: Path, store: BlobFolder) -> None:
    locked = lock_wheels(folder, store)

    assert [wheel.file.partition("-")[0] for wheel in locked] == ["sie_airgap", "sie_core", "sie_sdk"]
    assert all(store.size(wheel.digest) == wheel.size_bytes for wheel in locked)


@pytest.mark.parametrize(
    ("tags", "there"),
    [
        (["py3-none-any"], EVERYWHERE),
        (["cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"], ["Python 3.11 on x86_64"]),
        (["cp311-abi3-manylinux_2_28_x86_64"], [each for each in EVERYWHERE if "x86_64" in each]),
        (["cp312-abi3-manylinux2014_aarch64"], ["Python 3.12 on aarch64", "Python 3.13 on aarch64"]),
        (["py3-none-manylinux_2_24_aarch64"], [each for each in EVERYWHERE if "aarch64" in each]),
        (["cp311-abi3-manylinux_2_34_x86_64"], []),
        (["cp311-abi3-musllinux_1_2_x86_64"], []),
        (["cp313-cp313t-manylinux_2_28_x86_64"], []),
        (["cp310-cp310-manylinux_2_28_x86_64"], []),
        (["cp312-cp312-macosx_11_0_arm64", "cp312-cp312-win_amd64"], []),
        (["cp311-abi3-manylinux_2_28_x86_64", "cp311-abi3-manylinux_2_28_aarch64"], EVERYWHERE),
    ],
)
def test_a_wheel_counts_where_pip_would_install_it(folder: Path, tags: Sequence[str], there: Sequence[str]) -> None:
    needs(folder, "native>=1")
    for tag in tags:
        write_wheel(folder, "native", "1.5", tag=tag)

    missing = lacks(folder).get("native>=1", ())
    assert missing == tuple(each for each in EVERYWHERE if each not in there)


def test_what_is_missing_is_named_with_who_asks_where_and_what_there_is(folder: Path, store: BlobFolder) -> None:
    needs(folder, "middle")
    write_wheel(folder, "middle", "1.0", requires=["deep<3,>=2"])
    write_wheel(folder, "deep", "1.9")

    with pytest.raises(Incomplete) as caught:
        lock_wheels(folder, store)
    assert caught.value.exit_code == 4
    assert "deep<3,>=2 (for middle): everywhere; there is 1.9" in caught.value.message
    assert "`make wheels`" in (caught.value.hint or "")
    assert len(lock_wheels(folder, store, may_lack=True)) == 5


def test_markers_are_judged_for_the_far_machine_and_not_for_this_one(folder: Path) -> None:
    needs(
        folder,
        "old; python_version < '3.12'",
        "windows; sys_platform == 'win32'",
        "arm; platform_machine == 'aarch64'",
        "pypy; implementation_name == 'pypy'",
    )

    assert lacks(folder) == {
        "arm": tuple(each for each in EVERYWHERE if "aarch64" in each),
        "old": ("Python 3.11 on x86_64", "Python 3.11 on aarch64"),
    }


def test_extras_are_followed_and_only_those_that_are_asked_for(folder: Path) -> None:
    needs(folder, "boto; extra == 's3'", "pictures; extra == 'images'", "thing[fast]")
    write_wheel(folder, "thing", "1", requires=["speed; extra == 'fast'", "docs; extra == 'docs'"])

    assert set(lacks(folder)) == {"boto", "speed"}


def test_an_older_wheel_is_taken_where_the_newest_is_not_wanted(folder: Path) -> None:
    needs(folder, "a", "b<2")
    write_wheel(folder, "a", "1", requires=["b"])
    write_wheel(folder, "b", "2", requires=["not-there"])
    write_wheel(folder, "b", "1")

    assert lacks(folder) == {}


def test_two_that_ask_for_what_cannot_be_together_are_both_named(folder: Path) -> None:
    needs(folder, "a", "b<2")
    write_wheel(folder, "a", "1", requires=["b>=2"])
    write_wheel(folder, "b", "1")

    (lack,) = wheels_lacking(folder)
    assert told(lack) == "b<2,>=2 (for a, sie-airgap): everywhere; there is 1"


def test_a_python_that_a_wheel_does_not_want_is_not_counted(folder: Path) -> None:
    needs(folder, "young")
    write_wheel(folder, "young", "1", python=">=3.12")

    assert lacks(folder) == {"young": ("Python 3.11 on x86_64", "Python 3.11 on aarch64")}


def test_a_wheel_of_our_name_that_is_another_projects_is_refused(folder: Path, store: BlobFolder) -> None:
    """`sie-sdk` 0.3.1 is published by somebody else, and does not know our kernel."""
    write_wheel(folder, "sie-sdk", requires=["httpx"])

    with pytest.raises(Misused, match=r"sie_sdk-0\.3\.1.*another project's"):
        lock_wheels(folder, store)


@pytest.mark.parametrize(
    ("version", "said"), [("0.3.2", "`sie-core` is there 2 times"), ("0.3.0", "ours are of 2 versions: 0.3.0, 0.3.1")]
)
def test_ours_of_two_versions_are_refused(folder: Path, store: BlobFolder, version: str, said: str) -> None:
    write_wheel(folder, "sie-core", version)

    with pytest.raises(Misused, match=re.escape(said)):
        lock_wheels(folder, store)


@pytest.mark.parametrize("name", ["sie-core", "sie-airgap", "sie-sdk"])
def test_without_one_of_ours_nothing_is_locked_whatever_is_allowed(folder: Path, store: BlobFolder, name: str) -> None:
    next(folder.glob(f"{name.replace('-', '_')}-*.whl")).unlink()

    with pytest.raises(Incomplete, match=name):
        lock_wheels(folder, store, may_lack=True)


@pytest.mark.parametrize("damage", ["cut", "renamed", "no metadata", "not a name"])
def test_a_file_that_pip_would_not_install_is_named(folder: Path, store: BlobFolder, damage: str) -> None:
    path = write_wheel(folder, "other", "1")
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:-40])
        case "renamed":
            path = path.rename(folder / "different-1-py3-none-any.whl")
        case "no metadata":
            path.write_bytes(b"PK\x05\x06" + bytes(18))
        case _:
            path = path.rename(folder / "other.whl")

    with pytest.raises(Misused, match=re.escape(path.name)):
        lock_wheels(folder, store)


def test_this_machine_is_judged_as_pip_judges_it(folder: Path, tmp_path: Path) -> None:
    """A real closure, as pip finds it here without an index: what we call complete it installs, and nothing less."""
    here = Target(f"3.{sys.version_info.minor}", "x86_64")
    tag = f"cp3{sys.version_info.minor}-cp3{sys.version_info.minor}-manylinux_2_17_x86_64"
    needs(folder, "native", "chosen[more]; python_version >= '3.11'")
    write_wheel(folder, "native", "1", tag=tag)
    write_wheel(folder, "chosen", "1", requires=["leaf>=2; extra == 'more'"])
    words = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed", "--no-index"]
    words += ["--disable-pip-version-check", "--find-links", str(folder), "sie-airgap[s3,gcs]", "sie-sdk"]

    def agrees() -> tuple[bool, bool]:
        pip = subprocess.run(words, capture_output=True, check=False, cwd=tmp_path).returncode == 0
        return pip, not any(str(here) in lack.targets for lack in wheels_lacking(folder))

    assert agrees() == (False, False)
    write_wheel(folder, "leaf", "2")
    assert agrees() == (True, True)


def test_what_is_fetched_for_the_far_side_is_what_the_packages_need() -> None:
    """`requirements/carried.in` has every dependency of the three packages, as they declare it, and no other."""
    import tomllib

    asked = set()
    for name, extras in (("core", ("arrays", "s3", "gcs", "hub")), ("sdk", ()), ("airgap", ("s3", "gcs"))):
        project = tomllib.loads((ROOT / f"packages/sie-{name}/pyproject.toml").read_text())["project"]
        lines = [*project["dependencies"], *(each for x in extras for each in project["optional-dependencies"][x])]
        asked |= {line.replace("'", '"') for line in lines if not line.startswith("sie-")}
    listed = (ROOT / "requirements/carried.in").read_text().splitlines()

    assert asked == {line for line in listed if not line.startswith("#")}


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("a.whl", os.mkfifo, "'a.whl' is a folder, a device, a pipe or a socket"),
        ("a.whl", Path.mkdir, "'a.whl' is a folder, a device, a pipe or a socket"),
        (
            "a.whl",
            lambda path: path.symlink_to("/dev/zero"),
            "'a.whl' is a link that leads out of the folder, to `/dev/zero`",
        ),
        ("a.whl", lambda path: path.symlink_to("../a.whl"), "'a.whl' is a link that leads nowhere"),
        ("a.whl", lambda path: path.symlink_to("a.whl"), "'a.whl' is a link that leads nowhere"),
        (os.fsdecode(b"\xff-1-py3-none-any.whl"), Path.touch, r"'\udcff-1-py3-none-any.whl' is no name of a wheel"),
    ],
)
def test_what_is_no_file_of_the_folder_is_refused_by_name_and_not_opened(
    folder: Path, store: BlobFolder, name: str, make: Callable[[Path], object], said: str
) -> None:
    make(folder / name)
    (folder / "b.whl").symlink_to("/etc/passwd")

    with pytest.raises(Misused, match=re.escape(said)) as caught:
        lock_wheels(folder, store)
    assert caught.value.exit_code == 2
    assert "'b.whl' is a link that leads out of the folder, to `/etc/passwd`" in caught.value.message


def test_a_link_inside_the_folder_is_the_wheel_behind_it(folder: Path, store: BlobFolder) -> None:
    plain = lock_wheels(folder, store)
    wheel = next(folder.glob("sie_core*"))
    (folder / "kept").mkdir()
    wheel.rename(folder / "kept" / wheel.name)
    wheel.symlink_to(f"kept/{wheel.name}")

    assert lock_wheels(folder, store) == plain


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ("../../outside.py", "`../../outside.py` is not a relative path"),
        ("/etc/profile.d/x.sh", "`/etc/profile.d/x.sh` is not a relative path"),
        ("a/../../x.py", "`a/../../x.py` is not a relative path"),
        ("a\x1b[2J.py", r"'a\x1b[2J.py' is a path with control characters"),
        ("other.py", "`other.py` stands there twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_pip_would_put_elsewhere_is_refused_by_name(
    folder: Path, store: BlobFolder, member: str, said: str
) -> None:
    path = write_wheel(folder, "other", "1")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(member), "x")

    with pytest.raises(Misused, match=re.escape(said)) as caught:
        lock_wheels(folder, store)
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("offset", "value", "said"),
    [
        (24, (10 << 30) % (1 << 32), "METADATA` has 2,147,483,648 bytes, at most 4,194,304 are read"),
        (8, 1, "encrypted"),
    ],
)
def test_what_the_header_of_metadata_says_is_refused(
    folder: Path, store: BlobFolder, offset: int, value: int, said: str
) -> None:
    """In the zip's directory, which is what readers go by: its length, and whether it is encrypted."""
    path = write_wheel(folder, "other", "1")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"dist-info/METADATA"))
    struct.pack_into("<H" if value == 1 else "<I", data, at + offset, value)
    path.write_bytes(data)

    with pytest.raises(Misused, match=re.escape(path.name)) as caught:
        lock_wheels(folder, store)
    assert said in caught.value.message
