"""The tests in two halves at once, each a pytest of its own, which take about as long as each other.

    python tools/side_by_side.py

One waits for servers while the other computes. What the first says is shown when both have ended.
"""

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryFile

CHECKOUT = Path(__file__).resolve().parents[1]
FIRST = ("sie-airgap", "sie-core")
"""The slowest packages; the other half is whatever else there is."""


def halves() -> dict[str, list[str]]:
    """Folders of tests, by the half's name."""
    packages = sorted(path.name for path in (CHECKOUT / "packages").iterdir())
    others = [f"packages/{name}" for name in packages if name not in FIRST]
    return {"first": [f"packages/{name}" for name in FIRST], "second": [*others, "tests"]}


def pytest(half: str) -> list[str]:
    """With a cache of its own: each would overwrite what the other remembers of failures."""
    return [sys.executable, "-m", "pytest", *halves()[half], "-o", f"cache_dir=.pytest_cache/{half}", "--durations=8"]


def main() -> int:
    began_s = time.monotonic()
    with TemporaryFile() as said:
        with subprocess.Popen(pytest("first"), cwd=CHECKOUT, stdout=said, stderr=subprocess.STDOUT) as first:
            try:
                second = subprocess.run(pytest("second"), cwd=CHECKOUT, check=False)
                first.wait()
            except KeyboardInterrupt:
                first.wait()  # the terminal has interrupted both; each says what it was at
                return 130
        said.seek(0)
        sys.stdout.buffer.write(said.read())
    print(f"tests: {time.monotonic() - began_s:.0f} s", flush=True)
    return second.returncode or first.returncode


if __name__ == "__main__":
    sys.exit(main())
