"""The real hub clients, several versions of them, each run as a process of its own.

The version in this environment runs as it is. Others are installed by pip into `.cache/hub-versions/<version>`,
a folder that appears by rename, and run without this environment's site-packages (`-S`).
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[5]
CACHE = ROOT / ".cache" / "hub-versions"

OLDER = ("0.36.2", "1.9.0", "2.4.0")
"""One of each family of clients: requests and `huggingface-cli`; httpx; httpx2 and the cached tree."""

OFFLINE = (
    *("0.36.0", "0.36.2", "1.0.1", "1.2.4", "1.4.1", "1.6.0", "1.9.0", "1.12.2", "1.15.0", "1.18.0", "1.21.0"),
    *("1.23.0", "1.25.1", "1.26.0", "1.29.0", "1.33.0", "2.0.0", "2.1.1", "2.2.0", "2.3.0", "2.4.0"),
)
"""Those that must resolve our layout offline: with those between which it changed what a client asks of a cache."""


@dataclass(frozen=True)
class Client:
    """One version of `huggingface_hub`; `folder` is None for the one in this environment."""

    version: str
    folder: Path | None

    def python(
        self, script: str, *arguments: str, environment: Mapping[str, str], cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a script that may import `huggingface_hub`."""
        isolated = [] if self.folder is None else ["-S"]
        return self._run([sys.executable, *isolated, "-c", script, *arguments], environment, cwd)

    def command(
        self, *arguments: str, environment: Mapping[str, str], cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs `hf ARGUMENTS`, or `huggingface-cli ARGUMENTS` where that is the client's command."""
        module, name = "huggingface_hub.cli.hf", "hf"
        if self.version.startswith("0."):
            module, name = "huggingface_hub.commands.huggingface_cli", "huggingface-cli"
        script = f"import sys; sys.argv[0] = {name!r}; from {module} import main; main()"
        return self.python(script, *arguments, environment=environment, cwd=cwd)

    def _run(
        self, command: list[str], environment: Mapping[str, str], cwd: Path | None
    ) -> subprocess.CompletedProcess[str]:
        """With nothing inherited but PATH: a token or an endpoint of the developer's own must not count."""
        given = {"PATH": os.defpath, "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
        if self.folder is not None:
            given["PYTHONPATH"] = str(self.folder)
        return subprocess.run(command, env=given, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)


def installed_client() -> Client:
    """The version in this environment."""
    return Client(metadata.version("huggingface_hub"), None)


def older_client(version: str) -> Client:
    """Installs the version when it is not there. Raises `CalledProcessError` when pip cannot."""
    folder = CACHE / version
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=f".{version}-") as temporary:
            target = Path(temporary) / "target"
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target)]
            # 1.x imports click, which it had through typer until typer stopped needing it
            subprocess.run([*pip, f"huggingface_hub=={version}", "click"], check=True)
            if not folder.is_dir():
                target.rename(folder)
    return Client(version, folder)
