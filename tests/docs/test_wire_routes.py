"""The table of routes in the wire's format is what the three programs answer."""

import re

import httpx2
import pytest

from sie_core.catalog.catalog import Catalog
from sie_testing.cluster import MINILM, program

FILLED_IN = {"{model}": MINILM, "{bundle}": "default"}

BODY = {
    "items": [{"text": "hello"}],
    "query": {"text": "hello"},
    "params": {"labels": ["hello"]},
    "input": "hello",
    "documents": ["hello"],
}
"""What every route that takes a call finds its part in."""


def _model_for(path):
    """A shipped model that does what the route is for."""
    specs = Catalog.shipped().specs.values()
    if "score" in path or "rerank" in path:
        return next(spec.id for spec in specs if spec.score is not None)
    return next(spec.id for spec in specs if spec.extract is not None) if "extract" in path else MINILM


@pytest.fixture(scope="module")
def table(pages):
    """(method, path, column, what the page says) of every cell."""
    section = pages["docs/formats/wire.md"].section("Routes").text
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.split("\n") if "|" in line
    ]
    cells = []
    for route, *said in rows:
        method, path = re.fullmatch(r"`(GET|POST) (.+)`", route).groups()
        cells += [(method, path, column, word) for column, word in zip(head[1:], said, strict=True)]
    return cells


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("routes")
    worker = program(
        "sie-server",
        ["serve", "--local-cache", str(folder / "cache"), "--port", "0"],
        log=folder / "worker.log",
        env={"HF_HUB_OFFLINE": "1"},
    )
    gateway = program("sie-gateway", ["serve", "--port", "0"], log=folder / "gateway.log", env={})
    config = program("sie-config", ["serve", "--port", "0"], log=folder / "config.log", env={})
    with worker as first, gateway as second, config as third:
        yield {"Worker": first.url, "Gateway": second.url, "Config service": third.url}


def _answer(http, url, method, path):
    """What the page would call the answer."""
    model = _model_for(path)
    for name, value in (FILLED_IN | {"{model}": model}).items():
        path = path.replace(name, value)
    body = BODY | {"model": model}
    said = http.request(method, url + path, json=body if method == "POST" else None)
    code = said.headers.get("x-sie-error-code")
    if code == "NOT_IMPLEMENTED":
        return "501"
    if code in ("NOT_FOUND", "METHOD_NOT_ALLOWED"):
        return "—"
    awaited = ("MODEL_LOADING", "MODEL_LOAD_FAILED", "PROVISIONING")
    assert said.status_code in (200, 202) or code in awaited, (url, path, said.text)
    return "yes"


def test_every_route_is_answered_as_the_page_says(table, urls):
    with httpx2.Client(trust_env=False, verify=False, timeout=30) as http:
        wrong = [
            f"{column}: {method} {path}: the page says {word!r}, the program {said!r}"
            for method, path, column, word in table
            if (said := _answer(http, urls[column], method, path)) != word
        ]

    assert len(table) > 60
    assert wrong == []
