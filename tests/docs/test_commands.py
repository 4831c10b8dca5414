"""Every command in a document is one that its program takes; every value, variable and version in one is real.

The laptop tutorial and the README's own commands are run (`test_laptop.py`). What needs a far side, a cluster or
the public hub is parsed here with the programs' own command lines.
"""

import ast
import json
import re
import shlex
import subprocess

import click
import msgspec
import pytest
import yaml

from sie_airgap.reviewing.policy import Policy, parse_policy
from sie_core.catalog.reading import parse_spec
from sie_core.settings import DROPPED, NAMES

OTHERS = {
    *(".", "aws", "basename", "cd", "cmp", "cp", "curl", "cut", "docker", "echo", "eject", "export", "find", "gcloud"),
    *("gsutil", "helm", "hf", "jq", "kubectl", "mc", "mkdir", "mount", "pip", "python3", "read", "sha256sum", "tar"),
    *("true", "umount", "xorriso"),
}
"""Programs that are not ours: that a document names them is checked, not what they take."""

MISSPELT = {"SIE_SERVER_PROT"}
"""On purpose: the laptop tutorial shows what happens."""

_BETWEEN = set(";|&\n()")
_BEFORE_A_COMMAND = {"do", "while"}
_NO_COMMAND = {"for", "done"}


def _commands(text):
    """The simple commands of a block, as words: (assignments, words)."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE))
    lexer = shlex.shlex(joined, posix=True, punctuation_chars=";|&\n()<>")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words, found = [], []
    for token in [*lexer, "\n"]:
        if set(token) <= _BETWEEN:
            found.append(words)
            words = []
        else:
            words.append(token)
    for words in found:
        each = words[1:] if words and words[0] in _BEFORE_A_COMMAND else words
        count = next((i for i, word in enumerate(each) if not re.match(r"[A-Za-z_]+=", word)), len(each))
        if each and each[0] not in _NO_COMMAND:
            yield each[:count], each[count:]


def _bash(blocks):
    return [block for block in blocks if block.language == "bash"]


def _wrong_with(cli, words):
    """What click says against a command line; None where it takes it. Nothing is executed."""
    command, name, arguments = cli, words[0], words[1:]
    while isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        if not arguments:
            return f"`{name}` wants a command"
        name, *arguments = arguments
        command = command.get_command(context, name)
        if command is None:
            return f"there is no command `{name}`"
    try:
        command.make_context(name, list(arguments))
    except click.exceptions.Exit:
        return None
    except click.BadParameter as error:
        if "does not exist" not in error.message:  # the reader's files are not here
            return error.format_message()
    except click.UsageError as error:
        return error.format_message()
    return None


@pytest.fixture(scope="module")
def programs(tool):
    return {program.name: program.cli for program in tool.PROGRAMS}


@pytest.fixture(scope="module")
def targets(root):
    return set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def _refusal(words, programs, targets):
    """Why a document may not say this command; None where it may."""
    if words[0] in programs:
        return _wrong_with(programs[words[0]], words)
    if words[:2] == ["sh", "start.sh"]:
        return _wrong_with(programs["sie-airgap"], ["sie-airgap", *words[2:]])
    if words[0] == "make":
        unknown = [word for word in words[1:] if "=" not in word and word not in targets]
        return f"the Makefile has no {unknown}" if unknown else None
    return None if words[0] in OTHERS else "nobody knows this program"


def test_every_block_is_shell_that_parses(blocks):
    wrong = {
        block.where: parsed.stderr
        for block in _bash(blocks)
        if (parsed := subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True)).returncode
    }

    assert wrong == {}


def test_every_command_is_one_that_its_program_takes(blocks, programs, targets):
    wrong = [
        f"{block.where}: {shlex.join(words)}: {refusal}"
        for block in _bash(blocks)
        for _, words in _commands(block.text)
        if words and (refusal := _refusal(words, programs, targets))
    ]

    assert wrong == []


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        ("sie-airgap mirror wieghts s3://b/", "there is no command `wieghts`"),
        ("sie-airgap mirror weights", "Missing argument 'URL'."),
        ("sie-airgap values --bukket s3://b/", "No such option '--bukket'"),
        ("sie-server serve --modles a/b", "No such option '--modles'"),
        ("make dmeo", "the Makefile has no ['dmeo']"),
        ("huggingface-cli download a/b", "nobody knows this program"),
        ("sh start.sh verfy MEDIA", "there is no command `verfy`"),
    ],
)
def test_command_that_its_program_does_not_take_is_found(command, refusal, programs, targets):
    ((_, words),) = _commands(command)

    assert refusal in (_refusal(words, programs, targets) or "")


def test_commands_of_the_readers_own_shell_are_told_apart():
    found = list(_commands("A=1 one two &&\nthree \\\n  four | five 'six\nseven' &\n# nothing\neight"))
    looped = list(_commands("for a in b; do\n  c=$(one a)\n  while two; do three; done\ndone"))

    assert found == [(["A=1"], ["one", "two"]), ([], ["three", "four"]), ([], ["five", "six\nseven"]), ([], ["eight"])]
    assert [words for _, words in looped if words] == [["one", "a"], ["two"], ["three"]]


def test_every_python_block_parses(blocks):
    for block in blocks:
        if block.language == "python" and not block.page.startswith("docs/reference/"):
            ast.parse(block.text, block.where)


def test_every_block_says_its_language(blocks):
    assert [block.where for block in blocks if not block.language] == []


def test_every_variable_in_a_document_is_known(pages):
    known = {*NAMES, *DROPPED, *MISSPELT}
    wrong = [
        f"{page.path}: {name}"
        for page in pages.values()
        for name in re.findall(r"\bSIE_[A-Z_]*[A-Z]\b", page.text)
        if name not in known
    ]

    assert wrong == []


def test_the_default_policy_in_a_document_is_the_default(blocks):
    (shown,) = [block for block in blocks if block.language == "yaml" and "excuses: []" in block.text]

    assert yaml.safe_load(shown.text) == msgspec.json.decode(msgspec.json.encode(Policy()))


def test_every_yaml_block_is_a_spec_a_policy_or_values_that_the_chart_takes(blocks, root):
    """Values are held against the closed schema, so a key that the chart does not have is named."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((root / "charts" / "sie-cluster" / "values.schema.json").read_text(encoding="utf-8"))
    for block in blocks:
        if block.language == "yaml":
            content = yaml.safe_load(block.text)
            if "excuses" in content:
                parse_policy(block.text.encode(), where=block.where)
            elif "id" in content:
                parse_spec(block.text, where=block.where)
            else:
                jsonschema.Draft7Validator(schema).validate(content)


def test_chart_values_that_prose_names_are_in_the_chart(pages, root):
    values = yaml.safe_load((root / "charts" / "sie-cluster" / "values.yaml").read_text(encoding="utf-8"))
    top = "|".join(name for name, value in values.items() if isinstance(value, dict))
    wrong = [
        f"{page.path}: {path}"
        for page in pages.values()
        if not page.path.startswith("docs/reference/")
        for path in re.findall(rf"`((?:{top})\.[A-Za-z0-9.]+)`", page.text)
        if not path.endswith(".json") and not _has(values, path.split("."))
    ]

    assert wrong == []


def _has(tree, parts):
    for part in parts:
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


def test_version_in_documents_is_the_charts(pages, root):
    chart = yaml.safe_load((root / "charts" / "sie-cluster" / "Chart.yaml").read_text(encoding="utf-8"))
    found = {version for page in pages.values() for version in re.findall(r"sie-cluster-([0-9.]+)\.tgz", page.text)}

    assert found == {chart["version"]}
    assert {tag for page in pages.values() for tag in re.findall(r"sie-\w+:(v[0-9.]+)", page.text)} == {
        chart["appVersion"]
    }


def test_every_line_that_the_demo_prints_is_explained_and_no_other(pages, root):
    modules = (root / "packages/sie-testing/src/sie_testing/demo").glob("*.py")
    source = "\n".join(module.read_text(encoding="utf-8") for module in modules)
    printed = set(re.findall(r'screen\.(?:step|line)\(\s*"([^"]+)"', source))
    cells = re.findall(r"^\| (`.+?`) \|", pages["docs/tutorial/air-gap.md"].text, re.MULTILINE)
    explained = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}

    assert printed - explained == set()
    assert [name for name in sorted(explained) if f'"{name}"' not in source] == []
