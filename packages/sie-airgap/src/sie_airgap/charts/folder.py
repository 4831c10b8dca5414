"""The files of a chart's folder, as helm loads them.

Helm reads a link as what stands behind it, wherever that is. Here a link leads to somewhere in the same chart, or
is refused: a chart that somebody sent brings no other file of this machine into the archive. What is neither file nor
folder (a device, a pipe, a socket) is never opened. What .helmignore leaves out is not looked at.
"""

import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from sie_airgap.charts.tree import is_text
from sie_airgap.failures import Misused
from sie_core.artifacts.manifest import is_plain

MOST_BYTES = 100 << 20
"""Helm itself reads no chart that is longer."""
MOST_FILES = 10_000
_SHOWN = 5


def chart_files(chart: Path) -> dict[str, Path]:
    """Where the bytes of each file of the chart are, by its path in the chart, sorted.

    Raises:
        Misused: entries that no chart has, all of them by their names; or more files and bytes than any chart has.
    """
    looking = _Looking(chart)
    looking.into(looking.root, PurePosixPath(), (looking.root,))
    if looking.wrong:
        more = f"; {len(looking.wrong) - _SHOWN} more" if len(looking.wrong) > _SHOWN else ""
        raise Misused(
            f"the chart `{chart}` holds what is not carried: {'; '.join(looking.wrong[:_SHOWN])}{more}",
            hint="put the file itself in its place, or name it in the chart's .helmignore",
        )
    return dict(sorted(looking.found.items()))


class _Looking:
    """One walk through a chart's folder: what is there, and what is wrong with the rest."""

    def __init__(self, chart: Path) -> None:
        self.chart, self.root = chart, chart.resolve()
        self.found: dict[str, Path] = {}
        self.wrong: list[str] = []
        self._left_bytes = MOST_BYTES
        self._rules = self._ignored_by()

    def into(self, folder: Path, inside: PurePosixPath, above: tuple[Path, ...]) -> None:
        """`above`: the real folders that this one is in, itself the last."""
        for path in sorted(folder.iterdir()):
            name, shown = path.name, inside / path.name
            if _is_ignored(shown, self._rules, is_folder=path.is_dir()):
                continue
            if not is_plain(name) or not is_text(name):
                self.wrong.append(f"{str(shown)!a} is no name in UTF-8 without control characters")
            elif (real := self._real(path, str(shown))) is not None:
                self._take(real, shown, above)

    def _take(self, real: Path, shown: PurePosixPath, above: tuple[Path, ...]) -> None:
        about = real.stat()
        if stat.S_ISDIR(about.st_mode):
            if real in above:
                self.wrong.append(f"`{shown}` is a link to a folder that it is in itself")
            else:
                self.into(real, shown, (*above, real))
        elif stat.S_ISREG(about.st_mode):
            self.found[str(shown)] = real
            self._left_bytes -= about.st_size
            self._refuse_without_end()
        else:
            self.wrong.append(f"`{shown}` is a device, a pipe or a socket")

    def _real(self, path: Path, shown: str) -> Path | None:
        """What is at a path or behind the link there; None, and told, where that is not in the chart."""
        if not path.is_symlink():
            return path
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError):
            self.wrong.append(f"`{shown}` is a link to `{path.readlink()}`, which leads nowhere")
            return None
        if not real.is_relative_to(self.root):
            self.wrong.append(f"`{shown}` is a link that leads out of the chart, to `{real}`")
            return None
        return real

    def _refuse_without_end(self) -> None:
        if self._left_bytes < 0:
            raise Misused(f"the chart `{self.chart}` is longer than any chart: more than {MOST_BYTES:,} bytes")
        if len(self.found) > MOST_FILES:
            raise Misused(f"the chart `{self.chart}` has more files than any chart: more than {MOST_FILES:,}")

    def _ignored_by(self) -> list[str]:
        real = self._real(self.root / ".helmignore", ".helmignore")
        if real is None or not real.is_file():
            return []
        try:
            return list(_rules(real.read_text(encoding="utf-8")))
        except UnicodeDecodeError as error:
            raise Misused(f"`{self.chart}/.helmignore` is not UTF-8: {error}") from error


def _rules(text: str) -> Iterator[str]:
    for rule in (line.strip() for line in text.splitlines()):
        if rule.startswith("!") or ("**" in rule and not rule.startswith("#")):
            raise Misused(f".helmignore: `{rule}` is not understood", hint="name what to leave out, one glob a line")
        if rule and not rule.startswith("#"):
            yield rule


def _is_ignored(path: PurePosixPath, rules: Sequence[str], *, is_folder: bool) -> bool:
    """Whether a rule matches; a rule ending in `/` is for folders alone. What is in an ignored folder is not asked."""
    for rule in rules:
        if rule.endswith("/") and not is_folder:
            continue
        glob = rule.rstrip("/")
        if fnmatchcase(str(path) if "/" in glob else path.name, glob.removeprefix("/")):
            return True
    return False
