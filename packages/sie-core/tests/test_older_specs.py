"""Model files of SIE v0.3.1 are read as specs of ours."""

from typing import Any

import pytest
import yaml

from sie_core.catalog.reading import parse_spec
from sie_core.catalog.spec import (
    DenseHead,
    ExtractHead,
    Lora,
    ModelSpec,
    MultivectorHead,
    ScoreHead,
    Source,
    SparseHead,
    Variant,
)
from sie_core.ids import ModelId, Revision


def older(adapter: str, tasks: dict[str, Any], **changed: Any) -> dict[str, Any]:
    profile = {
        "adapter_path": f"sie_server.adapters.{adapter}:Adapter",
        "max_batch_tokens": 16384,
        "compute_precision": "bfloat16",
    }
    return {"sie_id": "acme/x", "hf_id": "acme/x", "tasks": tasks, "profiles": {"default": profile}} | changed


def read(file: dict[str, Any]) -> ModelSpec:
    return parse_spec(yaml.safe_dump(file), where="acme__x.yaml")


def with_options(file: dict[str, Any], **sections: Any) -> dict[str, Any]:
    file["profiles"]["default"]["adapter_options"] = sections
    return file


def test_a_dense_model_keeps_its_prompts_length_and_commit() -> None:
    file = with_options(
        older("bert_flash", {"encode": {"dense": {"dim": 768}}}, hf_revision="f" * 40, max_sequence_length=512),
        runtime={
            "pooling": "mean",
            "normalize": True,
            "query_template": "query: {text}",
            "doc_template": "passage: {text}",
        },
    )

    assert read(file) == ModelSpec(
        id=ModelId("acme/x"),
        source=Source(ModelId("acme/x"), Revision("f" * 40)),
        max_tokens=512,
        dense=DenseHead(pooling="mean", normalize=True, dim=768),
        query="query: {text}",
        document="passage: {text}",
    )


def test_bge_m3_has_its_four_heads_and_a_lora_as_a_variant() -> None:
    tasks = {"encode": {"dense": {"dim": 8}, "sparse": {"dim": 99}, "multivector": {"dim": 8}}, "score": {}}
    file = older("bge_m3_flash", tasks)
    file["profiles"]["banking"] = {
        "extends": "default",
        "adapter_options": {"runtime": {"lora_id": "acme/lora", "output_types": ["dense"]}},
    }
    spec = read(file)

    assert spec.sparse == SparseHead("lexical", weights="sparse_linear.pt", dim=99)
    assert spec.multivector == MultivectorHead(weights="colbert_linear.pt", dim=8, skip_first=True)
    assert spec.score == ScoreHead("vectors")
    assert spec.variants == {"banking": Variant(outputs=("dense",), lora=Lora(ModelId("acme/lora")))}


@pytest.mark.parametrize(
    ("adapter", "tasks", "head"),
    [
        ("splade_flash", {"encode": {"sparse": {"dim": 9}}}, SparseHead("splade", dim=9)),
        ("bert_flash_cross_encoder", {"score": {}}, ScoreHead("classify")),
        ("qwen2_flash_cross_encoder", {"score": {}}, ScoreHead("verdict")),
        ("gliner", {"extract": {}}, ExtractHead("spans")),
        ("nli_classification_flash", {"extract": {}}, ExtractHead("entailment")),
        ("gliclass", {"extract": {}}, ExtractHead("labels")),
    ],
)
def test_an_adapter_becomes_the_head_that_it_stood_for(adapter: str, tasks: dict[str, Any], head: object) -> None:
    spec = read(older(adapter, tasks))

    assert head in (spec.sparse, spec.score, spec.extract)


def test_a_classification_type_says_how_labels_are_judged() -> None:
    file = with_options(older("gliclass", {"extract": {}}), loadtime={"classification_type": "multi-label"})

    assert read(file).extract == ExtractHead("labels", multi_label=True)


def test_options_of_a_child_replace_those_of_its_parent() -> None:
    file = with_options(older("gliner", {"extract": {}}), runtime={"threshold": 0.5})
    file["profiles"]["strict"] = {"extends": "default", "adapter_options": {"runtime": {"threshold": 0.9}}}
    file["profiles"]["same"] = {"extends": "default"}
    spec = read(file)

    assert spec.extract == ExtractHead("spans", threshold=0.5)
    assert spec.variants["strict"].options == {"threshold": 0.9}
    assert spec.variants["same"].options == {"threshold": 0.5}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"weights_path": "/models/x"}, "`weights_path` is `/models/x`"),
        ({"package_backed": True}, "`package_backed` is `True`"),
        ({"profiles": {"fast": {}}}, "`profiles` has no `default`: it has `fast`"),
        ({"profiles": {"default": {"adapter_path": "mine.py:Mine"}}}, "a spec names no code of its own"),
        ({"profiles": {"default": {"adapter_path": "a.docling:Docling"}}}, "there is no head for it"),
        ({"inputs": {"audio": True}}, "`inputs.audio` is true"),
        ({"color": "red"}, "unknown field `color`"),
    ],
)
def test_what_has_no_meaning_here_is_refused_by_name(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"acme__x\.yaml: ") as refused:
        read(older("bert_flash", {"encode": {"dense": {"dim": 8}}}, **changed))

    assert said in str(refused.value)
