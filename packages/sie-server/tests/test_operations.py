"""What stands between a network and an engine takes every argument that the network may give."""

import ast
from pathlib import Path
from typing import Final

import pytest

import sie_server

SOURCES: Final = Path(sie_server.__file__).parent / "models"


def _classes(tree: ast.Module) -> dict[str, dict[str, str]]:
    """The arguments of every method, by its name, of every class of operations."""
    return {
        node.name: {item.name: ast.unparse(item.args) for item in node.body if isinstance(item, ast.FunctionDef)}
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name.endswith("Ops")
    }


CLASSES: Final = {
    name: methods
    for path in sorted(SOURCES.rglob("*.py"))
    for name, methods in _classes(ast.parse(path.read_text())).items()
}


def _names(arguments: str) -> list[str]:
    """Without the types, which each engine has its own of."""
    parsed = ast.parse(f"def f({arguments}): ...").body[0]
    assert isinstance(parsed, ast.FunctionDef)
    for argument in ast.walk(parsed.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return ast.unparse(parsed.args).split(", ")


def test_all_of_them_are_looked_at() -> None:
    assert CLASSES.keys() >= {"Ops", "AdaptedOps", "RenamedOps", "SegmentedOps", "OpenvinoOps", "TorchOps"}


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - {"Ops"}))
def test_its_methods_take_what_the_protocol_says(name: str) -> None:
    methods = CLASSES[name]
    for method in methods.keys() & CLASSES["Ops"].keys():
        assert _names(methods[method]) == _names(CLASSES["Ops"][method]), method
