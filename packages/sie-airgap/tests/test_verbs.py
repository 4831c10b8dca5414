"""What every verb owes, over the real tree of verbs: help, `--dry-run`, being run again, `--output json`.

A verb that is new has no way in `WAYS` and fails here until it has.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
import pytest

from sie_airgap.cli import cli
from sie_airgap.cli.outcome import run
from sie_airgap.locking.building import lock_chart
from sie_airgap.oci.copy import resolve_image
from sie_airgap.oci.sources import ImageSources, parse_elsewhere
from sie_airgap.store.blobs import BlobFolder
from sie_core.artifacts.lock import Lock
from sie_core.ids import Revision
from sie_testing import tiny_worker
from sie_testing.carried import FILES, Run, filled_store, locked_model, make_lock
from sie_testing.hub import Hub, serving_hub
from sie_testing.images import NAMES, write_images
from sie_testing.registry import Registry, serving_registry

MOST_COLUMNS = 80
KEYS = "--lock-key alice.pub --root-key bob.pub"


class Way(NamedTuple):
    """A command line that does its work in the world below.

    Attributes:
        words: `{bucket}`, `{registry}` and `{worker}` are where these are.
        changes: it writes something; then a dry run of it changes nothing, and a second run changes nothing more.
        again: the exit code of a second run.
    """

    words: str
    changes: bool = True
    again: int = 0


WAYS: dict[str, tuple[Way, ...] | str] = {
    "lock": (Way("--model org/small --lock new.lock --store new"),),
    "review": (Way("store", changes=False),),
    "plan": (Way("store", changes=False),),
    "snapshot": (Way("--lock small.lock --store new"),),
    "golden record": (Way("--url {worker} --store asked"),),
    "golden compare": (Way("recorded.json --url {worker}", changes=False),),
    "sign": (Way("small.lock --key alice.pem --passphrase-file secret --store store"),),
    "pack": (Way("new --store store --volume-size 2MB --parity 2"),),
    "inspect": (Way("media", changes=False),),
    "verify": (
        Way("media", changes=False),
        Way("store", changes=False),
        Way("{bucket}", changes=False),
        Way("file://{here}/hand --write-manifest --lock store/airgap.lock"),
    ),
    "repair": (Way("torn -o new"),),
    "unpack": (Way("media --store new"),),
    "mirror weights": (Way("file://{here}/new --from media"),),
    "mirror images": (Way("{registry} --from store"),),
    "mirror chart": (Way("oci://{registry} --from store"), Way("./new --from store")),
    "mirror rules": (
        Way("{registry} --format hosts.toml -o new --from store"),
        Way("{registry} --format idms --from store", changes=False),
    ),
    "mirror all": (Way("--bucket file://{here}/new --registry {registry} --from store --full-names"),),
    "values": (
        Way("--bucket s3://models/w/ --from store -o new.yaml"),
        Way("--bucket s3://models/w/ --from store", changes=False),
    ),
    "receipt": (Way("{bucket} -o new.json"), Way("store", changes=False)),
    "rehearse": "starts the pods of a chart in namespaces: tests/rehearsal",
    "far-side": "becomes the command that it is given: tests/rehearsal",
    "rollback": (Way("--to 1 --store far"),),
    "gc": (
        Way("far --drop 1 --delete"),
        Way("{bucket} --drop 1 --delete"),
        Way("far", changes=False),
        Way("{bucket}", changes=False),
    ),
    "trust key": (Way("carol --passphrase-file secret", again=2),),
    "trust root": (Way(f"new.json {KEYS}"),),
    "trust pin": (Way("root.json.dsse"),),
    "trust show": (Way("--trust pinned.json", changes=False),),
    "why": (Way("org/small --from store", changes=False),),
    "explain": (Way("org/small --from media", changes=False),),
    "diff": (Way("small.lock store", changes=False),),
    "completion": (Way("bash", changes=False),),
}
"""By the words of each verb; a text says why it cannot be called here, and where it is."""

SAYS_NO_JSON = {
    "completion": "what it prints is a script for a shell",
    "far-side": "what it prints is the command's",
}


def _verbs(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _verbs(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


assert isinstance(cli, click.Group)
VERBS = dict(_verbs(cli))
GROUPS = [name for name in cli.list_commands(click.Context(cli)) if name not in VERBS]
EACH = [
    pytest.param(verb, way, id=f"{verb} {number}" if number else verb)
    for verb, ways in WAYS.items()
    if not isinstance(ways, str)
    for number, way in enumerate(ways)
]


def _takes(verb: str, option: str) -> bool:
    return any(option in parameter.opts for parameter in VERBS[verb].params)


@dataclass(frozen=True)
class World:
    """A folder in which every verb has what it works on, and where the servers are."""

    here: Path
    places: dict[str, str]

    def words(self, verb: str, way: Way) -> list[str]:
        return [*verb.split(), *shlex.split(way.words.format(here=self.here, **self.places))]

    def tree(self, *, with_times: bool = False) -> dict[str, object]:
        """Every file and folder; `with_times`: files that were written anew differ, too."""
        return {
            path.relative_to(self.here).as_posix(): (
                path.read_bytes() if path.is_file() else None,
                path.stat().st_mtime_ns if with_times and path.is_file() else None,
            )
            for path in self.here.rglob("*")
        }


def _lock(layout: Path, store: BlobFolder) -> Lock:
    """Models of `FILES`, images of a layout, and this repository's chart."""
    with ImageSources([parse_elsewhere(f"ghcr.io/superlinked=oci:{layout}")]) as sources:
        images = [resolve_image(name, sources.find(name), why=["the test"]) for name in sorted(NAMES)]
    chart = lock_chart(Path(__file__).parents[3] / "charts" / "sie-cluster", store)
    return msgspec.structs.replace(make_lock(FILES), images=tuple(images), charts=(chart,))


@pytest.fixture(scope="module")
def worker() -> Iterator[str]:
    with tiny_worker.tiny_worker() as url:
        yield url


@pytest.fixture(scope="module")
def hub_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("hub")
    for model, files in FILES.items():
        for path, data in files.items():
            (folder / model / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / model / path).write_bytes(data)
    pins = {model: Revision("ab" * 20) for model in FILES}
    with serving_hub(Hub(folder, pins=pins)) as url:
        yield url


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, hub_url: str, worker: str) -> Path:
    """The world, made once; each test has a copy."""
    here = tmp_path_factory.mktemp("world")
    layout = write_images(tmp_path_factory.mktemp("images")).folder
    filled_store(here / "store", _lock(layout, BlobFolder(here / "store")), FILES)
    shutil.copytree(layout / "blobs", here / "store" / "blobs", dirs_exist_ok=True)
    plain = locked_model("acme/plain", {"config.json": b"{}"}, Revision(tiny_worker.REVISION))
    asked = msgspec.structs.replace(make_lock({}), models=(plain,))
    filled_store(here / "asked", asked, {"acme/plain": {"config.json": b"{}"}})
    filled_store(here / "second", msgspec.structs.replace(make_lock({}), serial=2), {})
    (here / "secret").write_text("correct horse\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("HF_ENDPOINT", hub_url)
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        for line in (
            "lock --model org/small --lock small.lock --store small",
            f"golden record --url {worker} --store asked",
            "pack media --store store --volume-size 2MB",
            "pack torn --store store --volume-size 2MB --parity 3",
            "pack media2 --store second",
            "unpack media --store far",
            "unpack media2 --store far",
            f"mirror weights file://{here}/bucket --from store",
            f"mirror weights file://{here}/bucket --from second",
            f"mirror weights file://{here}/hand --from store",
            "trust key alice --passphrase-file secret",
            "trust key bob --passphrase-file secret",
            f"trust root root.json {KEYS}",
            "sign root.json --key bob.pem --passphrase-file secret",
            "trust pin root.json.dsse --trust pinned.json",
        ):
            assert run(cli, shlex.split(line)) == 0, line
    (here / "asked/golden.json").rename(here / "recorded.json")
    (here / "torn/v0001.tar").unlink()
    shutil.rmtree(here / "hand/.sie")
    for manifest in here.glob("hand/models--*/manifests"):
        shutil.rmtree(manifest)
    return here


@pytest.fixture
def world(made: Path, tmp_path: Path, hub_url: str, worker: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    here = tmp_path / "here"
    shutil.copytree(made, here)
    monkeypatch.setenv("HF_ENDPOINT", hub_url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with ExitStack() as stack:
        registry = stack.enter_context(serving_registry(Registry(here / "registry")))
        place = f"{registry.removeprefix('http://')}/sie"
        yield World(here, {"bucket": f"file://{here}/bucket", "registry": place, "worker": worker})


@pytest.fixture
def ran(airgap: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As `airgap`, in the world."""
    monkeypatch.chdir(world.here)
    return airgap


def _help(verb: str) -> str:
    command: click.Command = cli
    context = click.Context(cli, info_name="sie-airgap", terminal_width=MOST_COLUMNS)
    for word in verb.split():
        assert isinstance(command, click.Group)
        found = command.get_command(context, word)
        assert found is not None
        command = found
        context = command.context_class(command, info_name=word, parent=context)
    return command.get_help(context)


def test_every_verb_is_called_here() -> None:
    assert set(WAYS) == set(VERBS)


@pytest.mark.parametrize("verb", ["", *VERBS, *GROUPS])
def test_help_fits_on_a_terminal_and_breaks_no_name(verb: str) -> None:
    told = _help(verb).splitlines()

    assert max(map(len, told)) <= MOST_COLUMNS
    assert not [line for line in told if re.search(r"\w-$", line)]


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_what_every_word_means_and_shows_an_example_that_is_right(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example is taken by the verb's own command line; the files it names need not be here."""
    monkeypatch.chdir(tmp_path)
    command, told = VERBS[verb], re.sub(r"\\\n\s*", "", _help(verb))
    examples = re.findall(rf"^ .*?sie-airgap {verb}\b([^\n\"$)>]*)", told, re.MULTILINE)

    assert examples
    for parameter in command.params:
        said = parameter.help if isinstance(parameter, click.Option) else parameter.make_metavar(click.Context(command))
        assert said
    for example in examples:
        try:
            command.make_context(verb, shlex.split(example))
        except click.BadParameter as error:
            assert "does not exist" in error.message, example


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_writes_can_be_tried_dry(verb: str) -> None:
    ways = WAYS[verb]

    writes = not isinstance(ways, str) and any(way.changes for way in ways)
    assert _takes(verb, "--dry-run") == writes


@pytest.mark.parametrize(("verb", "way"), [each for each in EACH if each.values[1].changes])  # type: ignore[union-attr]
def test_a_dry_run_changes_nothing_and_a_second_run_nothing_more(ran: Run, world: World, verb: str, way: Way) -> None:
    words, before = world.words(verb, way), world.tree(with_times=True)

    code, out, err = ran(*words, "--dry-run")
    assert (code, bool(out.strip())) == (0, True), err
    assert world.tree(with_times=True) == before

    untouched = world.tree()
    assert ran(*words)[0] == 0
    done = world.tree()
    assert done != untouched
    code, _, err = ran(*words)
    assert code == way.again, err
    assert _unsigned(world.tree()) == _unsigned(done)


def _unsigned(tree: dict[str, object]) -> dict[str, object]:
    """Without envelopes: a signature of ECDSA is another one each time."""
    return {path: content for path, content in tree.items() if not path.endswith(".dsse")}


@pytest.mark.parametrize(("verb", "way"), [each for each in EACH if not each.values[1].changes])  # type: ignore[union-attr]
def test_a_verb_that_reads_changes_nothing(ran: Run, world: World, verb: str, way: Way) -> None:
    before = world.tree(with_times=True)

    code, out, err = ran(*world.words(verb, way))
    assert (code, bool(out.strip())) == (0, True), err
    assert world.tree(with_times=True) == before


@pytest.mark.parametrize(("verb", "way"), [each for each in EACH if each.values[0] not in SAYS_NO_JSON])
def test_json_is_one_object_on_one_line_and_events_beside_it(ran: Run, world: World, verb: str, way: Way) -> None:
    words = [*world.words(verb, way), "--output", "json"]

    for each in (words, [*words, "--dry-run"]) if way.changes else (words,):
        code, out, err = ran(*each)
        assert code in (0, way.again), err
        assert out.count("\n") == (1 if code == 0 else 0)
        assert code or isinstance(json.loads(out), dict)
        assert all("event" in json.loads(line) for line in err.splitlines())


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in SAYS_NO_JSON])
def test_a_mistake_is_an_event_that_says_what_to_do(ran: Run, verb: str) -> None:
    code, out, err = ran(*verb.split(), "--no-such-option", "--output", "json")

    told = json.loads(err)
    assert (code, out) == (2, "")
    assert (told["event"], told["exit_code"]) == ("error", 2)
    assert "--no-such-option" in told["message"]
    assert told["hint"] == f"`sie-airgap {verb} --help` says what it takes"


def test_no_verb_is_left_without_json() -> None:
    assert {verb for verb in VERBS if not _takes(verb, "--output")} == set(SAYS_NO_JSON)
