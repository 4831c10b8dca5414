"""Every import contract holds, and each is reported when broken: a copy of the sources with wrong imports in it."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
CONTRACTS = CHECKOUT / ".importlinter"
LINT = Path(sys.executable).parent / "lint-imports"

Break = tuple[str, str]
"""The module that is spoilt, and what it is made to import."""

BREAKS: dict[str, list[Break]] = {
    "products": [
        ("sie_core.ids", "sie_sdk.scoring"),
        ("sie_gateway.workers", "sie_server.observability"),
        ("sie_config.ledger", "sie_gateway.page"),
        ("sie_server.models.calls", "sie_airgap.proof.grading"),
        ("sie_airgap.charts.inventory", "sie_testing.faults"),
    ],
    "toolkit-reach": [
        ("sie_airgap.rehearsal.rehearse", "sie_server.settings"),
        ("sie_airgap.proof.golden", "sie_gateway.page"),
    ],
    "kernel": [
        ("sie_core.artifacts.manifest", "sie_core.catalog.spec"),
        ("sie_core.errors", "sie_core.settings"),
        ("sie_core.wire.envelope", "sie_core.http.asgi"),
    ],
    "serving": [("sie_airgap.rehearsal.relay", "sie_core.http.asgi"), ("sie_sdk.encoding", "sie_core.http.auth")],
    "pure": [
        ("sie_core.wire.codec", "time"),
        ("sie_core.artifacts.plan", "boto3"),
        ("sie_core.catalog.derive.snapshot", "huggingface_hub"),
        ("sie_sdk._flows", "asyncio"),
        ("sie_server.engine.batcher", "threading"),
        ("sie_gateway.routing", "socket"),
        ("sie_airgap.charts.inventory", "subprocess"),
        ("sie_airgap.oci.manifest", "httpx2"),
    ],
    "torch": [("sie_server.models.heads.pooled", "torch"), ("sie_server.models.build", "transformers")],
    "openvino": [("sie_server.app", "openvino")],
    "clouds": [
        ("sie_sdk.scoring", "boto3"),
        ("sie_gateway.page", "google.cloud.storage"),
        ("sie_gateway.upstream", "sie_core.artifacts.store"),
    ],
    "server": [
        ("sie_server.engine.executor", "sie_server.api.offer"),
        ("sie_server.weights", "sie_server.models.tokens"),
        ("sie_server.observability", "sie_server.app"),
    ],
    "models": [
        ("sie_server.models.backbones.bert", "sie_server.models.heads.pooled"),
        ("sie_server.models.tokens", "sie_server.models.prompts"),
    ],
    "graphs": [
        ("sie_server.models.backbones.bert", "sie_server.models.checkpoint"),
        ("sie_server.models.heads.pooled", "sie_server.models.tokens"),
    ],
    "engines": [
        ("sie_server.api.ops", "sie_server.models.ops.openvino"),
        ("sie_server.models.tokenizing", "sie_server.models.ops.torch"),
    ],
    "toolkit": [
        ("sie_airgap.failures", "sie_airgap.progress"),
        ("sie_airgap.store.blobs", "sie_airgap.archive.media"),
        ("sie_airgap.archive.packing", "sie_airgap.verifying.store"),
    ],
    "toolkit-archive": [
        ("sie_airgap.archive.plan", "sie_airgap.archive.cut"),
        ("sie_airgap.archive.volume_format", "sie_airgap.archive.volume_reader"),
    ],
    "toolkit-charts": [("sie_airgap.charts.inventory", "sie_airgap.charts.helm")],
    "toolkit-deltas": [("sie_airgap.deltas.recipe", "sie_airgap.deltas.recipes")],
    "toolkit-locking": [("sie_airgap.locking.closure", "sie_airgap.locking.resolving")],
    "toolkit-mirror": [("sie_airgap.mirror.weights", "sie_airgap.mirror.adoption")],
    "toolkit-proof": [("sie_airgap.proof.grading", "sie_airgap.proof.comparison")],
    "toolkit-rehearsal": [("sie_airgap.rehearsal.netns", "sie_airgap.rehearsal.kubelet")],
    "toolkit-reviewing": [("sie_airgap.reviewing.policy", "sie_airgap.reviewing.review")],
    "toolkit-store": [("sie_airgap.store.contents", "sie_airgap.store.snapshot")],
    "toolkit-verifying": [("sie_airgap.verifying.stamps", "sie_airgap.verifying.remembered")],
}


def lint(sources: list[Path]) -> subprocess.CompletedProcess[str]:
    words = [str(LINT), "--config", str(CONTRACTS), "--no-cache", "--no-logo"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources)), "COLUMNS": "500"}
    return subprocess.run(words, env=env, cwd=sources[0], capture_output=True, text=True, check=False, timeout=100)


def contract_names() -> dict[str, str]:
    parsed = configparser.ConfigParser()
    parsed.read(CONTRACTS)
    sections = {section.removeprefix("importlinter:contract:"): section for section in parsed.sections()}
    return {short: parsed[section]["name"] for short, section in sections.items() if short != section}


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said of each broken contract, in a copy that breaks them all."""
    copy = tmp_path_factory.mktemp("copy")
    sources = []
    for package in sorted((CHECKOUT / "packages").iterdir()):
        source = copy / package.name
        shutil.copytree(package / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        sources.append(source)
    for module, wanted in [each for breaks in BREAKS.values() for each in breaks]:
        _spoil(sources, module, wanted)
    said = lint(sources).stdout.partition("Broken contracts")[2]
    names = {name: short for short, name in contract_names().items()}
    found = re.split(rf"^({'|'.join(map(re.escape, names))})\n-+$", said, flags=re.MULTILINE)
    return {names[name]: details for name, details in zip(found[1::2], found[2::2], strict=True)}


def _spoil(sources: list[Path], module: str, wanted: str) -> None:
    name = module.replace(".", "/") + ".py"
    (path,) = [source / name for source in sources if (source / name).exists()]
    with path.open("a") as file:
        file.write(f"\nimport {wanted}\n")


def test_every_contract_holds() -> None:
    done = lint(sorted((CHECKOUT / "packages").glob("*/src")))

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_contract_is_broken_below() -> None:
    assert set(BREAKS) == set(contract_names())


@pytest.mark.parametrize("contract", BREAKS)
def test_contract_is_reported_broken_with_each_wrong_import(reported: dict[str, str], contract: str) -> None:
    lines = reported[contract].splitlines()

    for module, wanted in BREAKS[contract]:
        # An import of `google.cloud.storage` is one of `google` to whoever looks from outside.
        assert any(re.search(rf"\b{module} -> ({wanted}|{wanted.split('.')[0]}) ", line) for line in lines), module
