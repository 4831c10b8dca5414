"""What an operator may set for the config service: by flag, by environment variable, or left at its default.

The string under each field is the `--help`, the reference page and the comment in the chart.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sie_core.http.auth import Auth, configure, tokens_of
from sie_core.settings import Loaded, Secret, SettingsError, load, setting


@dataclass(frozen=True)
class ConfigSettings:
    """Settings of `sie-config`."""

    host: str = setting("SIE_CONFIG_HOST", "127.0.0.1")
    """Address to listen on. The default takes calls from this machine only; the chart sets `0.0.0.0`."""

    port: int = setting("SIE_CONFIG_PORT", 8080, least=0, most=65535)
    """TCP port to listen on; 0 takes a free one and says which."""

    auth_mode: Literal["none", "token", "static"] = setting("SIE_AUTH_MODE", "none")
    """Whether readers must send a token; `token` and `static` mean the same."""

    auth_token: Secret | None = setting("SIE_AUTH_TOKEN", None)
    """The token that gateways and workers read with. Unset: see `SIE_AUTH_TOKENS`."""

    auth_tokens: Secret | None = setting("SIE_AUTH_TOKENS", None)
    """Several such tokens, separated by commas, while one is being replaced by another. Unset: one or none."""

    admin_token: Secret | None = setting("SIE_ADMIN_TOKEN", None)
    """The token of those who may change specs; it reads as well. Unset: with tokens required, nobody may."""

    log_level: Literal["debug", "info", "warning", "error"] = setting("SIE_LOG_LEVEL", "info")
    """Least important log lines that are written."""

    log_json: bool = setting("SIE_LOG_JSON", False)
    """Whether log lines are JSON objects, for a collector, instead of text for people."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """Every token that opens the door."""
        return tokens_of(self.auth_token, self.auth_tokens)


def read(flags: Mapping[str, object] | None = None) -> Loaded[ConfigSettings]:
    """Raises `SettingsError`."""
    return load(ConfigSettings, env=os.environ, flags=flags)


def auth(settings: ConfigSettings) -> Auth:
    """Raises `SettingsError` for tokens that are wanted and not set."""
    admin = settings.admin_token.reveal() if settings.admin_token is not None else None
    try:
        return configure(settings.auth_mode, settings.tokens, admin_token=admin)
    except ValueError as error:
        raise SettingsError(str(error)) from error
