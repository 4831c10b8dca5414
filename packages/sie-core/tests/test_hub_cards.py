"""What a reviewer asks of a repository: its licence, and whether its files are gated."""

from pathlib import Path

import pytest

from sie_core.artifacts.stores.hub import Card, Hub
from sie_core.ids import ModelId
from sie_testing import hub as stand_in
from sie_testing.hub import serving_hub
from sie_testing.web import json_answer, serving

MODEL = ModelId("acme/tiny")


@pytest.mark.parametrize(
    ("front", "license", "gated"),
    [
        ("license: apache-2.0", "apache-2.0", False),
        ("license: [mit, cc-by-nc-4.0]", "mit AND cc-by-nc-4.0", False),
        ("license: other\nlicense_name: llama3", "LicenseRef-llama3", False),
        ("license: other", "other", False),
        ('license: "\\e[2Jmit"', r"'\x1b[2Jmit'", False),
        ("license: []", None, False),
        ("language: en", None, False),
        ("license: gemma\ngated: manual", "gemma", True),
    ],
)
def test_a_card_says_the_licence_and_the_gate(tmp_path: Path, front: str, license: str | None, gated: bool) -> None:
    folder = tmp_path / "hub" / MODEL
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\n{front}\n---\n# Tiny\n")
    with serving_hub(stand_in.Hub(tmp_path / "hub")) as endpoint:
        hub = Hub(endpoint)

        assert hub.card(MODEL, hub.resolve(MODEL)) == Card(license, gated)


def test_without_a_card_the_tags_say_the_licence() -> None:
    info = {"id": MODEL, "sha": "a" * 40, "tags": ["pytorch", "license:mit", "license:gpl-3.0"]}
    with serving(lambda request: json_answer(info)) as endpoint:
        assert Hub(endpoint).card(MODEL, Hub(endpoint).resolve(MODEL)).license == "mit AND gpl-3.0"
