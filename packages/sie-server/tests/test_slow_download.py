"""A download that hangs holds up its own model and nothing else, and a model that is not there its own callers."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sie_core.catalog.catalog import Catalog
from sie_core.ids import ModelId, Revision
from sie_core.wire.codec import Format
from sie_testing import parts
from sie_testing.cluster import MINILM, program
from sie_testing.doors import RawDoor, Refused
from sie_testing.hub import Fault, FaultKind, Hub, serving_hub

STALLED, MISSING = ModelId("Alibaba-NLP/gte-modernbert-base"), ModelId("Alibaba-NLP/gte-multilingual-base")
ITEMS = [{"text": "hello world"}]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[Hub, str]]:
    """It has the genuine all-MiniLM-L6-v2, a model whose weights never come, and not the third."""
    root = tmp_path / "hub"
    shutil.copytree(parts.minilm_folder(), root / MINILM)
    (root / STALLED).mkdir(parents=True)
    (root / STALLED / "model.safetensors").write_bytes(bytes(200_000))
    specs = Catalog.shipped().specs
    pins: dict[str, Revision] = {model: revision for model in (MINILM, STALLED) if (revision := specs[model].revision)}
    silent = Fault(FaultKind.STALL, match=f"/{STALLED}/resolve/*", after_bytes=50_000)
    behind = Hub(root, pins=pins, lfs_above_bytes=1_000_000, faults=[silent])
    with serving_hub(behind) as endpoint:
        yield behind, endpoint


def refusal(door: RawDoor, model: ModelId) -> Refused:
    answer = door.encode(model, ITEMS)
    assert isinstance(answer, Refused)
    return answer


def test_a_download_that_hangs_holds_up_no_other_model(hub: tuple[Hub, str], tmp_path: Path) -> None:
    """And not the end of the process either, which `program` waits for."""
    behind, endpoint = hub
    hangs = threading.Event()
    behind.on_sent = lambda total: hangs.set()
    flags = ["--local-cache", str(tmp_path / "cache"), "--host", "127.0.0.1", "--port", "0"]
    with program("sie-server", ["serve", *flags], log=tmp_path / "log", env={"HF_ENDPOINT": endpoint}) as running:
        door = RawDoor(running.url, Format.JSON)
        assert refusal(door, STALLED).code == "MODEL_LOADING"
        assert hangs.wait(60)

        answer = door.encode(MINILM, ITEMS)
        for _ in range(10_000):  # each answer takes its time
            if not isinstance(answer, Refused):
                break
            assert answer.code == "MODEL_LOADING"
            answer = door.encode(MINILM, ITEMS)
        assert not isinstance(answer, Refused)
        assert refusal(door, STALLED).code == "MODEL_LOADING"

        refused = refusal(door, MISSING)
        for _ in range(10_000):
            if refused.code != "MODEL_LOADING":
                break
            refused = refusal(door, MISSING)
        assert (refused.status, refused.code) == (502, "MODEL_LOAD_FAILED")
        assert not isinstance(door.encode(MINILM, ITEMS), Refused)
        door.close()
