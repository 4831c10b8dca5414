from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from sie_core.settings import DROPPED, NAMES, Secret, SettingsError, field_docs, load, setting


@dataclass(frozen=True)
class Sample:
    port: int = setting("SIE_SERVER_PORT", 8080)
    """Where to listen.

    1024 and above need no privilege.
    """
    models: tuple[str, ...] = setting("SIE_PRELOAD_MODELS", ())
    """Models to load at start."""
    precision: Literal["auto", "f32"] = setting("SIE_PRECISION", "auto")
    cache: Path | None = setting("SIE_LOCAL_CACHE", None)
    hub: bool = setting("SIE_HF_FALLBACK", True)
    token: Secret | None = setting("SIE_AUTH_TOKEN", None)
    timeout_s: float | None = setting("SIE_GATEWAY_REQUEST_TIMEOUT", None, least=0.5, most=60)


def test_flag_comes_before_environment_and_environment_before_default():
    loaded = load(Sample, env={"SIE_SERVER_PORT": "1", "SIE_HF_FALLBACK": "false"}, flags={"port": 2, "models": None})

    assert (loaded.value.port, loaded.value.hub, loaded.value.models) == (2, False, ())
    assert loaded.sources["port"] == "flag --port"
    assert loaded.sources["hub"] == "environment SIE_HF_FALLBACK"
    assert loaded.sources["models"] == "default"


def test_flag_left_out_does_not_erase_the_environment():
    assert load(Sample, env={"SIE_SERVER_PORT": "81"}, flags={"port": None}).value.port == 81


def test_empty_variable_is_one_that_is_not_set():
    assert load(Sample, env={"SIE_SERVER_PORT": ""}).sources["port"] == "default"


def test_lists_paths_and_secrets_are_parsed():
    env = {"SIE_PRELOAD_MODELS": "a/b, c/d,", "SIE_LOCAL_CACHE": "/models", "SIE_AUTH_TOKEN": "hush"}

    value = load(Sample, env=env).value

    assert value.models == ("a/b", "c/d")
    assert value.cache == Path("/models")
    assert value.token is not None
    assert value.token.reveal() == "hush"


def test_secret_is_never_shown():
    value = load(Sample, env={"SIE_AUTH_TOKEN": "hush"}).value

    assert "hush" not in repr(value)
    assert "hush" not in f"{value.token}"


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("SIE_SERVER_PORT", "eighty", "a whole number"),
        ("SIE_HF_FALLBACK", "maybe", "`true` or `false`"),
        ("SIE_PRECISION", "f8", "`auto`, `f32`"),
        ("SIE_GATEWAY_REQUEST_TIMEOUT", "nan", "a number"),
        ("SIE_GATEWAY_REQUEST_TIMEOUT", "inf", "a number"),
        ("SIE_GATEWAY_REQUEST_TIMEOUT", "-1.0", "0.5 or more"),
        ("SIE_GATEWAY_REQUEST_TIMEOUT", "61.0", "60 or less"),
    ],
)
def test_value_that_does_not_parse_is_named_with_what_was_wanted(name: str, text: str, wanted: str):
    with pytest.raises(SettingsError) as refused:
        load(Sample, env={name: text})

    assert name in refused.value.message
    assert text in refused.value.message
    assert wanted in refused.value.message


def test_misspelt_variable_is_refused_with_the_nearest_known_one():
    with pytest.raises(SettingsError) as refused:
        load(Sample, env={"SIE_SERVR_PORT": "1"})

    assert "SIE_SERVR_PORT" in refused.value.message
    assert "SIE_SERVER_PORT" in (refused.value.hint or "")


@pytest.mark.parametrize("name", sorted(DROPPED))
def test_variable_that_was_dropped_is_refused_with_what_replaces_it(name: str):
    with pytest.raises(SettingsError) as refused:
        load(Sample, env={name: "x"})

    assert DROPPED[name] in refused.value.message


def test_variable_of_another_program_of_ours_is_let_be():
    assert load(Sample, env={"SIE_GATEWAY_WORKERS": "http://w:8080"}).value.port == 8080


def test_no_name_is_both_kept_and_dropped():
    assert not set(NAMES) & set(DROPPED)


def test_string_under_a_field_is_its_description():
    docs = field_docs(Sample)

    assert docs["port"] == "Where to listen. 1024 and above need no privilege."
    assert docs["precision"] == ""


def test_bounds_hold_for_flags_and_not_for_what_is_left_out():
    with pytest.raises(SettingsError, match=r"`--timeout-s` is `0\.1`, want 0\.5 or more"):
        load(Sample, env={}, flags={"timeout_s": "0.1"})

    assert load(Sample, env={}).value.timeout_s is None
