"""The README's first commands and the laptop tutorial, run in their order as a reader runs them.

A hub on this machine stands in for the public one, with the real all-MiniLM-L6-v2; ports are free ones in the place
of those that the documents name. What serves is started and left running, as in a terminal of its own.
"""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from sie_core.catalog.catalog import Catalog
from sie_testing import parts
from sie_testing.cluster import MINILM
from sie_testing.hub import Hub, serving_hub

BIN = Path(sys.executable).parent
PORTS = ("8080", "8090")
_SETUP = re.compile(r"^(make setup|\. \.venv/bin/activate)$", re.MULTILINE)
_SERVES = re.compile(r"^sie-\w+ serve .*$", re.MULTILINE)
_READY_S = 60.0


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    (root / MINILM).parent.mkdir()
    (root / MINILM).symlink_to(parts.minilm_folder())
    spec = Catalog.shipped().find(MINILM)
    assert spec is not None
    assert spec.revision is not None
    with serving_hub(Hub(root, pins={MINILM: spec.revision}), host="127.0.0.1", port=0) as endpoint:
        yield endpoint


class Laptop:
    """A reader's machine: a folder, two terminals, an environment that is activated."""

    def __init__(self, root, folder, hub, stack):
        self._folder = folder
        self._stack = stack
        self._ports = {port: _free_port() for port in PORTS}
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SIE_", "HF_"))}
        self._env = {**kept, "PATH": f"{BIN}:{os.environ['PATH']}", "HF_ENDPOINT": hub, "NO_PROXY": "localhost"}
        (folder / "specs").symlink_to(root / "specs")

    def read(self, page):
        """Runs a page; what each of its blocks printed."""
        return [self._run(block) for block in page.blocks if block.language in ("bash", "python")]

    def _run(self, block):
        text = _SETUP.sub("", self._with_ports(block.text))
        if block.language == "python":
            return self._output([sys.executable, "-c", text], block.where)
        for line in _SERVES.findall(text):
            self._serve(line, block.where)
        return self._output(["bash", "-euo", "pipefail", "-c", _SERVES.sub("", text)], block.where)

    def _with_ports(self, text):
        for port, free in self._ports.items():
            text = re.sub(rf"\b{port}\b", free, text)
        return text

    def _output(self, words, where):
        done = subprocess.run(words, cwd=self._folder, env=self._env, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, f"{where} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def _serve(self, line, where):
        port = self._ports["8090"] if "sie-gateway" in line else self._ports["8080"]
        env = self._env | ({} if "--port" in line else {"SIE_SERVER_PORT": port})
        log = self._folder / f"{port}.log"
        with log.open("wb") as written:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {line}"], cwd=self._folder, env=env, stdout=written, stderr=subprocess.STDOUT
            )
        self._stack.callback(_stop, process)
        give_up_s = time.monotonic() + _READY_S
        while not _is_ready(port):
            assert process.poll() is None, f"{where}: {line}\n{log.read_text()}"
            assert time.monotonic() < give_up_s, f"{where}: {line}\n{log.read_text()}"
            time.sleep(0.05)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def _is_ready(port):
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _stop(process):
    process.send_signal(signal.SIGINT)  # which does not linger as SIGTERM does
    process.wait()


@pytest.fixture
def laptop(root, tmp_path, hub):
    with ExitStack() as stack:
        yield Laptop(root, tmp_path, hub, stack)


def test_three_lines_of_the_readme_end_with_a_vector(laptop, pages):
    _, by_curl, by_sdk = laptop.read(pages["README.md"].section("On a laptop"))

    assert '"dims":384' in by_curl
    assert by_sdk == "(384,)\n"


def test_laptop_tutorial_goes_as_it_says(laptop, pages):
    page = pages["docs/tutorial/laptop.md"]

    _, models, _, by_curl, by_sdk, by_openai, *wrong, settings, _, through_gateway = laptop.read(page)
    wrong_model, wrong_setting = wrong
    shown = next(block.text for block in page.blocks if block.text.startswith("MODEL")).split("\n")
    listed = [" ".join(line.split()) for line in models.split("\n")]

    assert [line for line in shown if line != "…" and " ".join(line.split()) not in listed] == []
    assert '"dims":384' in by_curl
    nearer, farther = map(float, by_sdk.split())
    assert nearer > farther
    assert '"usage":{"prompt_tokens":4,' in by_openai
    assert '"MODEL_NOT_FOUND"' in wrong_model
    assert MINILM in wrong_model
    assert "did you mean `SIE_SERVER_PORT`?" in wrong_setting
    assert "exit code 2" in wrong_setting
    assert "flag --port" in settings
    assert through_gateway == "(384,)\n"


def test_spec_check_of_the_documents_passes(laptop, pages):
    (printed,) = laptop.read(pages["docs/formats/spec.md"].section("Checking one"))

    assert f"id: {MINILM}" in printed
