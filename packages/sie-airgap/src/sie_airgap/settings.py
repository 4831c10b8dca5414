"""What the toolkit reads from the environment: who it is to the hub, where the hub is, where it notes its state.

Credentials of buckets are read by their own clients (`AWS_*`, `GOOGLE_APPLICATION_CREDENTIALS`). Nothing
secret is ever a flag: command lines are visible to everybody on a machine.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from sie_airgap.failures import Misused
from sie_airgap.oci.auth import Logins
from sie_airgap.oci.sources import load_logins
from sie_core.artifacts.stores.hub import PUBLIC_HUB
from sie_core.settings import Secret, load, setting


@dataclass(frozen=True)
class AirgapSettings:
    """The hub, on the connected side only, the registries' logins, and where this user's programs keep state."""

    hub_endpoint: str = setting("HF_ENDPOINT", PUBLIC_HUB)
    """The hub that models are resolved at and fetched from."""

    hub_token: Secret | None = setting("HF_TOKEN", None)
    """For gated and private repositories. None: none is sent."""

    ca_bundle: Path | None = setting("REQUESTS_CA_BUNDLE", None)
    """Certificates of those whom the hub's answers are believed from, a file or a folder. None: those that the system
    trusts, or the file that `SSL_CERT_FILE` names."""

    docker_config: Path | None = setting("DOCKER_CONFIG", None)
    """The folder whose `config.json` holds the logins of registries. None: `~/.docker`."""

    state_home: Path | None = setting("XDG_STATE_HOME", None)
    """Below it, in `sie-airgap`, is remembered how far uploads came, what `verify` read, and what checks
    found, for `status`. None: `~/.local/state`."""


def settings() -> AirgapSettings:
    """From the environment. Raises `SettingsError` for a `SIE_*` variable that no program of ours knows."""
    return load(AirgapSettings, env=os.environ).value


def state_folder() -> Path:
    """Where the toolkit remembers what it began, beyond the end of a process."""
    return (settings().state_home or Path.home() / ".local" / "state") / "sie-airgap"


def docker_config_file() -> Path:
    """Docker's configuration file, which need not be there."""
    return (settings().docker_config or Path.home() / ".docker") / "config.json"


def logins() -> Logins:
    """The logins of docker's configuration file; nobody's where there is none."""
    try:
        return load_logins(docker_config_file())
    except ValueError as error:
        raise Misused(str(error)) from error
