"""What an operator may set for a gateway: by flag, by environment variable, or left at its default.

The string under each field is the `--help`, the reference page and the comment in the chart.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sie_core.http.auth import Auth, configure, tokens_of
from sie_core.settings import Loaded, Secret, SettingsError, load, setting

MIB = 1 << 20


@dataclass(frozen=True)
class GatewaySettings:
    """Settings of `sie-gateway`."""

    workers: tuple[str, ...] = setting("SIE_GATEWAY_WORKERS", ())
    """Where workers are: `http://host:port`, separated by commas. Every host is looked up each second and every
    address it has is a worker, so the name of a headless Service is all that a cluster needs. Empty: none."""

    host: str = setting("SIE_GATEWAY_HOST", "127.0.0.1")
    """Address to listen on. The default takes calls from this machine only; the chart sets `0.0.0.0`."""

    port: int = setting("SIE_GATEWAY_PORT", 8080, least=0, most=65535)
    """TCP port to listen on; 0 takes a free one and says which."""

    configured_gpus: tuple[str, ...] = setting("SIE_GATEWAY_CONFIGURED_GPUS", ())
    """Machine profiles that this cluster has or can start, separated by commas; a call for another one is answered
    503 `GPU_NOT_CONFIGURED` at once. Empty: every profile is waited for."""

    request_timeout_s: float | None = setting("SIE_GATEWAY_REQUEST_TIMEOUT", None, least=0.001)
    """Longest time in seconds for a call that names no deadline of its own (`X-SIE-Timeout-Ms`). Unset: as long as the
    caller stays on the line, so that a long batch is not cut off by a guess."""

    max_body_bytes: int = setting("SIE_MAX_BODY_BYTES", 64 * MIB, least=1)
    """Longest request body; a longer one is answered 413 before it is read. A body is held in memory until its
    answer has come."""

    config_service_url: str | None = setting("SIE_CONFIG_SERVICE_URL", None)
    """Base URL of the config service whose catalog is followed. Unset: the specs that came with this version."""

    auth_mode: Literal["none", "token", "static"] = setting("SIE_AUTH_MODE", "none")
    """Whether callers must send a token; `token` and `static` mean the same."""

    auth_token: Secret | None = setting("SIE_AUTH_TOKEN", None)
    """The token that callers send, and that workers and the config service are asked with. Unset: see
    `SIE_AUTH_TOKENS`."""

    auth_tokens: Secret | None = setting("SIE_AUTH_TOKENS", None)
    """Several such tokens, separated by commas, while one is being replaced by another. Unset: one or none."""

    auth_exempt_operational: bool = setting("SIE_AUTH_EXEMPT_OPERATIONAL", False)
    """Whether `/`, `/health` and `/metrics` are open without a token; `/healthz` and `/readyz` always are."""

    admin_token: Secret | None = setting("SIE_ADMIN_TOKEN", None)
    """The token for what changes the cluster (pools). Unset: with tokens required, nobody may."""

    log_level: Literal["debug", "info", "warning", "error"] = setting("SIE_LOG_LEVEL", "info")
    """Least important log lines that are written."""

    log_json: bool = setting("SIE_LOG_JSON", False)
    """Whether log lines are JSON objects, for a collector, instead of text for people."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """Every token that opens the door."""
        return tokens_of(self.auth_token, self.auth_tokens)

    @property
    def own_token(self) -> str | None:
        """What the gateway itself shows to workers and to the config service."""
        return self.tokens[0] if self.tokens else None


def read(flags: Mapping[str, object] | None = None) -> Loaded[GatewaySettings]:
    """Raises `SettingsError`."""
    return load(GatewaySettings, env=os.environ, flags=flags)


def auth(settings: GatewaySettings) -> Auth:
    """Raises `SettingsError` for tokens that are wanted and not set."""
    admin = settings.admin_token.reveal() if settings.admin_token is not None else None
    try:
        return configure(
            settings.auth_mode,
            settings.tokens,
            admin_token=admin,
            exempt_operational=settings.auth_exempt_operational,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error
