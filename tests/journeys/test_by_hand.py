"""The guide's own way: the hub's command, the cloud's command, and no toolkit of ours on the way to a first vector."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from sie_testing import seaweed
from sie_testing.awscli import aws
from sie_testing.cluster import MINILM, worker
from sie_testing.demo.stage import COMMIT
from sie_testing.hub.clients import installed_client, older_client
from sie_testing.seaweed import Seaweed

from .test_guide import SAME_ARITHMETIC, first_vector

BUCKET = "sie-models-private"
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "offline.md"


def by_hand(program: str) -> list[str]:
    """What the guide gives that program to do, word for word."""
    (line,) = [line for line in GUIDE.read_text().splitlines() if line.startswith(f"{program} ")]
    return shlex.split(line)[1:]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweed.running(tmp_path_factory.mktemp("seaweed")) as running:
        running.make_bucket(BUCKET)
        yield running


@pytest.mark.parametrize("version", ["installed", pytest.param("0.36.2", marks=pytest.mark.hub_versions)])
def test_download_and_sync_by_hand_end_in_a_first_vector_that_is_said_to_be_unverified(
    version: str, tmp_path: Path, server: Seaweed, hub_of, airgap
) -> None:
    """With 0.36.2 the command is `huggingface-cli`, as the guide has it; both bring blobs along, and links to them."""
    download, sync = by_hand("hf"), by_hand("aws")
    client = installed_client() if version == "installed" else older_client(version)
    offline = tmp_path / "offline-weights"
    with hub_of(tmp_path / "hub") as hub:
        here = {"HF_ENDPOINT": hub, "HF_HUB_CACHE": str(offline), "HF_HOME": str(tmp_path / "home")}
        ran = client.command(*download, cwd=tmp_path, environment=here)
    assert ran.returncode == 0, ran.stderr
    url = f"s3://{BUCKET}/{version}/"
    aws(*sync[:-1], url, endpoint=server.endpoint, cwd=tmp_path)

    env = {
        "AWS_ENDPOINT_URL_S3": server.endpoint,
        "AWS_ACCESS_KEY_ID": seaweed.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": seaweed.SECRET_KEY,
        **SAME_ARITHMETIC,
    }
    with worker(tmp_path, bucket=url, env=env) as served:
        vector = first_vector(served.url)
        (model,) = [one for one in httpx2.get(f"{served.url}/v1/models").json()["models"] if one["name"] == MINILM]
        log = served.log.read_text()

    assert vector.shape == (384,)
    assert (model["revision"], model["verified"]) == (COMMIT, False)
    assert f"`{MINILM}` is served unverified: nothing vouches for its 12 files" in log
    assert f"`sie-airgap verify {url} --write-manifest` adopts what is there" in log

    airgap("verify", url, "--write-manifest", cwd=tmp_path, env=env)
    with worker(tmp_path, bucket=url, env=env) as served:
        (model,) = [one for one in httpx2.get(f"{served.url}/v1/models").json()["models"] if one["name"] == MINILM]
    assert (model["verified"], model["adopted"]) == (False, True)
