"""What the person who started a worker is told, and when the process gives up."""

import gc
import weakref
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from sie_core.artifacts.errors import NotThere
from sie_server.app import News
from sie_server.engine.residency import Failed, Made, Resident, failure_of
from sie_server.engine.scheduler import Scheduler
from sie_server.telling import Told
from sie_server.weights import State
from sie_testing.site import OTHER, REVISION, TINY, spec
from sie_testing.tiny import TinyModel

URL = "http://127.0.0.1:8080"


def resident(model: TinyModel | None = None) -> Resident:
    tiny = model or TinyModel()
    return Resident(spec(), Made(tiny, REVISION, verified=True), Scheduler(TINY, tiny, budget_tokens=64), 0.1)


def failed() -> Failed:
    return Failed(failure_of(NotThere("`acme/tiny` is nowhere", hint="look elsewhere")), 1, 0.0)


def news(*, gives_up: bool = False, kept: tuple[str, ...] = (TINY,)) -> News:
    return News(kept, gives_up=gives_up, as_json=False, started_s=0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("listens_first", [True, False])
def test_ready_is_said_once_when_it_listens_and_every_named_model_is_loaded(
    listens_first: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    told = news()
    steps: list[Callable[[], object]] = [lambda: told.listening(URL), lambda: told.changed(TINY, resident())]
    for step in steps if listens_first else steps[::-1]:
        assert "ready" not in capsys.readouterr().err
        step()
    first = capsys.readouterr().err
    told.changed(OTHER, resident())
    told.still_waiting()

    assert first.startswith(f"sie-server 0.3.1 ready on {URL} after ")
    assert first.endswith(f": acme/tiny (f32, dense 8, commit {REVISION[:12]}, verified)\n")
    assert capsys.readouterr().err == ""


def test_whoever_is_told_of_a_model_keeps_none_of_it() -> None:
    told, loaded = news(), resident()
    gone = weakref.ref(loaded.model)
    told.changed(TINY, loaded)
    del loaded
    gc.collect()

    assert gone() is None


def test_without_named_models_it_says_how_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    news(kept=()).listening(URL)

    assert capsys.readouterr().err.endswith(": models are loaded by the first call that names them\n")


def test_a_slow_start_says_what_it_is_waiting_for(capsys: pytest.CaptureFixture[str]) -> None:
    told = news()
    told.listening(URL)
    told.still_waiting()

    assert capsys.readouterr().err == f"sie-server 0.3.1 listening on {URL}; still loading acme/tiny\n"


def test_a_model_that_failed_is_not_said_to_be_loading(capsys: pytest.CaptureFixture[str]) -> None:
    told = news()
    told.listening(URL)
    told.changed(TINY, failed())
    told.still_waiting()

    assert capsys.readouterr().err == ""
    assert told.exit_code == 0


@pytest.mark.parametrize("fails_first", [True, False])
def test_alone_a_named_model_that_failed_stops_the_process_with_its_code(
    fails_first: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    told = news(gives_up=True)
    stops: list[int] = []
    steps: list[Callable[[], object]] = [
        lambda: told.changed(TINY, failed()),
        lambda: told.stops_by(lambda: stops.append(1)),
    ]
    for step in steps if fails_first else steps[::-1]:
        step()

    assert (told.exit_code, stops) == (4, [1])
    assert capsys.readouterr().err == (
        "error: model `acme/tiny` cannot be loaded: `acme/tiny` is nowhere\n\nhint: look elsewhere\n"
    )


def test_alone_a_model_that_only_a_caller_named_stops_nothing() -> None:
    told = news(gives_up=True)
    told.changed(OTHER, failed())

    assert told.exit_code == 0


def test_a_download_is_told_at_each_step_and_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now_s = [0.0]
    told = Told(as_json=False, clock=lambda: now_s[0])
    fetching = State(TINY, "fetching", "fetching `acme/tiny` from s3://b/", 1_000_000, 9_000_000)
    for second in range(25):
        now_s[0] = float(second)
        told(replace(fetching, done_bytes=second * 100_000))
    told(State(TINY, "waiting", "s3://b/ does not answer; next attempt in 0.5 s"))

    assert capsys.readouterr().err.splitlines() == [
        "fetching `acme/tiny` from s3://b/: 0.0 MB of 9.0 MB",
        "fetching `acme/tiny` from s3://b/: 1.0 MB of 9.0 MB",
        "fetching `acme/tiny` from s3://b/: 2.0 MB of 9.0 MB",
        "s3://b/ does not answer; next attempt in 0.5 s",
    ]
