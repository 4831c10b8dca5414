"""The two halves of the tests at once, each a pytest of its own: `packages/`, and `tests/`, which spans them.

    python tools/side_by_side.py

They take about as long as each other, and one waits for servers while the other computes. What the first says is
shown when both have ended.
"""

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryFile

CHECKOUT = Path(__file__).resolve().parents[1]


def pytest(half: str) -> list[str]:
    """With a cache of its own: each would overwrite what the other remembers of failures."""
    return [sys.executable, "-m", "pytest", half, "-o", f"cache_dir=.pytest_cache/{half}"]


def main() -> int:
    began_s = time.monotonic()
    with TemporaryFile() as said:
        with subprocess.Popen(pytest("packages"), cwd=CHECKOUT, stdout=said, stderr=subprocess.STDOUT) as packages:
            try:
                spanning = subprocess.run(pytest("tests"), cwd=CHECKOUT, check=False)
                packages.wait()
            except KeyboardInterrupt:
                packages.wait()  # the terminal has interrupted both; each says what it was at
                return 130
        said.seek(0)
        sys.stdout.buffer.write(said.read())
    print(f"tests: {time.monotonic() - began_s:.0f} s", flush=True)
    return spanning.returncode or packages.returncode


if __name__ == "__main__":
    sys.exit(main())
