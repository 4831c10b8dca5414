"""Models come on demand or at the start, fail with a reason, and are tried again when that makes sense."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from sie_core.artifacts.errors import NoPermission, NotThere, TrustError, Unreachable
from sie_core.catalog.catalog import Bundle, Catalog
from sie_core.catalog.export import encode_export, export_of
from sie_core.errors import ApiError
from sie_core.ids import BundleName, ModelId
from sie_server.app import follow
from sie_server.engine.residency import Failed, Loading, Made, Residency, Resident, failure_of
from sie_server.engine.room import Claim, Room
from sie_server.engine.scheduler import Scheduler
from sie_server.models.calls import LoadError, Model
from sie_server.settings import ServeSettings
from sie_testing.site import OTHER, REVISION, TINY, catalog, spec
from sie_testing.tiny import TinyModel
from sie_testing.web import Answer, serving

ENCODE = "/v1/encode/acme/tiny"
GOOD = {"items": [{"text": "a"}]}


def test_the_first_call_begins_the_load_and_is_told_to_come_again(sites: Any) -> None:
    site = sites()
    reply = site.post(ENCODE, GOOD)

    assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, "MODEL_LOADING", "5")
    site.ended(TINY)
    assert site.post(ENCODE, GOOD).status == 200


def test_while_it_loads_callers_are_told_what_is_being_done(sites: Any) -> None:
    site = sites()
    began, go_on = threading.Event(), threading.Event()

    def slow(wanted: Any, say: Callable[[str], None], take: Any) -> Any:
        say("fetching 3 of 9 MB")
        began.set()
        assert go_on.wait(30)
        raise NotThere("gone")

    site.engine.residency._load = slow
    site.engine.residency.begin(spec())
    assert began.wait(30)
    reply = site.post(ENCODE, GOOD)
    go_on.set()
    site.ended(TINY)

    assert reply.error["message"] == "model `acme/tiny` is being loaded: fetching 3 of 9 MB"


@pytest.mark.parametrize(
    ("error", "error_class", "permanent", "exit_code"),
    [
        (NotThere("`acme/tiny` is not in s3://b/"), "NOT_FOUND", True, 4),
        (NoPermission("403 from s3://b/"), "GATED", True, 6),
        (Unreachable("no answer"), "NETWORK", False, 5),
        (TrustError("altered", where="s3://b/x", want="sha256:1", have="sha256:2"), "INTEGRITY", True, 3),
        (LoadError("no `config.json`"), "UNSUPPORTED", True, 4),
        (MemoryError(), "OOM", False, 7),
        (ZeroDivisionError("bug"), "UNKNOWN", True, 1),
    ],
)
def test_a_failed_load_is_502_with_its_class_and_reason(
    sites: Any, error: Exception, error_class: str, permanent: bool, exit_code: int
) -> None:
    site = sites(error)
    site.load(spec())
    reply = site.post(ENCODE, GOOD)

    assert (reply.status, reply.error["code"]) == (502, "MODEL_LOAD_FAILED")
    assert "retry-after" not in reply.headers
    said = reply.error
    assert (said["error_class"], said["permanent"], said["attempts"]) == (error_class, permanent, 1)
    assert failure_of(error).exit_code == exit_code
    assert failure_of(error).message in said["message"]
    assert site.get("/v1/models/acme/tiny").json["last_error"]["code"] == error_class


class Weights:
    """What a load takes."""


def test_what_a_failed_load_took_is_gone_when_its_memory_is_given_back() -> None:
    """The error's traceback holds the frames that it went through, and theirs may refer to each other."""
    taken: list[weakref.ref[Weights]] = []
    seen: list[bool] = []

    class Watched(Room):
        def back(self, claim: Claim) -> None:
            seen.append(taken[0]() is None)
            super().back(claim)

    def load(wanted: Any, say: Any, take: Callable[[int], object]) -> Made:
        take(1_000)
        weights = Weights()
        taken.append(weakref.ref(weights))
        itself: list[Any] = [weights]
        itself.append(itself)
        raise LoadError("`config.json` and the weights are of two different models")

    room = Watched(2_000, evict=lambda claims: None)
    done = threading.Event()
    residency = Residency(load, room=room, queue=queue, on_change=lambda model_id, state: done.set())
    residency.begin(spec())

    assert done.wait(30)
    assert seen == [True]
    assert room.claims() == []


def test_an_integrity_failure_tells_callers_both_digests(sites: Any) -> None:
    site = sites(TrustError("altered", where="s3://b/x", want="sha256:1", have="sha256:2"))
    site.load(spec())

    message = site.post(ENCODE, GOOD).error["message"]
    assert "s3://b/x" in message
    assert "sha256:1" in message
    assert "sha256:2" in message


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_failure_is_tried_again_after_its_pause_and_not_before() -> None:
    clock, loads = Clock(), []
    ended = threading.Semaphore(0)

    def load(wanted: Any, say: Any, take: Any) -> Any:
        loads.append(wanted)
        raise Unreachable("no answer")

    residency = Residency(
        load, room=boundless(), queue=queue, on_change=lambda model, state: ended.release(), clock=clock
    )
    residency.begin(spec())
    assert ended.acquire(timeout=30)
    for seconds, attempts in ((29.0, 1), (2.0, 2)):
        clock.now_s += seconds
        with pytest.raises(Exception, match="acme/tiny"):
            residency.look(spec())
        if attempts == 2:
            assert ended.acquire(timeout=30)
        assert len(loads) == attempts

    state = residency.states()[TINY]
    assert isinstance(state, Failed)
    assert state.attempts == 2


def test_what_cannot_end_otherwise_is_not_tried_again() -> None:
    assert failure_of(ZeroDivisionError("bug")).again_after_s is None
    assert not Failed(failure_of(ZeroDivisionError("bug")), 1, 0.0).may_try(1e9)


def test_readiness_waits_for_the_models_that_were_named(sites: Any) -> None:
    site = sites(kept=[TINY])
    before = site.get("/readyz")
    site.load(spec())

    assert (before.status, before.body) == (503, b"not ready: acme/tiny is loading\n")
    assert site.get("/readyz").status == 200


def test_a_named_model_that_failed_keeps_the_worker_unready_and_says_why(sites: Any) -> None:
    site = sites(NotThere("`acme/tiny` is not in s3://b/"), kept=[TINY])
    site.load(spec())
    reply = site.get("/readyz")

    assert reply.status == 503
    assert reply.body == b"not ready: acme/tiny failed to load (NOT_FOUND): `acme/tiny` is not in s3://b/\n"
    assert site.get("/healthz").status == 200


def test_a_worker_that_stops_is_alive_and_not_ready(site: Any) -> None:
    async def stop() -> None:
        site.drain.begin()

    site.run(stop())

    assert (site.get("/readyz").status, site.get("/healthz").status) == (503, 200)
    assert site.get("/heartbeat").json["ready"] is False
    assert site.post(ENCODE, GOOD).status == 200


def test_the_heartbeat_says_what_a_gateway_routes_by(site: Any) -> None:
    status = site.get("/heartbeat").json

    assert status["loaded"] == ["acme/tiny"]
    assert status["models"] == ["acme/other", "acme/tiny"]
    assert (status["ready"], status["queued_tokens"], status["bundle"]) == (True, 0, "default")
    assert status["fingerprint"] == catalog(spec(), spec(OTHER)).fingerprint
    assert status["served"] == {"acme/tiny": {"revision": "1" * 40, "verified": True, "precision": "f32"}}


def test_the_list_of_models_is_one_for_both_kinds_of_client(site: Any) -> None:
    listed = site.get("/v1/models").json

    assert listed["models"] == listed["data"]
    by_name = {entry["name"]: entry for entry in listed["models"]}
    assert [by_name[name]["state"] for name in ("acme/tiny", "acme/other")] == ["loaded", "available"]
    loaded = by_name["acme/tiny"]
    assert (loaded["dims"], loaded["max_sequence_length"], loaded["verified"]) == ({"dense": 8}, 16, True)
    assert (loaded["id"], loaded["object"], loaded["revision"]) == ("acme/tiny", "model", "1" * 40)
    assert (loaded["precision"], loaded["device"]) == ("f32", "cpu")
    assert not {"precision", "device"} & by_name["acme/other"].keys()


def test_a_new_catalog_unloads_what_changed_and_leaves_what_did_not(sites: Any) -> None:
    first, second = TinyModel(), TinyModel()
    site = sites(first, second)
    site.load(spec())
    site.load(spec(OTHER))
    new = catalog(spec(max_tokens=8), spec(OTHER))

    site.worker.swap(new)

    assert (site.unloaded(first), second.closed) == (True, False)
    assert site.get("/heartbeat").json["loaded"] == ["acme/other"]
    assert site.get("/heartbeat").json["fingerprint"] == new.fingerprint
    assert site.post(ENCODE, GOOD).error["code"] == "MODEL_LOADING"


def test_a_named_model_whose_spec_changed_or_came_is_loaded_without_being_asked_for(sites: Any) -> None:
    site = sites(kept=[TINY], specs=[spec(OTHER)])
    site.worker.swap(catalog(spec(OTHER), spec()))
    site.ended(TINY)
    assert site.get("/readyz").status == 200

    site.states.clear()
    site.worker.swap(catalog(spec(OTHER), spec(max_tokens=8)))
    site.ended(TINY)

    assert site.get("/readyz").status == 200
    assert site.engine.residency.spec(TINY) == spec(max_tokens=8)


def test_a_worker_follows_the_config_service(sites: Any) -> None:
    new = catalog(spec(max_tokens=9))
    body = encode_export(export_of(new, epoch=2, generated_at="2026-01-01T00:00:00Z"))
    site = sites()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        swapped = asyncio.Event()
        swap = site.worker.swap

        def swap_and_say(catalog: Catalog) -> None:
            swap(catalog)
            swapped.set()

        site.worker.swap = swap_and_say
        stop = follow(ServeSettings(config_service_url=url), site.worker, loop)
        await asyncio.wait_for(swapped.wait(), 30)
        await loop.run_in_executor(None, stop)

    with serving(lambda request: Answer(200, {"ETag": f'"{new.fingerprint}"'}, body)) as url:
        site.run(scenario())

    assert site.get("/heartbeat").json["fingerprint"] == new.fingerprint
    assert site.get("/v1/models").json["models"][0]["max_sequence_length"] == 9


def test_a_load_that_was_overtaken_does_not_write_over_what_came_after_it() -> None:
    """A named model waits for its next attempt; meanwhile a call has it loaded; the waiting one must not undo that."""
    clock = Clock()
    outcomes: list[Any] = [Unreachable("no answer"), Made(TinyModel(), REVISION, verified=True)]
    ended = threading.Semaphore(0)

    def load(wanted: Any, say: Any, take: Any) -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    residency = Residency(
        load, room=boundless(), queue=queue, kept=[TINY], on_change=lambda model, state: ended.release(), clock=clock
    )
    residency.begin(spec())
    assert ended.acquire(timeout=30)
    overtaken = residency._owners[TINY]
    clock.now_s += 31
    with pytest.raises(ApiError, match="is being loaded"):
        residency.look(spec())
    assert ended.acquire(timeout=30)

    assert not residency._publish(overtaken, Loading(0.0, 2))
    assert residency.look(spec()).model is not None
    residency.close()


def test_a_model_that_left_the_catalog_is_not_found(site: Any) -> None:
    site.worker.swap(catalog(spec(OTHER)))

    assert site.post(ENCODE, GOOD).error["code"] == "MODEL_NOT_FOUND"


def test_a_model_is_closed_only_after_its_last_call(sites: Any) -> None:
    reached, opened = threading.Event(), threading.Event()

    def wait(batch: Any) -> None:
        reached.set()
        assert opened.wait(30)

    model = TinyModel(before_run=wait)
    site = sites(model)
    site.load(spec())

    async def scenario() -> Any:
        call = asyncio.create_task(site.posting(ENCODE, GOOD))
        await asyncio.get_running_loop().run_in_executor(None, reached.wait, 30)
        site.worker.swap(catalog(spec(OTHER)))
        assert not model.closed
        opened.set()
        return await call

    assert site.run(scenario()).status == 200
    site.close()
    assert model.closed


def test_a_model_that_left_the_bundle_is_unloaded(site: Any, model: TinyModel) -> None:
    bundles = [Bundle(name=BundleName("default"), models=(OTHER,)), Bundle(name=BundleName("rest"), models="all")]
    site.worker.swap(Catalog.of([spec(), spec(OTHER)], bundles))

    assert site.unloaded(model)
    assert site.get("/heartbeat").json["loaded"] == []


def test_a_named_model_that_is_in_no_catalog_is_said_to_be_missing_and_not_to_be_loading(sites: Any) -> None:
    site = sites(kept=[TINY], specs=[spec(OTHER)])

    assert site.get("/readyz").body == b"not ready: acme/tiny is not in the catalog\n"


def test_a_model_that_was_forgotten_while_it_loaded_is_held_by_nobody(sites: Any) -> None:
    began, go_on, held = threading.Event(), threading.Event(), []
    site = sites()

    def load(wanted: Any, say: Any, take: Any) -> Any:
        began.set()
        assert go_on.wait(30)
        model = TinyModel()
        held.append(weakref.ref(model))
        return Made(model, REVISION, verified=True)

    site.engine.residency._load = load
    site.engine.residency.begin(spec())
    loading = next(thread for thread in threading.enumerate() if thread.name == f"load-{TINY}")
    assert began.wait(30)
    site.engine.unload(TINY)
    go_on.set()
    loading.join(30)

    gc.collect()
    assert held[0]() is None


def test_what_was_being_loaded_under_an_old_spec_is_thrown_away() -> None:
    model, began, go_on = TinyModel(), threading.Event(), threading.Event()
    closed = threading.Event()
    model.close = closed.set  # type: ignore[method-assign]

    def load(wanted: Any, say: Any, take: Any) -> Any:
        began.set()
        assert go_on.wait(30)
        return Made(model, "1" * 40, verified=True)

    residency = Residency(load, room=boundless(), queue=queue)
    residency.begin(spec())
    assert began.wait(30)
    residency.forget(TINY)
    go_on.set()

    assert closed.wait(30)
    assert not any(isinstance(state, Resident) for state in residency.states().values())


def boundless() -> Room:
    return Room(None, evict=lambda claims: None)


def queue(model_id: ModelId, model: Model) -> Scheduler:
    return Scheduler(model_id, model, budget_tokens=64)
