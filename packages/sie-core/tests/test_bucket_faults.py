"""What goes wrong between us and a bucket is told with its cause, and what passes is told from what does not."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from sie_core.artifacts.errors import NoPermission, NotThere, TransferError, Unreachable
from sie_core.artifacts.store import Destination
from sie_core.artifacts.stores.open import open_store
from sie_testing import seaweed
from sie_testing.authority import Authority
from sie_testing.front import Front, s3_refusal, standing_in_front
from sie_testing.places import BUCKET
from sie_testing.proxy import Proxy, serving_proxy
from sie_testing.seaweed import ACCESS_KEY, READER_KEY, READER_SECRET, SECRET_KEY, Seaweed
from sie_testing.store_suite import blob, get, put
from sie_testing.web import Answer

_prefixes = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweed.running(tmp_path_factory.mktemp("seaweed")) as running:
        running.make_bucket(BUCKET)
        yield running


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def front(server: Seaweed) -> Iterator[tuple[Front, str]]:
    with standing_in_front(server.endpoint) as standing:
        yield standing


def opened(endpoint: str) -> Destination:
    return open_store(f"s3://{BUCKET}/run-{next(_prefixes)}/", endpoint=endpoint)


REFUSALS = [
    (s3_refusal(403, "AccessDenied"), NoPermission, "403", "grant `s3:PutObject`"),
    (s3_refusal(403, "InvalidAccessKeyId"), NoPermission, "InvalidAccessKeyId", "the key of another server"),
    (s3_refusal(403, "RequestTimeTooSkewed"), NoPermission, "Skewed", "set this machine's clock"),
    (s3_refusal(400, "ExpiredToken"), NoPermission, "ExpiredToken", "get new credentials and run the same"),
    (s3_refusal(403, "ExpiredToken"), NoPermission, "ExpiredToken", "get new credentials and run the same"),
    (s3_refusal(404, "NoSuchBucket"), NotThere, "the bucket `models-private` does not exist", "check the bucket"),
    (s3_refusal(507, "XMinioStorageFull"), TransferError, "does not fit", None),
    (
        s3_refusal(301, "PermanentRedirect", x_amz_bucket_region="eu-north-1"),
        TransferError,
        "in another region",
        "AWS_REGION, or --region, to `eu-north-1`",
    ),
    (
        s3_refusal(400, "AuthorizationHeaderMalformed", x_amz_bucket_region="eu-north-1"),
        TransferError,
        "in another region",
        "to `eu-north-1`",
    ),
]


@pytest.mark.parametrize(("refusal", "kind", "said", "hint"), REFUSALS)
def test_a_refusal_that_stays_says_what_to_do(
    front: tuple[Front, str], refusal: Answer, kind: type[TransferError], said: str, hint: str | None
) -> None:
    store = opened(front[1])
    put(store, "x", b"1")
    front[0].refusals = [refusal] * 4
    front[0].methods = ("PUT", "HEAD")

    with pytest.raises(kind, match=said) as caught:
        put(store, "x", b"2")
    assert not caught.value.transient
    assert (hint or "") in (caught.value.hint or "")
    assert SECRET_KEY not in str(caught.value)
    if kind is NoPermission:
        assert f"as `{ACCESS_KEY}` (from env)" in caught.value.message


@pytest.mark.parametrize("code", ["SlowDown", "ServiceUnavailable", "InternalError"])
def test_a_server_that_is_asked_too_much_says_how_long_to_wait(front: tuple[Front, str], code: str) -> None:
    store = opened(front[1])
    put(store, "x", b"1")
    front[0].refusals = [s3_refusal(503, code, retry_after="7")] * 4

    with pytest.raises(Unreachable, match=code) as caught:
        put(store, "x", b"2")
    assert caught.value.transient
    assert caught.value.retry_after_s == 7


def test_somebody_who_may_only_read_is_told_what_to_be_granted(
    server: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(opened(server.endpoint), "x", b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    reader = open_store(f"s3://{BUCKET}/", endpoint=server.endpoint)

    assert list(reader.list(""))
    with pytest.raises(NoPermission, match=rf"403 for s3://{BUCKET}/y as `{READER_KEY}`") as caught:
        put(reader, "y", b"1")
    assert "grant `s3:PutObject`" in (caught.value.hint or "")
    assert caught.value.exit_code == 6


def test_a_private_authority_is_trusted_where_its_certificate_is_given(
    server: Seaweed, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with standing_in_front(server.endpoint, tls=authority.tls) as (_, endpoint):
        with pytest.raises(Unreachable, match="is not trusted") as caught:
            put(opened(endpoint), "x", b"1")
        assert not caught.value.transient
        assert "AWS_CA_BUNDLE" in (caught.value.hint or "")

        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.certificate))
        store, data = opened(endpoint), blob(300_000)
        put(store, "x", data)
        assert get(store, "x", start=1_000, length=100) == data[1_000:1_100]


def test_a_file_of_certificates_that_is_not_there_is_said(
    authority: Authority, server: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with (
        standing_in_front(server.endpoint, tls=authority.tls) as (_, endpoint),
        pytest.raises(TransferError, match="No such file") as caught,
    ):
        put(opened(endpoint), "x", b"1")
    assert not caught.value.transient
    assert caught.value.hint == "AWS_CA_BUNDLE names a file that is not there"


@pytest.mark.parametrize("is_tls", [False, True])
def test_a_proxy_is_used_where_the_user_names_one(
    server: Seaweed, authority: Authority, monkeypatch: pytest.MonkeyPatch, is_tls: bool
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.certificate))
    company = Proxy(login="me:hush")
    with (
        standing_in_front(server.endpoint, tls=authority.tls if is_tls else None) as (_, endpoint),
        serving_proxy(company) as where,
    ):
        monkeypatch.setenv("HTTPS_PROXY" if is_tls else "HTTP_PROXY", f"http://me:hush@{where}")
        store = opened(endpoint)
        put(store, "x", b"1")
        assert get(store, "x") == b"1"
        asked = list(company.asked)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        put(opened(endpoint), "x", b"1")

    assert asked
    assert asked[0][0] == ("CONNECT" if is_tls else "PUT")
    assert company.asked == asked


def test_a_proxy_that_refuses_or_is_not_there_is_named(
    server: Seaweed, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    company = Proxy(login="me:hush")
    with standing_in_front(server.endpoint, tls=authority.tls) as (_, endpoint):
        with serving_proxy(company) as where:
            monkeypatch.setenv("HTTPS_PROXY", f"http://me:wrong@{where}")
            with pytest.raises(Unreachable, match=r"proxy .* does not answer|407") as caught:
                put(opened(endpoint), "x", b"1")
            assert "HTTPS_PROXY" in (caught.value.hint or "")
            assert "wrong" not in str(caught.value)
        with pytest.raises(Unreachable, match="proxy"):
            put(opened(endpoint), "x", b"1")
