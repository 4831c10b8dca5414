"""The init container killed with SIGKILL within a range of 64 MiB: it fetches at most one range a stream again."""

import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from sie_core.artifacts.digest import digest_of_stream
from sie_core.artifacts.hf_layout import snapshot_file
from sie_core.artifacts.ranges import RANGE_BYTES, RANGES_OF_A_FILE, STREAMS, range_bytes_of
from sie_core.catalog.catalog import Catalog
from sie_core.ids import Revision
from sie_testing.cluster import MINILM
from sie_testing.hub import Hub, serving_hub
from sie_testing.init_container import started

SIZE_BYTES = RANGES_OF_A_FILE * RANGE_BYTES + (40 << 20)
"""From here on a range is as long as it gets; the last one is shorter."""

POINTS = sorted(Random(20261124).sample(range(1, SIZE_BYTES), 3))  # noqa: S311 - nobody has to be unable to guess it


def revision() -> Revision:
    spec = Catalog.shipped().find(MINILM)
    assert spec is not None
    assert spec.revision is not None
    return spec.revision


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, str, Path]]:
    folder = tmp_path_factory.mktemp("hub")
    file = folder / MINILM / "model.safetensors"
    file.parent.mkdir(parents=True)
    piece = Random(1).randbytes(1 << 20)  # noqa: S311
    with file.open("wb") as stream:
        for number in range(SIZE_BYTES >> 20):  # no two ranges alike
            stream.write(number.to_bytes(8, "big") + piece[8:])
    behind = Hub(folder, pins={MINILM: revision()}, lfs_above_bytes=1_000)
    with serving_hub(behind) as endpoint:
        yield behind, endpoint, file
    file.unlink()


@pytest.mark.gap_kills
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kill_at", POINTS)
def test_a_kill_within_a_range_costs_at_most_one_range_a_stream(
    hub: tuple[Hub, str, Path], tmp_path: Path, kill_at: int
) -> None:
    behind, endpoint, file = hub
    before_bytes, due = behind.sent_bytes, threading.Event()
    behind.on_sent = lambda total: due.set() if total - before_bytes >= kill_at else None
    arguments, env = ["--models", MINILM, "--local-cache", str(tmp_path)], {"HF_ENDPOINT": endpoint}

    with started(*arguments, **env) as first:
        assert due.wait(200)
        first.kill()
    with started(*arguments, **env) as second:
        _, said = second.communicate(timeout=200)
    assert (first.returncode, second.returncode) == (-9, 0), said

    fetched = tmp_path / snapshot_file(MINILM, revision(), "model.safetensors")
    with fetched.open("rb") as stream, file.open("rb") as there:
        assert digest_of_stream(stream) == digest_of_stream(there)
    again_bytes = behind.sent_bytes - before_bytes - SIZE_BYTES
    assert range_bytes_of(SIZE_BYTES) == RANGE_BYTES == 64 << 20
    assert 0 <= again_bytes <= STREAMS * RANGE_BYTES
    fetched.unlink()
