"""Types of the tests: mypy over all test folders at once, as strict as the sources but for what a run shows anyway.

    python tools/types_of_tests.py

Test folders hold files of the same names (`conftest.py`), which mypy takes for one module. So it is shown a folder of
links, one for each test folder, under which every file has a name of its own; what it says is told with the real paths.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
LINKS = CHECKOUT / ".cache" / "types"
"""Always the same: mypy keeps what it has found under the paths that it has seen."""

FLAGS = [
    "--config-file=pyproject.toml",
    "--allow-untyped-defs",
    "--allow-incomplete-defs",
    "--allow-untyped-calls",
    "--allow-untyped-decorators",
    # What these find, the test finds by failing on that very line.
    *(f"--disable-error-code={code}" for code in ("union-attr", "var-annotated", "no-any-return", "type-arg")),
]


def folders() -> dict[str, Path]:
    """Every folder with tests, by a name that is a module's."""
    of_packages = {f"tests_of_{path.parent.name}": path for path in CHECKOUT.glob("packages/*/tests")}
    across = {f"tests_{path.name}": path for path in (CHECKOUT / "tests").iterdir() if any(path.glob("*.py"))}
    return {name.replace("-", "_"): path for name, path in sorted({**of_packages, **across}.items())}


def main() -> int:
    linked = folders()
    shutil.rmtree(LINKS, ignore_errors=True)
    LINKS.mkdir(parents=True)
    for name, path in linked.items():
        (LINKS / name).symlink_to(path)
    words = [sys.executable, "-m", "mypy", *FLAGS, "conftest.py", *(str(LINKS / name) for name in linked)]
    env = {**os.environ, "MYPYPATH": str(LINKS)}
    done = subprocess.run(words, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)
    said = done.stdout
    for name, path in linked.items():
        said = said.replace(f"{(LINKS / name).relative_to(CHECKOUT)}/", f"{path.relative_to(CHECKOUT)}/")
    print(said + done.stderr, end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
