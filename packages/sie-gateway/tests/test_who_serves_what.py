"""The list of models through a gateway: what the workers that have a model loaded say of it."""

from typing import Any

import msgspec
import pytest

from sie_core.catalog.catalog import Bundle, Catalog
from sie_core.catalog.spec import DenseHead, ModelSpec, Source
from sie_core.ids import BundleName, ModelId, Revision
from sie_core.wire.messages import ModelEntry, Served, WorkerStatus
from sie_gateway import status
from sie_gateway.workers import Address, Worker, WorkerTable

MODEL = ModelId("org/model")
IN_SPEC, IN_LOCK, OLDER = (Revision(digit * 40) for digit in "abc")
SPEC = ModelSpec(id=MODEL, source=Source(repo=MODEL, revision=IN_SPEC), dense=DenseHead())
CATALOG = Catalog.of([SPEC], [Bundle(name=BundleName("default"), models="all")])


def workers(*served: Served | None) -> tuple[Worker, ...]:
    table, addresses = WorkerTable(), [Address(f"w{number}", 80) for number in range(len(served))]
    table.list_addresses(addresses)
    for address, one in zip(addresses, served, strict=True):
        loaded: dict[str, Any] = {"loaded": [MODEL], "served": {MODEL: one}} if one else {"loaded": []}
        said = WorkerStatus(
            address.host, True, "l4", "l4", "default", models=[MODEL], queued_tokens=0, fingerprint="", version="0.3.1",
            hardware=f"CPU of {address.host}", **loaded,
        )  # fmt: skip
        table.hear(address, said, 1.0)
    return table.all()


def entry(*served: Served | None) -> ModelEntry:
    found = status.model(MODEL, workers(*served), CATALOG, 1.0)
    assert found is not None
    return found


def test_a_loaded_model_is_what_its_worker_serves_and_not_what_the_catalog_names() -> None:
    said = entry(None, Served(IN_LOCK, True, "bf16"))

    assert (said.revision, said.verified, said.precision) == (IN_LOCK, True, "bf16")
    assert said.device == "CPU of w1"


def test_workers_that_differ_are_all_told() -> None:
    said = entry(Served(IN_LOCK, True, "f32"), Served(OLDER, False, "bf16"))

    assert (said.revision, said.verified, said.precision) == (f"{IN_LOCK},{OLDER}", False, "bf16,f32")
    assert said.device == "CPU of w0, CPU of w1"


def test_files_that_were_only_adopted_are_told_unless_some_are_vouched_for_by_nothing() -> None:
    verified, adopted = Served(IN_LOCK, True, "f32"), Served(IN_LOCK, False, "f32", adopted=True)

    said = entry(verified, adopted)
    assert (said.verified, said.adopted) == (False, True)
    for others in ([verified], [adopted, Served(IN_LOCK, False, "f32")]):
        assert "adopted" not in msgspec.json.decode(msgspec.json.encode(entry(*others)))


@pytest.mark.parametrize("served", [(), (None,)])
def test_before_anybody_has_loaded_it_only_the_catalog_is_known(served: tuple[None, ...]) -> None:
    said = entry(*served)

    assert (said.revision, said.verified) == (IN_SPEC, None)
    assert not {"precision", "device"} & msgspec.json.decode(msgspec.json.encode(said)).keys()
