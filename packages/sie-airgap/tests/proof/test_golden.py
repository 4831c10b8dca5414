"""Recordings and comparisons against real workers: models of every kind, right ones and wrong ones."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from sie_airgap.cli import cli
from sie_airgap.cli.outcome import run
from sie_airgap.proof.asking import HOLDING, LABELS, QUERY, TEXTS, kinds_of
from sie_airgap.proof.golden import Void, compare, record
from sie_airgap.proof.golden_file import (
    GOLDEN_VERSION,
    Extraction,
    Golden,
    GoldenModel,
    Kind,
    Score,
    decode_golden,
    dense,
    encode_golden,
)
from sie_airgap.proof.grading import Grade
from sie_airgap.store.blobs import GOLDEN_NAME, BlobFolder, write_lock
from sie_core.artifacts.digest import digest_of
from sie_core.artifacts.lock import LockedModel
from sie_core.catalog.spec import DenseHead, ExtractHead, ModelSpec, MultivectorHead, ScoreHead, SparseHead
from sie_core.errors import ApiError
from sie_core.ids import ModelId, Revision
from sie_core.wire import arrays
from sie_server.models import build
from sie_server.models.calls import Call, Extract, Extracted, Model, Output, Prepared, Result
from sie_testing import tiny_bert
from sie_testing.carried import locked_model, make_lock
from sie_testing.tiny import VOCABULARY, TinyModel
from sie_testing.tiny_worker import REVISION, tiny_worker
from sie_testing.torch_zip import write_torch
from sie_testing.web import Answer as Answered
from sie_testing.web import Request, json_answer, serving

DIMS = 384
LOCK = digest_of(b"lock")
SPECS: dict[Kind, ModelSpec] = {
    "dense": ModelSpec(ModelId("acme/dense"), dense=DenseHead(dim=8)),
    "sparse": ModelSpec(ModelId("acme/sparse"), sparse=SparseHead("splade", dim=VOCABULARY)),
    "multivector": ModelSpec(ModelId("acme/multivector"), multivector=MultivectorHead(dim=8)),
    "score": ModelSpec(ModelId("acme/score"), score=ScoreHead("classify")),
    "extract": ModelSpec(ModelId("acme/extract"), extract=ExtractHead("spans")),
}
EVERYTHING = ModelSpec(
    id=ModelId("acme/everything"),
    dense=DenseHead(dim=8),
    sparse=SparseHead("lexical", dim=VOCABULARY),
    multivector=MultivectorHead(dim=8),
    score=ScoreHead("vectors"),
    extract=ExtractHead("spans"),
)


def tiny(spec: ModelSpec) -> TinyModel:
    return TinyModel(outputs=("dense", "sparse", "multivector"), max_tokens=64)


@dataclass
class Off(TinyModel):
    """Another model: every number is off by a hundredth part, and every span by a character."""

    by: float = 1.01

    def output(self, item: Prepared) -> Output:
        right = super().output(item)
        turned = np.linspace(1, self.by, self.width, dtype=np.float32)
        return Output(
            dense=None if right.dense is None else right.dense * turned,
            sparse=None if right.sparse is None else replace(right.sparse, values=right.sparse.values * self.by),
            multivector=None if right.multivector is None else right.multivector * turned,
            logits=None if right.logits is None else right.logits * self.by,
        )

    def finish(self, call: Call, prepared: Sequence[Prepared], outputs: Sequence[Output | ApiError]) -> list[Result]:
        right = super().finish(call, prepared, outputs)
        if not isinstance(call, Extract):
            return right
        return [Extracted(tuple(replace(e, end=e.end + 1) for e in one.entities)) for one in right]


def off(spec: ModelSpec) -> TinyModel:
    return Off(outputs=("dense", "sparse", "multivector"), max_tokens=64)


@dataclass
class Same(TinyModel):
    """Says the same to every text."""

    def output(self, item: Prepared) -> Output:
        return super().output(replace(item, ids=np.array([1, 2, 3], np.int32)))

    def finish(self, call: Call, prepared: Sequence[Prepared], outputs: Sequence[Output | ApiError]) -> list[Result]:
        if isinstance(call, Extract):
            return [Extracted() for _ in call.inputs]
        return super().finish(call, prepared, outputs)


def locked(spec: ModelSpec) -> LockedModel:
    return msgspec.structs.replace(locked_model(spec.id, {"x": b""}), revision=Revision(REVISION))


@contextmanager
def recorded(specs: Sequence[ModelSpec], load: Callable[[ModelSpec], Model]) -> Iterator[tuple[str, Golden]]:
    """A worker's URL, and what it answers."""
    with tiny_worker(specs=specs, load=load) as url:
        yield url, record([locked(spec) for spec in specs], LOCK, url)


@pytest.fixture(scope="module")
def golden() -> Golden:
    """What a model of each kind answers, and one of all kinds."""
    with recorded([*SPECS.values(), EVERYTHING], tiny) as (_, found):
        return found


def of(golden: Golden, spec: ModelSpec) -> GoldenModel:
    return next(model for model in golden.models if model.id == spec.id)


@pytest.mark.parametrize("kind", SPECS)
def test_a_model_is_asked_for_what_it_declares(golden: Golden, kind: Kind) -> None:
    (series,) = of(golden, SPECS[kind]).series

    assert series.kind == kind
    assert [answer.name for answer in series.answers] == list(HOLDING if kind == "extract" else TEXTS)
    assert all(answer.said is not None for answer in series.answers)


def test_a_model_of_several_outputs_is_asked_for_all_of_them(golden: Golden) -> None:
    assert [series.kind for series in of(golden, EVERYTHING).series] == list(SPECS)
    assert kinds_of(EVERYTHING.outputs) == tuple(SPECS)
    assert kinds_of(()) == ("dense",)


def test_a_recording_says_what_was_asked(golden: Golden) -> None:
    series = {one.kind: one for one in of(golden, EVERYTHING).series}

    assert (series["score"].query, series["score"].labels) == (QUERY, ())
    assert (series["extract"].query, series["extract"].labels) == (None, LABELS)
    assert series["extract"].threshold == 0.3


def test_the_same_models_answer_identically(golden: Golden) -> None:
    carried = decode_golden(encode_golden(golden))

    with tiny_worker(specs=[*SPECS.values(), EVERYTHING], load=tiny) as url:
        compared = compare(carried, url)

    assert [one.grade for one in compared] == [Grade.IDENTICAL] * len(golden.models)
    assert sum(len(list(one.lines())) for one in compared) == 2 * len(SPECS)


def test_another_model_is_caught_in_every_kind(golden: Golden) -> None:
    with tiny_worker(specs=[*SPECS.values(), EVERYTHING], load=off) as url:
        compared = compare(golden, url)

    grades = {(one.id, series.kind): series.grade for one in compared for series in one.series}
    assert len(grades) == 2 * len(SPECS)
    assert set(grades.values()) == {Grade.DIFFERENT}
    for one in compared:
        drift = [line for line in one.lines() if line.startswith("  ")]
        assert drift
        assert all(line.startswith(f"  {one.id} ") for line in drift)


@pytest.mark.parametrize("kind", SPECS)
def test_a_model_that_says_the_same_to_everything_is_void(kind: Kind) -> None:
    spec = SPECS[kind]

    def same(spec: ModelSpec) -> TinyModel:
        return Same(outputs=("dense", "sparse", "multivector"))

    with (
        tiny_worker(specs=[spec], load=same) as url,
        pytest.raises(Void, match=rf"`acme/{kind}` at \S+ gives the same {kind} answer to different texts"),
    ):
        record([locked(spec)], LOCK, url)


def tiny_bert_of(folder: Path, seed: int, *, layers_seed: int | None = None) -> Callable[[ModelSpec], Model]:
    """Real networks of seeded weights: an encoder, a cross-encoder, and one with bge-m3's layers beside it."""

    def load(spec: ModelSpec) -> Model:
        write = tiny_bert.write if spec.dense is not None else tiny_bert.write_cross_encoder
        at = write(folder / f"{seed} {layers_seed}" / spec.id.replace("/", "--"), seed=seed)
        random = np.random.default_rng(seed if layers_seed is None else layers_seed)
        for file, rows in (("sparse_linear.pt", 1), ("colbert_linear.pt", tiny_bert.HIDDEN)):
            layer = {"weight": (rows, tiny_bert.HIDDEN), "bias": (rows,)}
            arrays = {name: random.normal(0.3, 0.3, shape).astype(np.float32) for name, shape in layer.items()}
            write_torch(at / file, arrays)
        special = dict(zip(("pad_token", "unk_token", "cls_token", "eos_token"), tiny_bert.SPECIAL, strict=False))
        (at / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **special}))
        return build.load(spec, at, precision="f32", streams=2, threads=1)

    return load


def test_real_networks_are_told_from_others_of_their_shape(tmp_path: Path) -> None:
    encoder, reranker = ModelSpec(ModelId("acme/dense"), dense=DenseHead()), SPECS["score"]

    with recorded([encoder, reranker], tiny_bert_of(tmp_path, 0)) as (url, golden):
        assert {one.grade for one in compare(golden, url)} == {Grade.IDENTICAL}
    with tiny_worker(specs=[encoder, reranker], load=tiny_bert_of(tmp_path, 1)) as url:
        compared = compare(golden, url)

    assert [one.grade for one in compared] == [Grade.DIFFERENT] * 2
    assert {one.computed for one in compared} == {("f32", "f32")}
    scores = [answer.said for answer in of(golden, reranker).series[0].answers]
    assert all(isinstance(one, Score) and 0 <= one.score <= 1 for one in scores)


def test_weights_beside_the_checkpoint_are_told_from_others_by_what_they_make(tmp_path: Path) -> None:
    """The vectors are right, and so would a recording of vectors alone have said."""
    spec = ModelSpec(
        id=ModelId("acme/m3"),
        dense=DenseHead(),
        sparse=SparseHead("lexical", weights="sparse_linear.pt"),
        multivector=MultivectorHead(weights="colbert_linear.pt", skip_first=True),
        score=ScoreHead("vectors"),
    )

    with recorded([spec], tiny_bert_of(tmp_path, 0)) as (url, golden):
        (same,) = compare(golden, url)
    with tiny_worker(specs=[spec], load=tiny_bert_of(tmp_path, 0, layers_seed=7)) as url:
        (other,) = compare(golden, url)

    assert {one.kind: one.grade for one in same.series} == dict.fromkeys(
        ("dense", "sparse", "multivector", "score"), Grade.IDENTICAL
    )
    found = {one.kind: one.grade for one in other.series}
    assert found["dense"] is Grade.IDENTICAL
    assert (found["sparse"], found["multivector"]) == (Grade.DIFFERENT, Grade.DIFFERENT)


def test_a_model_without_a_threshold_is_asked_without_one() -> None:
    """As of labels that are judged each: the option is refused, and every label has a score."""
    asked: list[object] = []

    def answer(request: Request) -> Answered:
        if request.method == "GET":
            return json_answer({"name": "org/model", "revision": "ab" * 20, "outputs": ["json"], "precision": "f32"})
        body = msgspec.msgpack.decode(request.body.read())
        asked.append(body["params"].get("options"))
        if body["params"].get("options"):
            error = {"error": {"code": "INVALID_INPUT", "message": "no option `threshold`"}}
            return json_answer(error, status=400)
        fits = [{"label": label, "score": len(body["items"][0]["text"]) / 9000} for label in LABELS]
        reply = {"model": "org/model", "items": [{"id": "item-0", "entities": [], "classifications": fits}]}
        return Answered(200, {"Content-Type": "application/msgpack"}, msgspec.msgpack.encode(reply))

    with serving(answer) as url:
        (model,) = record([locked_model("org/model", {"x": b""})], LOCK, url).models

    (series,) = model.series
    assert series.threshold is None
    assert asked == [{"threshold": 0.3}] + [None] * len(HOLDING)
    assert isinstance(series.answers[0].said, Extraction)
    assert {one.label for one in series.answers[0].said.found} == set(LABELS)


def test_a_recording_keeps_what_it_was_made_in_and_the_same_texts_are_asked_again() -> None:
    """Also texts that a toolkit of another version would not ask by itself."""
    asked: list[str] = []

    def answer(request: Request) -> Answered:
        if request.method == "GET":
            return json_answer({"name": "org/model", "revision": "ab" * 20, "precision": "bf16", "device": "a CPU"})
        (item,) = msgspec.msgpack.decode(request.body.read())["items"]
        asked.append(item["text"])
        vector = np.random.default_rng(len(item["text"])).standard_normal(DIMS).astype(np.float32)
        values = {"dims": DIMS, "dtype": "float32", "values": arrays.to_wire(vector)}
        body = msgspec.msgpack.encode({"model": "org/model", "items": [{"dense": values}]})
        return Answered(200, {"Content-Type": "application/msgpack"}, body)

    with serving(answer) as url:
        (recorded,) = record([locked_model("org/model", {"x": b""})], LOCK, url).models
        texts, asked = asked, []
        (series,) = recorded.series
        answers = (*series.answers, msgspec.structs.replace(series.answers[0], name="own", text="hello w0rld"))
        longer = msgspec.structs.replace(series, answers=answers)
        carried = Golden(GOLDEN_VERSION, LOCK, {}, (msgspec.structs.replace(recorded, series=(longer,)),))
        (found,) = compare(carried, url)

    assert (recorded.precision, recorded.device) == ("bf16", "a CPU")
    assert asked == [*texts, "hello w0rld"]
    assert found.grade is Grade.IDENTICAL


def test_an_operator_records_a_reranker_and_is_told_what_drifted(
    tmp_path: Path, store: BlobFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = SPECS["score"]
    models = (locked(spec),)
    write_lock(store.root / "airgap.lock", msgspec.structs.replace(make_lock({}), models=models))
    file = store.root / GOLDEN_NAME
    with tiny_worker(specs=[spec], load=tiny) as url:
        assert run(cli, ["golden", "record", "--url", url, "--store", str(store.root)]) == 0
        assert "10 answers of 1 model recorded" in capsys.readouterr().out
        assert run(cli, ["golden", "compare", str(file), "--url", url]) == 0
        assert "acme/score: 10 score answers identical (largest difference 0.0e+00; f32" in capsys.readouterr().out
    with tiny_worker(specs=[spec], load=off) as url:
        assert run(cli, ["golden", "compare", str(file), "--url", url, "--output", "json"]) == 9
        assert json.loads(capsys.readouterr().out)["grades"] == {"acme/score": "different"}


def test_an_operator_is_told_that_a_file_is_older(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / GOLDEN_NAME).write_text('{"version": 1}')

    assert run(cli, ["golden", "compare", str(tmp_path / GOLDEN_NAME), "--url", "http://127.0.0.1:1"]) == 2
    told = capsys.readouterr().err
    assert "golden answers of version 1, this toolkit reads 2" in told
    assert "golden record" in told


def test_a_vector_is_kept_as_it_was_whatever_it_came_as() -> None:
    assert dense(np.ones(2, np.float16)) == dense(np.ones(2, np.float32))
