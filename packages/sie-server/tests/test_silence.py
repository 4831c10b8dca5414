"""Importing the engine and building a model reaches for nothing, by the kernel's own count.

Libraries' telemetry is often silent where CI is set, and is often in C or in a forked child, which hooks of
Python do not see: so CI is unset, and a network namespace counts every packet.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sie_airgap.rehearsal.netns import Attempts, NamespaceError, PodNamespace, missing_tools
from sie_testing import tiny_bert

BUILD = """
import sys
from pathlib import Path
from sie_core.catalog.spec import DenseHead, ModelSpec
from sie_server.models import build
from sie_server.models.calls import Encode

spec = ModelSpec(id="acme/tiny", dense=DenseHead())
model = build.load(spec, Path(sys.argv[1]), precision="auto", streams=2, threads=1)
model.run(model.prepare(Encode(("hello",))), stream=0)
"""
PHONE_HOME = """
import os, socket
if os.fork() == 0:
    try:
        socket.getaddrinfo("example.com", 443)
    except OSError:
        pass
    os._exit(0)
os.wait()
"""


@pytest.fixture
def counted() -> Iterator[PodNamespace]:
    """A namespace that counts what tries to leave it."""
    if missing := missing_tools():
        pytest.skip(f"not installed: {', '.join(missing)}")
    try:
        namespace = PodNamespace("a test")
    except NamespaceError as error:
        pytest.skip(str(error))
    try:
        namespace.ip("link set lo up", "addr add 10.77.0.1/32 dev lo")
        namespace.route_into_itself("10.77.0.1", "fd77::1")
        namespace.start_counting([])
        yield namespace
    finally:
        namespace.close()


def attempts_of(namespace: PodNamespace, code: str, home: Path, arguments: Sequence[str] = ()) -> Attempts:
    """What the program tried to reach, its children included; `home` is a home folder of its own."""
    quiet = ("CI", "DO_NOT_TRACK", "PYTEST_CURRENT_TEST")
    environment = {name: value for name, value in os.environ.items() if name not in quiet} | {"HOME": str(home)}
    words = [*namespace.enter(), sys.executable, "-c", code, *arguments]
    subprocess.run(words, env=environment, check=True)
    return namespace.attempts()


def test_building_a_model_tries_to_reach_nothing_and_leaves_nothing_at_home(
    counted: PodNamespace, tmp_path: Path
) -> None:
    folder, home = tiny_bert.write(tmp_path / "model"), tmp_path / "home"
    home.mkdir()

    assert attempts_of(counted, BUILD, home, [str(folder)]) == Attempts()
    assert list(home.iterdir()) == []


def test_a_child_that_phones_home_is_counted(counted: PodNamespace, tmp_path: Path) -> None:
    """The control: telemetry of the kind that openvino brings along, made on purpose."""
    assert attempts_of(counted, PHONE_HOME, tmp_path).dns > 0


def test_a_telemetry_package_that_a_plain_pip_brought_is_not_imported(tmp_path: Path) -> None:
    """openvino asks for it; here it stands in the way of the import and would be found."""
    package = tmp_path / "openvino_telemetry"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('telemetry was imported')")
    code = "import sie_server.models.ops.openvino, openvino.opset15"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")
    control = subprocess.run(
        [sys.executable, "-c", "import openvino_telemetry"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "telemetry was imported" in control.stderr
