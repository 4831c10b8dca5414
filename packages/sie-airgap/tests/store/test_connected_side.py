"""`lock` and `snapshot` in the networks that operators have: a proxy, an authority of their own, a gated model.

The real command in an environment of its own, since proxies and certificates are read from there.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sie_airgap.progress import Silent
from sie_airgap.store.blobs import BlobFolder, lock_of
from sie_airgap.verifying.store import verify_store
from sie_testing.authority import Authority
from sie_testing.carried import FILES
from sie_testing.hub import Fault, FaultKind, Hub, serving_hub
from sie_testing.proxy import Proxy, serving_proxy

UNREACHABLE, NO_PERMISSION, MISUSED = 5, 6, 2
PERSONAL = {"token": "hf_only_for_the_hub"}


@pytest.fixture
def repositories(tmp_path: Path) -> Path:
    for model, files in FILES.items():
        for path, data in files.items():
            file = tmp_path / "hub" / model / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    return tmp_path / "hub"


@pytest.fixture
def hub(repositories: Path) -> Hub:
    pins = dict.fromkeys(FILES, "ab" * 20)
    token = PERSONAL["token"]
    return Hub(repositories, pins=pins, lfs_above_bytes=1000, token=token, signed=True, xet=True)  # type: ignore[arg-type]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def endpoint(hub: Hub, authority: Authority) -> Iterator[str]:
    with serving_hub(hub, tls=authority.tls) as at:
        yield at


def airgap(here: Path, environment: dict[str, str], *words: str) -> tuple[int, str]:
    """How it ended, and what it said."""
    ran = subprocess.run(
        [sys.executable, "-m", "sie_airgap", *words],
        cwd=here,
        env={"PATH": os.defpath, "HOME": str(here), **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("named", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_proxy_login_private_authority_and_token_together(
    hub: Hub, endpoint: str, authority: Authority, tmp_path: Path, named: str
) -> None:
    """And the storage that the hub sends to never sees the token, nor the proxy anything but names."""
    proxy = Proxy(login="me:secret")
    with serving_proxy(proxy) as place:
        environment = {
            "HF_ENDPOINT": endpoint,
            "HF_TOKEN": PERSONAL["token"],
            "HTTPS_PROXY": f"http://me:secret@{place}",
            named: str(authority.certificate),
        }
        assert airgap(tmp_path, environment, "lock", "--model", "org/large", "--model", "org/small")[0] == 0
        code, said = airgap(tmp_path, environment, "snapshot")

    assert code == 0, said
    store = BlobFolder(tmp_path / "airgap-store")
    assert verify_store(lock_of(store), store, progress=Silent()) == []
    assert {method for method, _ in proxy.asked} == {"CONNECT"}
    assert len(proxy.asked) == len(hub.seen)
    assert {seen.has_token for seen in hub.seen if seen.origin == "api"} == {True}
    assert {seen.has_token for seen in hub.seen if seen.origin == "blobs"} == {False}
    assert "secret" not in said


def test_authority_that_is_not_named_is_told_at_once_and_not_waited_for(endpoint: str, tmp_path: Path) -> None:
    code, said = airgap(tmp_path, {"HF_ENDPOINT": endpoint}, "lock", "--model", "org/large")

    assert code == UNREACHABLE
    assert f"the certificate of {endpoint} is not trusted" in said
    assert "SSL_CERT_FILE or REQUESTS_CA_BUNDLE" in said
    assert "again in" not in said


def test_bundle_that_is_no_bundle_is_a_mistake(endpoint: str, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": endpoint, "REQUESTS_CA_BUNDLE": str(tmp_path / "nothing.pem")}
    code, said = airgap(tmp_path, environment, "lock", "--model", "org/large")

    assert code == MISUSED
    assert "nothing.pem holds no certificates" in said


def test_gated_model_ends_with_the_page_to_accept(
    hub: Hub, endpoint: str, authority: Authority, tmp_path: Path
) -> None:
    hub.set_faults(Fault(FaultKind.GATED))
    environment = {"HF_ENDPOINT": endpoint, "HF_TOKEN": PERSONAL["token"], "SSL_CERT_FILE": str(authority.certificate)}
    code, said = airgap(tmp_path, environment, "lock", "--model", "org/small")

    assert code == NO_PERMISSION
    assert f"{endpoint}/org/small, with the account that HF_TOKEN belongs to" in said
    assert PERSONAL["token"] not in said
