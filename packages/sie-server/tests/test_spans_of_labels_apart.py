"""A small seeded GLiNER that reads labels by a network of their own, whose tokenizer is in another repository."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_core.catalog.catalog import Catalog
from sie_core.catalog.spec import ExtractHead, Lora, ModelSpec, Source, Variant
from sie_core.errors import ApiError
from sie_core.ids import ModelId
from sie_server.app import maker
from sie_server.models import build
from sie_server.models.calls import Extract, Extracted, LoadError
from sie_server.models.heads.labelled_spans import Candidates
from sie_server.models.labelled import KeptLabels
from sie_server.models.model import LoadedModel
from sie_server.settings import ServeSettings
from sie_server.sources import Sources
from sie_testing import tiny_bert
from sie_testing.hub import Hub, serving_hub
from sie_testing.tiny_bert import HIDDEN

TEXTS = ("ab c, de! fg", "", "a b? c-d e_f", "中 a")
LABELS = ("per", "a", "org")
OF_LABELS = Source(ModelId("acme/labels"))
SPEC = ModelSpec(id=ModelId("acme/apart"), architecture="gliner", extract=ExtractHead("spans"), labels_base=OF_LABELS)


def linear(random: np.random.Generator, at: str, outputs: int, inputs: int) -> dict[str, Any]:
    shapes = {f"{at}.weight": (outputs, inputs), f"{at}.bias": (outputs,)}
    return {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(6)
    networks = {"bert_layer": tiny_bert.weights(0), "labels_encoder": tiny_bert.weights(1)}
    arrays: dict[str, Any] = {
        f"token_rep_layer.{network}.model.{name}": array
        for network, tensors in networks.items()
        for name, array in tensors
    }
    at = "span_rep_layer.span_rep_layer."
    for name, inputs in (
        (at + "project_start", HIDDEN),
        (at + "project_end", HIDDEN),
        (at + "out_project", 2 * HIDDEN),
        ("prompt_rep_layer", HIDDEN),
    ):
        arrays |= linear(random, f"{name}.0", 4 * HIDDEN, inputs) | linear(random, f"{name}.3", HIDDEN, 4 * HIDDEN)
    tiny_bert.write_safetensors(folder / "model.safetensors", arrays)
    config = {
        "hidden_size": HIDDEN,
        "max_width": 4,
        "encoder_config": tiny_bert.CONFIG,
        "labels_encoder": "acme/labels",
    }
    (folder / "gliner_config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tiny_bert.TOKENIZER))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_bert.write(tmp_path / "hub" / OF_LABELS.repo)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "hub" / "acme" / "apart")


def load(folder: Path, base: Path | None) -> LoadedModel:
    return build.load(SPEC, folder, labels_base=base, precision="f32", streams=1, threads=1)


def found(model: Any, labels: tuple[str, ...] = LABELS, **options: Any) -> list[list[tuple[str, str, float]]]:
    call = Extract(TEXTS, labels=labels, options={"threshold": 0.2, "flat_ner": False} | options)
    prepared = model.prepare(call)
    items = model.finish(call, prepared, model.run(prepared, stream=0))
    assert all(isinstance(item, Extracted) for item in items)
    return [
        [(one.text, one.label, one.score) for one in item.entities] for item in items if isinstance(item, Extracted)
    ]


def test_texts_of_calls_with_other_labels_run_in_one_batch(folder: Path, base: Path) -> None:
    model = load(folder, base)
    calls = [Extract(TEXTS, labels=labels, options={"threshold": 0.2}) for labels in (LABELS, ("d", "per"))]
    alone = [model.finish(call, model.prepare(call), model.run(model.prepare(call), stream=0)) for call in calls]
    prepared = [model.prepare(call) for call in calls]

    outputs = model.run([*prepared[0], *prepared[1]], stream=0)

    split = len(prepared[0])
    assert model.finish(calls[0], prepared[0], outputs[:split]) == alone[0]
    assert model.finish(calls[1], prepared[1], outputs[split:]) == alone[1]


def scores(model: LoadedModel, labels: tuple[str, ...]) -> dict[tuple[int, int, int, str], float]:
    prepared = model.prepare(Extract(TEXTS, labels=labels, options={"threshold": 0.2}))
    found: dict[tuple[int, int, int, str], float] = {}
    for item, output in enumerate(model.run(prepared, stream=0)):
        assert isinstance(output.spans, Candidates)
        spans = zip(
            *(getattr(output.spans, name).tolist() for name in ("first", "last", "label", "scores")), strict=True
        )
        found |= {(item, first, last, labels[label]): score for first, last, label, score in spans}
    return found


def test_a_label_is_worth_the_same_beside_any_others(folder: Path, base: Path) -> None:
    model, fresh = load(folder, base), load(folder, base)
    together = scores(model, LABELS)
    alone: dict[tuple[int, int, int, str], float] = {}
    for label in LABELS:
        alone |= scores(fresh, (label,))

    assert len(together) > 5
    assert together == pytest.approx(alone, abs=1e-5)


def test_labels_cost_a_call_once_and_not_with_each_text(folder: Path, base: Path) -> None:
    model = load(folder, base)
    sizes = [model.estimate_tokens(Extract(("ab",) * count, labels=("a" * 40,))) for count in (1, 11)]

    assert sizes[1] - sizes[0] == 10 * model.estimate_tokens(Extract(("ab",)))


def test_more_spans_than_are_an_answer_are_their_items_error(folder: Path, base: Path) -> None:
    model = load(folder, base)
    call = Extract(("a " * 60, "a"), labels=tuple(f"a{number}" for number in range(1000)), options={"threshold": 0.0})
    prepared = model.prepare(call)

    items = model.finish(call, prepared, model.run(prepared, stream=0))

    assert isinstance(items[0], ApiError)
    assert "more than 100,000 spans" in items[0].message
    assert isinstance(items[1], Extracted)


def test_without_its_labels_base_it_is_refused(folder: Path) -> None:
    spec = ModelSpec(id=SPEC.id, architecture="gliner", extract=SPEC.extract)

    with pytest.raises(LoadError, match=r"Set `labels_base\.repo`"):
        build.load(spec, folder, precision="f32", streams=1, threads=1)


def test_a_variant_with_a_lora_is_refused(folder: Path, base: Path) -> None:
    lora = {"one": Variant(lora=Lora(ModelId("acme/lora")))}
    spec = ModelSpec(id=SPEC.id, extract=SPEC.extract, labels_base=OF_LABELS, variants=lora)

    with pytest.raises(LoadError, match="has a LoRA"):
        build.load(spec, folder, labels_base=base, precision="f32", streams=1, threads=1)


def test_a_worker_fetches_the_labels_base_as_well(tmp_path: Path, folder: Path, base: Path) -> None:
    with serving_hub(Hub(tmp_path / "hub")) as endpoint:
        settings = ServeSettings(local_cache=tmp_path / "cache", hf_endpoint=endpoint, precision="f32")
        make = maker(settings, Sources.of(settings), when_imported=lambda: None)
        made = make(SPEC, lambda said: None, lambda size_bytes: None)

    assert made.verified
    assert found(made.model) == found(load(folder, base))


def test_every_shipped_one_names_where_its_labels_tokenizer_is() -> None:
    specs = [spec for name, spec in Catalog.shipped().specs.items() if "gliner-bi-" in name]

    assert len(specs) == 5
    assert all(spec.labels_base is not None and spec.base is None for spec in specs)


def test_what_was_asked_for_last_is_kept() -> None:
    kept = KeptLabels(most_bytes=3 * 8)
    for name in (b"a", b"b", b"c"):
        kept.keep({name: np.zeros(2, np.float32)})
    kept.known([b"a"])

    kept.keep({b"d": np.zeros(2, np.float32)})

    assert sorted(kept.known([b"a", b"b", b"c", b"d"])) == [b"a", b"c", b"d"]
