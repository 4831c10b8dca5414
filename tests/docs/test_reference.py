"""What exists is documented: settings, codes, commands, metrics, chart values, headers, calls of the SDK."""

import configparser
import dataclasses
import importlib
import re

import pytest
import yaml

import sie_sdk
from sie_airgap import failures
from sie_core.artifacts import errors
from sie_core.catalog.catalog import Catalog
from sie_core.errors import KINDS
from sie_core.settings import DROPPED, NAMES, field_docs, field_names
from sie_core.wire import envelope


def _rows(page):
    """The first cell of every row of every table, without its backquotes."""
    return set(re.findall(r"^\| `([^`]+)`", page.text, re.MULTILINE))


def _cells(page):
    return set(re.findall(r"`([^`\n]+)`", page.prose))


def test_pages_are_what_the_programs_say(tool, root):
    stale = [path.name for path, text in tool.generated().items() if path.read_text(encoding="utf-8") != text]

    assert stale == [], "`python tools/reference.py` writes them again"


def test_every_model_that_is_served_names_tests_that_are_there(tool, root):
    del tool  # makes the modules beside it importable
    table = importlib.import_module("models_table")
    named = {name for spec in Catalog.shipped().specs.values() for name in table.tests_of(spec)}

    assert [name for name in sorted(named) if not (root / "tests" / "parity" / name).is_file()] == []


def test_page_that_is_not_what_the_programs_say_fails_the_check(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "PAGES", tmp_path / "reference")
    monkeypatch.setattr(tool, "ROOT", tmp_path)

    assert tool.main(["--check"]) == 1
    assert "reference/cli.md is not what the programs say" in capsys.readouterr().err
    assert tool.main([]) == 0
    assert tool.main(["--check"]) == 0


def test_every_setting_has_a_row_with_its_meaning(tool, pages):
    page = pages["docs/reference/settings.md"]
    for program in tool.PROGRAMS:
        docs, names = field_docs(program.settings), field_names(program.settings)
        section = page.section(f"`{program.name}`")

        assert set(names.values()) <= _cells(section)
        assert all(docs[field] and docs[field] in section.text for field in names)


def test_every_variable_has_a_row_kept_or_refused(pages):
    assert set(NAMES) | set(DROPPED) <= _rows(pages["docs/reference/settings.md"])


def test_table_of_names_says_exactly_who_reads_what(tool):
    """A variable that nobody reads, and one that a program reads and the table does not give it, are mistakes."""
    read_by: dict[str, set[str]] = {}
    for program in tool.PROGRAMS:
        for name in field_names(program.settings).values():
            read_by.setdefault(name, set()).add(program.name)
    ours = {name: owners for name, owners in read_by.items() if name.startswith("SIE_")}

    assert ours == {name: set(owners.split(", ")) for name, owners in NAMES.items()}


def test_every_error_code_has_a_row_with_its_meaning(pages):
    page = pages["docs/reference/errors.md"]

    assert set(KINDS) <= _rows(page)
    assert all(kind.meaning in page.text for kind in KINDS.values())


def test_every_exit_code_that_a_failure_has_is_in_the_table(tool):
    kinds = [each for module in (failures, errors) for each in vars(module).values() if isinstance(each, type)]
    codes = {code for each in kinds if isinstance(code := getattr(each, "exit_code", None), int)}

    assert {str(code) for code in codes} <= set(tool.exit_codes())


def test_every_command_has_its_heading_and_every_option_its_row(tool, pages):
    page = pages["docs/reference/cli.md"]
    for program in tool.PROGRAMS:
        for path, command in tool.commands(program.cli):
            assert f"`{' '.join((program.name, *path))}`" in page.headings
            own = [option for option in command.params if not tool._is_setting(option, program)]
            for option in own:
                assert option.opts[-1] in page.text or option.human_readable_name in page.text


def test_every_command_explains_itself(tool):
    silent = [
        " ".join((program.name, *path))
        for program in tool.PROGRAMS
        for path, command in tool.commands(program.cli)
        if not command.help
    ]

    assert silent == []


def test_every_metric_has_a_row(tool, pages):
    page = pages["docs/reference/metrics.md"]
    named = {metric.name for metrics in tool.metrics_by_program().values() for metric in metrics}

    assert named
    assert named == _rows(page)


def test_every_chart_value_has_a_row(root, pages):
    values = yaml.safe_load((root / "charts" / "sie-cluster" / "values.yaml").read_text(encoding="utf-8"))
    documented = _rows(pages["docs/reference/chart-values.md"])

    lacking = [path for path in _leaves(values) if not _is_documented(path, documented)]

    assert lacking == []


def _leaves(tree, prefix=""):
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if path == "workers.pools":
            yield from (f"{path}.NAME.{rest}" for pool in value.values() for rest in _leaves(pool))
        elif isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}.")
        else:
            yield path


def _is_documented(path, documented):
    """Itself, or a map around it that is given whole."""
    parts = path.split(".")
    return any(".".join(parts[:length]) in documented for length in range(1, len(parts) + 1))


def test_every_header_of_ours_is_in_the_wire_format(pages, root):
    named = {value for value in vars(envelope).values() if isinstance(value, str) and value.startswith("x-")}
    for module in (root / "packages").glob("*/src/**/*.py"):
        named |= set(re.findall(r'b"(x-[a-z-]+)"', module.read_text(encoding="utf-8")))
    text = pages["docs/formats/wire.md"].text.lower()

    assert named
    assert [name for name in sorted(named) if f"`{name}`" not in text] == []


def test_every_export_of_the_sdk_has_its_heading(pages):
    headings = set(pages["docs/reference/sdk.md"].headings)

    assert {f"`{name}`" for name in sie_sdk.__all__ if not name.startswith("__")} <= headings


def test_every_key_of_a_spec_is_in_the_spec_format(pages):
    from sie_core.catalog import spec

    heads = {
        "source": spec.Source,
        "base": spec.Source,
        "labels_base": spec.Source,
        "dense": spec.DenseHead,
        "sparse": spec.SparseHead,
        "multivector": spec.MultivectorHead,
        "score": spec.ScoreHead,
        "extract": spec.ExtractHead,
        "lora": spec.Lora,
    }
    cells = _cells(pages["docs/formats/spec.md"])
    keys = {field for field in spec.ModelSpec.__struct_fields__ if field not in heads}
    keys |= {field for field in spec.Variant.__struct_fields__ if field not in heads}
    keys |= {f"{name}.{field}" for name, head in heads.items() for field in head.__struct_fields__}

    assert keys - cells == set()


def test_every_key_of_a_lock_is_in_the_lock_format(pages):
    from sie_core.artifacts import lock

    cells = _cells(pages["docs/formats/airgap-lock.md"])
    structs = (lock.Lock, lock.LockedModel, lock.LockedFile, lock.LockedImage, lock.LockedBlob, lock.LockedChart)

    assert {field for struct in structs for field in struct.__struct_fields__} - cells == set()


def test_every_key_of_a_volume_is_in_the_archive_format(pages):
    from sie_airgap.archive.parity_format import Covered, Parity
    from sie_airgap.archive.volume_format import Member, Volume

    text = pages["docs/formats/archive.md"].text
    fields = [field for struct in (Volume, Member, Parity, Covered) for field in struct.__struct_fields__]

    assert [field for field in fields if f"`{field}`" not in text] == []


def test_every_medium_is_in_the_archive_format(pages):
    from sie_airgap.archive.medium import MEDIA

    assert set(MEDIA) - _cells(pages["docs/formats/archive.md"]) == set()


@pytest.mark.parametrize("freshness", ["unknown", "fresh", "stale", "gone"])
def test_every_freshness_of_a_worker_is_explained(pages, freshness):
    from sie_gateway.workers import Freshness

    assert {one.value for one in Freshness} == {"unknown", "fresh", "stale", "gone"}
    assert f"| {freshness} |" in pages["docs/concepts/routing.md"].text


def test_architecture_draws_the_layers_that_are_enforced(pages, root):
    """Every layer of every such contract is drawn, in its order, in one picture."""
    rules = configparser.ConfigParser()
    rules.read(root / ".importlinter")
    pictures = [block.text for block in pages["docs/architecture.md"].blocks]
    not_drawn = [
        rule["name"]
        for rule in rules.values()
        if rule.get("type") == "layers" and not any(_is_drawn(_layers(rule), picture) for picture in pictures)
    ]

    assert not_drawn == []


def _layers(rule):
    """Each layer's modules, by the names that the page uses: without the package, and without `models.`."""
    lines = [line for line in rule["layers"].split("\n") if line]
    return [
        [re.sub(r"^sie_(core|server)\.(models\.)?", "", name.strip()) for name in line.split("|")] for line in lines
    ]


def _is_drawn(layers, picture):
    """Each layer's names stand on one line, and the lines are in order."""
    lines = iter(picture.split("\n"))
    return all(
        any(all(re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", line) for name in layer) for line in lines)
        for layer in layers
    )


def test_settings_classes_are_frozen(tool):
    assert all(dataclasses.is_dataclass(program.settings) for program in tool.PROGRAMS)
    assert all(program.settings.__dataclass_params__.frozen for program in tool.PROGRAMS)
