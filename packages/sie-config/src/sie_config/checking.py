"""`sie-config check`: are the specs in a file or folder what they should be, and what do they say?"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sie_core.catalog.reading import parse_spec
from sie_core.catalog.spec import ModelSpec, spec_name_matches
from sie_core.ids import spec_file_name


@dataclass(frozen=True)
class Checked:
    """One file: its spec, or what is wrong with it."""

    file: Path
    spec: ModelSpec | None
    wrong: str | None


def check(path: Path) -> Iterator[Checked]:
    """Every spec of a file or a folder, sorted by name; an id that stands twice is wrong the second time.

    Raises `FileNotFoundError` when there is nothing to check.
    """
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise FileNotFoundError(f"there is no spec at `{path}`: want a `.yaml` file or a folder of them")
    seen: dict[str, Path] = {}
    for file in files:
        checked = _check_one(file)
        if checked.spec is not None and checked.spec.id in seen:
            checked = Checked(file, None, f"`{checked.spec.id}` is in `{seen[checked.spec.id].name}` already")
        if checked.spec is not None:
            seen[checked.spec.id] = file
        yield checked


def _check_one(file: Path) -> Checked:
    try:
        spec = parse_spec(file.read_bytes(), where=file.name)
    except (ValueError, OSError) as error:
        return Checked(file, None, str(error))
    if not spec_name_matches(file.name, spec):
        return Checked(file, None, f"it holds `{spec.id}`: want it named `{spec_file_name(spec.id)}`")
    return Checked(file, spec, None)
