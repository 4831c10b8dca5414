"""The documents as a reader meets them: pages, headings, links, and blocks of code with their language."""

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from sie_testing import parts
from sie_testing.carried import FILES
from sie_testing.hub import Hub, serving_hub
from sie_testing.images import write_images

from .following import Operator

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


@pytest.fixture(scope="session")
def connected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for a lock with two models, the chart and its images: what step 1 of the guide leaves."""
    folder = tmp_path_factory.mktemp("connected")
    for model, files in FILES.items():
        for path, data in files.items():
            (folder / "hub" / model / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "hub" / model / path).write_bytes(data)
    write_images(folder / "images")
    images = f"--image-source ghcr.io/superlinked=oci:{folder / 'images'}"
    models = " ".join(f"--model {model}" for model in FILES)
    chart = f"--chart {ROOT / 'charts' / 'sie-cluster'} --helm {parts.helm()}"
    with serving_hub(Hub(folder / "hub", pins=dict.fromkeys(FILES, "ab" * 20), lfs_above_bytes=1000)) as hub:  # type: ignore[arg-type]
        operator = Operator(folder, env={"HF_ENDPOINT": hub})
        ran = operator.run(f"sie-airgap lock {models} {chart} {images}\nsie-airgap snapshot {images}")
    assert ran.code == 0, ran.said
    return folder


@pytest.fixture
def folder(connected: Path, tmp_path: Path) -> Path:
    """An empty folder but for that store and its lock."""
    shutil.copy(connected / "airgap.lock", tmp_path)
    shutil.copytree(connected / "airgap-store", tmp_path / "airgap-store", copy_function=os.link)
    return tmp_path


@pytest.fixture
def media(folder: Path) -> Path:
    """An empty folder but for an archive."""
    ran = Operator(folder).run("sie-airgap pack media && rm -r airgap-store airgap.lock")
    assert ran.code == 0, ran.said
    return folder
