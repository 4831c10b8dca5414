"""The chart as real Helm programs render it. Renders are kept for the session: each takes a quarter of a second."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from sie_airgap.charts import helm
from sie_testing import parts

HERE = Path(__file__).resolve().parent
CHART = HERE.parents[1] / "charts" / "sie-cluster"

Object = dict[str, Any]
Render = Callable[..., list[Object]]


@pytest.fixture(scope="session")
def chart() -> Path:
    return CHART


@pytest.fixture(scope="session")
def default_values() -> Object:
    loaded: Object = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="session")
def helm_4() -> Path:
    return parts.helm(version=parts.HELM_4)


@pytest.fixture(scope="session", params=[parts.HELM_3, parts.HELM_4])
def any_helm(request: pytest.FixtureRequest) -> Path:
    return parts.helm(version=request.param)


@pytest.fixture(scope="session")
def render() -> Render:
    """`render(*FILES, program=None, **VALUES)`: the objects of release `sie` in namespace `sie`."""
    kept: dict[bytes, list[Object]] = {}

    def rendered(*files: str, program: Path | None = None, **overrides: Any) -> list[Object]:
        program = program or parts.helm(version=parts.HELM_4)
        key = msgspec.json.encode([str(program), files, overrides])
        if key not in kept:
            paths = [HERE / name for name in files]
            kept[key] = helm.template(
                program, CHART, release="sie", namespace="sie", values=paths, overrides=overrides or None
            )
        return kept[key]

    return rendered


@pytest.fixture(scope="session")
def containers() -> Callable[[list[Object]], Iterator[tuple[str, Object]]]:
    """Every container of the objects, init containers included, with where it is."""

    def found(objects: list[Object]) -> Iterator[tuple[str, Object]]:
        for each in objects:
            spec: Mapping[str, Any] = each["spec"]["template"]["spec"] if each["kind"] == "Deployment" else {}
            for container in [*spec.get("initContainers", []), *spec.get("containers", [])]:
                yield f"{each['metadata']['name']}/{container['name']}", container

    return found


@pytest.fixture(scope="session")
def one() -> Callable[[list[Object], str, str], Object]:
    """The one object of a kind and name."""

    def found(objects: list[Object], kind: str, name: str) -> Object:
        (match,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
        return match

    return found
