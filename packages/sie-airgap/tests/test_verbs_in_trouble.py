"""Every verb where nothing is, where nothing may be read or written, on a full disk, and when Ctrl-C is pressed.

Over the same table as `test_verbs`: each ends with a documented code, says what and where, and is no traceback.
"""

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sie_testing.errands import WAYS, Ended, Way, in_trouble
from sie_testing.registry import Registry, serving_registry

EACH = [(verb, way) for verb, ways in WAYS.items() if not isinstance(ways, str) for way in ways]
WRITING = [(verb, way) for verb, way in EACH if way.changes]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, worker: str) -> Iterator[dict[str, str]]:
    with serving_registry(Registry(tmp_path_factory.mktemp("registry"))) as registry:
        yield {"registry": registry.removeprefix("http://"), "worker": worker}


class Troubled:
    """Runs ways in copies of the folder of errands, each in its own."""

    def __init__(self, errands: Path, here: Path, places: dict[str, str], env: dict[str, str]) -> None:
        self._errands, self._here, self._places, self._env = errands, here, places, env

    def words(self, number: int, verb: str, way: Way) -> tuple[Path, list[str]]:
        here = self._here / str(number)
        place = self._places | {
            "bucket": f"file://{here}/bucket",
            "registry": f"{self._places['registry']}/{here.name}",
        }
        return here, [*verb.split(), *shlex.split(way.words.format(here=here, **place))]

    def ended(self, trouble: str, ways: list[tuple[str, Way]], *, at: int = 0) -> dict[str, list[Ended]]:
        asked = []
        for number, (verb, way) in enumerate(ways):
            here, words = self.words(number, verb, way)
            if trouble == "nothing":
                here.mkdir(parents=True)
            else:
                shutil.copytree(self._errands, here)
            _spoil(here, trouble)
            asked.append((here, words))
        found = in_trouble(trouble, asked, self._env, at=at)
        return {f"{verb} {way.words}": one for (verb, way), one in zip(ways, found, strict=True)}


def _spoil(here: Path, trouble: str) -> None:
    for path in [here, *here.rglob("*")]:
        if trouble == "unreadable" and path.is_file():
            path.chmod(0)
        if trouble == "newer" and path.name in ("airgap.lock", "small.lock"):
            path.write_bytes(b'{"version": 2}')
        if trouble == "newer" and path.name in ("airgap.lock.sha256", "small.lock.sha256"):
            path.unlink()
        if trouble == "unwritable":
            path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.fixture
def troubled(errands: Path, tmp_path: Path, places: dict[str, str], hub_url: str) -> Iterator[Troubled]:
    env = {"HF_ENDPOINT": hub_url, "XDG_STATE_HOME": str(tmp_path / "state"), "HOME": str(tmp_path)}
    yield Troubled(errands, tmp_path / "here", places, env)
    for folder, _, _ in os.walk(tmp_path):
        Path(folder).chmod(0o755)


def _check(told: dict[str, list[Ended]], *, code: int, but: dict[str, int]) -> None:
    """Each ended with the code, or with that of the first key of `but` that it begins with; and says why."""
    for words, (ended, *_) in told.items():
        want = next((other for begins, other in but.items() if words.startswith(begins)), code)
        assert ended.code == want, (words, ended.err)
        assert "Traceback" not in ended.err
        if want != 0:
            assert "error: " in ended.err, words
            assert "\nhint: " in ended.err, (words, ended.err)


def test_where_nothing_is_every_verb_says_what_is_missing(troubled: Troubled) -> None:
    _check(troubled.ended("nothing", EACH), code=4, but={"lock": 0, "completion": 0})


def test_what_may_not_be_read_is_no_permission(troubled: Troubled) -> None:
    """`repair` takes an unreadable volume for a lost one, which is what it is there for."""
    _check(troubled.ended("unreadable", EACH), code=6, but={"lock": 0, "completion": 0, "repair": 4})


def test_what_may_not_be_written_is_no_permission(troubled: Troubled) -> None:
    """A registry is not on this disk; that uploads cannot be noted either stops nobody."""
    elsewhere = {"mirror images": 0, "mirror chart oci": 0}
    _check(troubled.ended("unwritable", WRITING), code=6, but=elsewhere)


def test_a_full_disk_is_no_space(troubled: Troubled) -> None:
    _check(
        troubled.ended("full", WRITING),
        code=7,
        but={"mirror images": 0, "mirror chart oci": 0, "gc far": 0},  # making room needs none
    )


def test_a_lock_of_a_later_version_is_said_to_be_one(troubled: Troubled) -> None:
    ways = [(verb, way) for verb, way in EACH if {"store", "far", "asked", "small.lock"} & set(way.words.split())]
    told = troubled.ended("newer", ways)

    _check(told, code=3, but={})
    assert all("of a version that is not known here" in ended.err for (ended,) in told.values())


@pytest.mark.parametrize("at", [1, 3, 6, 12])
def test_ctrl_c_is_130_and_the_same_command_goes_on(troubled: Troubled, at: int) -> None:
    """Pressed when the verb opens its file, or connection, of that number."""
    pressed = 0
    for words, (ended, again) in troubled.ended("interrupted", WRITING, at=at).items():
        pressed += ended.code == 130
        assert ended.code in ((130,) if at == 1 else (0, 130)), (words, ended.err)
        assert "Traceback" not in ended.err
        assert "this is a bug" not in ended.err
        if ended.code == 130:
            assert "hint: run the same command again" in ended.err
            assert again.code == 0, (words, again.err)
    assert pressed > len(WRITING) // 3
