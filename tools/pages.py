"""Generated files: written, or with `--check` compared with what is there."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def write_or_check(
    make: Callable[[], Mapping[Path, str]],
    arguments: Sequence[str] | None,
    *,
    root: Path,
    command: str,
    description: str,
    source: str,
) -> int:
    """The exit code of a command that writes files.

    Args:
        make: path → text of every file; raises `ValueError` where there is nothing to write from.
        root: of the repository: files are named as seen from there.
        command: that writes them, for the hint.
        source: what they are written from, for the message: `… is not what SOURCE say`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file would change")
    check = parser.parse_args(arguments).check
    try:
        files = make()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    stale = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if check:
            print(f"error: {path.relative_to(root)} is not what {source}", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path], encoding="utf-8")
    if check and stale:
        print(f"\nhint: `{command}` writes it again", file=sys.stderr)
        return 1
    return 0
