"""A worker is small and silent: what its environment must hold, and what importing it reaches for."""

import os
import subprocess
import sys
import textwrap
from importlib import metadata

from packaging.requirements import Requirement

HEAVY = {"torch", "transformers", "sentence-transformers", "accelerate", "safetensors"}


def required(name: str) -> set[str]:
    """Every distribution that installing `name` brings along."""
    left, done = [(name, frozenset[str]())], set()
    while left:
        done.add(one := left.pop())
        name, extras = one
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # named, and left out of our environments on purpose
            continue
        for wanted in map(Requirement, lines):
            environments = [{"extra": extra} for extra in extras or {""}]
            if wanted.marker is None or any(wanted.marker.evaluate(environment) for environment in environments):
                left.append((wanted.name.lower().replace("_", "-"), frozenset(wanted.extras)))
        left = [more for more in left if more not in done]
    return {name for name, _ in done}


def test_a_worker_requires_neither_torch_nor_transformers() -> None:
    needed = required("sie-server")

    assert {"openvino", "tokenizers", "numpy", "sie-core", "boto3"} <= needed
    assert not needed & HEAVY


IMPORT_ALL = textwrap.dedent(
    """
    import socket, sys, pkgutil, importlib
    attempts = []
    def refuse(event, arguments):
        if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "os.fork",
                     "subprocess.Popen", "os.posix_spawn"):
            attempts.append((event, str(arguments[1:])))
    sys.addaudithook(refuse)
    import sie_server
    for module in pkgutil.walk_packages(sie_server.__path__, "sie_server."):
        if not module.name.endswith("ops.torch"):
            importlib.import_module(module.name)
    import openvino
    print("attempts", attempts)
    print("heavy", sorted({"torch", "transformers", "sentence_transformers"} & set(sys.modules)))
    """
)


def without_ci() -> dict[str, str]:
    """Libraries' telemetry is often silent where CI is set."""
    return {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_CURRENT_TEST")}


def test_importing_every_module_reaches_for_nothing_and_starts_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, env=without_ci())

    assert done.stderr == ""
    assert done.stdout.splitlines() == ["attempts []", "heavy []"]


def test_the_hook_sees_an_attempt_when_one_is_made() -> None:
    """The control: else the test above would pass with a hook that sees nothing."""
    made = IMPORT_ALL.replace(
        "import openvino\n", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", made], capture_output=True, text=True, env=without_ci()
    )

    assert "socket.connect" in done.stdout


def test_the_commands_import_no_client_and_no_engine_before_they_need_it() -> None:
    late = {"boto3", "botocore", "google.cloud", "huggingface_hub", "openvino", "tokenizers", "httpx2", "yaml"}
    code = f"import sys, sie_server.cli, sie_server.app, sie_server.api.routes; print({late} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


def test_a_start_reads_no_yaml_and_no_pictures() -> None:
    code = (
        "import sys, sie_server.app, sie_server.models.build, sie_core.http.serve;"
        "from sie_core.catalog.catalog import Catalog; Catalog.shipped(); print({'yaml', 'PIL'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


def test_numpy_starts_no_thread_for_each_core() -> None:
    code = "import os; from sie_server import cli; {}import numpy; print(len(os.listdir('/proc/self/task')))"
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    threads = [
        int(
            subprocess.run(
                [sys.executable, "-c", code.format(settled)], capture_output=True, check=True, env=env
            ).stdout
        )
        for settled in ("cli._settings(dict()); ", "")
    ]

    assert threads[0] == 1
    assert threads[1] == min(len(os.sched_getaffinity(0)), 64), "the control: numpy by itself"


def test_the_web_server_is_imported_when_the_engine_is() -> None:
    """Two imports at a time take as long as one after the other, and the model's compiler would wait for both."""
    code = """
import sys, threading
from sie_core.catalog.catalog import Catalog
from sie_server import app, settings
from sie_server.models import build

imported = []
def load(spec, folder, *, when_imported, **more):
    imported.append("sie_core.http.serve" in sys.modules)
    when_imported()
    raise build.LoadError("enough")

build.load = load
app.Sources.snapshot = lambda self, spec, tell, take: type("Found", (), {"folder": None})
print(app.run(settings.ServeSettings(models=(next(iter(Catalog.shipped().specs)),), port=0), started_s=0.0), imported)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=without_ci())

    assert done.stdout == "4 [False]\n", done.stderr


def test_help_is_read_from_the_source_when_it_is_shown_and_not_before() -> None:
    code = (
        "from sie_core.settings import field_docs; from sie_server.cli import main;"
        "print(field_docs.cache_info().currsize); main(['serve', '--help'], standalone_mode=False);"
        "print(field_docs.cache_info().currsize)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("0", "1")
    assert "QUEUE_FULL" in done.stdout
