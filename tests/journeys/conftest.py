"""What the journeys stand on: the toolkit as an operator calls it, a hub with the real MiniLM, and a far side."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sie_airgap.rehearsal.netns import missing_tools, tool
from sie_core.catalog.catalog import Catalog
from sie_core.ids import Revision
from sie_testing import parts
from sie_testing.demo.stage import MODEL
from sie_testing.hub import Hub, serving_hub

CHECKOUT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ADDRESS = "10.77.0.1"


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


def run(words: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> Done:
    """A command to its end, in this process's environment and `env`."""
    done = subprocess.run(
        words, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False, timeout=100
    )
    return Done(done.returncode, done.stdout, done.stderr)


Airgap = Callable[..., str]


@pytest.fixture(scope="session")
def airgap() -> Airgap:
    """`airgap("lock", …, cwd=FOLDER, env={…})`: the toolkit's own command, which must succeed; what it printed."""

    def called(*words: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
        done = run([str(BIN / "sie-airgap"), *words], cwd=cwd, env=env)
        assert done.code == 0, f"sie-airgap {' '.join(words)}: {done.code}\n{done.out}{done.err}"
        return done.out

    return called


HubOf = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="session")
def hub_of() -> HubOf:
    """`with hub_of(FOLDER) as url`: the genuine MiniLM at the commit that our spec names; gone at the block's end.

    `also={MODEL: SNAPSHOT}`: other models of our catalog beside it.
    """

    @contextmanager
    def serving(folder: Path, also: Mapping[str, Path] | None = None) -> Iterator[str]:
        pins: dict[str, Revision] = {}
        for model, snapshot in {MODEL: parts.minilm_folder(), **(also or {})}.items():
            (folder / model).parent.mkdir(parents=True)
            (folder / model).symlink_to(snapshot)
            spec = Catalog.shipped().find(model)
            assert spec is not None
            assert spec.revision is not None
            pins[model] = spec.revision
        with serving_hub(Hub(folder, pins=pins)) as url:
            yield url

    return serving


@dataclass(frozen=True)
class FarSide:
    """A network namespace with a bridge and a counter, made by `sie-airgap far-side` and held by a process."""

    pid: int

    def inside(self, words: Sequence[str]) -> list[str]:
        """The words that run a command there."""
        user = [] if os.geteuid() == 0 else [f"--user=/proc/{self.pid}/ns/user", "--preserve-credentials"]
        return [tool("nsenter"), *user, f"--net=/proc/{self.pid}/ns/net", "--", *words]

    def run(self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> Done:
        return run(self.inside(words), cwd=cwd, env=env)


def why_no_far_side() -> str | None:
    """Why none can be had on this machine; None where it can."""
    lacking = missing_tools()
    if lacking:
        return f"a far side needs {', '.join(lacking)}: `make setup` as root installs them"
    done = run([str(BIN / "sie-airgap"), "far-side", "--", "true"], cwd=CHECKOUT)
    return None if done.code == 0 else f"a far side needs network namespaces: {done.err.strip()}"


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skips where no far side can be had; the machine that runs every submission has all it needs."""
    reason = why_no_far_side()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def far_side(namespaces: None) -> Iterator[FarSide]:
    """One for the session, with nothing in it."""
    words = [str(BIN / "sie-airgap"), "far-side", "--address", f"{ADDRESS}/24", "--", "sh", "-c", "echo here; read _"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"here\n"
        yield FarSide(holder.pid)
        holder.stdin.close()
