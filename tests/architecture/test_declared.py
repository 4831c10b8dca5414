"""What a product imports is what its `pyproject.toml` declares, itself or through a distribution of ours.

`make check` shows the same on real wheels in bare environments (tools/wheels.py), which takes a minute.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGES = Path(__file__).parents[2] / "packages"
PUBLISHED = ("sie-core", "sie-sdk", "sie-server", "sie-gateway", "sie-config", "sie-airgap")
INSEPARABLE = {"botocore": "boto3", "urllib3": "boto3"}
"""boto3 is the face of botocore: what it raises is botocore's and urllib3's, and it asks for both."""


@cache
def project(name: str) -> Any:
    return tomllib.loads((PACKAGES / name / "pyproject.toml").read_text())["project"]


STANDARD = sys.stdlib_module_names | {"compression"}
"""Of Python's own; `compression` is from 3.14 on, and imported there alone."""


def declared(name: str, extras: frozenset[str]) -> set[str]:
    """What is asked for by installing `name[extras]`, through our own distributions and no further."""
    found: set[str] = set()
    optional = project(name).get("optional-dependencies", {})
    for line in [*project(name).get("dependencies", []), *(line for extra in extras for line in optional[extra])]:
        wanted = Requirement(line)
        found.add(canonicalize_name(wanted.name))
        if wanted.name in PUBLISHED:
            found |= declared(wanted.name, frozenset(wanted.extras))
    return found


def imports(name: str) -> Iterator[tuple[str, str]]:
    """Top-level names that are imported from outside the standard library, each with where."""
    source = PACKAGES / name / "src"
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                tops = [each.name.partition(".")[0] for each in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                tops = [str(node.module).partition(".")[0]]
            else:
                continue
            yield from ((top, str(path.relative_to(source))) for top in tops if top not in STANDARD)


def undeclared(name: str, allowed: set[str]) -> set[tuple[str, str]]:
    distributions = packages_distributions()
    return {
        (top, where)
        for top, where in imports(name)
        if INSEPARABLE.get(top) not in allowed
        and not allowed & {canonicalize_name(each) for each in distributions.get(top, [top])}
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_product_imports_nothing_that_it_does_not_declare(name: str) -> None:
    every_extra = frozenset(project(name).get("optional-dependencies", {}))

    assert undeclared(name, declared(name, every_extra) | {name}) == set()


def test_import_that_is_not_declared_is_seen() -> None:
    """The control: without its third-party declarations, a product imports what is not declared."""
    tops = {top for top, _ in undeclared("sie-sdk", {"sie-core", "sie-sdk"})}

    assert {"httpx2", "msgspec", "numpy"} <= tops


@pytest.mark.parametrize("name", PUBLISHED)
def test_version_is_one_and_ours_are_asked_for_at_it(name: str) -> None:
    assert project(name)["version"] == "0.3.1"
    groups = [project(name).get("dependencies", []), *project(name).get("optional-dependencies", {}).values()]
    ours = [Requirement(line) for group in groups for line in group if line.startswith("sie-")]

    assert {str(each.specifier) for each in ours} <= {"==0.3.1"}
