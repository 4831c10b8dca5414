"""Who a worker is to a bucket, and by which way it goes there, is what the cluster gives its pod; we erase none of it.

The init container itself, with those variables and no others, beside a real SeaweedFS and a server of GCS.
"""

import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.manifest import FileEntry, Manifest
from sie_core.artifacts.store import Destination
from sie_core.artifacts.stores.open import open_store
from sie_core.artifacts.uploading import upload_snapshot
from sie_core.catalog.catalog import Catalog
from sie_testing import fake_gcs, seaweed
from sie_testing.authority import Authority
from sie_testing.cluster import MINILM
from sie_testing.front import Front, standing_in_front
from sie_testing.givers import GOOGLE_TOKEN, Giver
from sie_testing.hub import Hub, serving_hub
from sie_testing.init_container import said_until, started
from sie_testing.proxy import Proxy, serving_proxy
from sie_testing.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed
from sie_testing.web import Answer, Request, serving

BUCKET = "models-private"
URL = f"s3://{BUCKET}/weights"
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 1_000}
KEYS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


def fill(store: Destination) -> None:
    """The model's name and commit with small files: nothing loads them here."""
    spec = Catalog.shipped().find(MINILM)
    assert spec is not None
    assert spec.revision is not None
    entries = (FileEntry(path, digest_of(data), len(data)) for path, data in sorted(FILES.items()))
    manifest = Manifest(MINILM, spec.revision, tuple(entries))
    upload_snapshot(store, lambda entry: io.BytesIO(FILES[entry.path]), manifest)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweed.running(tmp_path_factory.mktemp("seaweed")) as running, pytest.MonkeyPatch.context() as patch:
        running.make_bucket(BUCKET)
        for name, value in KEYS.items():
            patch.setenv(name, value)
        fill(open_store(URL, endpoint=running.endpoint))
        yield running


@pytest.fixture
def front(server: Seaweed) -> Iterator[tuple[Front, str]]:
    with standing_in_front(server.endpoint) as standing:
        yield standing


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def fetch(home: Path, *, bucket: str | None = URL, **env: str) -> None:
    """Fetched and verified, with these variables."""
    where = {"SIE_CLUSTER_CACHE": bucket} if bucket is not None else {}
    cache = home / "cache"
    with started("--models", MINILM, "--local-cache", str(cache), HOME=str(home), **where, **env) as process:
        assert f"`{MINILM}` fetched in" in (said := said_until(process, "fetched in", "looking again")), said


@pytest.mark.parametrize("endpoint", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
@pytest.mark.parametrize("region", ["AWS_REGION", "AWS_DEFAULT_REGION", None])
def test_endpoint_and_region_are_those_of_the_variables(
    front: tuple[Front, str], tmp_path: Path, endpoint: str, region: str | None
) -> None:
    fetch(tmp_path, **KEYS, **{endpoint: front[1]}, **({region: "ap-south-9"} if region else {}))

    assert all(f"/{'ap-south-9' if region else 'us-east-1'}/s3/" in seen[2] for seen in front[0].seen)


def test_a_profile_says_who_where_and_which_region(front: tuple[Front, str], tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text(f"[profile site]\nregion = eu-central-7\nendpoint_url = {front[1]}\n")
    keys = f"[site]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    (tmp_path / ".aws/credentials").write_text(keys)
    fetch(tmp_path, AWS_PROFILE="site")

    assert all(f"Credential={ACCESS_KEY}/" in seen[2] and "/eu-central-7/s3/" in seen[2] for seen in front[0].seen)


@pytest.mark.parametrize(("setting", "host"), [("true", "s3.site.test"), ("false", f"{BUCKET}.s3.site.test")])
def test_the_bucket_stands_where_the_setting_wants_it(tmp_path: Path, setting: str, host: str) -> None:
    """Seen by a proxy, which needs no name server."""
    asked: list[str] = []

    def answer(request: Request) -> Answer:
        asked.append(request.headers["Host"])
        return Answer(404)

    with serving(answer) as proxy:
        env = {**KEYS, "AWS_ENDPOINT_URL": "http://s3.site.test", "HTTP_PROXY": proxy}
        env |= {"SIE_CLUSTER_CACHE": URL, "SIE_CLUSTER_CACHE_PATH_STYLE": setting, "HOME": str(tmp_path)}
        with started(**env) as process:
            said = said_until(process, "looking again")

    assert "does not exist" in said
    assert asked[0] == host  # the last question is which buckets there are


def test_a_private_authority_is_believed_where_it_is_named(
    server: Seaweed, authority: Authority, tmp_path: Path
) -> None:
    with standing_in_front(server.endpoint, tls=authority.tls) as (_, endpoint):
        env = {**KEYS, "AWS_ENDPOINT_URL_S3": endpoint}
        with started(SIE_CLUSTER_CACHE=URL, HOME=str(tmp_path), **env) as process:
            said = said_until(process, "looking again")
            assert process.poll() is None  # the pod stays in Init, and this is its log
        assert "is not trusted" in said
        assert "AWS_CA_BUNDLE" in said

        fetch(tmp_path, AWS_CA_BUNDLE=str(authority.certificate), **env)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_private_authority_of_the_hub_is_believed_where_it_is_named(
    authority: Authority, tmp_path: Path, variable: str
) -> None:
    spec = Catalog.shipped().find(MINILM)
    assert spec is not None
    assert spec.revision is not None
    for path, data in FILES.items():
        file = tmp_path / "hub" / MINILM / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    with serving_hub(Hub(tmp_path / "hub", pins={MINILM: spec.revision}), tls=authority.tls) as endpoint:
        fetch(tmp_path, bucket=None, HF_ENDPOINT=endpoint, **{variable: str(authority.certificate)})


@pytest.mark.parametrize("is_tls", [False, True])
def test_a_proxy_carries_it_unless_no_proxy_says_otherwise(
    server: Seaweed, authority: Authority, tmp_path: Path, is_tls: bool
) -> None:
    company = Proxy(login="me:hush")
    tls = authority.tls if is_tls else None
    with standing_in_front(server.endpoint, tls=tls) as (_, endpoint), serving_proxy(company) as where:
        env = {**KEYS, "AWS_ENDPOINT_URL": endpoint, "AWS_CA_BUNDLE": str(authority.certificate)}
        env["HTTPS_PROXY" if is_tls else "HTTP_PROXY"] = f"http://me:hush@{where}"
        fetch(tmp_path / "through", **env)
        asked = list(company.asked)
        fetch(tmp_path / "past", NO_PROXY="127.0.0.1", **env)

    assert {method for method, _ in asked} == ({"CONNECT"} if is_tls else {"GET"})
    assert company.asked == asked


def test_a_pod_has_the_role_of_its_service_account(server: Seaweed, tmp_path: Path) -> None:
    """IRSA: what the cluster puts into a pod, and nothing else."""
    giver = Giver()
    (tmp_path / "token").write_text("a service account's token")
    with serving(giver.answer) as sts:
        fetch(
            tmp_path,
            AWS_ROLE_ARN="arn:aws:iam::123456789012:role/models",
            AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "token"),
            AWS_ENDPOINT_URL_STS=sts,
            AWS_ENDPOINT_URL_S3=server.endpoint,
        )

    assert "a+service+account%27s+token" in giver.asked[0][1]["form"]


def test_a_container_has_the_role_that_its_agent_gives(server: Seaweed, tmp_path: Path) -> None:
    """EKS Pod Identity names a file with the agent's secret."""
    giver = Giver()
    (tmp_path / "secret").write_text("agent's secret")
    with serving(giver.answer) as agent:
        fetch(
            tmp_path,
            AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{agent}/v1/credentials",
            AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(tmp_path / "secret"),
            AWS_ENDPOINT_URL_S3=server.endpoint,
        )

    assert giver.asked[0][1]["Authorization"] == "agent's secret"


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ExitStack() as stack:
        endpoint = stack.enter_context(fake_gcs.running(tmp_path_factory.mktemp("gcs"), bucket=BUCKET))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("STORAGE_EMULATOR_HOST", endpoint)
        fill(open_store(f"gs://{BUCKET}/weights"))
        patch.undo()
        yield endpoint


def test_a_stand_in_for_google_needs_no_credentials(google: str, tmp_path: Path) -> None:
    fetch(tmp_path, bucket=f"gs://{BUCKET}/weights", STORAGE_EMULATOR_HOST=google)


def test_a_google_workload_has_the_token_of_the_metadata_server(google: str, tmp_path: Path) -> None:
    """As with Workload Identity, where the node's metadata server answers each pod for its own account."""
    giver = Giver()
    with serving(giver.answer) as node, standing_in_front(google) as (front, endpoint):
        place = node.removeprefix("http://")
        env = {"GCE_METADATA_HOST": place, "GCE_METADATA_IP": place, "API_ENDPOINT_OVERRIDE": endpoint}
        fetch(tmp_path, bucket=f"gs://{BUCKET}/weights", **env)

    assert any(path.endswith("/token") for path, _ in giver.asked)
    assert {seen[2] for seen in front.seen} == {f"Bearer {GOOGLE_TOKEN}"}
