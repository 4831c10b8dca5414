"""The documents as a reader meets them: pages, headings, links, and blocks of code with their language."""

import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^( *)```([\w-]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line it begins on, its language, and its text without the page's indentation."""

    page: str
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Page:
    """A document; `path` is relative to the repository."""

    path: str
    text: str

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(
            Block(
                page=self.path,
                line=self.text.count("\n", 0, found.start()) + 2,
                language=found[2],
                text=re.sub(f"^{found[1]}", "", found[3], flags=re.MULTILINE),
            )
            for found in _FENCE.finditer(self.text)
        )

    @property
    def prose(self) -> str:
        """Without its blocks."""
        return _FENCE.sub("", self.text)

    @property
    def headings(self) -> tuple[str, ...]:
        return tuple(re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE))

    def section(self, heading: str) -> "Page":
        """From a heading of the second level to the next."""
        _, found, rest = self.text.partition(f"\n## {heading}\n")
        assert found, f"{self.path} has no section `{heading}`"
        return Page(self.path, rest.split("\n## ", 1)[0])


def _pages() -> Iterator[Page]:
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
        yield Page(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def pages() -> Mapping[str, Page]:
    """Every document by its path."""
    return {page.path: page for page in _pages()}


@pytest.fixture(scope="session")
def blocks(pages: Mapping[str, Page]) -> tuple[Block, ...]:
    """Every block of code of every document."""
    return tuple(block for page in pages.values() for block in page.blocks)


@pytest.fixture(scope="session")
def tool() -> Iterator[ModuleType]:
    """`tools/reference.py`."""
    spec = importlib.util.spec_from_file_location("reference_tool", ROOT / "tools" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    sys.path.insert(0, str(ROOT / "tools"))  # where a script finds the modules beside it
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(ROOT / "tools"))
    del sys.modules[spec.name]
