"""Interpreters of other Python versions on this machine, for what must be tried on them."""

import shutil
import subprocess
from pathlib import Path


def find_python(version: str) -> Path | None:
    """An interpreter of `3.X` that runs: from the PATH, or from pyenv, whose shims on the PATH may lead nowhere."""
    on_path = shutil.which(f"python{version}")
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python{version}"))
    for candidate in [*([Path(on_path)] if on_path else []), *kept]:
        asked = [str(candidate), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == version:
            return candidate
    return None
