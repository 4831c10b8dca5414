"""The YAML of `sie_core/specs` → `specs/shipped.json`, which every program reads when it starts.

python tools/catalog.py            writes the file
python tools/catalog.py --check    exits 1 where it is not what would be written
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from pages import write_or_check
from sie_core.catalog.catalog import SHIPPED
from sie_core.catalog.reading import read_catalog

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "packages" / "sie-core" / "src" / "sie_core"


def generated() -> dict[Path, str]:
    """Path → text of the file."""
    return {CORE.joinpath(*SHIPPED): read_catalog(CORE / "specs").as_shipped()}


def main(arguments: Sequence[str] | None = None) -> int:
    return write_or_check(
        generated,
        arguments,
        root=ROOT,
        command="python tools/catalog.py",
        description="Writes the catalog that the programs start with.",
        source="the specs say",
    )


if __name__ == "__main__":
    sys.exit(main())
