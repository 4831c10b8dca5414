"""Workers in this process, over tiny models."""

import socket
from collections.abc import Callable, Iterator, Sequence

import pytest

from sie_core.catalog.spec import ModelSpec
from sie_core.http.auth import Auth, configure
from sie_core.ids import ModelId
from sie_server.api.inference import Identity
from sie_server.engine.engine import Limits
from sie_server.engine.residency import Made, Say
from sie_server.models.calls import Take
from sie_testing.site import OTHER, REVISION, Site, catalog, spec
from sie_testing.tiny import TinyModel

LIMITS = Limits(queue_tokens=10_000, batch_tokens=64, streams=2, tokenizer_threads=1)
Sites = Callable[..., Site]


@pytest.fixture
def sites() -> Iterator[Sites]:
    """Makes workers; each is ended after the test."""
    made: list[Site] = []

    def make(
        *models: TinyModel | Exception,
        specs: Sequence[ModelSpec] = (spec(), spec(OTHER)),
        limits: Limits = LIMITS,
        kept: Sequence[ModelId] = (),
        auth: Auth | None = None,
        machine_profile: str | None = None,
        max_body_bytes: int = 100_000,
    ) -> Site:
        """The first load gets the first of `models`, the second the next, and the last one serves all others."""
        left = list(models) or [TinyModel()]

        def load(wanted: ModelSpec, say: Say, take: Take) -> Made:
            outcome = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(outcome, Exception):
                raise outcome
            return Made(outcome, REVISION, verified=True)

        site = Site(
            load,
            catalog=catalog(*specs),
            kept=kept,
            limits=limits,
            auth=auth or configure("none", ()),
            identity=Identity("worker-0", "default", "default", machine_profile),
            max_body_bytes=max_body_bytes,
        )
        made.append(site)
        return site

    yield make
    for site in made:
        site.close()


@pytest.fixture
def model() -> TinyModel:
    return TinyModel()


@pytest.fixture
def site(sites: Sites, model: TinyModel) -> Site:
    """A worker whose `acme/tiny` is loaded."""
    made = sites(model)
    made.load(spec())
    return made


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of loopback that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def unused_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
