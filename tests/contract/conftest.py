from collections.abc import Iterator
from pathlib import Path

import pytest

from sie_testing.cluster import Running, fill_bucket, gateway, worker
from sie_testing.doors import WAYS, Door, open_door
from sie_testing.tiny_worker import tiny_worker

LIMIT_BYTES = 1 << 20
PLACES = ("worker", "gateway")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contract")


@pytest.fixture(scope="session")
def served(folder: Path) -> Iterator[Running]:
    """One worker with the real MiniLM, for the whole session."""
    env = {"SIE_MACHINE_PROFILE": "l4", "SIE_MAX_BODY_BYTES": str(LIMIT_BYTES)}
    with worker(folder, bucket=fill_bucket(folder / "bucket"), env=env) as running:
        yield running


@pytest.fixture(scope="session")
def fronted(folder: Path, served: Running) -> Iterator[Running]:
    """A gateway in front of it."""
    env = {"SIE_MAX_BODY_BYTES": str(LIMIT_BYTES), "SIE_GATEWAY_CONFIGURED_GPUS": "l4"}
    with gateway(folder, [served.url], env=env) as running:
        yield running


@pytest.fixture(scope="session")
def tiny() -> Iterator[str]:
    """A worker whose model does everything, tiny."""
    with tiny_worker(max_body_bytes=LIMIT_BYTES) as url:
        yield url


@pytest.fixture(scope="session")
def tiny_fronted(folder: Path, tiny: str) -> Iterator[str]:
    """A gateway in front of it, whose catalog has never heard of that model."""
    env = {"SIE_MAX_BODY_BYTES": str(LIMIT_BYTES), "SIE_GATEWAY_CONFIGURED_GPUS": "l4"}
    with gateway(folder / "tiny", [tiny], env=env) as running:
        yield running.url


@pytest.fixture(scope="session", params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    """Whether calls go to a worker itself, or through a gateway."""
    return str(request.param)


@pytest.fixture(scope="session")
def tiny_url(request: pytest.FixtureRequest, place: str) -> str:
    found: str = request.getfixturevalue("tiny" if place == "worker" else "tiny_fronted")
    return found


@pytest.fixture(scope="session", params=WAYS)
def tiny_door(request: pytest.FixtureRequest, tiny_url: str) -> Iterator[Door]:
    opened = open_door(request.param, tiny_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def tiny_reference(tiny: str) -> Iterator[Door]:
    opened = open_door("msgpack", tiny)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def url(request: pytest.FixtureRequest, place: str) -> str:
    running: Running = request.getfixturevalue("served" if place == "worker" else "fronted")
    return running.url


@pytest.fixture(scope="session", params=WAYS)
def door(request: pytest.FixtureRequest, url: str) -> Iterator[Door]:
    opened = open_door(request.param, url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def reference(served: Running) -> Iterator[Door]:
    """What the others are compared with: MessagePack, straight to the worker."""
    opened = open_door("msgpack", served.url)
    yield opened
    opened.close()
