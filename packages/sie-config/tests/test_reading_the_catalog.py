"""The config service over a real socket: what it serves, by ETag, to whom; and that a feed follows it."""

import asyncio
import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
import yaml

from sie_config.app import ConfigService
from sie_config.ledger import Ledger
from sie_core.catalog.catalog import Bundle, Catalog
from sie_core.catalog.feed import Feed
from sie_core.catalog.reading import parse_spec
from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.http.auth import Auth, configure
from sie_core.http.serve import Drain, bind, serve
from sie_core.ids import BundleName, ModelId

OPEN = configure("none", [])


def catalog() -> Catalog:
    specs = [ModelSpec(id=ModelId(name), dense=DenseHead(dim=8)) for name in ("org/one", "org/two")]
    some = Bundle(name=BundleName("some"), models=(ModelId("org/one"),), priority=1)
    return Catalog.of(specs, [Bundle(name=BundleName("default"), models="all"), some])


class Answered:
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.body = answer.read()

    @property
    def json(self) -> object:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        return str(msgspec.json.decode(self.body)["detail"]["code"])


class Service:
    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answered:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, sent)
            return Answered(connection.getresponse())
        finally:
            connection.close()


@contextmanager
def running(auth: Auth = OPEN) -> Iterator[Service]:
    """The service in a thread with a loop of its own."""
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    held: list[tuple[asyncio.AbstractEventLoop, Drain]] = []
    up = threading.Event()

    async def main() -> None:
        drain = Drain()
        held.append((asyncio.get_running_loop(), drain))
        service = ConfigService(
            Ledger(catalog(), epoch=0, began_at="2026-01-01T00:00:00+00:00"), auth=auth, drain=drain
        )
        await serve(service, listener=listener, drain=drain, linger_s=0, on_listening=lambda _: up.set())

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert up.wait(30)
    try:
        yield Service(port)
    finally:
        loop, drain = held[0]
        loop.call_soon_threadsafe(lambda: drain.begin(linger=False))
        thread.join()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as one:
        yield one


def test_a_feed_reads_what_the_service_holds(service: Service) -> None:
    feed = Feed(service.url, token=None, on_change=lambda _: None)
    looks = [feed.look(), feed.look()]
    feed.stop()

    assert looks == [catalog(), None]


@pytest.mark.parametrize("path", ["/export", "/models", "/bundles", "/epoch", "/models/org/one", "/bundles/some"])
def test_every_view_has_the_fingerprint_as_etag_and_is_not_sent_twice(service: Service, path: str) -> None:
    first = service.ask("GET", "/v1/configs" + path)
    again = service.ask("GET", "/v1/configs" + path, If_None_Match=f'W/"x", {first.headers["ETag"]}')

    assert (first.status, first.headers["ETag"]) == (200, f'"{catalog().fingerprint}"')
    assert (again.status, again.body) == (304, b"")


def test_models_and_bundles_are_listed(service: Service) -> None:
    models = service.ask("GET", "/v1/configs/models").json
    bundles = service.ask("GET", "/v1/configs/bundles").json

    assert [model["model_id"] for model in models["models"]] == ["org/one", "org/two"]  # type: ignore[index]
    assert models["models"][0]["bundles"] == ["some", "default"]  # type: ignore[index]
    assert [(one["bundle_id"], one["models"]) for one in bundles] == [  # type: ignore[attr-defined]
        ("some", ["org/one"]),
        ("default", ["org/one", "org/two"]),
    ]


def test_one_model_is_its_spec_as_yaml(service: Service) -> None:
    answer = service.ask("GET", "/v1/configs/models/org/two")

    assert answer.headers["Content-Type"] == "application/x-yaml"
    assert parse_spec(answer.body, where="answer") == catalog().find("org/two")


def test_one_bundle_is_yaml(service: Service) -> None:
    answer = service.ask("GET", "/v1/configs/bundles/some")

    assert yaml.safe_load(answer.body) == {"name": "some", "models": ["org/one"], "priority": 1}


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        (b'{"model":"org/one"}', 200, '"resolved_bundle":"some"'),
        (b'{"model":"org/one","bundle":"default"}', 200, '"resolved_bundle":"default"'),
        (b'{"model":"org/two","bundle":"some"}', 409, "bundle_conflict"),
        (b'{"model":"org/two","bundle":"none"}', 404, "bundle_not_found"),
        (b'{"model":"org/tow"}', 404, "did you mean `org/two`"),
        (b"{}", 400, "missing required field `model`"),
        (b"", 400, "want `{model, bundle?}` as JSON"),
    ],
)
def test_a_model_is_resolved_to_its_bundle(service: Service, asked: bytes, status: int, said: str) -> None:
    answer = service.ask("POST", "/v1/configs/resolve", asked)

    assert answer.status == status
    assert said in answer.body.decode()


def test_what_is_not_there_is_404_with_a_way_on(service: Service) -> None:
    assert service.ask("GET", "/v1/configs/models/org/on").code == "MODEL_NOT_FOUND"
    assert "`some`, `default`" in service.ask("GET", "/v1/configs/bundles/x").body.decode()
    assert service.ask("GET", "/v1/config").code == "NOT_FOUND"
    assert service.ask("POST", "/v1/encode/org/one", b"{}").code == "NOT_FOUND"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/models"), ("PUT", "/models/org/one"), ("DELETE", "/models/org/one")]
)
def test_writes_are_405_and_say_why(service: Service, method: str, path: str) -> None:
    answer = service.ask(method, "/v1/configs" + path, b"id: org/three\n")

    assert answer.status == 405
    assert "serves the specs it was shipped with" in answer.body.decode()


def test_tokens_are_wanted_for_reading_and_the_admin_token_reads_as_well() -> None:
    with running(configure("token", ["read"], admin_token="root")) as service:
        statuses = {
            token: service.ask("GET", "/v1/configs/export", Authorization=f"Bearer {token}").status
            for token in ("", "read", "root", "other")
        }
        writes = service.ask("POST", "/v1/configs/models", b"", Authorization="Bearer read").status
        probes = [service.ask("GET", path).status for path in ("/healthz", "/readyz", "/metrics")]

    assert statuses == {"": 401, "read": 200, "root": 200, "other": 403}
    assert writes == 403
    assert probes == [200, 200, 200]


def test_metrics_count_requests_by_route(service: Service) -> None:
    service.ask("GET", "/v1/configs/models/org/one")
    page = service.ask("GET", "/metrics").body.decode()

    assert 'sie_config_http_requests_total{route="/v1/configs/models/{id}",status="200"}' in page
    assert "sie_config_epoch 0" in page
    assert 'sie_config_models_total{source="shipped"} 2' in page
