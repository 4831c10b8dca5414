"""Who we are to a bucket is what the user's own settings say: profiles, roles, endpoints; none of them is erased."""

import json
import socket
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from sie_core.artifacts.errors import NoPermission, NotThere
from sie_core.artifacts.store import Destination
from sie_core.artifacts.stores.open import open_store
from sie_testing import seaweed
from sie_testing.front import Front, standing_in_front
from sie_testing.givers import Giver
from sie_testing.places import BUCKET
from sie_testing.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed
from sie_testing.store_suite import get, put
from sie_testing.web import Answer, Request, json_answer, serving

_prefixes = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweed.running(tmp_path_factory.mktemp("seaweed")) as running:
        running.make_bucket(BUCKET)
        yield running


@pytest.fixture
def front(server: Seaweed) -> Iterator[tuple[Front, str]]:
    with standing_in_front(server.endpoint) as standing:
        yield standing


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without any setting, and no variables."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write_profile(home: Path, config: str) -> None:
    (home / ".aws").mkdir()
    (home / ".aws" / "config").write_text(config)
    (home / ".aws" / "credentials").write_text(
        f"[site]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )


def works(store: Destination) -> bool:
    put(store, "x", b"1")
    return get(store, "x") == b"1"


def prefix() -> str:
    return f"s3://{BUCKET}/run-{next(_prefixes)}"


def test_a_profile_says_who_where_and_which_region(
    nobody: Path, monkeypatch: pytest.MonkeyPatch, front: tuple[Front, str]
) -> None:
    write_profile(nobody, f"[profile site]\nregion = eu-central-7\nendpoint_url = {front[1]}\n")
    monkeypatch.setenv("AWS_PROFILE", "site")

    assert works(open_store(prefix()))
    assert all(f"Credential={ACCESS_KEY}/" in seen[2] for seen in front[0].seen)
    assert all("/eu-central-7/s3/" in seen[2] for seen in front[0].seen)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
@pytest.mark.parametrize("region", ["AWS_REGION", "AWS_DEFAULT_REGION", None])
def test_variables_name_endpoint_and_region(
    monkeypatch: pytest.MonkeyPatch, front: tuple[Front, str], name: str, region: str | None
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv(name, front[1])
    if region is not None:
        monkeypatch.setenv(region, "ap-south-9")

    assert works(open_store(prefix()))
    assert all(f"/{'ap-south-9' if region else 'us-east-1'}/s3/" in seen[2] for seen in front[0].seen)


def test_the_bucket_stands_where_the_configuration_file_wants_it(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the path by default; in the host's name, which servers of some clouds insist on, where the user says so."""
    hosts: list[str] = []

    def answer(request: Request) -> Answer:
        hosts.append(request.headers["Host"].partition(":")[0])
        return Answer(404)

    write_profile(
        nobody, "[profile site]\ns3 =\n  addressing_style = virtual\n[profile plain]\nsource_profile = site\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "site")
    monkeypatch.setattr("socket.getaddrinfo", _everything_is_here)
    with serving(answer) as endpoint:
        named = endpoint.replace("127.0.0.1", "localhost")
        with pytest.raises(NotThere):
            open_store("s3://models-private/", endpoint=named).open("x")
        monkeypatch.delenv("AWS_PROFILE")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        with pytest.raises(NotThere):
            open_store("s3://models-private/", endpoint=named).open("x")

    assert hosts[0] == "models-private.localhost"
    assert hosts[-1] == "localhost"


def _everything_is_here(host: str, port: int, *_: object, **__: object) -> list[object]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


def test_a_profile_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such")

    with pytest.raises(NoPermission, match="no-such"):
        open_store(prefix()).stat("x")


@pytest.fixture
def giver() -> Giver:
    return Giver()


@pytest.fixture
def gives(giver: Giver) -> Iterator[str]:
    with serving(giver.answer) as origin:
        yield origin


def as_pod(monkeypatch: pytest.MonkeyPatch, folder: Path, sts: str) -> None:
    """What a cluster with IRSA puts into a pod."""
    (folder / "token").write_text("a service account's token")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/models")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(folder / "token"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts)


def test_a_pod_has_the_role_of_its_service_account(
    server: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, giver: Giver, gives: str
) -> None:
    as_pod(monkeypatch, tmp_path, gives)

    assert works(open_store(prefix(), endpoint=server.endpoint))
    assert "a+service+account%27s+token" in giver.asked[0][1]["form"]


def test_a_role_that_is_not_given_is_no_permission(
    server: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    error = "<Error><Code>InvalidIdentityToken</Code><Message>no such issuer</Message></Error>"
    refusal = Answer(400, {"Content-Type": "text/xml"}, f"<ErrorResponse>{error}</ErrorResponse>".encode())
    with serving(lambda request: refusal) as sts:
        as_pod(monkeypatch, tmp_path, sts)
        with pytest.raises(NoPermission, match="no such issuer") as caught:
            open_store(prefix(), endpoint=server.endpoint).stat("x")

    assert "trust policy" in (caught.value.hint or "")


def test_a_container_has_the_role_that_its_agent_gives(
    server: Seaweed, monkeypatch: pytest.MonkeyPatch, giver: Giver, gives: str
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{gives}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "agent's secret")

    assert works(open_store(prefix(), endpoint=server.endpoint))
    assert giver.asked[0][1]["Authorization"] == "agent's secret"


def test_keys_that_expire_while_files_move_are_asked_for_again(
    server: Seaweed, monkeypatch: pytest.MonkeyPatch, giver: Giver, gives: str
) -> None:
    giver.left_s = 300  # within the time in which they must be renewed
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{gives}/v1/credentials")
    store = open_store(prefix(), endpoint=server.endpoint)
    put(store, "x", b"1")
    before = len(giver.asked)

    put(store, "x", b"2")
    assert len(giver.asked) > before


@pytest.mark.parametrize("disabled", [None, "true", "false"])
def test_the_machine_is_asked_who_it_is_only_where_that_is_wanted(
    server: Seaweed, monkeypatch: pytest.MonkeyPatch, giver: Giver, gives: str, disabled: str | None
) -> None:
    """Inside the gap a question to 169.254.169.254 is an attempt to leave."""
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", gives)
    if disabled is not None:
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", disabled)
    store = open_store(prefix(), endpoint=server.endpoint)

    if disabled == "false":
        assert works(store)
        assert giver.asked
    else:
        with pytest.raises(NoPermission, match="there are no credentials"):
            store.stat("x")
        assert giver.asked == []


def test_opening_a_bucket_asks_nobody(monkeypatch: pytest.MonkeyPatch, giver: Giver, gives: str) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{gives}/v1/credentials")
    open_store(prefix())

    assert giver.asked == []


@pytest.mark.parametrize("found_by", ["GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG"])
def test_a_google_workload_shows_its_own_token_for_one_of_google(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found_by: str
) -> None:
    """Workload identity federation: the file names a token and where to exchange it."""
    seen: list[tuple[str, str]] = []

    def answer(request: Request) -> Answer:
        body = request.body.read().decode()
        seen.append((request.path, request.headers.get("Authorization") or body))
        if request.path == "/sts":
            kind = "urn:ietf:params:oauth:token-type:access_token"
            token = {"access_token": "of-google", "issued_token_type": kind, "token_type": "Bearer", "expires_in": 3600}
            return json_answer(token)
        return json_answer({"name": "x", "size": "3", "bucket": "models"})

    (tmp_path / "token").write_text("of-the-workload")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with serving(answer) as origin:
        account = {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{origin}/sts",
            "credential_source": {"file": str(tmp_path / "token")},
        }
        file = tmp_path / "application_default_credentials.json"
        file.write_text(json.dumps(account))
        monkeypatch.setenv(found_by, str(file if found_by.startswith("GOOGLE") else tmp_path))
        stat = open_store("gs://models/", endpoint=origin).stat("x")

    assert stat is not None
    assert stat.size_bytes == 3
    assert "of-the-workload" in seen[0][1]
    assert ("/storage/v1/b/models/o/x", "Bearer of-google") in seen  # the client may ask for the bucket beside it
