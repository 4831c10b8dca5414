"""Docker's configuration and registries' challenges, read without a registry."""

import base64
import json
from pathlib import Path

import pytest

from sie_airgap.oci.auth import NOBODY, parse_challenge, parse_logins
from sie_airgap.oci.sources import load_logins


def _config(**auths: dict[str, str]) -> bytes:
    return json.dumps({"auths": auths, "credsStore": "desktop"}).encode()


def test_login_of_the_longest_place_is_taken() -> None:
    basic = base64.b64encode(b"bot:pass:word").decode()
    plain = {"username": "team", "password": "t"}
    data = _config(**{"reg.example:5000": {"auth": basic}, "reg.example:5000/team": plain, "other": {}})
    logins = parse_logins(data, where="config.json")

    found, other = logins.find("reg.example:5000", "sie/sie-server"), logins.find("reg.example:5000", "team/x/y")
    assert found is not None
    assert (found.user, found.password.reveal()) == ("bot", "pass:word")
    assert other is not None
    assert other.user == "team"
    assert logins.find("other", "x") is None


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io"])
def test_docker_hub_has_one_login_under_all_its_names(key: str) -> None:
    logins = parse_logins(_config(**{key: {"username": "a", "password": "b"}}), where="config.json")

    assert logins.find("docker.io", "library/alpine") is not None


@pytest.mark.parametrize(
    "data", [b"{", b'{"auths": []}', _config(reg={"auth": "c2VjcmV0"}), _config(reg={"auth": "%"})]
)
def test_a_file_that_cannot_be_read_is_named_and_nothing_secret_is_told(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"/home/config\.json") as raised:
        parse_logins(data, where="/home/config.json")

    assert "c2VjcmV0" not in str(raised.value)


def test_without_the_file_nobody_is_logged_in(tmp_path: Path) -> None:
    assert load_logins(tmp_path / "config.json") is NOBODY
    (tmp_path / "config.json").write_bytes(_config(reg={"username": "a", "password": "b"}))
    assert load_logins(tmp_path / "config.json").find("reg", "x") is not None


def test_challenges_are_read() -> None:
    bearer = parse_challenge('Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull"')

    assert bearer is not None
    assert (bearer.scheme, bearer.realm, bearer.service) == ("bearer", "https://auth.example/token", "reg")
    basic = parse_challenge('Basic realm="x"')
    assert basic is not None
    assert basic.scheme == "basic"
    assert parse_challenge("Negotiate") is None
    assert parse_challenge("") is None
