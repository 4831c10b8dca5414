"""What a model that judges is asked: published with it, or said in the spec."""

import json
from typing import Any

import pytest

from sie_core.catalog.derive.snapshot import Reader
from sie_core.catalog.derive.verdict import SEAM, complete_verdict
from sie_core.catalog.spec import ScoreHead


def snapshot(model_type: str) -> Reader:
    return {"config.json": json.dumps({"model_type": model_type}).encode()}.get


def completed(model_type: str, **said: Any) -> tuple[ScoreHead, dict[str, str]]:
    return complete_verdict(ScoreHead(head="verdict", **said), snapshot(model_type), "config.json")


@pytest.mark.parametrize(
    ("model_type", "yes", "no", "activation"), [("qwen3", "yes", "no", "sigmoid"), ("qwen2", "1", "0", "identity")]
)
def test_the_published_question_where_the_spec_says_nothing(
    model_type: str, yes: str, no: str, activation: str
) -> None:
    head, origins = completed(model_type)

    assert (head.yes, head.no, head.activation) == (yes, no, activation)
    assert set(origins.values()) == {"default"}
    assert head.template is not None
    assert head.template.startswith("<|im_start|>system\n")
    assert f"{{document}}{SEAM}" in head.template


def test_what_the_spec_says_comes_first() -> None:
    head, origins = completed("qwen3", yes="Ja", activation="identity")

    assert (head.yes, head.no, head.activation) == ("Ja", "no", "identity")
    assert origins == {"template": "default", "yes": "spec", "no": "default", "activation": "spec"}


def test_another_architecture_needs_all_of_it() -> None:
    whole: dict[str, Any] = {"template": "{query}? {document}", "yes": "yes", "no": "no", "activation": "sigmoid"}

    assert completed("llama", **whole)[0] == ScoreHead(head="verdict", **whole)
    with pytest.raises(ValueError, match=r"`llama`: say `score.no` in the spec"):
        completed("llama", **(whole | {"no": None}))


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{query}", r"has `\{document\}` 0 times"),
        ("{query} {query} {document}", r"has `\{query\}` 2 times"),
        ("{query} {document} end", r"text after `\{document\}` that would be cut"),
        ("{instruction}: {query}{|}{document}", r"`\{instruction\}` beside another place"),
    ],
)
def test_a_template_that_cannot_be_filled_or_cut(template: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        completed("qwen3", template=template)
