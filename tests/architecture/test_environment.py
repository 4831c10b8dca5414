"""The environment is read in settings modules, so that every variable has one name, one type and one place.

Stand-ins and the demo (`sie_testing`) start programs as an operator's shell would: they pass their environment on.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PRODUCTS = ("core", "sdk", "server", "gateway", "config", "airgap")
NAMES = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
THE_ONE_WRITE = "os.environ.update(CALM | (OFFLINE if offline else {}))"
"""`sie_server.settings`: libraries that are imported later must not ask the hub behind our back."""


def uses(tree: ast.AST) -> Iterator[ast.AST]:
    """What reads or writes the environment: `os.environ` and its like, and their import by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in NAMES:
            yield node
        elif isinstance(node, ast.ImportFrom) and node.module in ("os", "posix"):
            yield from (node for each in node.names if each.name in NAMES)


def modules(product: str) -> Iterator[tuple[str, ast.Module]]:
    source = CHECKOUT / "packages" / f"sie-{product}" / "src"
    for path in sorted(source.rglob("*.py")):
        yield path.relative_to(source).as_posix(), ast.parse(path.read_text())


@pytest.mark.parametrize("product", PRODUCTS)
def test_environment_is_read_in_settings_modules_only(product: str) -> None:
    elsewhere = [
        f"{name}:{node.lineno}"  # type: ignore[attr-defined]
        for name, tree in modules(product)
        if Path(name).name != "settings.py"
        for node in uses(tree)
    ]

    assert elsewhere == []


@pytest.mark.parametrize("product", PRODUCTS)
def test_settings_modules_hand_it_to_the_one_reader_and_write_only_what_silences_libraries(product: str) -> None:
    for name, tree in modules(product):
        if Path(name).name != "settings.py":
            continue
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        handed = [
            keyword.value for call in calls for keyword in call.keywords if _is_load(call) and keyword.arg == "env"
        ]
        written = [call.func.value for call in calls if ast.unparse(call) == THE_ONE_WRITE]  # type: ignore[attr-defined]
        others = [ast.unparse(node) for node in uses(tree) if node not in handed + written]

        assert others == [], name
        assert len(written) == (name == "sie_server/settings.py"), name


def _is_load(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "load"


@pytest.mark.parametrize(
    "line",
    [
        "import os; os.environ['SIE_X']",
        "import os as o; o.getenv('SIE_X')",
        "from os import environ",
        "os.putenv('A', '')",
    ],
)
def test_each_way_to_read_it_is_seen(line: str) -> None:
    assert len(list(uses(ast.parse(line)))) == 1
