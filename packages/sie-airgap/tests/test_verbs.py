"""What every verb owes, over the real tree of verbs: help, `--dry-run`, being run again, `--output json`.

A verb that is new has no way in `WAYS` and fails here until it has.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from sie_airgap.cli import cli
from sie_testing.carried import Run
from sie_testing.errands import WAYS, Way, tree
from sie_testing.registry import Registry, serving_registry

MOST_COLUMNS = 80


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
        return tree(self.here, with_times=with_times)


@pytest.fixture
def world(errands: Path, worker: str, hub_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    here = tmp_path / "here"
    shutil.copytree(errands, here)
    monkeypatch.setenv("HF_ENDPOINT", hub_url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving_registry(Registry(here / "registry")) as registry:
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


@pytest.mark.parametrize(("verb", "way"), [each for each in EACH if each.values[1].changes])
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


@pytest.mark.parametrize(("verb", "way"), [each for each in EACH if not each.values[1].changes])
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
