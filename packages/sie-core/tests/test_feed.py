"""Following the config service: what a change, an outage and a stop do."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sie_core.catalog.catalog import Bundle, Catalog
from sie_core.catalog.export import encode_export, export_of
from sie_core.catalog.feed import Feed, Unreachable, pause_s
from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_core.ids import BundleName, ModelId

Script = list[tuple[int, bytes, str | None]]


def catalog(*models: str) -> Catalog:
    specs = [ModelSpec(id=ModelId(model), dense=DenseHead()) for model in models]
    return Catalog.of(specs, [Bundle(name=BundleName("default"), models="all")])


def exported(content: Catalog) -> bytes:
    return encode_export(export_of(content, epoch=0, generated_at=""))


class Service:
    """Answers what the script says, one entry a look, and notes what it was asked."""

    def __init__(self, script: Script) -> None:
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.reached = threading.Event()
        self.release = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                service.asked.append((self.path, self.headers["If-None-Match"], self.headers["Authorization"]))
                status, body, etag = script.pop(0) if script else (0, b"", None)
                service.reached.set()
                if status == 0:
                    service.release.wait(30)
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if etag is not None:
                    self.send_header("ETag", etag)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Script], Service]]:
    services: list[Service] = []

    def start(script: Script) -> Service:
        services.append(Service(script))
        return services[-1]

    yield start
    for service in services:
        service.close()


def looks(number: int) -> tuple[Callable[[float], bool], list[float]]:
    """A `wait` that lets a feed look so many times, and the pauses it was asked for."""
    pauses: list[float] = []

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == number

    return wait, pauses


def test_change_is_told_once_and_asked_for_by_etag(serve: Callable[[Script], Service]) -> None:
    one, two = catalog("a/one"), catalog("a/one", "a/two")
    service = serve([(200, exported(one), '"1"'), (304, b"", None), (200, exported(two), '"2"')])
    seen: list[Catalog] = []
    wait, _ = looks(3)

    Feed(service.url, token="secret", on_change=seen.append, wait=wait).follow()

    assert seen == [one, two]
    assert [etag for _, etag, _ in service.asked] == [None, '"1"', '"1"']
    assert {(path, token) for path, _, token in service.asked} == {("/v1/configs/export", "Bearer secret")}


def test_catalog_without_an_etag_is_told_once(serve: Callable[[Script], Service]) -> None:
    """A proxy may lose it; each look told it anew."""
    one = catalog("a/one")
    service = serve([(200, exported(one), None)] * 3)
    seen: list[Catalog] = []
    wait, pauses = looks(3)

    Feed(service.url, token=None, on_change=seen.append, wait=wait).follow()

    assert seen == [one]
    assert pauses == [pause_s(0)] * 3


def test_answer_that_is_no_catalog_is_not_read_to_its_end(
    serve: Callable[[Script], Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sie_core.catalog.feed.LIMIT_BYTES", 1000)
    service = serve([(200, b" " * 2000, None)])

    outcome = Feed(service.url, token=None, on_change=lambda _: None).look()

    assert isinstance(outcome, Unreachable)
    assert "more than 1,000 bytes" in outcome.reason


def test_outage_keeps_what_was_read_and_pauses_grow_until_it_is_over(serve: Callable[[Script], Service]) -> None:
    one, two = catalog("a/one"), catalog("a/two")
    broken = exported(two)[:-20]
    script = [(200, exported(one), '"1"'), (503, b"busy", None), (200, broken, '"2"'), (401, b"", None)]
    service = serve([*script, (200, exported(two), '"2"')])
    seen: list[Catalog] = []
    wait, pauses = looks(5)

    Feed(service.url, token=None, on_change=seen.append, wait=wait).follow()

    assert seen == [one, two]
    assert pauses == [pause_s(failures) for failures in (0, 1, 2, 3, 0)]
    assert pauses[1] < pauses[2] < pauses[3]


def test_nobody_there_is_an_outage() -> None:
    feed = Feed("http://127.0.0.1:9", token=None, on_change=lambda _: None)

    assert isinstance(feed.look(), Unreachable)


def test_stopping_cuts_off_a_look_that_hangs(serve: Callable[[Script], Service]) -> None:
    service = serve([])
    feed = Feed(service.url, token=None, on_change=lambda _: None)
    feed.start()
    assert service.reached.wait(30)

    feed.stop()

    assert not feed._thread.is_alive()


@pytest.mark.parametrize("url", ["sie-config:8080", "ftp://host", "", "http://", "http://h:port", "http://["])
def test_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="want `http://host:port`"):
        Feed(url, token=None, on_change=lambda _: None)


def test_pauses_are_bounded() -> None:
    assert pause_s(10_000) == 30.0


def test_url_with_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="has a user in it") as refused:
        Feed("http://user:hush@host:80", token=None, on_change=lambda _: None)

    assert "hush" not in str(refused.value)
